import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { LazyAbortController } from './abort.js'
import type { Store } from '../store/store.js'
import type { NewTask } from '../store/tasks.js'
import { type Hidden, reveal } from './routing.js'

/** What a handler learns of the task that its request is. */
export interface RequestTask {
  readonly id: string
  readonly queue: string
  /** Counts the attempts at this task from 1, and only grows: a fencing token. */
  readonly attempt: number
  /** Who queued the task; undefined when nobody in particular did. */
  readonly userId: string | undefined
  /**
   * Aborts when the result of this attempt is of no use any more: it took too long, its
   * lease is lost, or the app closes and will not wait longer.
   */
  readonly signal: AbortSignal
  /** Says how far the task is, as a value that has JSON: `app.taskqueue.get` tells it to others. */
  progress (value: unknown): Promise<void>
}

/** A task while it is dispatched. */
export interface Dispatch {
  readonly task: RequestTask
  readonly aborter: LazyAbortController
  /** Its place in a chain of tasks. */
  readonly depth: number
  /** Where the task is kept. */
  readonly store: Store
  /** The tasks that it added to its own store, to be stored when it is settled. */
  readonly chain: NewTask[]
  /** Whether the request has come as far as a hook. */
  seen: boolean
  /** Whether a route of the app takes it; unknown until then. */
  routed?: boolean
  /** What its last error was, if there was one. */
  error?: { readonly value: unknown }
  /** What its router is not to see, until it has chosen the route. */
  hidden?: Hidden | undefined
}

/**
 * What a raw request carries that is a task, and null on one that has turned out to be none.
 * Nothing but `dispatch` sets it, and no request from a socket or from `app.inject` brings a
 * symbol along: so it takes no secret to know a task, and no header can forge one.
 */
export const kDispatch = Symbol('fastify-taskqueue.dispatch')

export interface Raw { [kDispatch]?: Dispatch | null, readonly headers: Record<string, unknown> }

export const dispatchOf = (raw: object): Dispatch | undefined => (raw as Raw)[kDispatch] ?? undefined

/** Node tells the address of a connection that has ended only if it was asked before. */
const addressOf = ({ socket }: IncomingMessage): unknown => socket?.remoteAddress

/** A request has its route. */
export function hasBeenRouted (raw: IncomingMessage, context = dispatchOf(raw)): void {
  if (context?.hidden === undefined) return
  reveal(raw, context.hidden)
  context.hidden = undefined
}

/** Takes from an ordinary request the headers that only tasks carry. */
export function guard (raw: Raw): void {
  if (raw[kDispatch] !== undefined) return
  raw[kDispatch] = null
  for (const name in raw.headers) if (name.startsWith('x-task-')) delete raw.headers[name]
}

/**
 * Guards every request before any hook sees it, so that a handler may trust the headers of
 * a task.
 *
 * There is no hook before all hooks. But a constraint is derived as a request is routed,
 * where a route has one, and its id is generated next, unless it brings one along. The
 * hook is for whoever sets another generator, and has no route for tasks only.
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
      context.seen = true
      // Later a handler may call for the one of what is not found, which is its verdict then.
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
