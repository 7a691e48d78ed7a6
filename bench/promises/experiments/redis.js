/** A Redis that is frozen, full or damaged, and one that is left in peace. */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { until } from '../../../build/test/support/until.js'
import { cpuSecondsIn, numberIn } from '../../support/redis-info.js'

/** @import { RedisServer } from '../../../build/test/support/redis-server.js' */
/** @import { AppOptions } from '../app.js' */
/** @import { AppBed } from '../app-bed.js' */
/** @import { SystemName } from '../systems.js' */
/** @import { Experiment } from './index.js' */

/**
 * @param {AppBed} bed
 * @param {RedisServer} redis
 */
function connect (bed, redis) {
  const client = new Redis(redis.path)
  bed.teardown(() => { client.disconnect() })
  return client
}

/** @type {Experiment} */
export async function frozenRedis (system, bed) {
  const redis = await bed.redis()
  const start = () => bed.start(system, redis, { concurrency: 10 })
  const consumers = [await start(), await start()]
  /** @param {string} [n] */
  const begun = n => consumers.flatMap(consumer => consumer.begun(n))
  const tasks = Array.from({ length: 20 }, (_, i) => ({ n: `task-${i}`, ms: 50_000 }))
  await consumers[0].order(tasks)
  await until(() => begun().length === 20, 'all tasks at once')
  redis.freeze()
  await sleep(40_000)
  redis.thaw()
  const runTwice = () => tasks.filter(({ n }) => begun(n).length > 1).length
  await until(() => runTwice() === 20, 'twenty that run twice', 120_000).catch(() => {})
  return { 'tasks that ran twice, of 20 in flight': runTwice() }
}

/**
 * Whether its consumer is busy when the memory fills up, or comes later, makes a difference.
 *
 * @type {Experiment}
 */
export async function fullRedis (system, bed) {
  const busy = await fillRedis(system, bed, true)
  const late = await fillRedis(system, bed, false)
  return {
    'status of a request that adds': busy.status ?? 'none',
    'tasks drained in 40 s by a consumer that was busy when it filled up': busy.drained,
    'errors that it logged meanwhile': busy.errors,
    'tasks drained in 40 s by a consumer that was idle then': late.drained,
    'errors that this one logged meanwhile': late.errors
  }
}

/**
 * @param {SystemName} system
 * @param {AppBed} bed
 * @param {boolean} isBusy
 */
async function fillRedis (system, bed, isBusy) {
  const redis = await bed.redis()
  const client = connect(bed, redis)
  const adder = await bed.start(system, redis, { concurrency: 0 })
  const consumer = await bed.start(system, redis, { concurrency: 10 })
  if (isBusy) {
    await adder.order(Array.from({ length: 10 }, (_, i) => ({ n: `held-${i}`, hold: true })))
    await until(() => consumer.begun().length === 10, 'a busy consumer')
  } else consumer.kill('SIGSTOP')
  await adder.order(Array.from({ length: 1000 }, (_, i) => ({ n: `task-${i}` })))
  const used = numberIn(await client.info('memory'), 'used_memory')
  // What the tasks free does not make room for others.
  await client.config('SET', 'maxmemory', Math.round(used / 2))
  const { status } = await adder.order([{ n: 'one more' }])
  if (isBusy) consumer.ask('release')
  else consumer.kill('SIGCONT')
  const before = await consumer.ask('errors')
  await sleep(40_000)
  const { waiting, running } = await adder.ask('counts')
  const ran = new Set(consumer.ended().filter(({ n }) => n.startsWith('task')).map(({ n }) => n)).size
  const gone = 1000 - Math.min(1000, waiting + running)
  return {
    status,
    drained: `${gone} of 1,000${ran === gone ? '' : ` (${ran} ran)`}`,
    errors: await consumer.ask('errors') - before
  }
}

/** @type {Experiment} */
export async function idle (system, bed) {
  /**
   * @param {number} count
   * @param {Partial<AppOptions>} [options]
   */
  const measure = async (count, options) => {
    const redis = await bed.redis()
    const queues = Array.from({ length: count }, (_, i) => `queue-${i}`)
    await bed.start(system, redis, { queues, ...options })
    const client = connect(bed, redis)
    const connections = String(await client.client('LIST')).trim().split('\n').length - 1
    await sleep(10_000)
    const cpu = cpuSecondsIn(await client.info('cpu'))
    await sleep(60_000)
    const seconds = cpuSecondsIn(await client.info('cpu')) - cpu
    // In another minute, since it costs CPU itself.
    const monitor = await client.monitor()
    let [requests, commands] = [0, 0]
    monitor.on('monitor', (_time, _args, source) => {
      commands++
      if (source !== 'lua') requests++
    })
    await sleep(60_000)
    monitor.disconnect()
    return `${connections} connections; a minute: ${requests} requests, ` +
      `${commands} commands with those in scripts, ${seconds.toFixed(2)} s of CPU in Redis`
  }
  const rows = await Promise.all([1, 100, 500].map(async count =>
    [`${count} queue${count === 1 ? '' : 's'}`, await measure(count)]))
  if (system === 'BullMQ') rows.push(['100 queues that share one client', await measure(100, { sharing: true })])
  return Object.fromEntries(rows)
}

