import type { FastifyInstance, FastifyRequest } from 'fastify'
import { dispatchOf } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import { FST_TASKQUEUE_TOO_DEEP } from '../errors.js'
import type { Queues } from '../queue/queues.js'
import type { Codec } from '../task/codec.js'
import { checkUserId } from '../task/id.js'
import type { AddOptions, Inheritance } from '../task/options.js'
import { makeTask, placeOf, type Task } from '../task/task.js'
import type { Internals } from './fastify-internals.js'
import { inheritFrom, isSecure, type CopyHeaders } from './inheritance.js'
import { TaskRoute } from './task-route.js'
import type { Added, AddedTask, Compose } from './transaction.js'

export interface ComposerSettings {
  readonly copyHeaders: CopyHeaders
  readonly maxDepth: number
  /** Returns the id of the user who makes a request. */
  readonly user: { readonly id: (request: FastifyRequest) => unknown }
}

/** Turns the arguments of `add` into a task that is checked, complete and ready for its store. */
export class Composer {
  readonly #queues: Queues
  readonly #codec: Codec
  readonly #settings: ComposerSettings
  readonly #warnings: RouteWarnings
  readonly #internals: Internals
  /** The origin of tasks that are added outside a request. */
  readonly #origin: Pick<Task, 'ip' | 'protocol'>

  constructor (
    app: FastifyInstance, queues: Queues, codec: Codec, settings: ComposerSettings, warnings: RouteWarnings,
    internals: Internals
  ) {
    this.#internals = internals
    this.#origin = isSecure(app) ? { protocol: 'https' } : {}
    this.#queues = queues
    this.#codec = codec
    this.#settings = settings
    this.#warnings = warnings
  }

  /** Composes tasks that inherit from a request. */
  within (request: FastifyRequest): Compose {
    let inheritance: Inheritance | undefined
    return (target, options) => {
      inheritance ??= inheritFrom(request, this.#settings.copyHeaders, this.#internals)
      return this.#compose(target, options, inheritance, request)
    }
  }

  /** Composes tasks that are added outside a request. */
  readonly alone: Compose = (target, options) => this.#compose(target, options)

  #compose (target: string | TaskRoute, given: AddOptions, inheritance?: Inheritance, request?: FastifyRequest): Added {
    const [url, options, params] = target instanceof TaskRoute ? target.address(given) : [target, given]
    const { ip, protocol } = inheritance ?? this.#origin
    const made = { ...makeTask(url, options, inheritance), ip, protocol }
    const place = placeOf(options)
    const depth = isLater(place) ? 1 : depthOf(request) + 1
    if (depth > this.#settings.maxDepth) throw new FST_TASKQUEUE_TOO_DEEP(this.#settings.maxDepth)
    const task = { ...made, depth }
    if (target instanceof TaskRoute) target.check(task, params!)
    const { name: queue, store } = this.#queues.get(options.queue)
    if (!(target instanceof TaskRoute)) this.#warnings.added(task, queue)
    const encode = (userId?: string) => this.#codec.encode(queue, { ...task, userId })
    // The user's id is asked for last: if a check above threw first, nobody would handle the rejection of its promise.
    const userId = request === undefined ? undefined : this.#userIdOf(request)
    const message = userId instanceof Promise ? userId.then(encode) : encode(userId)
    // The commit awaits it, and there may never be one.
    if (message instanceof Promise) message.catch(() => {})
    const length = typeof message === 'string' ? message.length : task.payload?.length ?? 0
    return {
      store,
      task: { queue, id: task.id, ...place },
      message,
      length,
      describe: () => describe(task, queue, place)
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

/** Whether a task is delayed. A delayed task begins a chain of its own, since a chain with delays does not run away. */
function isLater ({ delayMs = 0, runAt = 0 }: ReturnType<typeof placeOf>): boolean {
  return delayMs > 0 || runAt > Date.now()
}

/** The depth of the task that this request is; 0 for an ordinary request. */
function depthOf (request?: FastifyRequest): number {
  return (request && dispatchOf(request.raw)?.depth) ?? 0
}

function describe (task: Omit<Task, 'userId'>, queue: string, place: ReturnType<typeof placeOf>): AddedTask {
  const { id, method, url, headers, payload } = task
  const { delayMs, runAt, expiresMs } = place
  return {
    id,
    queue,
    method,
    url,
    headers,
    ...payload !== undefined && { payload: valueOf(payload, headers['content-type'] ?? '') },
    ...delayMs !== undefined && { delayMs },
    ...runAt !== undefined && { runAt },
    ...expiresMs !== undefined && { expiresMs }
  }
}

function valueOf (payload: NonNullable<Task['payload']>, contentType: string): unknown {
  if (contentType.startsWith('application/json')) return JSON.parse(payload.toString())
  return contentType.startsWith('text/') ? payload.toString() : payload
}
