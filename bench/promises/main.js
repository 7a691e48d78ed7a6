/** Makes the same experiments on each system and writes what came out: `npm run bench:promises`, or with the names of some. */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { availableParallelism } from 'node:os'
import { Bed } from '../support/bed.js'
import * as processes from './experiments/processes.js'
import * as redis from './experiments/redis.js'
import * as requests from './experiments/requests.js'
import { systems } from './systems.js'

/**
 * Those that keep the machine busy are made alone, one system after the other; then those in which
 * seconds count, all at once since they mostly wait; then those that only take long.
 */
const EXPERIMENTS = [
  ['A request adds a task and then fails', requests.failingRequests, 'alone'],
  ['The reply of Redis to an add is lost, and the connection with it', requests.lostReplies, 'alone'],
  ['The same, with a `jobId` of the caller\'s own for each', requests.lostRepliesWithIds, 'alone', ['BullMQ']],
  ['Redis is frozen while a request adds', requests.frozenRequests, 'timed'],
  ['Redis is down while a request adds', requests.unreachableRequests, 'timed'],
  ['The same, frozen, with `enableOfflineQueue: false` as BullMQ advises for requests', requests.frozenRequestsAsAdvised, 'timed', ['BullMQ']],
  ['The same, down, with `enableOfflineQueue: false`', requests.unreachableRequestsAsAdvised, 'timed', ['BullMQ']],
  ['The process that runs a task is killed (`kill -9`), another one is idle', processes.kills, 'timed'],
  ['Redis is frozen for 40 s while 20 tasks run, on two live processes', redis.frozenRedis, 'long'],
  ['Redis is full (`maxmemory`, `noeviction`) with 1,000 tasks waiting', redis.fullRedis, 'long'],
  ['2 tasks kill their process among 20 that do not; two processes, concurrency 5, restarted', processes.poison, 'long'],
  ['One process at rest, a consumer for each queue', redis.idle, 'long'],
  ['The wall clock of the process that runs tasks is wrong', processes.wrongClocks, 'timed'],
  ['The app is closed while a handler hangs, another process is idle', processes.closing, 'timed'],
  ['A message is damaged in Redis, 10 tasks before it and 10 behind', redis.damagedMessages, 'timed'],
  ['The key of the waiting tasks has a wrong type', redis.wrongType, 'alone']
].map(([title, run, kind, names = Object.keys(systems)]) => ({ title, run, kind, names, figures: {} }))

const wanted = process.argv.slice(2)
const experiments = EXPERIMENTS.filter(({ run }) => wanted.length === 0 || wanted.includes(run.name))

const beds = new Set()
let isInterrupted = false
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    isInterrupted = true
    await Promise.all([...beds].map(bed => bed.end()))
    process.exit(1)
  })
}

const trials = kind => experiments.filter(experiment => experiment.kind === kind).flatMap(experiment => experiment.names.map(name => ({ experiment, name })))
for (const { experiment, name } of trials('alone')) await make(experiment, name)
for (const kind of ['timed', 'long']) await Promise.all(trials(kind).map(({ experiment, name }) => make(experiment, name)))

const page = write()
if (wanted.length === 0) {
  mkdirSync(new URL('../results/', import.meta.url), { recursive: true })
  writeFileSync(new URL('../results/promises.md', import.meta.url), page)
} else console.log(page)

async function make (experiment, system) {
  if (isInterrupted) return
  const bed = new Bed()
  beds.add(bed)
  try {
    experiment.figures[system] = await experiment.run(system, bed)
  } catch (error) {
    experiment.figures[system] = { failed: error.message }
    process.exitCode = 1
    console.error(error)
  } finally {
    await bed.end()
    beds.delete(bed)
  }
  console.error(`${experiment.run.name}, ${system}:`, experiment.figures[system])
}

function write () {
  const names = Object.keys(systems)
  const lines = experiments.flatMap(({ title, figures }) => {
    const measures = [...new Set(names.flatMap(system => Object.keys(figures[system] ?? {})))]
    return [`| **${title}** | ${names.map(() => '').join(' | ')} |`, ...measures.map(measure =>
      `| ${measure} | ${names.map(system => figures[system]?.[measure] ?? '–').join(' | ')} |`)]
  })
  return `# The same experiments on fastify-taskqueue and BullMQ

Made by \`npm run bench:promises\` on ${new Date().toISOString().slice(0, 10)}: ${versions()}, ${availableParallelism()} cores.
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
  const require = createRequire(import.meta.url)
  const ours = createRequire(new URL('../../build/', import.meta.url))
  const of = (require, name) => `${name} ${require(`${name}/package.json`).version}`
  const { version } = JSON.parse(readFileSync(new URL('../../package.json', import.meta.url)))
  const server = execFileSync(process.env.REDIS_SERVER || 'redis-server', ['--version'], { encoding: 'utf8' })
  return `fastify-taskqueue ${version} (ioredis ${of(ours, 'ioredis').split(' ')[1]}), ${of(require, 'bullmq')} (${of(require, 'ioredis')}), ` +
    `${of(ours, 'fastify')}, Node ${process.versions.node}, Redis ${/v=(\S+)/.exec(server)[1]}`
}
