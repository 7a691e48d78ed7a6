import type { FastifyInstance, RouteOptions } from 'fastify'
import findMyWay, { type ConstraintStrategy, type HTTPMethod, type HTTPVersion, type Instance } from 'find-my-way'
import { checkWhole, LONGEST_TIMER_MS } from '../check.js'
import type { Addressed } from '../dispatch/routing.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import type { Queues } from '../queue/queues.js'
import { show } from '../show.js'
import { type Backoff, backoffBy, type BackoffList, checkBackoff, isBackoffList } from '../task/backoff.js'
import { METHODS } from '../task/method.js'
import type { TaskDefaults } from '../task/options.js'
import { checkPriority } from '../task/task.js'
import { LOCAL_HOST } from '../task/origin.js'
import { MAX_URL_LENGTH } from '../task/url.js'
import type { OnDead } from './on-dead.js'

/** What `config.task` of a route says of the tasks that are requests to it. `add` may be given other options. */
export interface TaskConfig extends TaskDefaults {
  /** The milliseconds before each retry, or a function that returns them. @default the consumer's `backoff` */
  backoff?: Backoff | BackoffList
  /** Told when a task of this route becomes a dead letter, in place of the plugin's `onDead`. */
  onDead?: OnDead
}

declare module 'fastify' {
  interface FastifyContextConfig {
    /** What holds for the tasks that are requests to this route, unless `add` is given other options. */
    task?: TaskConfig
  }
}

/** The options of Fastify's router that decide which route a url leads to. */
const ROUTER_OPTIONS = [
  'caseSensitive', 'ignoreTrailingSlash', 'ignoreDuplicateSlashes', 'useSemicolonDelimiter', 'allowUnsafeRegex'
]

type Strategy = Parameters<FastifyInstance['addConstraintStrategy']>[0]

/** The `config.task` of all routes that have one, by what leads to them. */
export class TaskConfigs {
  readonly #router: Instance<HTTPVersion.V1>
  #isEmpty = true

  /** @param taskOnly the strategy of the constraint `taskOnly` */
  constructor (app: FastifyInstance, queues: Queues, taskOnly: Strategy) {
    const ofApp: Readonly<Record<string, unknown>> = { ...app.initialConfig.routerOptions }
    // Fastify offers no way to ask for the config of the route that a url leads to.
    this.#router = findMyWay({
      ...Object.fromEntries(ROUTER_OPTIONS.map(name => [name, ofApp[name]])),
      maxParamLength: MAX_URL_LENGTH,
      constraints: { taskOnly: taskOnly as unknown as ConstraintStrategy<HTTPVersion.V1> }
    })
    app.addHook('onRoute', route => {
      const config = route.config?.task
      if (config !== undefined) checkConfig(config, queues)
      // A task-only route without a config hides another one that has one.
      if (config !== undefined || route.constraints?.taskOnly === true) this.#add(route, config)
    })
  }

  /** Returns the config of the route that takes a task. Constraints that the app has made itself are not asked. */
  of ({ method, url, headers }: Addressed): TaskConfig | undefined {
    if (this.#isEmpty) return undefined
    const { host = LOCAL_HOST, 'accept-version': version } = headers
    return this.#router.find(method, url, { host, version, taskOnly: true })?.store ?? undefined
  }

  /** Returns the backoff of the route that takes a task, if that has one of its own. */
  backoffOf (task: Addressed): Backoff | undefined {
    const backoff = this.of(task)?.backoff
    return isBackoffList(backoff) ? backoffBy(backoff) : backoff as Backoff | undefined
  }

  #add ({ method, url, constraints: given = {} }: RouteOptions, config: TaskConfig | undefined): void {
    this.#isEmpty &&= config === undefined
    const known = Object.entries(given).filter(([name]) => ['host', 'version', 'taskOnly'].includes(name))
    const constraints = Object.fromEntries(known)
    for (const each of [method].flat()) {
      if (!METHODS.has(each)) continue
      // Of routes that differ in other constraints the first one counts.
      if (this.#router.hasRoute(each as HTTPMethod, url, constraints)) continue
      this.#router.on(each as HTTPMethod, url, { constraints }, () => {}, config)
    }
  }
}

function checkConfig (config: TaskConfig, queues: Queues): void {
  const { queue, priority, key, maxRetries, timeoutMs, backoff, onDead, ...unknown } = config
  const [name] = Object.keys(unknown)
  if (name !== undefined) {
    const expected = 'one of queue, priority, key, maxRetries, timeoutMs, backoff, onDead'
    throw new FST_TASKQUEUE_INVALID_OPTION(`config.task.${name}`, expected, 'an option that it does not have')
  }
  if (queue !== undefined) queues.get(queue)
  checkPriority('config.task.priority', priority)
  checkFunction('config.task.key', key)
  checkWhole('config.task.maxRetries', maxRetries, 0)
  checkWhole('config.task.timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
  checkBackoff('config.task.backoff', backoff)
  checkFunction('config.task.onDead', onDead)
}

export function checkFunction (name: string, value: unknown): void {
  if (value !== undefined && typeof value !== 'function') {
    throw new FST_TASKQUEUE_INVALID_OPTION(name, 'a function', show(value))
  }
}
