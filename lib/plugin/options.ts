import type { FastifyRequest } from 'fastify'
import type { CopyHeaders } from '../add/inheritance.js'
import { exchangers } from '../dispatch/exchange.js'
import type { RedisLocation } from '../store/redis/client.js'
import type { CreateStore, StoreType } from '../store/types.js'
import type { Backoff } from '../task/verdict.js'

export interface TaskqueueOptions {
  /**
   * Where Redis is, for every queue that does not say it itself: a URL, options of
   * ioredis, or a client of ioredis that you have made and will close. Without it queues
   * are local: embedded in this process, and gone with it.
   */
  redis?: RedisLocation | undefined
  /** The queues by name, 1 to 64 of `A-Z a-z 0-9 . _ -`. @default { default: {} } */
  queues?: Readonly<Record<string, QueueOptions>>
  /** What the consumer of every queue starts from; false: this process only adds. @default {} */
  consumer?: ConsumerOptions | false
  user?: UserOptions
  /**
   * Which headers of the current request a task inherits: `true` for all but those that
   * belong to one exchange only, `false` for none, a list of names, or a function of the request.
   * @default true
   */
  copyHeaders?: CopyHeaders
  /**
   * Keys of at least 32 bytes, with which messages are encrypted and signed where they
   * are kept. The first one makes them, any of them opens them. @default none
   */
  secrets?: Secret | readonly Secret[] | undefined
  /** With secrets: false only signs messages, so that whoever reads Redis reads them too. @default true */
  encrypt?: boolean
  /** What the names of all keys in Redis begin with. @default 'taskqueue' */
  prefix?: string
  /** The longest that a reply waits for its tasks to be stored, in milliseconds. @default 2000 */
  commitTimeoutMs?: number
  /**
   * How many replicas of Redis must have the tasks of a request before it succeeds, so that a
   * failover loses none. Not in a Cluster. @default 0
   */
  replicas?: number
  /** The longest message of one task, in bytes: its url, headers and payload. @default 1048576 */
  maxPayloadBytes?: number
  /** How many tasks one request may add. @default 1000 */
  maxTasksPerRequest?: number
  /** How many tasks that are done, cancelled or expired a queue keeps for `app.taskqueue.get`: the newest. @default 1000 */
  keep?: number
  /** How long it keeps them, in milliseconds. @default 3600000, which is an hour */
  keepMs?: number
  /**
   * How many dead letters a queue keeps: the newest. What that drops is logged.
   * @default all, until they are removed or redriven
   */
  keepDead?: number
  /** How long it keeps them, in milliseconds. What that drops is logged. @default until they are removed or redriven */
  keepDeadMs?: number
  /** Whether `app.taskqueue.added` notes what is queued, for tests. @default false */
  noteAdded?: boolean
  /**
   * How long a chain of tasks may become in which each one is added by the one before and does not have
   * to wait. One that is added with a delay begins another chain. @default 16
   */
  maxDepth?: number
  /**
   * How requests of tasks are made: `'direct'` as Node's server makes them, or `'inject'` by
   * light-my-request, as `app.inject` makes them. @default 'direct'
   */
  dispatch?: keyof typeof exchangers
}

export type Secret = string | Uint8Array

export interface UserOptions {
  /**
   * Returns who makes a request, for the tasks that it adds: 1 to 255 printable ASCII
   * characters, or nothing. @default request => request.user?.id ?? request.user?.sub
   */
  id?: (request: FastifyRequest) => MaybePromise<string | number | null | undefined>
  /**
   * Returns the `request.user` of a task for `verifyTask`, or null when there is no such
   * user, any more. @default id => ({ id })
   */
  load?: (id: string, request: FastifyRequest) => unknown
}

type MaybePromise<T> = T | PromiseLike<T>

export interface QueueOptions {
  /** @default 'redis' where the queue or the plugin is given a `redis`, else 'local' */
  type?: 'local' | 'redis' | StoreType | CreateStore
  /** Instead of the plugin's. Queues with the same URL or the same object share its connections and commit in one step. */
  redis?: RedisLocation | undefined
  /** What differs from the plugin's `consumer`; false: this process only adds to this queue. */
  consumer?: ConsumerOptions | false
}

export interface ConsumerOptions {
  /** Whether it begins when the app is ready. If not, tasks run by `app.taskqueue.drain()` and `runOne()` only, as in tests. @default true */
  autoStart?: boolean
  /** For logs and operators. @default host, process and a random part, which is unique */
  name?: string
  /** How many tasks of the queue run at once in this process. @default 1 */
  concurrency?: number
  /** How often a task is tried again before it is dead. @default 10 */
  maxRetries?: number
  /** Returns the milliseconds before a retry, counted from 1; anything but 0 to 30 days counts as the default. @default doubles from 1 s to 1 h, with jitter */
  backoff?: Backoff
  /** How long one attempt may take, in milliseconds. @default 60000 */
  timeoutMs?: number
  /**
   * For how long in all a task is left to other processes if no route of this app takes it, in
   * milliseconds; then it is dead. 0: at once. @default 3600000, which is an hour
   */
  missingRouteMs?: number
  /**
   * How long a consumer that died keeps its tasks from the others, in milliseconds. A
   * live one prolongs its leases five times as often. At least 100. @default 10000
   */
  leaseMs?: number
  /**
   * How long a closing app waits for its running tasks, in milliseconds; what is left then
   * is given back. Fastify's `pluginTimeout` less two seconds limits it. @default 10000
   */
  closeGraceMs?: number
}
