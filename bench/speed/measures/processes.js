import { nowUs } from '../../support/clock.js'
import { contenders } from '../contenders.js'
import { RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { atMost, number, spread, table } from '../../support/text.js'
import { warmUp } from '../warm-up.js'

export const title = 'One process and two'

const QUEUES = ['ours', 'bullmq']
const CONCURRENCY = 10

export function trials () {
  return [1, 2].flatMap(processes => QUEUES.map(contender => ({ contender, processes })))
}

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
    while (shares.reduce((sum, share) => sum + share) < tasks) shares[index] = await runner.hear()
  })
  await Promise.race(ended)
  const { redisUs, commands } = await meter.read(tasks)
  await meter.close()
  for (const runner of runners) runner.tell('stop')
  const reports = await Promise.all(runners.map(runner => runner.result))
  const count = reports.reduce((sum, { count }) => sum + count, 0)
  if (count !== tasks) throw new Error(`${count} runs of ${tasks} tasks`)
  const us = Math.max(...reports.map(({ last }) => last)) - Math.min(...reports.map(({ first }) => first))
  return { perSecond: tasks / us * 1e6, most: Math.max(...reports.map(({ count }) => count)) / tasks * 100, redisUs, commands }
}

export const roles = {
  async filler ({ contender, redis, tasks }) {
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    await queue.addAll(range(tasks))
    await queue.close()
  },

  /** Runs tasks from when it is told to, after as many as warm it up, and tells how many it has run. */
  async runner ({ contender, redis }, line) {
    let [count, first, last] = [0, Infinity, 0]
    const onTask = () => {
      last = nowUs()
      if (count === 0) first = last
      count++
    }
    await warmUp(contender, { redis, concurrency: CONCURRENCY })
    line.tell('warm')
    await line.hear()
    const queue = await contenders[contender].open({ redis, concurrency: CONCURRENCY, onTask })
    await queue.start()
    const telling = setInterval(() => { line.tell(count) }, 20)
    await line.hear()
    clearInterval(telling)
    return { count, first, last }
  }
}

export function tables (results) {
  const rows = [1, 2].flatMap(processes => QUEUES.map(contender => ({ contender, processes })).filter(trial => results.has(trial)).map(trial => [
    `${processes} × ${contenders[trial.contender].label}`,
    spread(results.values(trial, 'perSecond')),
    number(results.ratio(trial, { ...trial, processes: 1 }, 'perSecond')),
    number(results.ratio(trial, { contender: 'bullmq', processes }, 'perSecond')),
    spread(results.values(trial, 'most')),
    ...['redisUs', 'commands'].map(figure => number(results.median(trial, figure)))
  ]))
  return [
    `Concurrency ${CONCURRENCY} in each. Two processes and Redis share the cores.`,
    table(['', 'tasks/s', '× one process', '× BullMQ', 'share of the busier one, %', 'CPU of Redis, µs/task', 'commands/task'], rows)
  ]
}

export function goals (results) {
  return [atMost(60, 'of the tasks, run by the busier one of two processes, %', results.median({ contender: 'ours', processes: 2 }, 'most'))]
}
