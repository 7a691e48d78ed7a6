import type { FastifyInstance, RouteOptions, RouteShorthandOptionsWithHandler } from 'fastify'
import { isPlain } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { kindOf, show } from '../show.js'
import { checkMethod } from '../task/method.js'
import { type RouteSchedule, TaskRoute, type TaskRouteOptions } from './task-route.js'

/**
 * The option of a route whose function is told the complete options. It reads them at once, since Fastify changes their
 * url afterwards if the route is the root of a prefix.
 */
const kMade = Symbol('taskqueue.made')

/** A schedule that a route declares. */
export type ScheduledRoute = Omit<RouteSchedule, 'id'> & { readonly route: TaskRoute<unknown> }

/** Decorates an app with `task`. @param declare is told the schedules that routes have */
export function addTaskRoutes (app: FastifyInstance, declare: (id: string, schedule: ScheduledRoute) => void): void {
  type MarkedOptions = RouteOptions & { [kMade]?: (route: RouteOptions) => void }
  app.addHook('onRoute', (route: MarkedOptions) => { route[kMade]?.(route) })
  type Options = TaskRouteOptions & RouteShorthandOptionsWithHandler
  app.decorate('task', function (this: FastifyInstance, options: Options) {
    const { schedule, ...rest } = options
    const { method = 'POST', constraints } = rest
    checkMethod(method)
    if (constraints !== undefined) {
      const expected = 'left out: the route is for tasks only'
      throw new FST_TASKQUEUE_INVALID_OPTION('constraints', expected, show(constraints))
    }
    let made!: TaskRoute<never>
    const make = (route: RouteOptions) => { made = new TaskRoute<never>(this, route) }
    const own = { method, constraints: { taskOnly: true }, [kMade]: make }
    this.route({ exposeHeadRoute: false, ...rest, ...own } as RouteOptions)
    if (schedule !== undefined) {
      if (!isPlain(schedule)) throw new FST_TASKQUEUE_INVALID_OPTION('schedule', 'an object', kindOf(schedule))
      const { id = made.url, ...declared } = schedule
      declare(id, { ...declared, route: made })
    }
    return made
  } as FastifyInstance['task'])
}
