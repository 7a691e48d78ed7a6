import { Results } from './results.js'
import { table } from '../support/text.js'

/** Writes what all measures have brought. */
export function pageOf (measures, sections) {
  return `# How fast fastify-taskqueue is, beside others

Made by \`npm run bench\`. Each figure is the median of the rounds [least–most], each ratio the median of
the ratios within a round. In a round each contender is measured once, in processes of its own and with a
Redis of its own (on a private socket, without persistence), and the order changes from round to round.

Every task is the same request with a body of 200 bytes, to the same route with a schema. The others run it
by \`app.inject\`, as an app would. Each has its defaults, but that whatever has ended is removed from Redis
where that can be set (\`keep: 0\` of ours, \`removeOnComplete\` of BullMQ, \`removeOnSuccess\` of Bee-Queue,
which also sends no events, as its README advises; @platformatic/job-queue keeps results for an hour). CPU of Redis and its
commands are by \`INFO\`: commands that scripts run are counted, and those that measure are not.

${partsOf(Object.keys(measures), measures, sections)}
`
}

/** Writes what some measures have brought. */
export function partsOf (names, measures, sections) {
  return names.map(name => partOf(measures[name], sections[name], sections)).join('\n\n')
}

function partOf ({ title, tables, goals }, { environment, rounds }, sections) {
  const results = new Results(rounds)
  const others = Object.fromEntries(Object.entries(sections).map(([name, { rounds }]) => [name, new Results(rounds)]))
  const reached = goals(results, others).filter(({ value }) => value !== '–')
  const aims = reached.length === 0 ? [] : [table(['goal', 'wanted', 'measured', 'reached'], reached.map(({ goal, wanted, value, isReached }) => [goal, wanted, value, isReached ? 'yes' : '**no**']))]
  return [`## ${title}`, saying(environment), ...tables(results, environment, others), ...aims].join('\n\n')
}

function saying ({ date, cores, cpu, node, redis, versions, command, rounds }) {
  return `${date}, ${cores} cores (${cpu}), Node ${node}, Redis ${redis}, ` +
    `${Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(', ')}. \`${command}\`, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}.`
}
