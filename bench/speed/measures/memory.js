import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { numberIn } from '../../support/redis-info.js'
import { range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'
import { Tally } from '../tally.js'
import { warmUp } from '../warm-up.js'

/** @import { QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: QueueName }} MemoryTrial */

/**
 * @typedef {object} MemoryFigures
 * @property {number} bytes Those of a waiting task.
 * @property {number} leftBytes How many more than at first there are in the end, for all tasks.
 * @property {number} keys Those left in the end.
 */

/** @typedef {Measure<MemoryTrial, MemoryFigures, typeof roles>} Memory */

export const title = 'Memory of Redis'
/** @param {number} rounds */
export const roundsOf = rounds => Math.min(rounds, 2)

/** @type {QueueName[]} */
const QUEUES = ['ours', 'bullmq', 'bee', 'platformatic']

/** @type {Memory['trials']} */
export function trials () {
  return QUEUES.map(contender => ({ contender }))
}

/** @type {Memory['measure']} */
export async function measure (stage, { contender }, { tasks }) {
  const { path } = await stage.redis()
  return await stage.play('keeper', { contender, redis: path, tasks: tasks * 5 }).result
}

export const roles = {
  /**
   * @param {{ contender: QueueName, redis: string, tasks: number }} options
   * @returns {Promise<MemoryFigures>}
   */
  async keeper ({ contender, redis, tasks }) {
    const client = new Redis({ path: redis })
    const used = async () => {
      await sleep(200)
      return numberIn(await client.info('memory'), 'used_memory')
    }
    await warmUp(contender, { redis, concurrency: 10 })
    await client.flushall()
    // The same connections are open at each look.
    const idle = await contenders[contender].open({ redis, concurrency: 10, onTask () {} })
    const before = await used()
    await idle.addAll(range(tasks))
    const full = await used()
    const tally = new Tally(tasks)
    const queue = await contenders[contender].open({ redis, concurrency: 10, onTask: tally.note })
    await queue.start()
    await tally.done
    await sleep(200)
    tally.check()
    await queue.close()
    const after = await used()
    const keys = await client.dbsize()
    return { bytes: (full - before) / tasks, leftBytes: after - before, keys }
  }
}

/** @type {Memory['tables']} */
export function tables (results, { tasks }) {
  const rows = QUEUES.map(contender => ({ contender })).filter(trial => results.has(trial)).map(trial => [
    contenders[trial.contender].label,
    spread(results.values(trial, 'bytes')), number(results.ratio(trial, { contender: 'bullmq' }, 'bytes')),
    spread(results.values(trial, 'leftBytes')), spread(results.values(trial, 'keys'))
  ])
  return [
    `${(tasks * 5).toLocaleString('en')} tasks, first all waiting and then all done.`,
    table(['', 'bytes for a waiting task', '× BullMQ', 'bytes left in the end', 'keys left'], rows)
  ]
}

/** @type {Memory['goals']} */
export function goals (results) {
  /** @param {QueueName} contender */
  const over = contender => results.ratio({ contender: 'ours' }, { contender }, 'bytes')
  return [
    atMost(0.45, 'bytes for a waiting task, × BullMQ', over('bullmq')),
    atMost(0.8, 'bytes for a waiting task, × Bee-Queue', over('bee')),
    atMost(5, 'keys left in the end', results.median({ contender: 'ours' }, 'keys'))
  ]
}
