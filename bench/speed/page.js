import { number, table } from '../support/text.js'
import { drainResultsOf } from './measures/drain.js'
import { MEASURES, NAMES } from './measures/index.js'
import { Results } from './results.js'

/** @import { MeasureName, Others } from './measures/index.js' */
/** @import { Section } from './results.js' */

/** @typedef {Partial<Record<MeasureName, Section>>} Sections */

/**
 * Writes what all measures have brought.
 *
 * @param {Sections} sections
 */
export function pageOf (sections) {
  return `# How fast fastify-taskqueue is, beside others

Made by \`npm run bench\`. Each figure is the median of the rounds [least–most], each ratio the median of
the ratios within a round. In a round each contender is measured once, in processes of its own and with a
Redis of its own (on a private socket, without persistence), and the order changes from round to round.

Every task is the same request with a body of 200 bytes, to the same route with a schema. The others run it
by \`app.inject\`, as an app would. Each has its defaults, but that whatever has ended is removed from Redis
where that can be set (\`keep: 0\` of ours, \`removeOnComplete\` of BullMQ, \`removeOnSuccess\` of Bee-Queue,
which also sends no events, as its README advises; @platformatic/job-queue keeps results for an hour). CPU of
Redis and its commands are by \`INFO\`: commands that scripts run are counted, and those that measure are not.

${partsOf(NAMES, sections)}
`
}

/**
 * Writes what some measures have brought, those of them that were made.
 *
 * @param {MeasureName[]} names
 * @param {Sections} sections
 */
export function partsOf (names, sections) {
  const others = { drain: sections.drain && drainResultsOf(sections.drain) }
  return names.flatMap(name => {
    const section = sections[name]
    return section === undefined ? [] : [partOf(name, section, others)]
  }).join('\n\n')
}

/**
 * @param {MeasureName} name
 * @param {Section} section
 * @param {Others} others
 */
function partOf (name, { environment, rounds }, others) {
  const { title, tables, goals } = MEASURES[name]
  const results = new Results(rounds)
  const rows = goals(results, others).filter(({ value }) => Number.isFinite(value))
    .map(({ goal, wanted, value, isReached }) => [goal, wanted, number(value), isReached ? 'yes' : '**no**'])
  const aims = rows.length === 0 ? [] : [table(['goal', 'wanted', 'measured', 'reached'], rows)]
  return [`## ${title}`, saying(environment), ...tables(results, environment, others), ...aims].join('\n\n')
}

/** @param {Section['environment']} environment */
function saying ({ date, cores, cpu, node, redis, versions, command, rounds }) {
  const packages = Object.entries(versions).map(([name, version]) => `${name} ${version}`).join(', ')
  return `${date}, ${cores} cores (${cpu}), Node ${node}, Redis ${redis}, ${packages}. ` +
    `\`${command}\`, ${rounds} ${rounds === 1 ? 'round' : 'rounds'}.`
}
