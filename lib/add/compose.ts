import type { FastifyInstance, FastifyRequest } from 'fastify'
import { dispatchOf } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import { FST_TASKQUEUE_TOO_DEEP } from '../errors.js'
import type { Queues } from '../queue/queues.js'
import type { Codec } from '../task/codec.js'
import { checkUserId } from '../task/id.js'
import type { AddOptions, Inheritance } from '../task/options.js'
import { makeTask, placeOf, type Task } from '../task/task.js'
import { inheritFrom, isSecure, type CopyHeaders } from './inheritance.js'
import { TaskRoute } from './task-route.js'
import type { Added, AddedTask, Compose } from './transaction.js'

export interface ComposerSettings {
  readonly copyHeaders: CopyHeaders
  readonly maxDepth: number
  /** Says who makes a request. */
  readonly user: { readonly id: (request: FastifyRequest) => unknown }
}

/** Turns what `add` is given into a task that is checked, complete and ready for its store. */
export class Composer {
  readonly #queues: Queues
  readonly #codec: Codec
  readonly #settings: ComposerSettings
  readonly #warnings: RouteWarnings
  /** Where a task comes from that no request adds. */
  readonly #origin: Pick<Task, 'ip' | 'protocol'>

  constructor (app: FastifyInstance, queues: Queues, codec: Codec, settings: ComposerSettings, warnings: RouteWarnings) {
    this.#origin = isSecure(app) ? { protocol: 'https' } : {}
    this.#queues = queues
    this.#codec = codec
    this.#settings = settings
    this.#warnings = warnings
  }

  /** For tasks that inherit from a request. */
  within (request: FastifyRequest): Compose {
    let inheritance: Inheritance | undefined
    return (target, options) => {
      inheritance ??= inheritFrom(request, this.#settings.copyHeaders)
      return this.#compose(target, options, inheritance, request)
    }
  }

  /** For tasks that nobody's request adds. */
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
    // Asked last: a promise that nobody waits for, since something else is wrong, would have nobody to reject to.
    const userId = request === undefined ? undefined : this.#userIdOf(request)
    const message = userId instanceof Promise ? userId.then(encode) : encode(userId)
    // It is awaited at the commit, which may never come.
    if (message instanceof Promise) message.catch(() => {})
    const length = typeof message === 'string' ? message.length : task.payload?.length ?? 0
    return { store, task: { queue, id: task.id, ...place }, message, length, describe: () => describe(task, queue, place) }
  }

  /** Who queues. What a task adds is queued by who queued the task, unless it runs as somebody else. */
  #userIdOf (request: FastifyRequest): string | undefined | Promise<string | undefined> {
    const id = this.#settings.user.id(request)
    const known = (id: unknown) => checkUserId(id) ?? request.task?.userId
    return typeof (id as PromiseLike<unknown> | undefined)?.then === 'function' ? Promise.resolve(id).then(known) : known(id)
  }
}

/** Whether a task has to wait: it begins a chain of its own, since what waits does not run away. */
function isLater ({ delayMs = 0, runAt = 0 }: ReturnType<typeof placeOf>): boolean {
  return delayMs > 0 || runAt > Date.now()
}

/** How many tasks lead to what this request adds. */
function depthOf (request?: FastifyRequest): number {
  return (request && dispatchOf(request.raw)?.depth) ?? 0
}

function describe ({ id, method, url, headers, payload }: Omit<Task, 'userId'>, queue: string, { delayMs, runAt, expiresMs }: ReturnType<typeof placeOf>): AddedTask {
  const type = headers['content-type'] ?? ''
  const text = () => payload!.toString()
  return {
    id,
    queue,
    method,
    url,
    headers,
    ...payload !== undefined && { payload: type.startsWith('application/json') ? JSON.parse(text()) : type.startsWith('text/') ? text() : payload },
    ...delayMs !== undefined && { delayMs },
    ...runAt !== undefined && { runAt },
    ...expiresMs !== undefined && { expiresMs }
  }
}
