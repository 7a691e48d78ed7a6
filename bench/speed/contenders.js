import { MemoryStorage, Queue as JobQueue, RedisStorage } from '@platformatic/job-queue'
import BeeQueue from 'bee-queue'
import { Queue, Worker } from 'bullmq'
import taskqueue from '../../build/lib/index.js'
import { inject, makeApp, numberOf, PATH, payloadOf } from './route.js'

/** @import { Job, Storage } from '@platformatic/job-queue' */
/** @import { FastifyInstance } from 'fastify' */
/** @import { TaskqueueOptions } from '../../build/lib/index.js' */
/** @import { Payload } from './route.js' */

/**
 * Where a contender keeps its tasks, and how it runs them.
 *
 * @typedef {object} Place
 * @property {string} [redis] The socket of the Redis of a contender that uses one.
 * @property {string[]} [queues] Tasks are added to the first of them.
 * @property {number} concurrency
 * @property {(n: number) => void} onTask Is told which task runs.
 */

/**
 * The queues of a contender.
 *
 * @typedef {object} OpenQueue
 * @property {(n: number) => Promise<unknown>} add Adds the n-th task.
 * @property {(numbers: number[]) => Promise<void>} addAll Adds many, in the largest step that the contender has.
 * @property {() => PromiseLike<unknown>} start Begins to run them.
 * @property {() => Promise<unknown>} close
 */

/**
 * @typedef {object} Contender
 * @property {string} label
 * @property {boolean} [usesRedis]
 * @property {(place: Place) => Promise<OpenQueue>} open
 */

/**
 * @typedef {'ours' | 'ours-keeping' | 'ours-inject' | 'ours-local' | 'bullmq' | 'bullmq-empty' | 'bee' |
 *   'platformatic' | 'platformatic-local'} QueueName
 */
/** @typedef {'bare' | QueueName} ContenderName */

/** @type {Record<QueueName, Contender> & { bare: { label: string, usesRedis?: false } }} */
export const contenders = {
  bare: { label: '`app.inject` in a loop, no queue' },
  ours: { label: 'fastify-taskqueue', usesRedis: true, open: place => openOurs(place) },
  'ours-keeping': {
    label: 'fastify-taskqueue, keeping the newest 1,000 records, as by default',
    usesRedis: true,
    open: place => openOurs(place, { keep: 1000 })
  },
  'ours-inject': {
    label: 'fastify-taskqueue, `dispatch: \'inject\'`',
    usesRedis: true,
    open: place => openOurs(place, { dispatch: 'inject' })
  },
  'ours-local': { label: 'fastify-taskqueue, local', open: openOursLocal },
  bullmq: { label: 'BullMQ', usesRedis: true, open: place => openBullMQ(place, inject) },
  'bullmq-empty': {
    label: 'BullMQ, empty handler',
    usesRedis: true,
    open: place => openBullMQ(place, async (_app, payload) => { place.onTask(numberOf(payload)) })
  },
  bee: { label: 'Bee-Queue', usesRedis: true, open: openBee },
  platformatic: {
    label: '@platformatic/job-queue',
    usesRedis: true,
    open: place => openPlatformatic(place, new RedisStorage({
      url: socketOf(place), keyPrefix: `${place.queues?.[0] ?? 'jq'}:`
    }))
  },
  'platformatic-local': {
    label: '@platformatic/job-queue, in memory',
    open: place => openPlatformatic(place, new MemoryStorage())
  }
}

/** In the order of the page. */
export const CONTENDERS = /** @type {ContenderName[]} */ (Object.keys(contenders))

/**
 * Without it a client would connect to whatever Redis the machine has.
 *
 * @param {Place} place
 */
function socketOf ({ redis }) {
  if (redis === undefined) throw new Error('this contender needs a Redis')
  return redis
}

const AT_ONCE = 1000

/**
 * Calls a function with a list, in parts.
 *
 * @param {number[]} list
 * @param {(part: number[]) => Promise<unknown>} run
 */
async function inParts (list, run) {
  for (let i = 0; i < list.length; i += AT_ONCE) await run(list.slice(i, i + AT_ONCE))
}

/**
 * @param {() => Promise<FastifyInstance>} getApp
 * @returns {Pick<OpenQueue, 'add' | 'addAll'>}
 */
function adderWith (getApp) {
  /** @param {number} n */
  const optionsOf = n => ({ payload: payloadOf(n) })
  return {
    add: async n => await (await getApp()).taskqueue.add(PATH, optionsOf(n)),
    addAll: async numbers => {
      const { taskqueue } = await getApp()
      await inParts(numbers, part => taskqueue.transaction(transaction => {
        for (const n of part) transaction.add(PATH, optionsOf(n))
      }))
    }
  }
}

