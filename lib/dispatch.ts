import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import inject from 'light-my-request'
import { FST_TASKQUEUE_INVALID_OPTION } from './errors.js'
import { show } from './show.js'
import type { NewTask, Store } from './store.js'
import type { Task } from './task.js'
import type { Outcome } from './verdict.js'

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
}

/** A task while it is dispatched. */
export interface Dispatch {
  readonly task: RequestTask
  /** Its place in a chain of tasks. */
  readonly depth: number
  /** Where the task is kept. */
  readonly store: Store
  /** The tasks that it added to its own store, to be stored when it is settled. */
  readonly chain: NewTask[]
  /** Whether the request has come as far as a hook. */
  seen: boolean
}

/**
 * Which raw requests are tasks. Nothing but `dispatch` puts one in, and no request from a
 * socket, from `app.inject` or from another task can be the same object: so it takes no
 * secret to know a task, and no header can forge one.
 */
const dispatches = new WeakMap<object, Dispatch>()

export const dispatchOf = (raw: object): Dispatch | undefined => dispatches.get(raw)

/** Makes the request that a task describes, in this process, through the whole app. Never rejects. */
export async function dispatch (app: FastifyInstance, { method, url, headers, payload }: Task, context: Dispatch): Promise<Outcome> {
  const { task } = context
  return await new Promise<Outcome>(resolve => {
    let pair: { request: IncomingMessage, response: ServerResponse } | undefined
    const finish = (outcome: Outcome) => {
      task.signal.removeEventListener('abort', abort)
      resolve(outcome)
    }
    const fail = (error: Error) => { finish({ kind: 'failed', reason: error.message }) }
    const abort = () => {
      // Resolved first: what follows makes light-my-request report a lost reply.
      fail(task.signal.reason)
      if (pair !== undefined) hangUp(pair.request, pair.response, task.signal.reason)
    }
    task.signal.addEventListener('abort', abort)
    inject((raw, response) => {
      const request = raw as unknown as IncomingMessage
      pair = { request, response }
      dispatches.set(request, context)
      try {
        app.routing(request, response)
      } catch (error) {
        fail(error as Error)
      }
    }, {
      method,
      url,
      headers: {
        ...headers,
        'user-agent': 'fastify-taskqueue',
        'x-task-id': task.id,
        ...task.userId !== undefined && { 'x-task-user-id': task.userId }
      },
      payload,
      // Nobody reads the answer, so it is not kept: it may have no end.
      payloadAsStream: true
    }, (error, response) => {
      if (error !== null && error !== undefined) return fail(error)
      const { statusCode: status, headers: { 'retry-after': retryAfter, location, connection } } = response!
      // What the router of a closing app answers, before any hook.
      const isTurnedAway = !context.seen && status === 503 && connection === 'close'
      const stream = response!.stream()
      stream
        .on('error', fail)
        .on('end', () => {
          if (isTurnedAway) finish({ kind: 'unseen' })
          else finish({ kind: 'answered', status, retryAfter: retryAfter === undefined ? undefined : String(retryAfter), location })
        })
        .on('data', () => {
          // light-my-request also writes it to a socket that goes nowhere, but slowly: unless
          // that is waited for, an answer without an end fills the memory.
          const { socket } = pair!.response
          if (socket?.writableNeedDrain !== true) return
          stream.pause()
          socket.once('drain', () => { stream.resume() })
        })
    })
  })
}

/** Ends a request as a client does that goes away: hooks for aborted requests run, and what the handler sends goes nowhere. */
function hangUp (request: IncomingMessage, response: ServerResponse, reason: Error): void {
  request.aborted = true
  request.emit('close')
  response.destroy(reason)
}

/** The route constraint `taskOnly: true`, by which a route exists for tasks and for nobody else. */
export const taskOnly: Parameters<FastifyInstance['addConstraintStrategy']>[0] = {
  name: 'taskOnly',
  mustMatchWhenDerived: false,
  storage () {
    type Handler = Parameters<ReturnType<typeof taskOnly.storage>['set']>[1]
    let handler: Handler | null = null
    return {
      get: value => value === true ? handler : null,
      set: (_value, given) => { handler = given }
    }
  },
  deriveConstraint (raw) {
    if (dispatches.has(raw)) return true
    guard(raw)
    return undefined
  },
  validate (value) {
    if (value !== true) throw new FST_TASKQUEUE_INVALID_OPTION('constraints.taskOnly', 'true, or left out', show(value))
  }
}

/** Keeps routes for tasks out of documents that are made of an app's schemas, as @fastify/swagger makes them. */
export function hideTaskRoutes (app: FastifyInstance): void {
  app.addHook('onRoute', route => {
    if (route.constraints?.taskOnly === true) route.schema = { hide: true, ...route.schema } as typeof route.schema
  })
}

/** Takes from an ordinary request the headers that only tasks carry. */
function guard (raw: { headers: Record<string, unknown> }): void {
  if (dispatches.has(raw)) return
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
    guard(raw)
    return genReqId(raw)
  })
  app.addHook('onRequest', ({ raw }, _reply, done) => {
    const context = dispatches.get(raw)
    if (context === undefined) guard(raw)
    else context.seen = true
    done()
  })
}