/**
 * How to damage what a system keeps.
 *
 * @typedef {object} Damage
 * @property {(client: Redis, i: number, change: Buffer | undefined) => Promise<void>} message Replaces or removes the
 *   message of the i-th of the waiting tasks.
 * @property {string} waiting The key of the waiting tasks.
 */

/** @type {Record<SystemName, Damage>} */
const damages = {
  'fastify-taskqueue': {
    async message (client, i, change) {
      const id = await idAt(client, damages['fastify-taskqueue'].waiting, i)
      if (change === undefined) await client.hdel('taskqueue:{default}:message', id)
      else await client.hset('taskqueue:{default}:message', id, change)
    },
    waiting: 'taskqueue:{default}:waiting'
  },
  BullMQ: {
    async message (client, i, change) {
      // The next one is at the end.
      const id = await idAt(client, damages.BullMQ.waiting, -1 - i)
      if (change === undefined) await client.del(`bull:default:${id}`)
      else await client.hset(`bull:default:${id}`, 'data', change)
    },
    waiting: 'bull:default:wait'
  }
}

/**
 * @param {Redis} client
 * @param {string} key
 * @param {number} i
 */
async function idAt (client, key, i) {
  const id = await client.lindex(key, i)
  if (id === null) throw new Error(`${key} has no task at ${i}`)
  return id
}

/**
 * @param {SystemName} system
 * @param {AppBed} bed
 * @param {Buffer | undefined} change
 */
async function damagedMessage (system, bed, change) {
  const redis = await bed.redis()
  const client = connect(bed, redis)
  const adder = await bed.start(system, redis, { concurrency: 0 })
  await adder.order(Array.from({ length: 21 }, (_, i) => ({ n: i === 10 ? 'damaged' : `good-${i}` })))
  await damages[system].message(client, 10, change)
  const consumer = await bed.start(system, redis)
  const start = performance.now()
  await until(async () => {
    const { waiting, running } = await adder.ask('counts')
    await sleep(200)
    return waiting + running === 0
  }, 'an end of all tasks', 300_000).catch(() => {})
  const seconds = ((performance.now() - start) / 1000).toFixed(0)
  const { waiting, running, dead } = await adder.ask('counts')
  const states = Object.entries({ waiting, running, dead }).filter(([, count]) => count > 0)
    .map(([state, count]) => `${count} ${state}`).join(', ')
  const good = consumer.ended().filter(({ n }) => n.startsWith('good')).length
  const damaged = consumer.begun().filter(({ n }) => !n.startsWith('good')).map(({ n }) => n).join(', ')
  return `${good} of 20 others ran; the handler was called ${damaged || 'not at all'}; ` +
    `after ${seconds} s ${states || 'nothing left'}`
}

/** @type {Experiment} */
export async function damagedMessages (system, bed) {
  const [broken, gone] = await Promise.all([
    damagedMessage(system, bed, Buffer.from([0xff, 0, 0x7b])),
    damagedMessage(system, bed, undefined)
  ])
  return { 'a message of broken bytes': broken, 'a message that is gone': gone }
}

/** @type {Experiment} */
export async function wrongType (system, bed) {
  const redis = await bed.redis()
  const client = connect(bed, redis)
  const app = await bed.start(system, redis)
  await app.order([{ n: 'before' }])
  await until(() => app.ended('before').length > 0, 'a task')
  await client.set(damages[system].waiting, 'not a list')
  const count = async () =>
    Number(/^errorstat_WRONGTYPE:count=(\d+)/m.exec(await client.info('errorstats'))?.[1] ?? 0)
  const { status } = await app.order([{ n: 'after' }], { longestMs: 15_000 })
  const [errors, logged] = [await count(), await app.ask('errors')]
  await sleep(15_000)
  /** @param {number} number */
  const perSecond = number => (number / 15).toFixed(1)
  const figures = {
    'status of a request that adds': status ?? 'none after 15 s',
    'errors of Redis a second': perSecond(await count() - errors),
    'errors logged a second': perSecond(await app.ask('errors') - logged)
  }
  await client.del(damages[system].waiting)
  await until(() => app.ended('after').length > 0, 'its task', 15_000).catch(() => {})
  return { ...figures, 'runs of its task within 15 s of the key\'s removal': app.ended('after').length }
}
