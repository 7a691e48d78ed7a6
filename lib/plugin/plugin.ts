import { AsyncLocalStorage } from 'node:async_hooks'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import fp from 'fastify-plugin'
import { bindToReply } from '../add/commit-on-reply.js'
import { chainTo } from '../add/chain.js'
import { Composer } from '../add/compose.js'
import { OpenCommits } from '../add/open-commits.js'
import { tellDeadBy } from '../add/on-dead.js'
import { rehearse } from '../add/rehearsal.js'
import { TaskConfigs } from '../add/task-config.js'
import { addTaskRoutes } from '../add/task-decorator.js'
import type { AddedTask } from '../add/added.js'
import { type Prepare, TaskTransaction, type Transaction } from '../add/transaction.js'
import { dispatchOf, guardHeaders, type RequestTask } from '../dispatch/identity.js'
import { bindRequestLog } from '../dispatch/request-log.js'
import { RouteWarnings } from '../dispatch/route-warnings.js'
import { hideTaskRoutes, taskOnly } from '../dispatch/task-only.js'
import {
  FST_TASKQUEUE_ALREADY_REGISTERED, FST_TASKQUEUE_INVALID_SCHEDULE, FST_TASKQUEUE_NO_USER, FST_TASKQUEUE_NOT_A_TASK,
  FST_TASKQUEUE_USER_GONE
} from '../errors.js'
import { Queue } from '../queue/queue.js'
import { Queues } from '../queue/queues.js'
import { TaskWaiter } from '../queue/task-waiter.js'
import type { ComposeTask, ScheduleOptions } from '../schedule/plan.js'
import { Schedules } from '../schedule/schedules.js'
import { makeCodec } from '../task/codec.js'
import type { Task } from '../task/task.js'
import {
  createAdder, createInspector, createPlanner, createRunner, MOST_AT_ONCE, type Taskqueue
} from './app-taskqueue.js'
import { healthOf } from './health.js'
import type { TaskqueueOptions } from './options.js'
import { Runtime } from './runtime.js'
import { DEFAULT_PREFIX, readOptions, type Settings } from './settings.js'
import { createStores, type KeptQueue } from './stores.js'

declare module 'fastify' {
  interface FastifyInstance {
    readonly taskqueue: Taskqueue
    /**
     * Authenticates a task as the user who queued it, and sets `request.user`. It is a strategy for `@fastify/auth`, or
     * a hook by itself, whatever the server's type. Rejects with `FST_TASKQUEUE_NOT_A_TASK`, `FST_TASKQUEUE_NO_USER` or
     * `FST_TASKQUEUE_USER_GONE`.
     */
    verifyTask (request: Pick<FastifyRequest, 'task'>): Promise<void>
  }
  interface FastifyRequest {
    /** Adds tasks to this request. They are queued if it succeeds, and otherwise not. */
    readonly taskqueue: Transaction
    /** The task that this request is; null on an ordinary request. */
    readonly task: RequestTask | null
  }
}

declare module 'fastify/types/route.js' {
  interface RouteConstraint {
    /** The route exists for tasks only. Any other request gets the same 404 as for an unknown path. */
    taskOnly?: true
  }
}

