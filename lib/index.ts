import { AsyncLocalStorage } from 'node:async_hooks'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { attemptWith } from './run/attempt.js'
import { Commits } from './add/commits.js'
import { Composer } from './add/composer.js'
import { Consumer, type InContext } from './run/consumer.js'
import { dispatchOf, guardHeaders, hideTaskRoutes, taskOnly, type RequestTask } from './dispatch/dispatch.js'
import { FST_TASKQUEUE_NOT_A_TASK, FST_TASKQUEUE_NO_USER, FST_TASKQUEUE_USER_GONE } from './errors.js'
import { exchangers } from './dispatch/exchange.js'
import { startHeartbeat, type Heartbeat } from './run/heartbeat.js'
import { Isolation } from './run/isolation.js'
import { LocalStore } from './store/local/store.js'
import { Lookout } from './queue/lookout.js'
import { makeCodec, type Codec } from './task/codec.js'
import { readOptions, type Settings, type TaskqueueOptions } from './plugin/options.js'
import { Queues } from './queue/queue.js'
import { bindToReply } from './add/commit-on-reply.js'
import { RouteWarnings } from './dispatch/route-warnings.js'
import { addTaskRoutes } from './add/task-route.js'
import type { Store } from './store/store.js'
import { adderOf, lookerOf, MOST_AT_ONCE, runnerOf, type Taskqueue } from './plugin/app-taskqueue.js'
import { TaskTransaction, type AddedTask, type Prepare, type Transaction } from './add/transaction.js'

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
  // What runs tasks runs in this asynchronous context, and in nobody's who has added, woken or awaited something.
  const inContext = AsyncLocalStorage.snapshot()
  const settings = readOptions(options)
  const codec = makeCodec(settings)
  const queues = new Queues(settings, codec)
  const lookout = new Lookout(queues.all, codec)
  const consumed = settings.queues.filter(({ consumer }) => consumer !== false).map(({ name }) => name)
  const warnings = new RouteWarnings(app, consumed)
  const composer = new Composer(app, queues, codec, settings, warnings)
  const commits = new Commits(settings.commitTimeoutMs)
  const added: AddedTask[] = []
  const note = settings.noteAdded ? (tasks: readonly AddedTask[]) => { added.push(...tasks) } : undefined
  const outsideOfRequests = () => new TaskTransaction(composer.alone, commits, app.log, MOST_AT_ONCE, note)
  const closed = outsideOfRequests()
  closed.close()

  guardHeaders(app)
  app.addConstraintStrategy(taskOnly(app))
  hideTaskRoutes(app)
  addTaskRoutes(app, queues)
  app.decorateRequest('task', { getter () { return dispatchOf(this.raw)?.task ?? null } })
  app.decorate('verifyTask', verifyWith(settings))
  const consumers = new Map<string, Consumer>()
  app.decorate<Taskqueue>('taskqueue', { ...adderOf(outsideOfRequests, added), ...lookerOf(queues, lookout), ...runnerOf(app, queues, consumers) })
  bindToReply(app, {
    begin: request => new TaskTransaction(composer.within(request), commits, request.log, settings.maxTasksPerRequest, note),
    isAborted: request => dispatchOf(request.raw)?.halt.reason !== undefined,
    prepareFor,
    closed
  })
  // Before the consumers, so that a task that waits for another one ends with them.
  app.addHook('preClose', async () => { lookout.close() })
  consume(app, settings, queues, codec, consumers, warnings, inContext, commits)
}

/** What a task adds to its own store waits for the task to be settled, and is stored in the same step. */
function prepareFor (request: FastifyRequest): Prepare | undefined {
  const context = dispatchOf(request.raw)
  if (context === undefined) return undefined
  return async (store, tasks) => {
    if (store !== context.store) return await store.prepare(tasks)
    return { keptOut: [], commit: async () => { context.chain.push(...tasks) }, rollback () {} }
  }
}

