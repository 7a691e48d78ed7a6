import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { RouteConstraint } from 'fastify/types/route.js'
import { LOCAL_HOST } from '../task/origin.js'
import type { Task } from '../task/task.js'

/** The parts of a task that choose its route. */
export type Addressed = Pick<Task, 'method' | 'url' | 'headers'>

/** A route that was found, and the parameters that the url gives it. */
export interface FoundRoute {
  readonly params: Readonly<Record<string, string>>
  readonly searchParams: unknown
}

/**
 * Looks up the route of a task as the router will when the task runs; null if there is none. Custom constraints of the
 * app are not asked: what they derive from the task's headers is unknown before it runs.
 */
export function findRoute (app: FastifyInstance, { method, url, headers }: Addressed): FoundRoute | null {
  const constraints = { taskOnly: true, host: headers.host ?? LOCAL_HOST, version: headers['accept-version'] } as const
  return app.findRoute({ method, url, constraints: constraints as RouteConstraint }) as FoundRoute | null
}

/** Returns whether a route of the app takes the request of a task. In doubt it returns true. */
export function takes (app: FastifyInstance, task: Addressed): boolean {
  try {
    return rewritesUrls(app) || findRoute(app, task) !== null
  } catch {
    return true
  }
}

/** The url and headers of a request, of which its router is shown others. */
export type Hidden = Pick<IncomingMessage, 'url' | 'headers'>

/**
 * Shows the router only those parts of a task that are to choose its route. Inherited headers are hidden, since they
 * chose the route of another request. A url that leads to a route is kept from being rewritten, since it is a path of
 * this app already, and not one that a client sends. Returns the real url and headers; undefined if nothing is hidden.
 */
export function hideFromRouter (app: FastifyInstance, task: Task, request: IncomingMessage): Hidden | undefined {
  const { url, headers } = request
  const { inherited = 0 } = task
  const isKept = rewritesUrls(app) && findRoute(app, task) !== null
  if (inherited === 0 && !isKept) return undefined
  if (inherited > 0) {
    request.headers = { ...headers }
    for (const name of Object.keys(task.headers).slice(0, inherited)) delete request.headers[name]
  }
  if (isKept) Object.defineProperty(request, 'url', { get: () => url, set () {}, configurable: true, enumerable: true })
  return { url, headers }
}

/** Gives a request its real url and headers back, once the route has been chosen. */
export function reveal (request: IncomingMessage, { url, headers }: Hidden): void {
  request.headers = headers
  if (Object.getOwnPropertyDescriptor(request, 'url')?.get === undefined) return
  Object.defineProperty(request, 'url', { value: url, writable: true, configurable: true, enumerable: true })
}

const rewriting = new WeakMap<FastifyInstance, boolean>()

/** Whether an app has the option `rewriteUrl`. No public API of Fastify tells. */
function rewritesUrls (app: FastifyInstance): boolean {
  let rewrites = rewriting.get(app)
  if (rewrites === undefined) {
    rewrites = optionsOf(app).rewriteUrl !== undefined
    rewriting.set(app, rewrites)
  }
  return rewrites
}

function optionsOf (app: object): { readonly rewriteUrl?: unknown } {
  for (let each = app; each !== null; each = Object.getPrototypeOf(each)) {
    const key = Object.getOwnPropertySymbols(each).find(({ description }) => description === 'fastify.options')
    if (key !== undefined) return (each as Record<symbol, {}>)[key]!
  }
  return {}
}
