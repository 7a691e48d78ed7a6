import { MemoryStorage, Queue as JobQueue, RedisStorage } from '@platformatic/job-queue'
import BeeQueue from 'bee-queue'
import { Queue, Worker } from 'bullmq'
import taskqueue from '../../build/lib/index.js'
import { inject, makeApp, PATH, payloadOf } from './route.js'

/**
 * How each contender is opened, by key: it can `add` the n-th task, `addAll` of many in the largest
 * step that it has, `start` to run them, and `close`. Where there is no Redis, `redis` is undefined.
 */
export const contenders = {
  bare: { label: '`app.inject` in a loop, no queue' },
  ours: { label: 'fastify-taskqueue', usesRedis: true, open: place => openOurs(place) },
  'ours-keeping': { label: 'fastify-taskqueue, keeping the newest 1,000 records, as by default', usesRedis: true, open: place => openOurs(place, { keep: 1000 }) },
  'ours-inject': { label: 'fastify-taskqueue, `dispatch: \'inject\'`', usesRedis: true, open: place => openOurs(place, { dispatch: 'inject' }) },
  'ours-local': { label: 'fastify-taskqueue, local', open: openOursLocal },
  bullmq: { label: 'BullMQ', usesRedis: true, open: place => openBullMQ(place, inject) },
  'bullmq-empty': { label: 'BullMQ, empty handler', usesRedis: true, open: openEmptyBullMQ },
  bee: { label: 'Bee-Queue', usesRedis: true, open: openBee },
  platformatic: { label: '@platformatic/job-queue', usesRedis: true, open: place => openPlatformatic(place, new RedisStorage({ url: place.redis, keyPrefix: `${place.queues?.[0] ?? 'jq'}:` })) },
  'platformatic-local': { label: '@platformatic/job-queue, in memory', open: place => openPlatformatic(place, new MemoryStorage()) }
}

const AT_ONCE = 1000

/** Calls a function with a list, in parts. */
async function inParts (list, run) {
  for (let i = 0; i < list.length; i += AT_ONCE) await run(list.slice(i, i + AT_ONCE))
}

function adderWith (getApp) {
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

/** One app that adds, where any is added, and one that consumes: that consumes as soon as it is ready. */
async function openOurs ({ redis: path, queues = ['default'], concurrency, onTask }, options = {}) {
  const settings = { redis: { path }, queues: Object.fromEntries(queues.map(name => [name, {}])), keep: 0, ...options }
  const [adder, consumer] = [makeApp(onTask), makeApp(onTask)]
  let opening
  const openAdder = () => {
    opening ??= adder.register(taskqueue, { ...settings, consumer: false }).then(() => adder.ready()).then(() => adder)
    return opening
  }
  return {
    ...adderWith(openAdder),
    async start () {
      await consumer.register(taskqueue, { ...settings, consumer: { concurrency } })
      await consumer.ready()
    },
    async close () { await Promise.all([adder.close(), consumer.close()]) }
  }
}

async function openOursLocal ({ concurrency, onTask }) {
  const app = makeApp(onTask)
  await app.register(taskqueue, { consumer: { concurrency }, keep: 0 })
  return { ...adderWith(async () => app), start: () => app.ready(), close: () => app.close() }
}

/** With its defaults, but that what has ended is removed. */
async function openBullMQ ({ redis: path, queues: names = ['default'], concurrency, onTask }, run) {
  const app = makeApp(onTask)
  await app.ready()
  const connection = { path }
  const queues = names.map(name => new Queue(name, { connection, defaultJobOptions: { removeOnComplete: true } }))
  const [queue] = queues
  await Promise.all(queues.map(queue => queue.waitUntilReady()))
  const workers = []
  return {
    add: n => queue.add('task', payloadOf(n)),
    addAll: numbers => inParts(numbers, part => queue.addBulk(part.map(n => ({ name: 'task', data: payloadOf(n) })))),
    async start () {
      for (const name of names) workers.push(new Worker(name, ({ data }) => run(app, data), { connection, concurrency }))
      await Promise.all(workers.map(worker => worker.waitUntilReady()))
    },
    async close () {
      await Promise.all(workers.map(worker => worker.close()))
      await Promise.all(queues.map(queue => queue.close()))
      await app.close()
    }
  }
}

function openEmptyBullMQ (place) {
  return openBullMQ(place, async (_app, { n }) => { place.onTask(n - 1_000_000) })
}

/** As its README advises where nobody waits for results, and with what has ended removed. */
async function openBee ({ redis: path, queues: [name] = ['default'], concurrency, onTask }) {
  const app = makeApp(onTask)
  await app.ready()
  const settings = { redis: { path }, getEvents: false, sendEvents: false, storeJobs: false, removeOnSuccess: true }
  const queue = await new BeeQueue(name, { ...settings, isWorker: false }).ready()
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

/** With its defaults: results are kept for an hour, and there is no way to keep none. It adds one at a time. */
async function openPlatformatic ({ concurrency, onTask }, storage) {
  const app = makeApp(onTask)
  await app.ready()
  const adder = new JobQueue({ storage })
  await adder.start()
  const runner = new JobQueue({ storage, concurrency })
  runner.execute(async ({ payload }) => {
    await inject(app, payload)
    return null
  })
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