/** Opens the stores before the app is ready, consumes when it is, and ends both as it closes. */
function consume (
  app: FastifyInstance, settings: Settings, queues: Queues, codec: Codec, byQueue: Map<string, Consumer>,
  warnings: RouteWarnings, inContext: InContext, commits: Commits
): void {
  const { stores } = queues
  const isolation = new Isolation()
  const heartbeats = new Map<Store, Heartbeat>()
  for (const { name, consumer } of settings.queues) {
    if (consumer === false) continue
    const { store } = queues.get(name)
    const { keep, keepDead } = settings
    const exchanger = exchangers[settings.dispatch]
    const attempt = attemptWith({ app, queue: name, store, codec, exchanger, keep, policy: consumer, warnings })
    const limits = { ...consumer, keep, keepDead }
    byQueue.set(name, new Consumer(name, store, attempt, isolation, app.log, limits, inContext))
  }
  const consumers = [...byQueue.values()]
  const storeOf = ({ queue }: Consumer) => queues.get(queue).store

  app.addHook('onReady', async () => {
    await inContext(async () => {
      await Promise.all(stores.map(store => store.open()))
      await Promise.all(consumers.map(consumer => consumer.watch(() => { heartbeats.get(storeOf(consumer))?.beat() })))
    })
    if (settings.secrets.length === 0 && settings.queues.some(({ type }) => type !== 'local')) {
      const copied = settings.copyHeaders === false ? '' : ', with the cookies and authorization headers that they copy'
      app.log.warn(`the option secrets is not set: tasks are stored in clear${copied}, and whoever can write to their store can make this app run requests as any user`)
    }
    // Later, and not awaited here: the first task is to find every other plugin ready too.
    app.ready(error => { if (error === null || error === undefined) inContext(start) })
  })

  const start = () => {
    for (const store of stores) {
      const ofStore = consumers.filter(consumer => storeOf(consumer) === store)
      if (ofStore.length > 0) heartbeats.set(store, startHeartbeat(store, ofStore, app.log, inContext))
    }
    for (const { name, consumer } of settings.queues) if (consumer !== false && consumer.autoStart) byQueue.get(name)!.start()
  }

  // Before the plugins close that tasks depend on. Fastify gives a hook no longer than this.
  app.addHook('preClose', async () => {
    const { pluginTimeout = 10_000 } = app.initialConfig
    const longestMs = pluginTimeout === 0 ? Infinity : pluginTimeout - 1000
    await Promise.all(consumers.map(consumer => consumer.stop(longestMs)))
  })

  // After the last request, which may add tasks.
  app.addHook('onClose', async () => {
    const left = await commits.close()
    if (left > 0) app.log.error({ commits: left }, 'the app closes before commits have ended: their tasks may not be stored')
    for (const heartbeat of heartbeats.values()) heartbeat.stop()
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
export { storeConformance, type ConformanceTest } from './store/conformance/conformance.js'
export { CANCELLED_MS, RECORD_LIMIT } from './store/store.js'
export type { Answer } from './dispatch/answer.js'
export type { Page, Queue } from './queue/queue.js'
export type { AttemptStatus, TaskStatus } from './queue/status.js'
export type { RequestTask } from './dispatch/dispatch.js'
export type { CopyHeaders } from './add/inheritance.js'
export type { RedisLocation } from './store/redis/redis-store.js'
export type { ConsumerOptions, QueueOptions, QueueType, Secret, TaskqueueOptions, UserOptions } from './plugin/options.js'
export type {
  Counts, Found, Held, Holding, Keep, Lease, NewTask, News, OnDuplicate, Order, Outlook, Prepared, Pulse, Settlement, State, Store, Turn, TurnResult, Verdict
} from './store/store.js'
export type { Taskqueue } from './plugin/app-taskqueue.js'
export type { TaskDefaults, TaskInput, TaskRoute } from './add/task-route.js'
export type { AddOptions, TaskMethod } from './task/task.js'
export type { AddedTask, CommitResult, Participant, Savepoint, TaskToAdd, Transaction } from './add/transaction.js'
export type { Backoff } from './task/verdict.js'
