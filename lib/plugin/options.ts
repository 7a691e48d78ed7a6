import type { FastifyRequest } from 'fastify'
import type { CopyHeaders } from '../add/inheritance.js'
import type { OnDead } from '../add/on-dead.js'
import type { ScheduleOptions } from '../schedule/plan.js'
import type { RedisLocation } from '../store/redis/location.js'
import type { Limits } from '../store/limits.js'
import type { CreateStore, StoreType } from '../store/types.js'
import type { Backoff, BackoffList } from '../task/backoff.js'

/**
 * The options of the plugin. An option that does not exist, or a value that it does not take, is refused at
 * registration with `FST_TASKQUEUE_INVALID_OPTION`, which names the option.
 */
export interface TaskqueueOptions {
  /**
   * Where Redis is, for every queue that has no `redis` of its own: a URL, options of ioredis, or a client of ioredis
   * that you make and close. Without it queues are local: they are embedded in this process, and lost with it. If
   * Redis cannot be used at the start, `app.ready()` rejects with `FST_TASKQUEUE_UNREACHABLE`. @default none
   */
  redis?: RedisLocation | undefined
  /** The queues by name: 1 to 64 of `A-Z a-z 0-9 . _ -`. @default { default: {} } */
  queues?: Readonly<Record<string, QueueOptions>>
  /**
   * What the consumer of every queue starts from. With false this process only adds tasks, and consumes no queue.
   * @default {}
   */
  consumer?: ConsumerOptions | false
  /** Who queues a task, and as whom it runs. @default {} */
  user?: UserOptions
  /**
   * Which headers of the current request a task inherits: `true` for all but those that belong to one exchange only,
   * `false` for none, a list of names, or a function of the request that returns one of these. A list may name only
   * headers that can be inherited.
   * @default true
   */
  copyHeaders?: CopyHeaders
  /**
   * One key or several, of at least 32 bytes, with which messages are encrypted and signed where they are kept. The
   * first key makes new messages; any key opens a message. @default none, which keeps messages in clear
   */
  secrets?: Secret | readonly Secret[] | undefined
  /**
   * Whether messages are encrypted, if there are secrets. With false they are only signed, and stay legible to anybody
   * who can read the store. @default true
   */
  encrypt?: boolean
  /** What the names of all keys in Redis begin with: 1 to 64 of `A-Z a-z 0-9 . _ : -`. @default 'taskqueue' */
  prefix?: string
  /**
   * The longest that a reply waits for its tasks to be stored, in milliseconds. A reply that waits longer becomes a 503
   * with `FST_TASKQUEUE_COMMIT_FAILED`. @default 2000
   */
  commitTimeoutMs?: number
  /**
   * How many replicas of Redis must have the tasks of a request before it succeeds, so that a failover loses none. A
   * Cluster takes only 0. @default 0
   */
  replicas?: number
  /**
   * The largest message of one task, in bytes: its url, headers and payload. At most 64 MiB. Adding a larger task fails
   * with `FST_TASKQUEUE_PAYLOAD_TOO_LARGE`. @default 1048576, which is 1 MiB
   */
  maxPayloadBytes?: number
  /** How many tasks one request may add. Adding more fails with `FST_TASKQUEUE_TOO_MANY`. @default 1000 */
  maxTasksPerRequest?: number
  /**
   * How many tasks that are done, cancelled or expired a queue keeps for `app.taskqueue.get`: the newest, at most
   * 1,000,000. @default 1000
   */
  keep?: number
  /** For how long a queue keeps them, in milliseconds, at most 30 days. @default 3600000, which is an hour */
  keepMs?: number
  /**
   * How many dead letters a queue keeps: the newest. The log says how many others the queue drops.
   * @default all, until they are removed or redriven
   */
  keepDead?: number
  /**
   * For how long a queue keeps dead letters, in milliseconds. The log says how many it drops.
   * @default until they are removed or redriven
   */
  keepDeadMs?: number
  /**
   * Told of each task that becomes a dead letter, unless its route has an `onDead` of its own in `config.task`. The
   * tasks that it adds are stored in the same step as the dead letter. @default none
   */
  onDead?: OnDead
  /**
   * Schedules by their ids: 1 to 200 printable ASCII characters without spaces. When the app becomes ready, each is
   * made what it is declared to be, here or with `app.task`. From the queues that the app consumes it then removes
   * schedules that were declared once and are no longer. All processes that consume a queue therefore declare the same
   * schedules. One that was given what it cannot take fails `app.ready()` with `FST_TASKQUEUE_INVALID_SCHEDULE`.
   * @default leaves schedules as they are, if `app.task` declares none
   */
  schedules?: Readonly<Record<string, DeclaredSchedule>>
  /**
   * The number of this version of the schedules, which grows with each. A process that starts with a lower number than
   * a queue has seen changes no schedule there. So a process of the old version that restarts while you deploy changes
   * nothing back. @default none: the process that starts last decides
   */
  scheduleRevision?: number
  /** Whether `app.taskqueue.added` notes what is queued, for tests. @default false */
  noteAdded?: boolean
  /**
   * How long a chain of tasks may become in which each task is added, without a delay, by the one before. A task with
   * a delay begins another chain. Adding a task to a chain of this length fails with `FST_TASKQUEUE_TOO_DEEP`.
   * @default 16
   */
  maxDepth?: number
  /**
   * How the requests of tasks are made: `'direct'` as Node's server makes them, without a connection, or `'inject'` as
   * `app.inject` makes them, by light-my-request, which takes longer. @default 'direct'
   */
  dispatch?: 'direct' | 'inject'
}

