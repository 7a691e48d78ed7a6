import type { FastifyInstance, FastifyRequest } from 'fastify'
import { dispatchOf } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import { FST_TASKQUEUE_TOO_DEEP } from '../errors.js'
import type { Queues } from '../queue/queues.js'
import type { Codec } from '../task/codec.js'
import { checkUserId } from '../task/id.js'
import type { AddOptions, Inheritance } from '../task/options.js'
import { laneOf, makeTask, MAX_REQ_ID_LENGTH, placeOf, type Task } from '../task/task.js'
import type { Internals } from './fastify-internals.js'
import { type CopyHeaders, inheritFrom, isSecure, withoutCredentials } from './inheritance.js'
import type { TaskConfigs } from './task-config.js'
import { TaskRoute } from './task-route.js'
import type { Added } from './added.js'
import type { Compose } from './transaction.js'

export interface ComposerSettings {
  readonly copyHeaders: CopyHeaders
  readonly maxDepth: number
  /** Returns the id of the user who makes a request. */
  readonly user: { readonly id: (request: FastifyRequest) => unknown }
}

/** Turns the arguments of `add` into a task that is checked, complete and ready for its store. */
export class Composer {
  readonly #queues: Queues
  readonly #configs: TaskConfigs
  readonly #codec: Codec
  readonly #settings: ComposerSettings
  readonly #warnings: RouteWarnings
  readonly #internals: Internals
  /** The origin of tasks that are added outside a request. */
  readonly #origin: Pick<Task, 'ip' | 'protocol'>

  constructor (
    app: FastifyInstance, queues: Queues, configs: TaskConfigs, codec: Codec, settings: ComposerSettings,
    warnings: RouteWarnings, internals: Internals
  ) {
    this.#internals = internals
    this.#origin = isSecure(app) ? { protocol: 'https' } : {}
    this.#queues = queues
    this.#configs = configs
    this.#codec = codec
    this.#settings = settings
    this.#warnings = warnings
  }

  /** Composes tasks that inherit from a request. */
  within (request: FastifyRequest): Compose {
    let source: Source | undefined
    return (target, options) => {
      source ??= this.#sourceOf(request)
      return this.#compose(target, options, source)
    }
  }

  /** Composes tasks that are added outside a request. */
  readonly alone: Compose = (target, options) => this.#compose(target, options, APP)

  /** Composes tasks that take the place of one that is dead. They come from where it came, and run as its user. */
  after ({ headers: { host }, ip, protocol, userId, depth, originReqId }: Task): Compose {
    const inheritance = {
      headers: {},
      payload: () => undefined,
      ...host !== undefined && { host },
      ...ip !== undefined && { ip },
      ...protocol !== undefined && { protocol }
    }
    const source: Source = { inheritance, depth, originReqId, userId: () => userId }
    return (target, options) => this.#compose(target, options, source)
  }

  #compose (target: string | TaskRoute, given: AddOptions, source: Source): Added {
    const [url, options, params] = target instanceof TaskRoute ? target.address(given) : [target, given]
    const inheritance = options?.user === undefined ? source.inheritance : withoutCredentials(source.inheritance)
    const task: Draft = makeTask(url, options, inheritance)
    const { ip, protocol } = inheritance ?? this.#origin
    task.ip = ip
    task.protocol = protocol
    task.originReqId = source.originReqId
    const due = placeOf(options)
    task.dueAt = laterOf(due)
    task.depth = task.dueAt === undefined ? source.depth + 1 : 1
    if (task.depth > this.#settings.maxDepth) throw new FST_TASKQUEUE_TOO_DEEP(this.#settings.maxDepth)
    const config = target instanceof TaskRoute ? target.config : this.#configs.of(task)
    task.maxRetries ??= config?.maxRetries
    task.timeoutMs ??= config?.timeoutMs
    const keyOf = options.key === undefined && source.request !== undefined ? config?.key : undefined
    const place = { ...due, ...laneOf(options, { ...config, key: keyOf?.(source.request!) }) }
    if (target instanceof TaskRoute) target.check(task, params!)
    const { name: queue, store } = this.#queues.get(options.queue ?? config?.queue)
    if (!(target instanceof TaskRoute)) this.#warnings.added(task, queue)
    // The user's id is asked for last: if a check above threw first, nobody would handle the rejection of its promise.
    const userId = options.user === undefined ? source.userId() : checkUserId(options.user)
    if (userId instanceof Promise) {
      const sealing = userId.then(userId => ({ userId, message: this.#codec.encode(queue, { ...task, userId }) }))
      // The commit awaits it, and there may never be one.
      sealing.catch(() => {})
      const entry = { queue, id: task.id, message: '', ...place }
      return { store, codec: this.#codec, task, entry, sealing, length: task.payload?.length ?? 0 }
    }
    task.userId = userId
    const message = this.#codec.encode(queue, task)
    const entry = { queue, id: task.id, message, ...place }
    return { store, codec: this.#codec, task, entry, length: message.length }
  }

  #sourceOf (request: FastifyRequest): Source {
    const { depth = 0, originReqId = String(request.id).slice(0, MAX_REQ_ID_LENGTH) } = dispatchOf(request.raw) ?? {}
    return {
      inheritance: inheritFrom(request, this.#settings.copyHeaders, this.#internals),
      depth,
      originReqId,
      request,
      userId: () => this.#userIdOf(request)
    }
  }

  /** Returns the id of the user who queues. If `user.id` returns none, the user of the task that this request is. */
  #userIdOf (request: FastifyRequest): string | undefined | Promise<string | undefined> {
    const id = this.#settings.user.id(request)
    const known = (id: unknown) => checkUserId(id) ?? request.task?.userId
    const isPromise = typeof (id as PromiseLike<unknown> | undefined)?.then === 'function'
    return isPromise ? Promise.resolve(id).then(known) : known(id)
  }
}

/** A task that is being made. */
type Draft = { -readonly [Name in keyof Task]: Task[Name] }

/** What adds tasks: a request, a task that is dead, or the app itself. */
interface Source {
  readonly inheritance?: Inheritance
  /** The place in its chain of the task that adds; 0 if no task does. */
  readonly depth: number
  readonly originReqId?: string | undefined
  readonly request?: FastifyRequest
  readonly userId: () => string | undefined | Promise<string | undefined>
}

const APP: Source = { depth: 0, userId: () => undefined }

/**
 * Returns when a delayed task becomes due; undefined if a task is not delayed. A delayed task begins a chain of its
 * own, since a chain with delays does not run away.
 */
function laterOf ({ delayMs = 0, runAt = 0 }: ReturnType<typeof placeOf>): number | undefined {
  if (delayMs === 0 && runAt === 0) return undefined
  const now = Date.now()
  if (delayMs > 0) return Math.ceil(now + delayMs)
  return runAt > now ? Math.ceil(runAt) : undefined
}
