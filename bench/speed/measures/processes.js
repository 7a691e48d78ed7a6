import { nowUs } from '../../support/clock.js'
import { RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'
import { warmUp } from '../warm-up.js'

/** @import { Line } from '../child.js' */
/** @import { QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: QueueName, processes: number }} ProcessesTrial */

/**
 * @typedef {object} ProcessesFigures
 * @property {number} perSecond
 * @property {number} most The share of the busiest process, in percent.
 * @property {number} redisUs
 * @property {number} commands
 */

/** @typedef {Measure<ProcessesTrial, ProcessesFigures, typeof roles>} Processes */

export const title = 'One process and two'

/** @type {QueueName[]} */
const QUEUES = ['ours', 'bullmq']
const CONCURRENCY = 10
const TRIALS = [1, 2].flatMap(processes => QUEUES.map(contender => ({ contender, processes })))

/** @type {Processes['trials']} */
export function trials () { return TRIALS }

/** @type {Processes['measure']} */
export async function measure (stage, { contender, processes }, { tasks }) {
  const { path } = await stage.redis()
  const runners = range(processes).map(() => stage.play('runner', { contender, redis: path }))
  for (const runner of runners) await runner.hear()
  await stage.play('filler', { contender, redis: path, tasks }).result
  const meter = new RedisMeter(path)
  await meter.start()
  for (const runner of runners) runner.tell('start')
  const shares = runners.map(() => 0)
  const ended = runners.map(async (runner, index) => {
    while (shares.reduce((sum, share) => sum + share) < tasks) shares[index] = await runner.hearNumber()
  })
  await Promise.race(ended)
  const { redisUs, commands } = await meter.read(tasks)
  meter.close()
  for (const runner of runners) runner.tell('stop')
  const reports = await Promise.all(runners.map(runner => runner.result))
  const counts = reports.map(({ count }) => count)
  const total = counts.reduce((sum, count) => sum + count, 0)
  if (total !== tasks) throw new Error(`${total} runs of ${tasks} tasks`)
  const times = reports.flatMap(({ first, last }) => first === undefined || last === undefined ? [] : [first, last])
  const us = Math.max(...times) - Math.min(...times)
  return { perSecond: tasks / us * 1e6, most: Math.max(...counts) / tasks * 100, redisUs, commands }
}

/**
 * How many tasks a process has run, and when the first and the last of them began.
 *
 * @typedef {{ count: number, first?: number, last?: number }} RunnerReport
 */

export const roles = {
  /** @param {{ contender: QueueName, redis: string, tasks: number }} options */
  async filler ({ contender, redis, tasks }) {
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    await queue.addAll(range(tasks))
    await queue.close()
  },

  /**
   * Runs tasks from when it is told to, after as many as warm it up, and tells how many it has run.
   *
   * @param {{ contender: QueueName, redis: string }} options
   * @param {Line} line
   */
  async runner ({ contender, redis }, line) {
    /** @type {RunnerReport} */
    const report = { count: 0 }
    const onTask = () => {
      const now = nowUs()
      report.first ??= now
      report.last = now
      report.count++
    }
    await warmUp(contender, { redis, concurrency: CONCURRENCY })
    line.tell('warm')
    await line.hear()
    const queue = await contenders[contender].open({ redis, concurrency: CONCURRENCY, onTask })
    await queue.start()
    const telling = setInterval(() => { line.tell(report.count) }, 20)
    await line.hear()
    clearInterval(telling)
    return report
  }
}

/** @type {Processes['tables']} */
export function tables (results) {
  const rows = TRIALS.filter(trial => results.has(trial)).map(trial => [
    `${trial.processes} × ${contenders[trial.contender].label}`,
    spread(results.values(trial, 'perSecond')),
    number(results.ratio(trial, { ...trial, processes: 1 }, 'perSecond')),
    number(results.ratio(trial, { ...trial, contender: 'bullmq' }, 'perSecond')),
    spread(results.values(trial, 'most')),
    ...results.medians(trial, 'redisUs', 'commands').map(number)
  ])
  const heads = [
    '', 'tasks/s', '× one process', '× BullMQ', 'share of the busier one, %', 'CPU of Redis, µs/task', 'commands/task'
  ]
  return [`Concurrency ${CONCURRENCY} in each. Two processes and Redis share the cores.`, table(heads, rows)]
}

/** @type {Processes['goals']} */
export function goals (results) {
  const most = results.median({ contender: 'ours', processes: 2 }, 'most')
  return [atMost(60, 'of the tasks, run by the busier one of two processes, %', most)]
}