/** A schedule that adds tasks for a url of this app. */
export interface DeclaredSchedule extends ScheduleOptions { url: string }

export type Secret = string | Uint8Array

export interface UserOptions {
  /**
   * Returns the id of the user who makes a request, for the tasks that the request adds: 1 to 255 printable ASCII
   * characters, a number, or nothing. May be async. Any other value fails with `FST_TASKQUEUE_INVALID_USER_ID`.
   * @default request => request.user?.id ?? request.user?.sub
   */
  id?: (request: FastifyRequest) => MaybePromise<string | number | null | undefined>
  /**
   * Returns the `request.user` of a task for `verifyTask`, or null if there is no such user. May be async. Null,
   * undefined or false rejects the task with `FST_TASKQUEUE_USER_GONE`. @default id => ({ id })
   */
  load?: (id: string, request: FastifyRequest) => unknown
}

type MaybePromise<T> = T | PromiseLike<T>

export interface QueueOptions {
  /**
   * What keeps the tasks of the queue: `'local'`, `'redis'`, a store type, or a function that creates a store.
   * @default 'redis' if the queue or the plugin is given a `redis`, else 'local'
   */
  type?: 'local' | 'redis' | StoreType | CreateStore
  /**
   * Where Redis is, for this queue. Queues with the same URL or the same object share its connections and commit in one
   * step. @default the plugin's `redis`
   */
  redis?: RedisLocation | undefined
  /**
   * In what this queue's consumer differs from the plugin's `consumer`. With false this process only adds tasks to the
   * queue. @default {}
   */
  consumer?: ConsumerOptions | false
  /**
   * What bounds the tasks of the queue in all processes, and those of each key. The store keeps it: the limits of the
   * process that has started last hold, or those that `setLimits` has set since. An empty object takes limits back.
   * @default whatever the store keeps
   */
  limits?: Limits
}

export interface ConsumerOptions {
  /**
   * Whether the consumer starts when the app is ready. If not, tasks run only by `app.taskqueue.drain()` and
   * `runOne()`, as in tests. @default true
   */
  autoStart?: boolean
  /** The consumer's name for logs and operators, of 1 to 255 characters. @default host, process and a random part */
  name?: string
  /** How many tasks of the queue run at once in this process, at most 1000. @default 1 */
  concurrency?: number
  /** How often a task is tried again before it is dead. @default 10 */
  maxRetries?: number
  /**
   * How long a failed task waits before it is tried again: a list of milliseconds, one for each retry, the last of
   * which serves all further retries; or a function that returns the milliseconds before the retry whose number it
   * gets, counted from 1. The function is synchronous. Any result other than 0 to 30 days counts as the default.
   * @default doubles from 1 s to 1 h, with jitter
   */
  backoff?: Backoff | BackoffList
  /** How long one attempt may take, in milliseconds. @default 60000 */
  timeoutMs?: number
  /**
   * For how long in all a task is left to other processes if no route of this app takes it, in milliseconds. Then it is
   * dead. With 0 it is dead at once. @default 3600000, which is an hour
   */
  missingRouteMs?: number
  /**
   * For how long a consumer that died keeps its tasks from the others, in milliseconds, at least 100. A consumer that
   * lives extends its leases five times as often. @default 10000
   */
  leaseMs?: number
  /**
   * How long a closing app waits for its running tasks, in milliseconds. It then releases the rest. Fastify's
   * `pluginTimeout` less two seconds is the most it can have. @default 10000
   */
  closeGraceMs?: number
}
