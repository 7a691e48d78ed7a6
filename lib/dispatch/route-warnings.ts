import type { FastifyBaseLogger, FastifyInstance } from 'fastify'
import { bounded } from './reason.js'
import { takes, type Addressed } from './routing.js'
import type { Task } from '../task/task.js'

/** How many routes are remembered, and how many are warned of. */
const MOST_PATHS = 1000

/** Logs warnings about tasks that no route of this app takes, once for each method and path. */
export class RouteWarnings {
  readonly #app: FastifyInstance
  readonly #log: FastifyBaseLogger
  readonly #consumed: ReadonlySet<string>
  /** Methods and paths that were looked up lately. */
  readonly #known = new Set<string>()
  readonly #warned = new Set<string>()
  readonly #hint: string
  #isComplete = false

  /**
   * @param consumed the queues whose tasks run here. Tasks of other queues run elsewhere, with other routes perhaps
   * @param mayBeShared whether another app that has the same Redis would by default have the same queues
   */
  constructor (app: FastifyInstance, consumed: Iterable<string>, mayBeShared: boolean) {
    this.#hint = mayBeShared ? ': if another app uses the same Redis, give each its own prefix' : ''
    this.#consumed = new Set(consumed)
    this.#app = app
    this.#log = app.log
    // Until then routes may still be declared.
    app.addHook('onReady', async () => { this.#isComplete = true })
  }

  /** Warns if no route takes a task that is being added. */
  added (task: Addressed, queue: string): void {
    if (!this.#isComplete || !this.#consumed.has(queue)) return
    const name = nameOf(task)
    if (this.#known.has(name)) return
    if (this.#known.size >= MOST_PATHS) this.#known.clear()
    this.#known.add(name)
    if (!takes(this.#app, task)) this.#warn(name, { queue }, 'no route of this app takes a task that was added')
  }

  /** Warns of a task that was run and that no route has taken. */
  missed (task: Pick<Task, 'method' | 'url'>, queue: string): void {
    const message = 'no route of this app takes a task; it is left to other processes for a while'
    this.#warn(nameOf(task), { queue }, message + this.#hint)
  }

  #warn (name: string, details: object, message: string): void {
    const key = `${name} ${message}`
    if (this.#warned.has(key) || this.#warned.size >= MOST_PATHS) return
    this.#warned.add(key)
    this.#log.warn({ ...details, route: name }, message)
  }
}

/** Names the method and path of a task, in bounds. The query is left out, since it may be confidential. */
export function nameOf ({ method, url }: Pick<Task, 'method' | 'url'>): string {
  const end = url.indexOf('?')
  const path = end === -1 ? url : url.slice(0, end)
  return `${method} ${path.length > 200 ? bounded(path) : path}`
}
