import type { FastifyInstance, RouteOptions, RouteShorthandOptionsWithHandler } from 'fastify'
import { checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import type { Queues } from '../queue/queues.js'
import { show } from '../show.js'
import { checkMethod } from '../task/method.js'
import type { TaskDefaults } from './task-input.js'
import { TaskRoute, type TaskRouteOptions } from './task-route.js'

const DEFAULTS: ReadonlySet<string> = new Set<keyof TaskDefaults>(['queue', 'maxRetries', 'timeoutMs'])

/**
 * The option of a route whose function is told the complete options. It reads them at once, since Fastify changes their
 * url afterwards if the route is the root of a prefix.
 */
const kMade = Symbol('taskqueue.made')

/** Decorates an app with `task`. */
export function addTaskRoutes (app: FastifyInstance, queues: Queues): void {
  type MarkedOptions = RouteOptions & { [kMade]?: (route: RouteOptions) => void }
  app.addHook('onRoute', (route: MarkedOptions) => { route[kMade]?.(route) })
  type Options = TaskRouteOptions & RouteShorthandOptionsWithHandler
  app.decorate('task', function (this: FastifyInstance, options: Options) {
    const { method = 'POST', constraints, config } = options
    checkMethod(method)
    checkDefaults(config?.task, queues)
    if (constraints !== undefined) {
      const expected = 'left out: the route is for tasks only'
      throw new FST_TASKQUEUE_INVALID_OPTION('constraints', expected, show(constraints))
    }
    let made!: TaskRoute<never>
    const make = (route: RouteOptions) => { made = new TaskRoute<never>(this, route) }
    const own = { method, constraints: { taskOnly: true }, [kMade]: make }
    this.route({ exposeHeadRoute: false, ...options, ...own } as RouteOptions)
    return made
  } as FastifyInstance['task'])
}

function checkDefaults (defaults: TaskDefaults | undefined, queues: Queues): void {
  if (defaults === undefined) return
  for (const name of Object.keys(defaults)) {
    if (DEFAULTS.has(name)) continue
    const expected = `one of ${[...DEFAULTS].join(', ')}`
    throw new FST_TASKQUEUE_INVALID_OPTION(`config.task.${name}`, expected, 'an option that it does not have')
  }
  const { queue, maxRetries, timeoutMs } = defaults
  if (queue !== undefined) queues.get(queue)
  checkWhole('config.task.maxRetries', maxRetries, 0)
  checkWhole('config.task.timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
}
