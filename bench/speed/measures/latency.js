import { setTimeout as sleep } from 'node:timers/promises'
import { nowUs } from '../../support/clock.js'
import { contenders } from '../contenders.js'
import { withResolvers } from '../../support/resolvers.js'
import { quantile } from '../../support/statistics.js'
import { atMost, number, spread, table } from '../../support/text.js'

export const title = 'From adding a task to its handler, at rest'

const QUEUES = ['ours', 'bullmq', 'bee', 'platformatic']

export function trials () {
  return QUEUES.map(contender => ({ contender }))
}

export async function measure (stage, { contender }, { quick }) {
  const { path } = await stage.redis()
  const samples = quick ? 50 : 500
  const runner = stage.play('runner', { contender, redis: path, samples })
  await runner.hear()
  const adder = stage.play('adder', { contender, redis: path, samples })
  const added = await adder.result
  const begun = await runner.result
  const us = begun.map((at, n) => at - added[n]).slice(WARM_UP)
  return { p50Us: quantile(us, 0.5), p90Us: quantile(us, 0.9), p99Us: quantile(us, 0.99) }
}

const WARM_UP = 100

export const roles = {
  async runner ({ contender, redis, samples }, line) {
    const begun = []
    const { promise, resolve } = withResolvers()
    const onTask = n => {
      begun[n] ??= nowUs()
      if (n === WARM_UP + samples - 1) resolve()
    }
    const queue = await contenders[contender].open({ redis, concurrency: 10, onTask })
    await queue.start()
    line.tell('ready')
    await promise
    return begun
  },

  /** Adds one task after the other, with pauses in which each of them has long ended. */
  async adder ({ contender, redis, samples }) {
    const added = []
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
    for (let n = 0; n < WARM_UP + samples; n++) {
      await sleep(5 + 5 * Math.random())
      added[n] = nowUs()
      await queue.add(n)
    }
    return added
  }
}

export function tables (results) {
  const rows = QUEUES.map(contender => ({ contender })).filter(trial => results.has(trial)).map(trial => [
    contenders[trial.contender].label, ...['p50Us', 'p90Us', 'p99Us'].map(figure => spread(results.values(trial, figure))),
    number(results.ratio(trial, { contender: 'bullmq' }, 'p50Us'))
  ])
  return [
    'The call of `add` in one process, the first line of the route\'s handler in another one. Nothing else is under way.',
    table(['', 'median, µs', '90 %, µs', '99 %, µs', '× BullMQ'], rows)
  ]
}

export function goals (results) {
  const over = (contender, figure) => results.ratio({ contender: 'ours' }, { contender }, figure)
  return [['p50Us', 'median'], ['p99Us', '99 %']].flatMap(([figure, name]) => [
    atMost(0.5, `${name}, × BullMQ`, over('bullmq', figure)), atMost(1, `${name}, × Bee-Queue`, over('bee', figure))
  ])
}
