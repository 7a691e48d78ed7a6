import { setTimeout as sleep } from 'node:timers/promises'
import { contenders } from '../contenders.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { inject, makeApp, payloadOf } from '../route.js'
import { forEachOf, range } from '../../support/statistics.js'
import { Tally } from '../tally.js'
import { atLeast, number, spread, table } from '../../support/text.js'

export const title = 'Draining waiting tasks'

export function trials () {
  return [1, 10, 50].flatMap(concurrency => Object.keys(contenders).map(contender => ({ contender, concurrency })))
}

export async function measure (stage, { contender, concurrency }, { tasks }) {
  const { usesRedis } = contenders[contender]
  const redis = usesRedis ? (await stage.redis()).path : undefined
  return await stage.play(contender === 'bare' ? 'loop' : 'drain', { contender, redis, concurrency, tasks }).result
}

const WARM_UP = 20_000

export const roles = {
  /** Requests without a queue. */
  async loop ({ concurrency, tasks }) {
    let tally = new Tally(WARM_UP)
    const app = makeApp(n => { tally.note(n) })
    await app.ready()
    await forEachOf(WARM_UP, concurrency, n => inject(app, payloadOf(n)))
    let before
    tally = new Tally(tasks, { onFirst () { before = process.cpuUsage() } })
    await forEachOf(tasks, concurrency, n => inject(app, payloadOf(n)))
    tally.check()
    return { perSecond: tally.perSecond, nodeUs: cpuUs(before) / tasks, redisUs: 0, commands: 0, bytesIn: 0, bytesOut: 0 }
  },

  async drain ({ contender, redis, concurrency, tasks }) {
    await drain({ contender, redis, concurrency, tasks: WARM_UP })
    return await drain({ contender, redis, concurrency, tasks })
  }
}

async function drain ({ contender, redis, concurrency, tasks }) {
  let before
  const tally = new Tally(tasks, { onFirst () { before = process.cpuUsage() } })
  const queue = await contenders[contender].open({ redis, concurrency, onTask: tally.note })
  const meter = redis === undefined ? undefined : new RedisMeter(redis)
  await queue.addAll(range(tasks))
  await meter?.start()
  await queue.start()
  await tally.done
  const nodeUs = cpuUs(before) / tasks
  // Until Redis has heard of the last ones.
  await sleep(50)
  const figures = await meter?.read(tasks) ?? { redisUs: 0, commands: 0, bytesIn: 0, bytesOut: 0 }
  tally.check()
  await queue.close()
  await meter?.flush()
  await meter?.close()
  return { perSecond: tally.perSecond, nodeUs, ...figures }
}

export function tables (results, { tasks }) {
  return [1, 10, 50].flatMap(concurrency => {
    const rows = Object.entries(contenders).filter(([contender]) => results.has({ contender, concurrency })).map(([contender, { label }]) => {
      const trial = { contender, concurrency }
      const ratio = other => number(results.ratio(trial, { contender: other, concurrency }, 'perSecond'))
      return [
        label, spread(results.values(trial, 'perSecond')), ratio('bare'), ratio('bullmq'),
        ...['nodeUs', 'redisUs', 'commands', 'bytesIn', 'bytesOut'].map(figure => number(results.median(trial, figure)))
      ]
    })
    return [`### ${tasks.toLocaleString('en')} tasks, concurrency ${concurrency}`, table(HEADS, rows)]
  })
}

const HEADS = [
  '', 'tasks/s', '× `app.inject`', '× BullMQ', 'CPU of Node, µs/task', 'CPU of Redis, µs/task', 'commands/task', 'bytes to Redis/task', 'bytes from Redis/task'
]

export function goals (results) {
  const over = (contender, other, concurrency) => results.ratio({ contender, concurrency }, { contender: other, concurrency }, 'perSecond')
  return [
    atLeast(1, '× `app.inject`, concurrency 1', over('ours', 'bare', 1)),
    ...[10, 50].map(concurrency => atLeast(1.5, `× \`app.inject\`, concurrency ${concurrency}`, over('ours', 'bare', concurrency))),
    ...[1, 10, 50].map(concurrency => atLeast(5, `× BullMQ, concurrency ${concurrency}`, over('ours', 'bullmq', concurrency))),
    atLeast(2, '× BullMQ with an empty handler, concurrency 10', over('ours', 'bullmq-empty', 10)),
    ...[1, 10, 50].map(concurrency => atLeast(2, `local × \`app.inject\`, concurrency ${concurrency}`, over('ours-local', 'bare', concurrency)))
  ]
}