/**
 * One app that adds, where any is added, and one that consumes: that consumes as soon as it is ready.
 *
 * @param {Place} place
 * @param {TaskqueueOptions} [options]
 * @returns {Promise<OpenQueue>}
 */
async function openOurs (place, options = {}) {
  const { queues = ['default'], concurrency, onTask } = place
  const settings = {
    redis: { path: socketOf(place) }, queues: Object.fromEntries(queues.map(name => [name, {}])), keep: 0, ...options
  }
  const [adder, consumer] = [makeApp(onTask), makeApp(onTask)]
  const openAdder = async () => {
    await adder.register(taskqueue, { ...settings, consumer: false })
    await adder.ready()
    return adder
  }
  /** @type {Promise<FastifyInstance> | undefined} */
  let opening
  return {
    ...adderWith(() => {
      opening ??= openAdder()
      return opening
    }),
    async start () {
      await consumer.register(taskqueue, { ...settings, consumer: { concurrency } })
      await consumer.ready()
    },
    async close () { await Promise.all([adder.close(), consumer.close()]) }
  }
}

/**
 * @param {Place} place
 * @returns {Promise<OpenQueue>}
 */
async function openOursLocal ({ concurrency, onTask }) {
  const app = makeApp(onTask)
  await app.register(taskqueue, { consumer: { concurrency }, keep: 0 })
  return { ...adderWith(async () => app), start: () => app.ready(), close: () => app.close() }
}

/**
 * With its defaults, but that what has ended is removed.
 *
 * @param {Place} place
 * @param {(app: FastifyInstance, payload: Payload) => Promise<void>} run
 * @returns {Promise<OpenQueue>}
 */
async function openBullMQ (place, run) {
  const { queues: names = ['default'], concurrency, onTask } = place
  const app = makeApp(onTask)
  await app.ready()
  const connection = { path: socketOf(place) }
  const queues = names.map(name => new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } }))
  const [queue] = queues
  await Promise.all(queues.map(queue => queue.waitUntilReady()))
  /** @type {Worker[]} */
  const workers = []
  return {
    add: n => queue.add('task', payloadOf(n)),
    addAll: numbers => inParts(numbers, part =>
      queue.addBulk(part.map(n => ({ name: 'task', data: payloadOf(n) })))),
    async start () {
      for (const name of names) {
        workers.push(new Worker(name, ({ data }) => run(app, data), { connection, concurrency }))
      }
      await Promise.all(workers.map(worker => worker.waitUntilReady()))
    },
    async close () {
      await Promise.all(workers.map(worker => worker.close()))
      await Promise.all(queues.map(queue => queue.close()))
      await app.close()
    }
  }
}

/**
 * As its README advises where nobody waits for results, and with what has ended removed.
 *
 * @param {Place} place
 * @returns {Promise<OpenQueue>}
 */
async function openBee (place) {
  const { queues: [name] = ['default'], concurrency, onTask } = place
  const app = makeApp(onTask)
  await app.ready()
  const settings = {
    redis: { path: socketOf(place) }, getEvents: false, sendEvents: false, storeJobs: false, removeOnSuccess: true
  }
  const queue = await new BeeQueue(name, { ...settings, isWorker: false }).ready()
  /** @type {BeeQueue<Payload> | undefined} */
  let worker
  return {
    add: n => queue.createJob(payloadOf(n)).save(),
    addAll: numbers => inParts(numbers, part => queue.saveAll(part.map(n => queue.createJob(payloadOf(n))))),
    async start () {
      worker = await new BeeQueue(name, settings).ready()
      worker.process(concurrency, ({ data }) => inject(app, data))
    },
    async close () {
      await worker?.close()
      await queue.close()
      await app.close()
    }
  }
}

/**
 * With its defaults: results are kept for an hour, and there is no way to keep none. It adds one at a time.
 *
 * @param {Place} place
 * @param {Storage} storage
 * @returns {Promise<OpenQueue>}
 */
async function openPlatformatic ({ concurrency, onTask }, storage) {
  const app = makeApp(onTask)
  await app.ready()
  /** @type {JobQueue<Payload, null>} */
  const adder = new JobQueue({ storage })
  await adder.start()
  /** @type {JobQueue<Payload, null>} */
  const runner = new JobQueue({ storage, concurrency })
  runner.execute(/** @param {Job<Payload>} job */ async ({ payload }) => {
    await inject(app, payload)
    return null
  })
  /** @param {number} n */
  const add = n => adder.enqueue(String(n), payloadOf(n))
  return {
    add,
    addAll: numbers => inParts(numbers, part => Promise.all(part.map(add))),
    start: () => runner.start(),
    async close () {
      await runner.stop()
      await adder.stop()
      await app.close()
    }
  }
}
