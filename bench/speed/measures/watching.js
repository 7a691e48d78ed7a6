import { InMemorySpanExporter, NodeTracerProvider, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import * as client from 'prom-client'
import taskqueue from '../../../build/lib/index.js'
import metrics from '../../../build/lib/metrics/metrics.js'
import otel from '../../../build/lib/otel/otel.js'
import { range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { atLeast } from '../goals.js'
import { makeApp, PATH, payloadOf } from '../route.js'
import { Tally } from '../tally.js'

/** @import { Measure } from './index.js' */

/** @typedef {'nothing' | 'metrics' | 'traces' | 'spans'} Watcher */
/** @typedef {{ watcher: Watcher }} WatchingTrial */
/** @typedef {{ perSecond: number, nodeUs: number }} WatchingFigures */
/** @typedef {Measure<WatchingTrial, WatchingFigures, typeof roles>} Watching */

export const title = 'Draining while somebody watches'

/** @type {Record<Watcher, string>} */
const WATCHERS = {
  nothing: 'nobody',
  metrics: '`fastify-taskqueue/metrics`',
  traces: '`fastify-taskqueue/otel`, no SDK',
  spans: '`fastify-taskqueue/otel`, spans made and dropped'
}
const CONCURRENCY = 10

/** @type {Watching['trials']} */
export function trials () {
  return Object.keys(WATCHERS).map(watcher => ({ watcher: /** @type {Watcher} */ (watcher) }))
}

/** @type {Watching['measure']} */
export async function measure (stage, { watcher }, { tasks }) {
  return await stage.play('watched', { watcher, redis: (await stage.redis()).path, tasks }).result
}

const WARM_UP = 20_000

export const roles = {
  /** @param {{ watcher: Watcher, redis: string, tasks: number }} options */
  async watched (options) {
    if (options.watcher === 'spans') {
      const exporter = new InMemorySpanExporter()
      // It keeps none of them, so that only their making is measured.
      exporter.export = (_spans, done) => { done({ code: 0 }) }
      new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] }).register()
    }
    await drain({ ...options, tasks: WARM_UP })
    return await drain(options)
  }
}

/** @param {{ watcher: Watcher, redis: string, tasks: number }} options */
async function drain ({ watcher, redis, tasks }) {
  const tally = new Tally(tasks)
  const app = makeApp(tally.note)
  await app.register(taskqueue, { redis: { path: redis }, consumer: { concurrency: CONCURRENCY, autoStart: false } })
  if (watcher === 'metrics') await app.register(metrics, { client, register: new client.Registry() })
  if (watcher === 'traces' || watcher === 'spans') await app.register(otel)
  await app.ready()
  for (let n = 0; n < tasks; n += 1000) {
    await app.taskqueue.addAll(range(Math.min(1000, tasks - n)).map(i => ({ url: PATH, payload: payloadOf(n + i) })))
  }
  await app.taskqueue.drain()
  const { perSecond, nodeUs } = tally
  tally.check()
  await app.close()
  return { perSecond, nodeUs }
}

/** @type {Watching['tables']} */
export function tables (results, { tasks }) {
  const rows = trials({ tasks, rounds: 0, quick: false }).filter(trial => results.has(trial)).map(trial => [
    WATCHERS[trial.watcher], spread(results.values(trial, 'perSecond')),
    number(results.ratio(trial, { watcher: 'nothing' }, 'perSecond')), number(results.median(trial, 'nodeUs'))
  ])
  return [
    `${tasks.toLocaleString('en')} tasks on Redis at concurrency ${CONCURRENCY}, which one process adds and then runs.`,
    table(['who watches', 'tasks/s', '× nobody', 'CPU of Node, µs/task'], rows)
  ]
}

/** @type {Watching['goals']} */
export function goals (results) {
  const ratio = results.ratio({ watcher: 'metrics' }, { watcher: 'nothing' }, 'perSecond')
  return [atLeast(0.95, 'with metrics × with nobody', ratio)]
}
