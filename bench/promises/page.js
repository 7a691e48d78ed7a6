import { availableParallelism } from 'node:os'
import { OURS, versionHere, versionOf, versionOfRedis } from '../support/versions.js'
import { systems } from './systems.js'

/** @import { Entry, Figures } from './experiments/index.js' */
/** @import { SystemName } from './systems.js' */

/** @typedef {Map<Entry, Partial<Record<SystemName, Figures>>>} Results What each experiment has brought, by system. */

/**
 * Writes what experiments have brought.
 *
 * @param {Results} results
 */
export function pageOf (results) {
  const names = /** @type {SystemName[]} */ (Object.keys(systems))
  const lines = [...results].flatMap(([{ title }, figures]) => {
    const measures = [...new Set(names.flatMap(system => Object.keys(figures[system] ?? {})))]
    return [
      `| **${title}** | ${names.map(() => '').join(' | ')} |`,
      ...measures.map(measure =>
        `| ${measure} | ${names.map(system => figures[system]?.[measure] ?? '–').join(' | ')} |`)
    ]
  })
  const date = new Date().toISOString().slice(0, 10)
  return `# The same experiments on fastify-taskqueue and BullMQ

Made by \`npm run bench:promises\` on ${date}: ${versions()}, ${availableParallelism()} cores.
Each system has its defaults, and every process is the same Fastify app, which adds tasks in a
request and runs them as requests to itself.

| experiment | ${names.join(' | ')} |
| --- |${names.map(() => ' --- |').join('')}
${lines.join('\n')}

- BullMQ looks for jobs without a lock every 30 s and takes one over at the second look. A look in
  the very millisecond in which the mark of the one before expires is skipped, which is where more
  than 60 s come from (seen in the commands that Redis got).
- BullMQ takes up the job of broken bytes again about once a minute, and cannot read it in order to fail it.
- Where the key has a wrong type, fastify-taskqueue has the task of the request that it answers with
  200 prepared, and puts it in line as soon as it can.
- What is not within a time was still not there when the experiment ended.
`
}

function versions () {
  return `fastify-taskqueue ${OURS} (ioredis ${versionHere('ioredis')}), ` +
    `bullmq ${versionOf('bullmq')} (ioredis ${versionOf('ioredis')}), ` +
    `fastify ${versionHere('fastify')}, Node ${process.versions.node}, Redis ${versionOfRedis()}`
}
