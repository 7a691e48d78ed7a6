import { setTimeout as sleep } from 'node:timers/promises'
import { NO_REDIS, RedisMeter } from '../../support/meter.js'
import { forEachOf, range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { CONTENDERS, contenders } from '../contenders.js'
import { atLeast } from '../goals.js'
import { Results } from '../results.js'
import { inject, makeApp, payloadOf } from '../route.js'
import { Tally } from '../tally.js'

/** @import { RedisWork } from '../../support/meter.js' */
/** @import { ContenderName, QueueName } from '../contenders.js' */
/** @import { Rounds, Section } from '../results.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: ContenderName, concurrency: number }} DrainTrial */
/** @typedef {{ perSecond: number, nodeUs: number } & RedisWork} DrainFigures */
/** @typedef {Results<DrainTrial, DrainFigures>} DrainResults */
/** @typedef {Measure<DrainTrial, DrainFigures, typeof roles>} Drain */
/** @typedef {{ contender: QueueName, redis: string | undefined, concurrency: number, tasks: number }} DrainOptions */

/**
 * For others that build on these results.
 *
 * @param {Section} section
 * @returns {DrainResults}
 */
export function drainResultsOf ({ rounds }) {
  return new Results(/** @type {Rounds<DrainTrial, DrainFigures>} */ (rounds))
}

export const title = 'Draining waiting tasks'

export const CONCURRENCIES = [1, 10, 50]

/** @type {Drain['trials']} */
export function trials () {
  return CONCURRENCIES.flatMap(concurrency => CONTENDERS.map(contender => ({ contender, concurrency })))
}

/** @type {Drain['measure']} */
export async function measure (stage, { contender, concurrency }, { tasks }) {
  if (contender === 'bare') return await stage.play('loop', { concurrency, tasks }).result
  const redis = contenders[contender].usesRedis ? (await stage.redis()).path : undefined
  return await stage.play('drain', { contender, redis, concurrency, tasks }).result
}

const WARM_UP = 20_000

export const roles = {
  /**
   * Requests without a queue.
   *
   * @param {{ concurrency: number, tasks: number }} options
   * @returns {Promise<DrainFigures>}
   */
  async loop ({ concurrency, tasks }) {
    let tally = new Tally(WARM_UP)
    const app = makeApp(n => { tally.note(n) })
    await app.ready()
    await forEachOf(WARM_UP, concurrency, n => inject(app, payloadOf(n)))
    tally = new Tally(tasks)
    await forEachOf(tasks, concurrency, n => inject(app, payloadOf(n)))
    const { nodeUs, perSecond } = tally
    tally.check()
    return { perSecond, nodeUs, ...NO_REDIS }
  },

  /** @param {DrainOptions} options */
  async drain (options) {
    await drain({ ...options, tasks: WARM_UP })
    return await drain(options)
  }
}

/**
 * @param {DrainOptions} options
 * @returns {Promise<DrainFigures>}
 */
async function drain ({ contender, redis, concurrency, tasks }) {
  const tally = new Tally(tasks)
  const queue = await contenders[contender].open({ redis, concurrency, onTask: tally.note })
  const meter = redis === undefined ? undefined : new RedisMeter(redis)
  await queue.addAll(range(tasks))
  await meter?.start()
  await queue.start()
  await tally.done
  const { nodeUs, perSecond } = tally
  // Until Redis has heard of the last ones.
  await sleep(50)
  const work = await meter?.read(tasks) ?? NO_REDIS
  tally.check()
  await queue.close()
  await meter?.flush()
  meter?.close()
  return { perSecond, nodeUs, ...work }
}

const HEADS = [
  '', 'tasks/s', '× `app.inject`', '× BullMQ', 'CPU of Node, µs/task', 'CPU of Redis, µs/task', 'commands/task',
  'bytes to Redis/task', 'bytes from Redis/task'
]

/** @type {Drain['tables']} */
export function tables (results, { tasks }) {
  return CONCURRENCIES.flatMap(concurrency => {
    const made = CONTENDERS.map(contender => ({ contender, concurrency })).filter(trial => results.has(trial))
    const rows = made.map(trial => {
      /** @param {ContenderName} contender */
      const over = contender => number(results.ratio(trial, { contender, concurrency }, 'perSecond'))
      return [
        contenders[trial.contender].label, spread(results.values(trial, 'perSecond')), over('bare'), over('bullmq'),
        ...results.medians(trial, 'nodeUs', 'redisUs', 'commands', 'bytesIn', 'bytesOut').map(number)
      ]
    })
    return [`### ${tasks.toLocaleString('en')} tasks, concurrency ${concurrency}`, table(HEADS, rows)]
  })
}

/** @type {Drain['goals']} */
export function goals (results) {
  /**
   * @param {ContenderName} contender
   * @param {ContenderName} other
   * @param {number} concurrency
   */
  const over = (contender, other, concurrency) =>
    results.ratio({ contender, concurrency }, { contender: other, concurrency }, 'perSecond')
  return [
    atLeast(1, '× `app.inject`, concurrency 1', over('ours', 'bare', 1)),
    ...[10, 50].map(concurrency =>
      atLeast(1.5, `× \`app.inject\`, concurrency ${concurrency}`, over('ours', 'bare', concurrency))),
    ...CONCURRENCIES.map(concurrency =>
      atLeast(5, `× BullMQ, concurrency ${concurrency}`, over('ours', 'bullmq', concurrency))),
    atLeast(2, '× BullMQ with an empty handler, concurrency 10', over('ours', 'bullmq-empty', 10)),
    ...CONCURRENCIES.map(concurrency =>
      atLeast(2, `local × \`app.inject\`, concurrency ${concurrency}`, over('ours-local', 'bare', concurrency))),
    ...CONCURRENCIES.map(concurrency => atLeast(
      0.9, `keeping 1,000 records × keeping none, concurrency ${concurrency}`, over('ours-keeping', 'ours', concurrency)
    ))
  ]
}
