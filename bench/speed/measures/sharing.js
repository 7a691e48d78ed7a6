import { Queue, Worker } from 'bullmq'
import taskqueue from '../../../build/lib/index.js'
import { NO_REDIS, RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { atLeast, atMost } from '../goals.js'
import { inject, makeApp, PATH, payloadOf } from '../route.js'
import { Tally } from '../tally.js'

/** @import { AddOptions, Limits as QueueLimits } from '../../../build/lib/index.js' */
/** @import { RedisWork } from '../../support/meter.js' */
/** @import { Measure } from './index.js' */

/** @typedef {keyof typeof SHARES | keyof typeof FLOODED} Share */
/** @typedef {{ share: Share }} SharingTrial */
/** @typedef {{ perSecond: number, nodeUs: number, servedMs: number } & RedisWork} SharingFigures */
/** @typedef {Measure<SharingTrial, SharingFigures, typeof roles>} Sharing */

export const title = 'Priorities, keys and limits'
export const roundsOf = () => 3

const CONCURRENCY = 10
/** More than a process does. */
const FAST = { max: 1_000_000, ms: 1000, burst: 1_000_000 }

/**
 * What the tasks and their queue have, by the label on the page.
 *
 * @type {Record<string, { tasks?: number, options?: (n: number) => AddOptions, limits?: QueueLimits }>}
 */
const SHARES = {
  nothing: {},
  'a limit of running tasks': { limits: { running: CONCURRENCY } },
  'a rate': { limits: { rate: FAST } },
  'three levels': { options: n => ({ priority: /** @type {const} */ (['high', 'normal', 'low'])[n % 3] }) },
  '10 keys': { options: n => ({ key: n % 10 }) },
  '10,000 keys': { options: n => ({ key: n % 10_000 }) },
  '100,000 keys': { tasks: 100_000, options: n => ({ key: n % 100_000 }) },
  '10 keys, each with limits': { options: n => ({ key: n % 10 }), limits: { perKey: { running: 5, rate: FAST } } }
}

/** One tenant has added 100,000 tasks, and then each of 99 others adds one. */
const FLOOD = 100_000
const OTHERS = 99
const FLOODED = { 'flooded, with keys': true, 'flooded, without keys': false, 'flooded, BullMQ': false }

/** @type {Sharing['trials']} */
export function trials ({ quick }) {
  const shares = quick ? ['nothing', 'three levels', '10 keys'] : [...Object.keys(SHARES), ...Object.keys(FLOODED)]
  return shares.map(share => ({ share }))
}

/** @type {Sharing['measure']} */
export async function measure (stage, { share }, { tasks }) {
  const redis = (await stage.redis()).path
  return share in FLOODED
    ? await stage.play('flooded', { share, redis }).result
    : await stage.play('shared', { share, redis, tasks }).result
}

const WARM_UP = 20_000

export const roles = {
  /** @param {{ share: Share, redis: string, tasks: number }} options */
  async shared (options) {
    await drain({ ...options, tasks: WARM_UP })
    return await drain({ ...options, tasks: SHARES[options.share]?.tasks ?? options.tasks })
  },

  /**
   * @param {{ share: Share, redis: string }} options
   * @returns {Promise<SharingFigures>}
   */
  async flooded ({ share, redis }) {
    const total = FLOOD + OTHERS
    /** The last tasks are those of the others. */
    let left = OTHERS
    let servedMs = NaN
    const tally = new Tally(total)
    /** @param {number} n */
    const onTask = n => {
      tally.note(n)
      if (n >= FLOOD && --left === 0) servedMs = performance.now() - start
    }
    const { begin, end } = share === 'flooded, BullMQ'
      ? await floodBullMQ(redis, onTask)
      : await floodOurs(redis, onTask, share === 'flooded, with keys')
    const start = performance.now()
    await begin()
    await tally.done
    const { perSecond, nodeUs } = tally
    tally.check()
    await end()
    return { perSecond, nodeUs, servedMs, ...NO_REDIS }
  }
}

/**
 * @param {{ share: Share, redis: string, tasks: number }} options
 * @returns {Promise<SharingFigures>}
 */
async function drain ({ share, redis, tasks }) {
  const { options = () => ({}), limits = {} } = SHARES[share] ?? {}
  const tally = new Tally(tasks)
  const app = makeApp(tally.note)
  await app.register(taskqueue, {
    redis: { path: redis },
    keep: 0,
    queues: { default: { limits, consumer: { concurrency: CONCURRENCY, autoStart: false } } }
  })
  await app.ready()
  const meter = new RedisMeter(redis)
  for (let n = 0; n < tasks; n += 1000) {
    await app.taskqueue.addAll(range(Math.min(1000, tasks - n)).map(i =>
      ({ url: PATH, payload: payloadOf(n + i), ...options(n + i) })))
  }
  await meter.start()
  await app.taskqueue.drain()
  const { perSecond, nodeUs } = tally
  const work = await meter.read(tasks)
  tally.check()
  await app.close()
  await meter.flush()
  meter.close()
  return { perSecond, nodeUs, servedMs: 0, ...work }
}

/**
 * @param {string} redis
 * @param {(n: number) => void} onTask
 * @param {boolean} hasKeys
 */
async function floodOurs (redis, onTask, hasKeys) {
  const app = makeApp(onTask)
  await app.register(taskqueue, {
    redis: { path: redis }, keep: 0, consumer: { concurrency: CONCURRENCY, autoStart: false }
  })
  await app.ready()
  for (let n = 0; n < FLOOD; n += 1000) {
    await app.taskqueue.addAll(range(1000).map(i =>
      ({ url: PATH, payload: payloadOf(n + i), ...hasKeys && { key: 'flood' } })))
  }
  for (const i of range(OTHERS)) {
    await app.taskqueue.add(PATH, { payload: payloadOf(FLOOD + i), ...hasKeys && { key: `other ${i}` } })
  }
  return { begin: () => app.taskqueue.drain(), end: () => app.close() }
}

/**
 * @param {string} redis
 * @param {(n: number) => void} onTask
 */
async function floodBullMQ (redis, onTask) {
  const connection = { path: redis }
  const queue = new Queue('default', { connection, defaultJobOptions: { removeOnComplete: true } })
  const app = makeApp(onTask)
  await app.ready()
  for (let n = 0; n < FLOOD; n += 1000) {
    await queue.addBulk(range(1000).map(i => ({ name: 'task', data: payloadOf(n + i) })))
  }
  for (const i of range(OTHERS)) await queue.add('task', payloadOf(FLOOD + i))
  const worker = new Worker('default', async job => { await inject(app, job.data) }, {
    connection, concurrency: CONCURRENCY, autorun: false
  })
  return {
    begin: async () => { worker.run().catch(() => {}) },
    end: async () => {
      await worker.close()
      await queue.close()
      await app.close()
    }
  }
}

const HEADS = [
  'what the tasks or their queue have', 'tasks/s', '× nothing', 'CPU of Node, µs/task', 'CPU of Redis, µs/task',
  'commands/task'
]

/** @type {Sharing['tables']} */
export function tables (results, { tasks }) {
  const rows = Object.keys(SHARES).filter(share => results.has({ share })).map(share => [
    share, spread(results.values({ share }, 'perSecond')),
    number(results.ratio({ share }, { share: 'nothing' }, 'perSecond')),
    ...results.medians({ share }, 'nodeUs', 'redisUs', 'commands').map(number)
  ])
  const flooded = Object.keys(FLOODED).filter(share => results.has({ share })).map(share => [
    share, number(results.median({ share }, 'servedMs')), spread(results.values({ share }, 'perSecond'))
  ])
  return [
    `${tasks.toLocaleString('en')} tasks on Redis at concurrency ${CONCURRENCY}, or as many as there are keys. ` +
      'Limits and rates are so high that they hold nothing up.',
    table(HEADS, rows),
    `One tenant has added ${FLOOD.toLocaleString('en')} tasks, and then each of ${OTHERS} others adds one.`,
    table(['', 'ms until the others are served', 'tasks/s'], flooded)
  ]
}

/** @type {Sharing['goals']} */
export function goals (results) {
  const ten = results.median({ share: '10 keys' }, 'redisUs')
  const many = results.median({ share: '100,000 keys' }, 'redisUs')
  const ours = results.median({ share: 'flooded, with keys' }, 'servedMs')
  const theirs = results.median({ share: 'flooded, BullMQ' }, 'servedMs')
  return [
    atMost(2, 'CPU of Redis, 100,000 keys × 10 keys', many / ten),
    atLeast(100, 'time until the others are served, BullMQ × ours with keys', theirs / ours)
  ]
}
