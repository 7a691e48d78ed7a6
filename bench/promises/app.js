/** An app in a process of its own, which adds tasks on request and runs them. Its argument: its options. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import Fastify, { LogController } from 'fastify'
import { gate } from '../../build/test/support/gate.js'
import { tellParent } from '../support/parent.js'
import { systems } from './systems.js'

/** @import { FastifyRequest } from 'fastify' */
/** @import { Counts, SystemName } from './systems.js' */

/**
 * @typedef {object} AppOptions
 * @property {SystemName} system
 * @property {RedisAddress} redis
 * @property {string[]} queues
 * @property {number} concurrency With 0 it runs no tasks.
 * @property {number} [aheadMs] By how much its wall clock is fast.
 * @property {boolean} [sharing] Whether its queues share one client of Redis.
 * @property {boolean} [ownIds] Whether it gives each task an id of its own.
 * @property {{ enableOfflineQueue: boolean }} [queueConnection] How it connects to add.
 */

/** @typedef {{ path: string } | { host: string, port: number }} RedisAddress */

/**
 * @typedef {object} AppTask
 * @property {string} n What names it.
 * @property {number} [ms] How long it takes.
 * @property {number} [die] After how many milliseconds it kills its process.
 * @property {boolean} [hold] Whether it ends only when the process is asked to release it.
 */

/**
 * The body of a request that adds tasks.
 *
 * @typedef {object} Order
 * @property {AppTask[]} tasks
 * @property {number} [delayMs]
 * @property {boolean} [fail] Whether the request fails after it has added them.
 */

/**
 * What a process can be asked, and its answers: the counts of its first queue, the number of errors that it has
 * logged, or that it releases the tasks that it holds.
 *
 * @typedef {{ counts: Counts, errors: number, release: void }} Answers
 */

/** @typedef {{ event: 'begins' | 'ends', n: string }} TaskReport */
/**
 * What it tells the process that has started it.
 *
 * @typedef {TaskReport | { event: 'ready', port: number } | { event: 'answer', value: unknown } | { event: 'closed' }}
 *   Message
 */

/** @type {AppOptions} */
const options = JSON.parse(process.argv[2])
const { system, sharing = false, aheadMs = 0 } = options
/** @param {Message} message */
const tell = message => { tellParent(message) }
const { opened: released, open: release } = gate()
let errors = 0

if (aheadMs !== 0) setClock(aheadMs)

process.on('disconnect', () => { process.exit() })
const app = Fastify({
  logController: new LogController({ disableRequestLogging: true }),
  logger: { level: 'error', stream: { write () { errors++ } } }
})
const shared = sharing ? new Redis({ ...options.redis, maxRetriesPerRequest: null }) : undefined
const { start, add, counts, close } = await systems[system](app, { ...options, shared }, tell)

app.post('/order', /** @param {FastifyRequest<{ Body: Order }>} request */ async request => {
  const { tasks, delayMs, fail = false } = request.body
  for (const task of tasks) await add(request, `/task?${queryOf(task)}`, delayMs)
  if (fail) throw new Error('the request fails after it has added')
  return {}
})

app.get('/task', /** @param {FastifyRequest<{ Querystring: Record<string, string> }>} request */ async request => {
  const { n, ms, die, hold } = request.query
  tell({ event: 'begins', n })
  if (die !== undefined) {
    await sleep(Number(die))
    process.kill(process.pid, 'SIGKILL')
  }
  if (hold !== undefined) await released
  if (ms !== undefined) await sleep(Number(ms))
  tell({ event: 'ends', n })
  return {}
})

/** @type {{ [Question in keyof Answers]: () => Answers[Question] | Promise<Answers[Question]> }} */
const answers = { counts, errors: () => errors, release: () => { release() } }

process.on('SIGTERM', async () => {
  await close()
  tell({ event: 'closed' })
})
process.on('message', async question => {
  tell({ event: 'answer', value: await answers[/** @type {keyof Answers} */ (question)]() })
})
const address = new URL(await app.listen({ host: '127.0.0.1', port: 0 }))
await start()
tell({ event: 'ready', port: Number(address.port) })

/** @param {AppTask} task */
function queryOf (task) {
  const query = new URLSearchParams()
  for (const [name, value] of Object.entries(task)) query.set(name, String(value))
  return query
}

/** @param {number} aheadMs */
function setClock (aheadMs) {
  const TrueDate = Date
  const now = () => TrueDate.now() + aheadMs
  globalThis.Date = new Proxy(TrueDate, {
    apply: () => new TrueDate(now()).toString(),
    construct: (target, values, made) => Reflect.construct(target, values.length === 0 ? [now()] : values, made),
    get: (target, name) => name === 'now' ? now : Reflect.get(target, name)
  })
}
