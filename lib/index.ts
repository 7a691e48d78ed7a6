import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { attemptWith } from './attempt.js'
import { Composer } from './composer.js'
import { Consumer } from './consumer.js'
import { dispatchOf, guardHeaders, hideTaskRoutes, taskOnly, type RequestTask } from './dispatch.js'
import { FST_TASKQUEUE_NOT_A_TASK, FST_TASKQUEUE_NO_USER, FST_TASKQUEUE_USER_GONE } from './errors.js'
import { exchangers } from './exchange.js'
import { startHeartbeat } from './heartbeat.js'
import { Isolation } from './isolation.js'
import { LocalStore } from './local-store.js'
import { makeCodec, type Codec } from './message.js'
import { readOptions, type Settings, type TaskqueueOptions } from './options.js'
import { Queues, type Queue } from './queue.js'
import { bindToReply, kTransaction } from './reply.js'
import type { AddOptions } from './task.js'
import { TaskTransaction, type Prepare, type Transaction } from './transaction.js'

/** The queues of an app, for use outside of requests. */
export interface Taskqueue {
  /** Queues one task at once. There is no current request to copy anything from, and no user. */
  add (url: string, options?: AddOptions): Promise<string>
  /** Runs a function and queues what it has added when it succeeds; returns what it returns. */
  transaction<T> (run: (transaction: Transaction) => T | PromiseLike<T>): Promise<T>
  /** Throws `FST_TASKQUEUE_UNKNOWN_QUEUE` unless there is a queue of that name. */
  queue (name: string): Queue
  /** All queues, in the order of their names. */
  readonly queues: readonly Queue[]
}

declare module 'fastify' {
  interface FastifyInstance {
    readonly taskqueue: Taskqueue
    /** Authenticates a task as the user who queued it: a strategy for `@fastify/auth`, or a hook by itself, whatever the server's type. */
    verifyTask (request: Pick<FastifyRequest, 'task'>): Promise<void>
  }
  interface FastifyRequest {
    /** The tasks that this request adds: queued when it succeeds, and otherwise not. */
    readonly taskqueue: Transaction
    /** The task that this request is; null on an ordinary request. */
    readonly task: RequestTask | null
  }
}

declare module 'fastify/types/route.js' {
  interface RouteConstraint {
    /** The route exists for tasks only; any other request gets the same 404 as for an unknown path. */
    taskOnly?: true
  }
}

const taskqueue = async (app: FastifyInstance, options: TaskqueueOptions): Promise<void> => {
  const settings = readOptions(options)
  const codec = makeCodec(settings)
  const queues = new Queues(settings)
  const composer = new Composer(queues, codec, settings)
  const outsideOfRequests = () => new TaskTransaction(composer.alone, settings.commitTimeoutMs, app.log)
  const closed = outsideOfRequests()
  closed.close()

  guardHeaders(app)
  app.addConstraintStrategy(taskOnly)
  hideTaskRoutes(app)
  app.decorateRequest('task', { getter () { return dispatchOf(this.raw)?.task ?? null } })
  app.decorateRequest('taskqueue', {
    getter () {
      this[kTransaction] ??= new TaskTransaction(composer.within(this), settings.commitTimeoutMs, this.log, settings.maxTasksPerRequest)
      return this[kTransaction]
    }
  })
  app.decorate('verifyTask', verifyWith(settings))
  app.decorate<Taskqueue>('taskqueue', taskqueueOf(queues, outsideOfRequests))
  bindToReply(app, {
    isAborted: request => request.task?.signal.aborted === true,
    prepareFor,
    closed
  })
  consume(app, settings, queues, codec)
}

/** What a task adds to its own store waits for the task to be settled, and is stored in the same step. */
function prepareFor (request: FastifyRequest): Prepare | undefined {
  const context = dispatchOf(request.raw)
  if (context === undefined) return undefined
  return async (store, tasks) => {
    if (store !== context.store) return await store.prepare(tasks)
    return { commit: async () => { context.chain.push(...tasks) }, rollback () {} }
  }
}

function taskqueueOf (queues: Queues, begin: () => TaskTransaction): Taskqueue {
  const transaction: Taskqueue['transaction'] = async run => {
    const transaction = begin()
    try {
      const result = await run(transaction)
      transaction.close()
      await transaction.commit()
      return result
    } catch (error) {
      transaction.close()
      await transaction.rollback()
      throw error
    }
  }
  return {
    add: (url, options) => transaction(transaction => transaction.add(url, options)),
    transaction,
    queue: name => queues.get(name),
    queues: queues.all
  }
}

