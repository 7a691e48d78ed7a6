import { setTimeout as sleep } from 'node:timers/promises'
import { gate } from '../../../build/test/support/gate.js'
import { nowUs } from '../../support/clock.js'
import { quantile } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'

/** @import { Line } from '../child.js' */
/** @import { QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: QueueName }} LatencyTrial */
/** @typedef {{ p50Us: number, p90Us: number, p99Us: number }} LatencyFigures */
/** @typedef {Measure<LatencyTrial, LatencyFigures, typeof roles>} Latency */
/** @typedef {LatencyTrial & { redis: string, samples: number }} RoleOptions */

export const title = 'From adding a task to its handler, at rest'

/** @type {QueueName[]} */
const QUEUES = ['ours', 'bullmq', 'bee', 'platformatic']

/** @type {Latency['trials']} */
export function trials () {
  return QUEUES.map(contender => ({ contender }))
}

/** @type {Latency['measure']} */
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
  /**
   * Resolves with when each task began.
   *
   * @param {RoleOptions} options
   * @param {Line} line
   */
  async runner ({ contender, redis, samples }, line) {
    /** @type {number[]} */
    const begun = []
    const { opened, open } = gate()
    /** @param {number} n */
    const onTask = n => {
      begun[n] ??= nowUs()
      if (n === WARM_UP + samples - 1) open()
    }
    const queue = await contenders[contender].open({ redis, concurrency: 10, onTask })
    await queue.start()
    line.tell('ready')
    await opened
    return begun
  },

  /**
   * Adds one task after the other, with pauses in which each of them has long ended. Resolves with when it did.
   *
   * @param {RoleOptions} options
   */
  async adder ({ contender, redis, samples }) {
    /** @type {number[]} */
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

/** @type {Array<keyof LatencyFigures>} */
const FIGURES = ['p50Us', 'p90Us', 'p99Us']

/** @type {Latency['tables']} */
export function tables (results) {
  const rows = QUEUES.map(contender => ({ contender })).filter(trial => results.has(trial)).map(trial => [
    contenders[trial.contender].label,
    ...FIGURES.map(figure => spread(results.values(trial, figure))),
    number(results.ratio(trial, { contender: 'bullmq' }, 'p50Us'))
  ])
  return [
    'The call of `add` in one process, the first line of the route\'s handler in another one. ' +
      'Nothing else is under way.',
    table(['', 'median, µs', '90 %, µs', '99 %, µs', '× BullMQ'], rows)
  ]
}

/** @type {Latency['goals']} */
export function goals (results) {
  /**
   * @param {QueueName} contender
   * @param {keyof LatencyFigures} figure
   */
  const over = (contender, figure) => results.ratio({ contender: 'ours' }, { contender }, figure)
  return [
    atMost(0.6, 'median, × BullMQ', over('bullmq', 'p50Us')),
    atMost(1, 'median, × Bee-Queue', over('bee', 'p50Us')),
    atMost(0.6, '99 %, × BullMQ', over('bullmq', 'p99Us')),
    atMost(1, '99 %, × Bee-Queue', over('bee', 'p99Us'))
  ]
}
