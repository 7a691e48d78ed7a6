import { RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'
import { Tally } from '../tally.js'
import { warmUp } from '../warm-up.js'

/** @import { QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: QueueName, waiting: number }} BacklogTrial */
/** @typedef {{ perSecond: number, nodeUs: number, redisUs: number, commands: number }} BacklogFigures */
/** @typedef {Measure<BacklogTrial, BacklogFigures, typeof roles>} Backlog */

export const title = 'Draining behind a backlog'
/** @param {number} rounds */
export const roundsOf = rounds => Math.min(rounds, 3)

/** @type {QueueName[]} */
const QUEUES = ['ours', 'bullmq', 'bee']
const CONCURRENCY = 10
const [SIZES, QUICK_SIZES] = [[10_000, 100_000, 1_000_000], [1000, 2000]]

/** @type {Backlog['trials']} */
export function trials ({ quick }) {
  return (quick ? QUICK_SIZES : SIZES).flatMap(waiting => QUEUES.map(contender => ({ contender, waiting })))
}

/** @type {Backlog['measure']} */
export async function measure (stage, { contender, waiting }, { quick }) {
  const { path } = await stage.redis()
  await stage.play('filler', { contender, redis: path, waiting }).result
  return await stage.play('drainer', { contender, redis: path, waiting, tasks: quick ? 1000 : 10_000 }).result
}

const PART = 10_000

export const roles = {
  /** @param {{ contender: QueueName, redis: string, waiting: number }} options */
  async filler ({ contender, redis, waiting }) {
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    for (let first = 0; first < waiting; first += PART) {
      await queue.addAll(range(Math.min(PART, waiting - first)).map(n => first + n))
    }
    await queue.close()
  },

  /**
   * Drains the first tasks; the process ends in the midst of the others.
   *
   * @param {{ contender: QueueName, redis: string, waiting: number, tasks: number }} options
   * @returns {Promise<BacklogFigures>}
   */
  async drainer ({ contender, redis, waiting, tasks }) {
    await warmUp(contender, { redis, concurrency: CONCURRENCY })
    const tally = new Tally(tasks, waiting)
    const queue = await contenders[contender].open({ redis, concurrency: CONCURRENCY, onTask: tally.note })
    const meter = new RedisMeter(redis)
    await meter.start()
    await queue.start()
    await tally.done
    const { nodeUs, perSecond } = tally
    const { redisUs, commands } = await meter.read(1)
    // Others have run meanwhile.
    const { count } = tally
    return { perSecond, nodeUs, redisUs: redisUs / count, commands: commands / count }
  }
}

/** @type {Backlog['tables']} */
export function tables (results) {
  const rows = [...QUICK_SIZES, ...SIZES].flatMap(waiting => {
    const made = QUEUES.map(contender => ({ contender, waiting })).filter(trial => results.has(trial))
    return made.map(trial => [
      `${waiting.toLocaleString('en')} waiting: ${contenders[trial.contender].label}`,
      spread(results.values(trial, 'perSecond')),
      number(results.ratio(trial, { contender: 'bullmq', waiting }, 'perSecond')),
      spread(results.values(trial, 'redisUs')),
      ...results.medians(trial, 'nodeUs', 'commands').map(number)
    ])
  })
  return [
    `The first 10,000 of those that wait, at concurrency ${CONCURRENCY}.`,
    table(['', 'tasks/s', '× BullMQ', 'CPU of Redis, µs/task', 'CPU of Node, µs/task', 'commands/task'], rows)
  ]
}

/** @type {Backlog['goals']} */
export function goals (results) {
  const [many, few] = [1_000_000, 10_000].map(waiting => ({ contender: /** @type {const} */ ('ours'), waiting }))
  return [atMost(1.2, 'CPU of Redis with 1,000,000 waiting, × with 10,000', results.ratio(many, few, 'redisUs'))]
}
