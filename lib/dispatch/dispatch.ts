import type { FastifyInstance } from 'fastify'
import { LOCAL_HOST } from '../task/origin.js'
import type { Outcome } from '../task/outcome.js'
import type { Task } from '../task/task.js'
import { headOf } from './body-capture.js'
import { type Exchange, type Exchanger, hangUp } from './exchange.js'
import { type Dispatch, hasBeenRouted, kDispatch, type Raw, type RequestTask } from './identity.js'
import { reasonOf } from './reason.js'
import { nameOf } from './route-warnings.js'
import { hideFromRouter, takes } from './routing.js'

/**
 * Makes the request that a task describes, in this process, through the whole app. The promise never rejects. It
 * resolves when the attempt is aborted, at the latest.
 */
export function dispatch (
  app: FastifyInstance, exchanger: Exchanger, described: Task, context: Dispatch
): Promise<Outcome> {
  const { task, aborter } = context
  return new Promise<Outcome>(resolve => {
    let isOver = false
    let exchange: Exchange | undefined
    const fail = (error: unknown) => {
      if (isOver) return
      isOver = true
      const cause = aborter.reason ?? error
      const failed: Outcome = { kind: 'failed', reason: reasonOf(cause), cause }
      resolve(context.routed === false ? unrouted(described) : failed)
    }
    aborter.onAbort(() => {
      if (isOver) return
      fail(aborter.reason)
      if (exchange === undefined) return
      hangUp(exchange, aborter.reason!, err => {
        app.log.error({ err, taskId: task.id }, 'listener of a halted task threw')
      })
    })
    // A hook may enter an asynchronous context for the rest of its tick. The next task must not run in it.
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
          // An error after the end of the response concerns nobody.
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
  const all: Record<string, string> = { ...headers, 'user-agent': 'fastify-taskqueue', 'x-task-id': id }
  if (userId !== undefined) all['x-task-user-id'] = userId
  if (headers.host === undefined) all.host = LOCAL_HOST
  return all
}

function outcomeOf (app: FastifyInstance, { response, body }: Exchange, task: Task, context: Dispatch): Outcome {
  const head = headOf(response)
  // Nothing was sent: a handler has emitted 'finish' itself.
  if (typeof head !== 'string') return { kind: 'failed', reason: 'response ended before it was sent' }
  const status = Number(head.slice(9, 12))
  // The router of a closing app answers this before any hook.
  const isTurnedAway = status === 503 && response.getHeader('connection') === 'close'
  if (context.request === undefined && isTurnedAway) return { kind: 'unseen' }
  // If it is still unknown, a plugin registered before this one has answered before any hook of this one.
  if (status >= 400) context.routed ??= takes(app, task)
  if (context.routed === false) return unrouted(task)
  const { value: cause } = context.error ?? {}
  const error = status >= 400 && context.error !== undefined ? { error: reasonOf(cause), cause } : {}
  return { kind: 'answered', status, answer: body.answerOf(response), ...error }
}

const unrouted = (task: Task): Outcome => ({ kind: 'unrouted', reason: `no route of this app takes ${nameOf(task)}` })
