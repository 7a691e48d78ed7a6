import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { Maker, type PrometheusClient } from './client.js'
import { Counters } from './counters.js'
import { makeGauges } from './gauges.js'

export type { PrometheusClient }

export interface MetricsOptions {
  /** The client of Prometheus that the app uses: `prom-client` or `@prometheus-io/client`. */
  client: PrometheusClient
  /** The registry of that client which gets the metrics. @default the client's own */
  register?: object
  /** The beginning of the names of the metrics. @default taskqueue_ */
  prefix?: string
}

/**
 * The metrics in one registry. Several apps of a process may share them. Counting goes on for as long as one of them is
 * open.
 */
class Metrics {
  readonly #apps = new Set<FastifyInstance>()
  readonly #counters: Counters

  constructor (make: Maker) {
    this.#counters = new Counters(make)
    makeGauges(make, this.#apps)
  }

  add (app: FastifyInstance): void {
    if (this.#apps.size === 0) this.#counters.begin()
    this.#apps.add(app)
  }

  remove (app: FastifyInstance): void {
    this.#apps.delete(app)
    if (this.#apps.size === 0) this.#counters.end()
  }
}

/** By registry and prefix. */
const known = new WeakMap<object, Map<string, Metrics>>()

function metricsIn (client: PrometheusClient, register: object, prefix: string): Metrics {
  const ofRegister = known.get(register) ?? new Map<string, Metrics>()
  known.set(register, ofRegister)
  const metrics = ofRegister.get(prefix) ?? new Metrics(new Maker(client, register, prefix))
  ofRegister.set(prefix, metrics)
  return metrics
}

/**
 * Registers metrics of the task queue with the app's client of Prometheus. Register it after `fastify-taskqueue`. It
 * adds no route: the app serves its registry.
 */
const metrics = async (app: FastifyInstance, options: MetricsOptions): Promise<void> => {
  const { client, register = client?.register, prefix = 'taskqueue_' } = options
  const isClient = [client?.Counter, client?.Gauge, client?.Histogram].every(made => typeof made === 'function')
  if (!isClient) {
    throw new FST_TASKQUEUE_INVALID_OPTION('client', 'the module prom-client or @prometheus-io/client', show(client))
  }
  if (typeof prefix !== 'string' || !/^[A-Za-z_][A-Za-z0-9_]*$/.test(prefix)) {
    throw new FST_TASKQUEUE_INVALID_OPTION('prefix', 'letters, digits and _', show(prefix))
  }
  const shared = metricsIn(client, register, prefix)
  shared.add(app)
  app.addHook('onClose', async () => { shared.remove(app) })
}

export default fp(metrics, {
  fastify: '5.x', name: 'fastify-taskqueue-metrics', dependencies: ['fastify-taskqueue']
})
