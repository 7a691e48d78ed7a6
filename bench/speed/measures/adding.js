import { contenders } from '../contenders.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { payloadOf } from '../route.js'
import { forEachOf, range } from '../../support/statistics.js'
import { atLeast, atMost, number, spread, table } from '../../support/text.js'

export const title = 'Adding tasks'

const ADDERS = ['ours', 'ours-local', 'bullmq', 'bee', 'platformatic', 'platformatic-local']

/** How tasks are added: so many at a time, by so many calls at once. */
const WAYS = {
  single: { title: 'One at a time', share: 0.25, atOnce: 1 },
  flight: { title: '50 in flight', share: 1, atOnce: 50 },
  hundred: { title: '100 in one step', share: 1, atOnce: 1, size: 100, adders: ['ours', 'ours-local', 'bullmq', 'bee'] },
  thousand: { title: '1,000 in one step', share: 1, atOnce: 1, size: 1000, adders: ['ours', 'ours-local', 'bullmq', 'bee'] }
}

export function trials () {
  return Object.entries(WAYS).flatMap(([way, { adders = ADDERS }]) => adders.map(contender => ({ contender, way })))
}

export async function measure (stage, { contender, way }, { tasks }) {
  const redis = contenders[contender].usesRedis ? (await stage.redis()).path : undefined
  return await stage.play('adder', { contender, redis, way, tasks: Math.max(1000, tasks * WAYS[way].share) }).result
}

const WARM_UP = 30_000

export const roles = {
  async adder ({ contender, redis, way, tasks }) {
    const { atOnce, size = 1 } = WAYS[way]
    const queue = await contenders[contender].open({ redis, concurrency: 1, onTask () {} })
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
    return { perSecond: 1e6 / us, us, nodeUs, ...await meter?.read(tasks) ?? { redisUs: 0, commands: 0, bytesIn: 0, bytesOut: 0 } }
  }
}

const HEADS = ['', 'tasks/s', '× BullMQ', '× Bee-Queue', 'µs/task', 'CPU of Node, µs/task', 'CPU of Redis, µs/task', 'commands/task', 'bytes to Redis/task']

export function tables (results, _environment, { drain }) {
  const ways = Object.entries(WAYS).flatMap(([way, { title }]) => {
    const rows = ADDERS.map(contender => ({ contender, way })).filter(trial => results.has(trial)).map(trial => [
      contenders[trial.contender].label,
      spread(results.values(trial, 'perSecond')),
      ...['bullmq', 'bee'].map(contender => number(results.ratio(trial, { contender, way }, 'perSecond'))),
      ...['us', 'nodeUs', 'redisUs', 'commands', 'bytesIn'].map(figure => number(results.median(trial, figure)))
    ])
    return [`### ${title}, of ${payloadBytes} bytes`, table(HEADS, rows)]
  })
  if (drain === undefined) return ways
  const rows = ['ours', 'bullmq', 'bee', 'platformatic'].map(contender => [
    contenders[contender].label, ...CONCURRENCIES.map(concurrency => number(commandsOf(contender, concurrency, results, drain)))
  ])
  return [
    ...ways, '### Added one at a time, and run',
    table(['commands/task in all', ...CONCURRENCIES.map(concurrency => `run at concurrency ${concurrency}`)], rows)
  ]
}

const CONCURRENCIES = [1, 10, 50]

function commandsOf (contender, concurrency, results, drain) {
  const [adding, running] = [[results, { contender, way: 'single' }], [drain, { contender, concurrency }]]
    .map(([results, trial]) => results.has(trial) ? results.median(trial, 'commands') : NaN)
  return adding + running
}

const payloadBytes = JSON.stringify(payloadOf(0)).length

export function goals (results, { drain }) {
  const over = way => results.ratio({ contender: 'ours', way }, { contender: 'bullmq', way }, 'perSecond')
  return [
    atLeast(3, '× BullMQ, 50 in flight', over('flight')),
    atLeast(8, '× BullMQ, 1,000 in one step', over('thousand')),
    // Each is added by two scripts.
    ...CONCURRENCIES.map(concurrency => atMost(8, `commands within scripts for a task that is added alone, and run at concurrency ${concurrency}`,
      drain === undefined ? NaN : commandsOf('ours', concurrency, results, drain) - 2))
  ]
}
