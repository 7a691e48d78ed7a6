import type { FastifyInstance } from 'fastify'
import { dispatchOf } from './identity.js'

/** Has every line in the log of a task's request say which task it is, and which request it goes back to. */
export function bindRequestLog (app: FastifyInstance): void {
  // Only a logger that writes nothing is its own child. Fastify then makes none, unless there is a factory.
  if (app.log.child({}) === app.log) return
  const { childLoggerFactory } = app
  app.setChildLoggerFactory(function (logger, bindings, options, raw) {
    const context = dispatchOf(raw)
    if (context === undefined) return childLoggerFactory.call(this, logger, bindings, options, raw)
    const { task: { id: taskId, queue, attempt }, originReqId } = context
    const all = { ...bindings, taskId, queue, attempt, ...originReqId !== undefined && { originReqId } }
    return childLoggerFactory.call(this, logger, all, options, raw)
  })
}
