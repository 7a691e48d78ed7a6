import { contenders } from '../contenders.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { Tally } from '../tally.js'
import { atMost, number, spread, table } from '../../support/text.js'
import { warmUp } from '../warm-up.js'

export const title = 'Draining behind a backlog'
export const roundsOf = rounds => Math.min(rounds, 3)

const QUEUES = ['ours', 'bullmq', 'bee']
const CONCURRENCY = 10

export function trials ({ quick }) {
  const sizes = quick ? [1000, 2000] : [10_000, 100_000, 1_000_000]
  return sizes.flatMap(waiting => QUEUES.map(contender => ({ contender, waiting })))
}

export async function measure (stage, { contender, waiting }, { quick }) {
  const { path } = await stage.redis()
  await stage.play('filler', { contender, redis: path, waiting }).result
  return await stage.play('drainer', { contender, redis: path, waiting, tasks: quick ? 1000 : 10_000 }).result
}

const PART = 10_000

export const roles = {
  async filler ({ contender, redis, waiting }) {
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    for (let first = 0; first < waiting; first += PART) await queue.addAll(range(Math.min(PART, waiting - first)).map(n => first + n))
    await queue.close()
  },

  /** Drains the first tasks; the process ends in the midst of the others. */
  async drainer ({ contender, redis, waiting, tasks }) {
    await warmUp(contender, { redis, concurrency: CONCURRENCY })
    let before
    const tally = new Tally(tasks, { of: waiting, onFirst () { before = process.cpuUsage() } })
    const queue = await contenders[contender].open({ redis, concurrency: CONCURRENCY, onTask: tally.note })
    const meter = new RedisMeter(redis)
    await meter.start()
    await queue.start()
    await tally.done
    const nodeUs = cpuUs(before) / tasks
    const figures = await meter.read(1)
    return { perSecond: tally.perSecond, nodeUs, redisUs: figures.redisUs / tally.count, commands: figures.commands / tally.count }
  }
}

export function tables (results) {
  const sizes = [1000, 2000, 10_000, 100_000, 1_000_000].filter(waiting => results.has({ waiting }))
  const rows = sizes.flatMap(waiting => QUEUES.map(contender => ({ contender, waiting })).filter(trial => results.has(trial)).map(trial => [
    `${waiting.toLocaleString('en')} waiting: ${contenders[trial.contender].label}`,
    spread(results.values(trial, 'perSecond')), number(results.ratio(trial, { contender: 'bullmq', waiting }, 'perSecond')),
    spread(results.values(trial, 'redisUs')), ...['nodeUs', 'commands'].map(figure => number(results.median(trial, figure)))
  ]))
  return [
    `The first 10,000 of those that wait, at concurrency ${CONCURRENCY}.`,
    table(['', 'tasks/s', '× BullMQ', 'CPU of Redis, µs/task', 'CPU of Node, µs/task', 'commands/task'], rows)
  ]
}

export function goals (results) {
  const [few, many] = [10_000, 1_000_000].map(waiting => ({ contender: 'ours', waiting }))
  return [atMost(1.2, 'CPU of Redis with 1,000,000 waiting, × with 10,000', results.ratio(many, few, 'redisUs'))]
}