/** Opens the stores before the app is ready, consumes when it is, and ends both as it closes. */
function consume (app: FastifyInstance, settings: Settings, queues: Queues, codec: Codec): void {
  const { stores } = queues
  const isolation = new Isolation()
  const consumers: Consumer[] = []
  const heartbeats: Array<() => void> = []
  for (const { name, consumer } of settings.queues) {
    if (consumer === false) continue
    const { store } = queues.get(name)
    consumers.push(new Consumer(name, store, attemptWith(app, name, store, codec, exchangers[settings.dispatch], consumer), isolation, app.log, consumer))
  }

  app.addHook('onReady', async () => {
    await Promise.all(stores.map(store => store.open()))
    await Promise.all(consumers.map(consumer => consumer.watch()))
    if (settings.secrets.length === 0 && settings.queues.some(({ type }) => type !== 'local')) {
      const copied = settings.copyHeaders === false ? '' : ', with the cookies and authorization headers that they copy'
      app.log.warn(`the option secrets is not set: tasks are stored in clear${copied}, and whoever can write to their store can make this app run requests as any user`)
    }
    // Later, and not awaited here: the first task is to find every other plugin ready too.
    app.ready(error => { if (error === null || error === undefined) start() })
  })

  const start = () => {
    for (const store of stores) {
      const ofStore = consumers.filter(({ queue }) => queues.get(queue).store === store)
      if (ofStore.length > 0) heartbeats.push(startHeartbeat(store, ofStore, app.log))
    }
    for (const consumer of consumers) consumer.start()
  }

  // Before the plugins close that tasks depend on. Fastify gives a hook no longer than this.
  app.addHook('preClose', async () => {
    const { pluginTimeout = 10_000 } = app.initialConfig
    const longestMs = pluginTimeout === 0 ? Infinity : pluginTimeout - 1000
    await Promise.all(consumers.map(consumer => consumer.stop(longestMs)))
  })

  // After the last request, which may add tasks.
  app.addHook('onClose', async () => {
    for (const stop of heartbeats) stop()
    await warnOfLosses(app, queues)
    await Promise.all(stores.map(async store => {
      await store.close().catch(err => { app.log.error({ err }, 'store did not close cleanly') })
    }))
  })
}

function verifyWith ({ user }: Settings) {
  return async (request: FastifyRequest): Promise<void> => {
    const { task } = request
    if (task === null) throw new FST_TASKQUEUE_NOT_A_TASK()
    if (task.userId === undefined) throw new FST_TASKQUEUE_NO_USER()
    const loaded = await user.load(task.userId, request)
    if (loaded === undefined || loaded === null) throw new FST_TASKQUEUE_USER_GONE();
    (request as { user?: unknown }).user = loaded
  }
}

async function warnOfLosses (app: FastifyInstance, queues: Queues): Promise<void> {
  for (const { name: queue, store } of queues.all) {
    if (!(store instanceof LocalStore)) continue
    const { waiting, delayed } = await store.counts(queue)
    if (waiting + delayed > 0) app.log.warn({ queue, waiting, delayed }, 'tasks of a local queue are lost with its process')
  }
}

const plugin = fp(taskqueue, { fastify: '5.x', name: 'fastify-taskqueue' })
export default plugin
export { plugin as taskqueue }
export * as errorCodes from './errors.js'
export { storeConformance, type ConformanceTest } from './conformance.js'
export { DEAD_LIMIT } from './store.js'
export type { Queue } from './queue.js'
export type { RequestTask } from './dispatch.js'
export type { CopyHeaders } from './inheritance.js'
export type { RedisLocation } from './redis-store.js'
export type { ConsumerOptions, QueueOptions, QueueType, Secret, TaskqueueOptions, UserOptions } from './options.js'
export type {
  Counts, Held, Holding, Lease, NewTask, Outlook, Prepared, Pulse, Settlement, Store, Turn, TurnResult, Verdict
} from './store.js'
export type { AddOptions, TaskMethod } from './task.js'
export type { Participant, Savepoint, Transaction } from './transaction.js'
export type { Backoff } from './verdict.js'
