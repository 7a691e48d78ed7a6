import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'
import type { RouteConstraint } from 'fastify/types/route.js'
import { LOCAL_HOST } from '../task/origin.js'
import type { Task } from '../task/task.js'

/** What a task's route is chosen by. */
export type Addressed = Pick<Task, 'method' | 'url' | 'headers'>

/** A route, and what its url says to it. */
export interface FoundRoute {
  readonly params: Readonly<Record<string, string>>
  readonly searchParams: unknown
}

/**
 * Looks the route of a task up, as the router will when the task runs; null if there is none. What constraints of
 * the app's own would say of headers given with the task is not known before.
 */
export function findRoute (app: FastifyInstance, { method, url, headers }: Addressed): FoundRoute | null {
  const constraints = { taskOnly: true, host: headers.host ?? LOCAL_HOST, version: headers['accept-version'] } as const
  return app.findRoute({ method, url, constraints: constraints as RouteConstraint }) as FoundRoute | null
}

/** Returns whether a route of the app takes the request of a task. Where that cannot be told it is thought to. */
export function takes (app: FastifyInstance, task: Addressed): boolean {
  try {
    return rewritesUrls(app) || findRoute(app, task) !== null
  } catch {
    return true
  }
}

/** What a request has that its router was not to see. */
export type Hidden = Pick<IncomingMessage, 'url' | 'headers'>

/**
 * Has the router see of a task what its route is to be chosen by. The headers that a task has inherited chose the
 * route of another request. And where a url leads to a route it is a path of this app already, and not one that a
 * client sends and the app rewrites. Returns what is hidden; undefined if nothing is.
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

/** Undoes it, when the route has been chosen. */
export function reveal (request: IncomingMessage, { url, headers }: Hidden): void {
  request.headers = headers
  if (Object.getOwnPropertyDescriptor(request, 'url')?.get === undefined) return
  Object.defineProperty(request, 'url', { value: url, writable: true, configurable: true, enumerable: true })
}

const rewriting = new WeakMap<FastifyInstance, boolean>()

/** Whether an app has the option `rewriteUrl`, which Fastify tells nobody in a public way. */
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