const taskqueue = async (app: FastifyInstance, options: TaskqueueOptions): Promise<void> => {
  // Tasks run in this asynchronous context, and not in that of a caller that adds, wakes or awaits something.
  const inContext = AsyncLocalStorage.snapshot()
  const settings = readOptions(options)
  if (app.hasConstraintStrategy('taskOnly')) throw new FST_TASKQUEUE_ALREADY_REGISTERED()
  const internals = rehearse(app)
  const kept = await createStores(settings, app.log)
  const codec = makeCodec(settings)
  const all = kept.map(({ name, store, location }) => new Queue(name, store, codec, location))
  const queues = new Queues(all, settings.keep)
  const waiter = new TaskWaiter(queues, codec)
  const consumed = settings.queues.filter(({ consumer }) => consumer !== false).map(({ name }) => name)
  const mayBeShared = settings.prefix === DEFAULT_PREFIX && kept.some(({ isVolatile }) => !isVolatile)
  const warnings = new RouteWarnings(app, consumed, mayBeShared)
  const strategy = taskOnly(app)
  const configs = new TaskConfigs(app, queues, strategy)
  const composer = new Composer(app, queues, configs, codec, settings, warnings, internals)
  const commits = new OpenCommits(settings.commitTimeoutMs)
  const added: AddedTask[] = []
  const note = settings.noteAdded ? (tasks: readonly AddedTask[]) => { added.push(...tasks) } : undefined
  const outsideOfRequests = () => new TaskTransaction(composer.alone, commits, app.log, MOST_AT_ONCE, note)
  const closed = outsideOfRequests()
  closed.close()
  const tellDead = tellDeadBy(task => configs.of(task)?.onDead ?? settings.onDead, task =>
    new TaskTransaction(composer.after(task), commits, app.log, settings.maxTasksPerRequest, note))
  const backoffOf = (task: Task) => configs.backoffOf(task)
  let declared: ReadonlyMap<string, ScheduleOptions> | undefined = settings.schedules
  const schedules = new Schedules(queues, codec, composer.alone as ComposeTask)
  const runtime = new Runtime(app, settings, queues, codec, { warnings, backoffOf, tellDead }, inContext)

  guardHeaders(app)
  bindRequestLog(app)
  app.addConstraintStrategy(strategy)
  hideTaskRoutes(app)
  addTaskRoutes(app, (id, schedule) => {
    if (!declared?.has(id)) declared = new Map([...declared ?? [], [id, schedule]])
    else throw new FST_TASKQUEUE_INVALID_SCHEDULE(id, 'it is declared twice')
  })
  app.decorateRequest('task', { getter () { return dispatchOf(this.raw)?.task ?? null } })
  app.decorate('verifyTask', verifyWith(settings))
  app.decorate<Taskqueue>('taskqueue', {
    ...createAdder(outsideOfRequests, added),
    ...createInspector(queues, codec, waiter, healthOf(queues, codec, runtime.consumers)),
    ...createPlanner(schedules),
    ...createRunner(app, queues, runtime.consumers)
  })
  bindToReply(app, internals, {
    begin: request =>
      new TaskTransaction(composer.within(request), commits, request.log, settings.maxTasksPerRequest, note),
    isAborted: request => dispatchOf(request.raw)?.aborter.reason !== undefined,
    prepareFor,
    closed
  })

  app.addHook('onReady', async () => {
    await inContext(() => runtime.open())
    if (declared !== undefined) await schedules.declare(declared, settings.scheduleRevision, consumed, app.log)
    warnOfClearText(app, settings, kept)
    // The consumers start later, and this hook does not await it: the first task should find every other plugin ready.
    app.ready(error => { if (error === null || error === undefined) inContext(() => { runtime.start() }) })
  })
  // Consumers stop before the plugins close that tasks depend on, and within the time that Fastify gives a hook.
  const stop = async () => {
    // Waits end first, so that a task that waits for another one can end while the consumers stop.
    waiter.close()
    const { pluginTimeout = 10_000 } = app.initialConfig
    await runtime.stop(pluginTimeout === 0 ? Infinity : pluginTimeout - 1000)
  }
  app.addHook('preClose', stop)
  // Stores close after the last request, which may add tasks.
  app.addHook('onClose', async () => {
    const left = await commits.close()
    if (left > 0) {
      app.log.error({ commits: left }, 'the app closes before commits have ended: their tasks may not be stored')
    }
    await warnOfLosses(app, kept)
    await runtime.close()
  })
  // Fastify calls no further preClose hook once one of another plugin has failed.
  app.addHook('onClose', stop)
}

/** Tasks that a task adds to its own store wait until it is settled, and are stored in the same step. */
function prepareFor (request: FastifyRequest): Prepare | undefined {
  const context = dispatchOf(request.raw)
  if (context === undefined) return undefined
  return chainTo(context.chain, context.store)
}

function verifyWith ({ user }: Settings) {
  return async (request: FastifyRequest): Promise<void> => {
    const { task } = request
    if (task === null) throw new FST_TASKQUEUE_NOT_A_TASK()
    if (task.userId === undefined) throw new FST_TASKQUEUE_NO_USER()
    const loaded = await user.load(task.userId, request)
    if (loaded === undefined || loaded === null || loaded === false) throw new FST_TASKQUEUE_USER_GONE();
    (request as { user?: unknown }).user = loaded
  }
}

function warnOfClearText (app: FastifyInstance, settings: Settings, queues: readonly KeptQueue[]): void {
  const { secrets, copyHeaders } = settings
  if (secrets.length > 0 || queues.every(({ isVolatile }) => isVolatile)) return
  const names = ['cookie', 'authorization']
  const isListed = Array.isArray(copyHeaders) && !copyHeaders.some(name => names.includes(name.toLowerCase()))
  const copied = copyHeaders === false || isListed ? '' : ', with the cookies and authorization headers that they copy'
  const danger = 'anybody who can write to their store can make this app run requests as any user'
  app.log.warn(`the option secrets is not set: tasks are stored in clear${copied}, and ${danger}`)
}

async function warnOfLosses (app: FastifyInstance, queues: readonly KeptQueue[]): Promise<void> {
  for (const { name: queue, store, isVolatile } of queues) {
    if (!isVolatile) continue
    const [{ waiting, delayed } = { waiting: 0, delayed: 0 }] = await store.counts([queue])
    if (waiting + delayed === 0) continue
    app.log.warn({ queue, waiting, delayed }, 'tasks of a local queue are lost with its process')
  }
}

export default fp(taskqueue, { fastify: '5.x', name: 'fastify-taskqueue' })
