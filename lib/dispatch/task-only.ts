import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { dispatchOf, guard, type Raw } from './identity.js'
import { hideLongParams } from './long-params.js'

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]

/** The route constraint `taskOnly: true`: the route exists for tasks and for no other request. */
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
      if (value === true) return
      throw new FST_TASKQUEUE_INVALID_OPTION('constraints.taskOnly', 'true, or left out', show(value))
    }
  }
}

/** Keeps task-only routes out of documents made from an app's schemas, such as those of @fastify/swagger. */
export function hideTaskRoutes (app: FastifyInstance): void {
  app.addHook('onRoute', route => {
    if (route.constraints?.taskOnly === true) route.schema = { hide: true, ...route.schema } as typeof route.schema
  })
}
