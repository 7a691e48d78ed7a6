import type { IncomingMessage } from 'node:http'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import type { LazyAbortController } from './abort.js'
import type { Store } from '../store/store.js'
import type { NewTask } from '../store/tasks.js'
import { type Hidden, reveal } from './routing.js'

/** What a task knows of the schedule that added it. */
export interface TaskSchedule {
  /** The id of the schedule. */
  readonly id: string
  /**
   * The time that the task is for. A handler works by this time and not by its own: the task may run later, or again.
   */
  readonly slot: Date
  /** How many slots before it have added no task because no process was there in time. */
  readonly missed: number
}

/** The task that a request is, as its handler sees it. */
export interface RequestTask {
  readonly id: string
  readonly queue: string
  /** Counts the attempts at this task, from 1. It only grows, so it serves as a fencing token. */
  readonly attempt: number
  /** The id of the user as whom the task runs; undefined if nobody in particular queued it. */
  readonly userId: string | undefined
  /** The schedule that added the task, if one has. */
  readonly schedule: TaskSchedule | undefined
  /**
   * Aborts when the result of this attempt no longer matters: it took too long, its lease is lost, the task was
   * cancelled, or the app is closing and waits no longer.
   */
  readonly signal: AbortSignal
  /**
   * Says how far the task is, by any value that has JSON, up to 65,536 characters of it. `app.taskqueue.get` returns it
   * until the task ends. Rejects with `FST_TASKQUEUE_INVALID_OPTION` if the value has no JSON, or too much. If the
   * store does not answer, the progress is lost, and this resolves all the same.
   */
  progress (value: unknown): Promise<void>
}

/** A task while it is dispatched. */
export interface Dispatch {
  readonly task: RequestTask
  readonly aborter: LazyAbortController
  /** The place of the task in a chain of tasks, from 1. */
  readonly depth: number
  /** The id of the request that began the chain of tasks. */
  readonly originReqId?: string | undefined
  /** The request that the task is, once a hook has seen it. */
  request?: FastifyRequest
  /** The store that keeps the task. */
  readonly store: Store
  /** The tasks that this task has added to its own store. They are stored when it is settled. */
  readonly chain: NewTask[]
  /** Whether a route of the app takes the request; undefined while unknown. */
  routed?: boolean
  /** The last error of the request, if there was one. Any value can be thrown. */
  error?: { readonly value: unknown }
  /** The parts of the request that are hidden from the router until it has chosen the route. */
  hidden?: Hidden | undefined
}

/**
 * The key of the dispatch on a raw request that is a task, and of null on a request that is known to be ordinary. Only
 * `dispatch` sets a dispatch, and no request from a socket or from `app.inject` brings a symbol along. So no secret is
 * needed to recognise a task, and no header can forge one.
 */
export const kDispatch = Symbol('fastify-taskqueue.dispatch')

export interface Raw { [kDispatch]?: Dispatch | null, readonly headers: Record<string, unknown> }

export const dispatchOf = (raw: object): Dispatch | undefined => (raw as Raw)[kDispatch] ?? undefined

/** Asks a connection for its address. Once it has ended, Node tells the address only if it was asked for before. */
const addressOf = ({ socket }: IncomingMessage): unknown => socket?.remoteAddress

/** Ends the hiding from the router, since the request has its route. Does nothing to an ordinary request. */
export function hasBeenRouted (raw: IncomingMessage, context = dispatchOf(raw)): void {
  if (context?.hidden === undefined) return
  reveal(raw, context.hidden)
  context.hidden = undefined
}

/** Removes from an ordinary request the headers that only tasks carry. */
export function guard (raw: Raw): void {
  if (raw[kDispatch] !== undefined) return
  raw[kDispatch] = null
  for (const name in raw.headers) if (name.startsWith('x-task-')) delete raw.headers[name]
}

/**
 * Guards every request before any hook sees it, so that a handler may trust the headers of a task.
 *
 * There is no hook before all hooks. But if any route is task-only, the router derives that constraint from every
 * request. Next, Fastify generates an id, unless the request brings one along. The hook guards the requests of apps
 * that set another generator and have no task-only route.
 */
export function guardHeaders (app: FastifyInstance): void {
  const { genReqId } = app as FastifyInstance & { genReqId: (raw: IncomingMessage) => string }
  app.setGenReqId(raw => {
    guard(raw as unknown as Raw)
    hasBeenRouted(raw as IncomingMessage)
    return genReqId(raw)
  })
  app.addHook('onRequest', (request, _reply, done) => {
    const { raw } = request
    guard(raw as unknown as Raw)
    const context = dispatchOf(raw)
    if (context !== undefined) {
      context.request = request
      // This is read now: later a handler may call the not-found handler, and then the 404 is its verdict.
      context.routed = !request.is404
    } else if (raw.httpVersionMajor === 1) {
      addressOf(raw)
    }
    hasBeenRouted(raw, context)
    done()
  })
  app.addHook('onError', ({ raw }, _reply, value, done) => {
    const context = dispatchOf(raw)
    if (context !== undefined) context.error = { value }
    done()
  })
}
