import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { headOf } from './answer.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { hangUp, type Exchange, type Exchanger } from './exchange.js'
import type { Halt } from '../run/halt.js'
import { hideLongParams } from './long-params.js'
import { hideFromRouter, reveal, takes, type Hidden } from './routing.js'
import type { NewTask, Store } from '../store/store.js'
import { LOCAL_HOST, type Task } from '../task/task.js'
import { reasonOf } from './reason.js'
import { nameOf } from './route-warnings.js'
import type { Outcome } from '../task/verdict.js'

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
  readonly halt: Halt
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
const kDispatch = Symbol('fastify-taskqueue.dispatch')

interface Raw { [kDispatch]?: Dispatch | null, readonly headers: Record<string, unknown> }

export const dispatchOf = (raw: object): Dispatch | undefined => (raw as Raw)[kDispatch] ?? undefined

/**
 * Makes the request that a task describes, in this process, through the whole app. Never rejects, and ends
 * when it is halted at the latest.
 */
export function dispatch (app: FastifyInstance, exchanger: Exchanger, described: Task, context: Dispatch): Promise<Outcome> {
  const { task, halt } = context
  return new Promise<Outcome>(resolve => {
    let isOver = false
    let exchange: Exchange | undefined
    const fail = (error: unknown) => {
      if (isOver) return
      isOver = true
      const failed: Outcome = { kind: 'failed', reason: reasonOf(halt.reason ?? error) }
      resolve(context.routed === false ? unrouted(described) : failed)
    }
    halt.listen(() => {
      if (isOver) return
      fail(halt.reason)
      if (exchange === undefined) return
      hangUp(exchange, halt.reason!, err => { app.log.error({ err, taskId: task.id }, 'listener of a halted task threw') })
    })
    // A hook may enter an asynchronous context for the rest of its tick, which must not be that of what runs next.
    soon.then(() => {
      if (isOver) return
      try {
        exchanger(described, headersOf(described, task), made => {
          const { request, response } = exchange = made;
          (request as unknown as Raw)[kDispatch] = context
          response.on('finish', () => {
            if (isOver) return
            const outcome = outcomeOf(app, made, described, context)
            isOver = true
            resolve(outcome)
          })
          // One after its end is only about what nobody waits for.
          response.on('error', error => { if (response.destroyed || !response.writableEnded) fail(error) })
          response.on('close', () => { if (!isOver) fail(new Error('response destroyed before completion')) })
          try {
            context.hidden = hideFromRouter(app, described, request)
            app.routing(request, response)
            hasBeenRouted(request, context)
          } catch (error) {
            fail(error)
          }
        }, fail)
      } catch (error) {
        fail(error)
      }
    })
  })
}

const soon = Promise.resolve()

function headersOf ({ headers }: Task, { id, userId }: RequestTask): Record<string, string> {
  return {
    ...headers,
    'user-agent': 'fastify-taskqueue',
    'x-task-id': id,
    ...userId !== undefined && { 'x-task-user-id': userId },
    ...headers.host === undefined && { host: LOCAL_HOST }
  }
}

function outcomeOf (app: FastifyInstance, { response, written }: Exchange, task: Task, context: Dispatch): Outcome {
  const head = headOf(response)
  // Only a handler that makes the event itself comes here without having sent anything.
  if (typeof head !== 'string') return { kind: 'failed', reason: 'response ended before it was sent' }
  const status = Number(head.slice(9, 12))
  // What the router of a closing app answers, before any hook.
  if (!context.seen && status === 503 && response.getHeader('connection') === 'close') return { kind: 'unseen' }
  // A plugin that was there before this one has answered before any hook of ours.
  if (status >= 400) context.routed ??= takes(app, task)
  if (context.routed === false) return unrouted(task)
  const error = status >= 400 && context.error !== undefined ? { error: reasonOf(context.error.value) } : {}
  return { kind: 'answered', status, answer: written.answerOf(response), ...error }
}

const unrouted = (task: Task): Outcome => ({ kind: 'unrouted', reason: `no route of this app takes ${nameOf(task)}` })

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]

/** The route constraint `taskOnly: true`, by which a route exists for tasks and for nobody else. */
export function taskOnly (app: FastifyInstance): Strategy {
  const hideFromOthers = hideLongParams(app)
  return {
    name: 'taskOnly',
    mustMatchWhenDerived: false,
    storage () {
      type Handler = Parameters<ReturnType<Strategy['storage']>['set']>[1]
      let handler: Handler | null = null
      return {
        get: value => value === true ? handler : null,
        set: (_value, given) => { handler = given }
      }
    },
    deriveConstraint (raw) {
      guard(raw as unknown as Raw)
      if (dispatchOf(raw) !== undefined) return true
      hideFromOthers(raw as IncomingMessage)
      return undefined
    },
    validate (value) {
      if (value !== true) throw new FST_TASKQUEUE_INVALID_OPTION('constraints.taskOnly', 'true, or left out', show(value))
    }
  }
}

/** Keeps routes for tasks out of documents that are made of an app's schemas, as @fastify/swagger makes them. */
export function hideTaskRoutes (app: FastifyInstance): void {
  app.addHook('onRoute', route => {
    if (route.constraints?.taskOnly === true) route.schema = { hide: true, ...route.schema } as typeof route.schema
  })
}

/** Node tells the address of a connection that has ended only if it was asked before. */
const addressOf = ({ socket }: IncomingMessage): unknown => socket?.remoteAddress

/** A request has its route. */
function hasBeenRouted (raw: IncomingMessage, context = dispatchOf(raw)): void {
  if (context?.hidden === undefined) return
  reveal(raw, context.hidden)
  context.hidden = undefined
}

/** Takes from an ordinary request the headers that only tasks carry. */
function guard (raw: Raw): void {
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
