import { cpuUs, NO_REDIS, RedisMeter } from '../../support/meter.js'
import { forEachOf, range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atLeast, atMost } from '../goals.js'
import { payloadOf } from '../route.js'
import { CONCURRENCIES } from './drain.js'

/** @import { RedisWork } from '../../support/meter.js' */
/** @import { QueueName } from '../contenders.js' */
/** @import { Results } from '../results.js' */
/** @import { DrainResults } from './drain.js' */
/** @import { Measure } from './index.js' */

/** @typedef {'single' | 'flight' | 'hundred' | 'thousand'} WayName */
/** @typedef {{ contender: QueueName, way: WayName }} AddingTrial */
/** @typedef {{ perSecond: number, us: number, nodeUs: number } & RedisWork} AddingFigures */
/** @typedef {Measure<AddingTrial, AddingFigures, typeof roles>} Adding */

export const title = 'Adding tasks'

/** @type {QueueName[]} */
const ADDERS = ['ours', 'ours-local', 'bullmq', 'bee', 'platformatic', 'platformatic-local']
/** @type {QueueName[]} */
const BULK_ADDERS = ['ours', 'ours-local', 'bullmq', 'bee']

/**
 * How tasks are added.
 *
 * @typedef {object} Way
 * @property {string} title
 * @property {QueueName[]} adders
 * @property {number} share Of the tasks that are to be added.
 * @property {number} atOnce How many calls are under way.
 * @property {number} size How many tasks each of them adds.
 */

/** @type {Record<WayName, Way>} */
const WAYS = {
  single: { title: 'One at a time', adders: ADDERS, share: 0.25, atOnce: 1, size: 1 },
  flight: { title: '50 in flight', adders: ADDERS, share: 1, atOnce: 50, size: 1 },
  hundred: { title: '100 in one step', adders: BULK_ADDERS, share: 1, atOnce: 1, size: 100 },
  thousand: { title: '1,000 in one step', adders: BULK_ADDERS, share: 1, atOnce: 1, size: 1000 }
}

const WAY_NAMES = /** @type {WayName[]} */ (Object.keys(WAYS))

/** @type {Adding['trials']} */
export function trials () {
  return WAY_NAMES.flatMap(way => WAYS[way].adders.map(contender => ({ contender, way })))
}

/** @type {Adding['measure']} */
export async function measure (stage, { contender, way }, { tasks }) {
  const redis = contenders[contender].usesRedis ? (await stage.redis()).path : undefined
  const count = Math.max(1000, tasks * WAYS[way].share)
  return await stage.play('adder', { contender, redis, way, tasks: count }).result
}

const WARM_UP = 30_000

export const roles = {
  /**
   * @param {{ contender: QueueName, redis: string | undefined, way: WayName, tasks: number }} options
   * @returns {Promise<AddingFigures>}
   */
  async adder ({ contender, redis, way, tasks }) {
    const { atOnce, size } = WAYS[way]
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    /**
     * @param {number} count
     * @param {number} first
     */
    const add = async (count, first) => {
      if (size === 1) return await forEachOf(count, atOnce, n => queue.add(first + n))
      for (let n = 0; n < count; n += size) await queue.addAll(range(size).map(i => first + n + i))
    }
    const meter = redis === undefined ? undefined : new RedisMeter(redis)
    await add(WARM_UP, 0)
    await meter?.start()
    const [cpu, start] = [process.cpuUsage(), performance.now()]
    await add(tasks, WARM_UP)
    const us = (performance.now() - start) * 1000 / tasks
    const nodeUs = cpuUs(cpu) / tasks
    return { perSecond: 1e6 / us, us, nodeUs, ...await meter?.read(tasks) ?? NO_REDIS }
  }
}

const HEADS = [
  '', 'tasks/s', '× BullMQ', '× Bee-Queue', 'µs/task', 'CPU of Node, µs/task', 'CPU of Redis, µs/task', 'commands/task',
  'bytes to Redis/task'
]

/** @type {Adding['tables']} */
export function tables (results, _environment, { drain }) {
  const ways = WAY_NAMES.flatMap(way => {
    const made = ADDERS.map(contender => ({ contender, way })).filter(trial => results.has(trial))
    const rows = made.map(trial => {
      /** @param {QueueName} contender */
      const over = contender => number(results.ratio(trial, { contender, way }, 'perSecond'))
      return [
        contenders[trial.contender].label, spread(results.values(trial, 'perSecond')), over('bullmq'), over('bee'),
        ...results.medians(trial, 'us', 'nodeUs', 'redisUs', 'commands', 'bytesIn').map(number)
      ]
    })
    return [`### ${WAYS[way].title}, of ${PAYLOAD_BYTES} bytes`, table(HEADS, rows)]
  })
  if (drain === undefined) return ways
  /** @type {QueueName[]} */
  const queues = ['ours', 'bullmq', 'bee', 'platformatic']
  const rows = queues.map(contender => [
    contenders[contender].label,
    ...CONCURRENCIES.map(concurrency => number(commandsOf(contender, concurrency, results, drain)))
  ])
  const heads = ['commands/task in all', ...CONCURRENCIES.map(concurrency => `run at concurrency ${concurrency}`)]
  return [...ways, '### Added one at a time, and run', table(heads, rows)]
}

const PAYLOAD_BYTES = JSON.stringify(payloadOf(0)).length

/**
 * The commands of a task that is added alone, and run. NaN if either was not measured.
 *
 * @param {QueueName} contender
 * @param {number} concurrency
 * @param {Results<AddingTrial, AddingFigures>} adding
 * @param {DrainResults} drain
 */
function commandsOf (contender, concurrency, adding, drain) {
  return adding.median({ contender, way: 'single' }, 'commands') + drain.median({ contender, concurrency }, 'commands')
}

/** @type {Adding['goals']} */
export function goals (results, { drain }) {
  /**
   * @param {WayName} way
   * @param {QueueName} other
   */
  const over = (way, other) => results.ratio({ contender: 'ours', way }, { contender: other, way }, 'perSecond')
  return [
    atLeast(1.5, '× BullMQ, one at a time', over('single', 'bullmq')),
    atLeast(1, '× Bee-Queue, one at a time', over('single', 'bee')),
    atLeast(2.5, '× BullMQ, 50 in flight', over('flight', 'bullmq')),
    atLeast(0.9, '× Bee-Queue, 50 in flight', over('flight', 'bee')),
    atLeast(1.3, '× Bee-Queue, 100 in one step', over('hundred', 'bee')),
    atLeast(1.3, '× Bee-Queue, 1,000 in one step', over('thousand', 'bee')),
    atMost(5, 'µs of CPU, local, 50 in flight', results.median({ contender: 'ours-local', way: 'flight' }, 'nodeUs')),
    // Each is added by two scripts.
    ...CONCURRENCIES.map(concurrency => atMost(
      6, `commands within scripts for a task that is added alone, and run at concurrency ${concurrency}`,
      drain === undefined ? NaN : commandsOf('ours', concurrency, results, drain) - 2
    ))
  ]
}
