import type { FastifyInstance } from 'fastify'
import { exchangers } from '../dispatch/exchange.js'
import { publishTo, type Publish } from '../observe/events.js'
import { logTo } from '../observe/log.js'
import type { Queues } from '../queue/queues.js'
import { attemptWith, type Routes } from '../run/attempt.js'
import { Consumer } from '../run/consumer.js'
import type { InContext } from '../run/context.js'
import { startHeartbeat, type Heartbeat } from '../run/heartbeat.js'
import { Isolation } from '../run/isolation.js'
import { Scheduler } from '../schedule/scheduler.js'
import type { Store } from '../store/store.js'
import type { Codec } from '../task/codec.js'
import type { Settings } from './settings.js'

/** How often to look for dead letters that have become too old. */
const DROP_MS = 60_000

/**
 * Runs the tasks of an app: with a consumer for each queue that the app consumes, and a heartbeat for each of their
 * stores.
 */
export class Runtime {
  /** By the names of their queues. */
  readonly consumers: ReadonlyMap<string, Consumer>
  readonly #settings: Settings
  readonly #queues: Queues
  readonly #log: FastifyInstance['log']
  readonly #publish: Publish
  readonly #inContext: InContext
  readonly #heartbeats = new Map<Store, Heartbeat>()
  #dropping: NodeJS.Timeout | undefined
  #stopped: Promise<unknown> | undefined

  constructor (
    app: FastifyInstance, settings: Settings, queues: Queues, codec: Codec, routes: Routes, inContext: InContext
  ) {
    this.#settings = settings
    this.#queues = queues
    this.#log = app.log
    const publish = this.#publish = publishTo(logTo(app.log))
    this.#inContext = inContext
    const { keep, keepDead } = settings
    const exchanger = exchangers[settings.dispatch]
    const isolation = new Isolation()
    const consumers = new Map<string, Consumer>()
    for (const { name, consumer } of settings.queues) {
      if (consumer === false) continue
      const { store } = queues.get(name)
      const shared = { app, store, codec, exchanger, keep, routes, publish }
      const attempt = attemptWith({ ...shared, queue: name, policy: consumer })
      const limits = { ...consumer, keep, keepDead }
      const schedulerWith = (onRest: () => void) => new Scheduler(name, { store, codec, keep, publish, onRest })
      consumers.set(name, new Consumer(name, store, attempt, isolation, publish, limits, inContext, schedulerWith))
    }
    this.consumers = consumers
  }

  /** Opens all stores, sets the limits that are given for queues, and makes each consumer watch its queue. */
  async open (): Promise<void> {
    const { stores } = this.#queues
    await Promise.all(stores.map(store => store.open()))
    await Promise.all(this.#settings.queues.map(async ({ name, limits }) => {
      if (limits !== undefined) await this.#queues.get(name).store.operate(name, { kind: 'limit', limits })
    }))
    await Promise.all([...this.consumers.values()].map(consumer =>
      consumer.watch(() => { this.#heartbeats.get(this.#storeOf(consumer))?.beat() })))
  }

  /** Starts the heartbeats, and the consumers whose `autoStart` is set. */
  start (): void {
    const consumers = [...this.consumers.values()]
    for (const store of new Set(consumers.map(consumer => this.#storeOf(consumer)))) {
      const ofStore = consumers.filter(consumer => this.#storeOf(consumer) === store)
      this.#heartbeats.set(store, startHeartbeat(store, ofStore, this.#publish, this.#inContext))
    }
    for (const { name, consumer } of this.#settings.queues) {
      if (consumer === false || !consumer.autoStart) continue
      const { location } = this.#queues.get(name)
      const { name: consumerName, concurrency } = consumer
      this.#publish('consumer:start', { queue: name, consumer: consumerName, concurrency, location })
      this.consumers.get(name)!.start()
    }
    // A queue in which nothing happens would keep dead letters longer.
    const { ms = Infinity } = this.#settings.keepDead ?? {}
    const wakeAll = () => { for (const consumer of consumers) consumer.wake() }
    if (ms < Infinity) this.#dropping = setInterval(wakeAll, Math.min(ms, DROP_MS))
  }

  /** Stops all claims, and waits for the running tasks, at most `longestMs`. A further call waits for the first. */
  async stop (longestMs: number): Promise<void> {
    clearInterval(this.#dropping)
    this.#stopped ??= Promise.all([...this.consumers.values()].map(consumer => consumer.stop(longestMs)))
    await this.#stopped
  }

  async close (): Promise<void> {
    for (const heartbeat of this.#heartbeats.values()) heartbeat.stop()
    await Promise.all(this.#queues.stores.map(async store => {
      await store.close().catch(err => { this.#log.error({ err }, 'store did not close cleanly') })
    }))
  }

  #storeOf ({ queue }: Consumer): Store {
    return this.#queues.get(queue).store
  }
}
