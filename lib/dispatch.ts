import type { IncomingMessage, ServerResponse } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { listenTo, type Answer } from './answer.js'
import { FST_TASKQUEUE_INVALID_OPTION } from './errors.js'
import { show } from './show.js'
import { hangUp, type Exchange, type Exchanger } from './exchange.js'
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
  /** Says how far the task is, as a value that has JSON: `app.taskqueue.get` tells it to others. */
  progress (value: unknown): Promise<void>
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
export async function dispatch (app: FastifyInstance, exchanger: Exchanger, described: Task, context: Dispatch): Promise<Outcome> {
  const { task } = context
  return await new Promise<Outcome>(resolve => {
    let exchange: Exchange | undefined
    let isOver = false
    const finish = (outcome: Outcome) => {
      isOver = true
      task.signal.removeEventListener('abort', abort)
      resolve(outcome)
    }
    const fail = (error: Error) => { finish({ kind: 'failed', reason: error.message }) }
    const abort = () => {
      // Resolved first: what follows would be taken for a lost answer.
      fail(task.signal.reason)
      if (exchange !== undefined) hangUp(exchange, task.signal.reason)
    }
    task.signal.addEventListener('abort', abort)
    exchanger(described, headersOf(described, task), made => {
      exchange = made
      const { request, response } = made
      dispatches.set(request, context)
      const answer = listenTo(response)
      response.once('finish', () => { finish(outcomeOf(response, context, answer)) })
      // One after its end is only about what nobody waits for.
      response.on('error', error => { if (response.destroyed || !response.writableEnded) fail(error) })
      response.once('close', () => { if (!isOver) fail(new Error('response destroyed before completion')) })
      try {
        app.routing(request, response)
      } catch (error) {
        fail(error as Error)
      }
    })
  })
}

function headersOf ({ headers }: Task, { id, userId }: RequestTask): Record<string, string> {
  return { ...headers, 'user-agent': 'fastify-taskqueue', 'x-task-id': id, ...userId !== undefined && { 'x-task-user-id': userId } }
}

function outcomeOf (response: ServerResponse, { seen }: Dispatch, answer: () => Answer): Outcome {
  // As it was sent, whatever it has been set to since.
  const status = Number((response as ServerResponse & { _header: string })._header.slice(9, 12))
  // What the router of a closing app answers, before any hook.
  if (!seen && status === 503 && response.getHeader('connection') === 'close') return { kind: 'unseen' }
  return { kind: 'answered', status, answer: answer() }
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
