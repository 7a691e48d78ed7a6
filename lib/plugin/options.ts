import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import type { FastifyRequest } from 'fastify'
import { type CopyHeaders, isInheritable } from '../add/inheritance.js'
import { checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { exchangers } from '../dispatch/exchange.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { cut, show } from '../show.js'
import type { RedisLocation } from '../store/redis/redis-store.js'
import type { Keep, Store } from '../store/store.js'
import { MAX_DELAY_MS } from '../task/time.js'
import { type Backoff, exponential } from '../task/verdict.js'

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
  type?: 'local' | 'redis' | QueueType
  /** Instead of the plugin's. Queues with the same URL or the same object share its connections and commit in one step. */
  redis?: RedisLocation | undefined
  /** What differs from the plugin's `consumer`; false: this process only adds to this queue. */
  consumer?: ConsumerOptions | false
}

/** Makes the store of a queue. Queues for which it returns the same store commit together. */
export type QueueType = (queue: string, options: QueueOptions) => Store

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

export type ConsumerSettings = Readonly<Required<ConsumerOptions>>

export interface QueueSettings {
  readonly name: string
  readonly type: 'local' | 'redis' | QueueType
  readonly redis: RedisLocation | undefined
  readonly consumer: ConsumerSettings | false
  /** As they were given, for a custom type. */
  readonly options: QueueOptions
}

/** The options with their defaults, checked. */
export interface Settings {
  /** In the order of their names. */
  readonly queues: readonly QueueSettings[]
  readonly user: Readonly<Required<UserOptions>>
  readonly copyHeaders: CopyHeaders
  readonly secrets: readonly Buffer[]
  readonly encrypt: boolean
  readonly prefix: string
  readonly commitTimeoutMs: number
  readonly replicas: number
  readonly maxPayloadBytes: number
  readonly maxTasksPerRequest: number
  readonly maxDepth: number
  readonly keep: Keep
  /** Undefined where all dead letters are kept. */
  readonly keepDead: Keep | undefined
  readonly noteAdded: boolean
  readonly dispatch: keyof typeof exchangers
}

const QUEUE_NAME = /^[A-Za-z0-9._-]{1,64}$/

/** Checks the options and completes them. Throws `FST_TASKQUEUE_INVALID_OPTION`, which names the option. */
export function readOptions (options: TaskqueueOptions): Settings {
  const {
    redis, queues = { default: {} }, consumer = {}, user = {}, copyHeaders = true, secrets = [], encrypt = true,
    prefix = 'taskqueue', commitTimeoutMs = 2000, replicas = 0, maxPayloadBytes = 1024 * 1024, maxTasksPerRequest = 1000,
    maxDepth = 16, keep = 1000, keepMs = 3_600_000, keepDead, keepDeadMs, noteAdded = false, dispatch = 'direct', ...unknown
  } = options
  // What Fastify itself may add to the options of a plugin.
  refuse(unknown, '', ['prefix', 'logLevel', 'logSerializers'])
  if (redis !== undefined) checkRedis('redis', redis)
  expect('queues', queues, 'an object with at least one queue', isRecord(queues) && Object.keys(queues).length > 0)
  if (consumer !== false) checkConsumer('consumer', consumer)
  expect('copyHeaders', copyHeaders, 'true, false, a list of header names, or a function', isCopyHeaders(copyHeaders))
  expect('prefix', prefix, '1 to 64 of A-Z a-z 0-9 . _ : -', typeof prefix === 'string' && /^[A-Za-z0-9._:-]{1,64}$/.test(prefix))
  checkWhole('commitTimeoutMs', commitTimeoutMs, 1, LONGEST_TIMER_MS)
  expect('encrypt', encrypt, 'true or false', typeof encrypt === 'boolean')
  checkWhole('replicas', replicas, 0)
  // What is longer than any message can be is not read from Redis.
  checkWhole('maxPayloadBytes', maxPayloadBytes, 1, 64 * 1024 * 1024)
  checkWhole('maxTasksPerRequest', maxTasksPerRequest, 1)
  checkWhole('maxDepth', maxDepth, 1)
  checkWhole('keep', keep, 0, 1_000_000)
  checkWhole('keepMs', keepMs, 1, MAX_DELAY_MS)
  checkWhole('keepDead', keepDead, 0)
  checkWhole('keepDeadMs', keepDeadMs, 1)
  expect('noteAdded', noteAdded, 'true or false', typeof noteAdded === 'boolean')
  expect('dispatch', dispatch, "'direct' or 'inject'", dispatch === 'direct' || dispatch === 'inject')
  const name = `${hostname()}:${process.pid}:${randomBytes(3).toString('hex')}`
  return {
    queues: Object.keys(queues).sort().map(queue => readQueue(queue, queues[queue], { redis, consumer, name })),
    user: readUser(user),
    copyHeaders,
    secrets: [secrets].flat().map(readSecret),
    encrypt,
    prefix,
    commitTimeoutMs,
    replicas,
    maxPayloadBytes,
    maxTasksPerRequest,
    maxDepth,
    keep: { count: keep, ms: keepMs },
    keepDead: keepDead === undefined && keepDeadMs === undefined
      ? undefined
      : { count: keepDead ?? Infinity, ms: keepDeadMs ?? Infinity },
    noteAdded,
    dispatch
  }
}

function readQueue (name: string, options: QueueOptions | undefined, defaults: {
  redis: RedisLocation | undefined, consumer: ConsumerOptions | false, name: string
}): QueueSettings {
  const path = `queues.${cut(name)}`
  expect(path, name, 'named with 1 to 64 of A-Z a-z 0-9 . _ -', QUEUE_NAME.test(name))
  expect(path, options, 'an object', isRecord(options))
  const { redis = defaults.redis, type = redis === undefined ? 'local' : 'redis', consumer = {}, ...unknown } = options!
  refuse(unknown, path)
  expect(`${path}.type`, type, "'local', 'redis' or a function that returns a store", type === 'local' || type === 'redis' || typeof type === 'function')
  if (options!.redis !== undefined) checkRedis(`${path}.redis`, options!.redis)
  if (type === 'redis') expect(`${path}.redis`, redis, 'given, here or to the plugin, since the type of the queue is redis', redis !== undefined)
  if (consumer !== false) checkConsumer(`${path}.consumer`, consumer)
  return {
    name,
    type,
    redis,
    options: options!,
    consumer: consumer !== false && defaults.consumer !== false && {
      name: defaults.name,
      autoStart: true,
      concurrency: 1,
      maxRetries: 10,
      backoff: exponential,
      timeoutMs: 60_000,
      missingRouteMs: 3_600_000,
      leaseMs: 10_000,
      closeGraceMs: 10_000,
      ...defined(defaults.consumer),
      ...defined(consumer)
    }
  }
}

/** Without what is undefined, which would hide a default. */
function defined (consumer: ConsumerOptions): ConsumerOptions {
  return Object.fromEntries(Object.entries(consumer).filter(([, value]) => value !== undefined))
}

function checkConsumer (path: string, consumer: ConsumerOptions): void {
  expect(path, consumer, 'an object, or false', isRecord(consumer))
  const { name, autoStart, concurrency, maxRetries, backoff, timeoutMs, missingRouteMs, leaseMs, closeGraceMs, ...unknown } = consumer
  refuse(unknown, path)
  if (name !== undefined) expect(`${path}.name`, name, 'a string of 1 to 255 characters', typeof name === 'string' && name.length > 0 && name.length < 256)
  if (autoStart !== undefined) expect(`${path}.autoStart`, autoStart, 'true or false', typeof autoStart === 'boolean')
  if (backoff !== undefined) expect(`${path}.backoff`, backoff, 'a function', typeof backoff === 'function')
  if (concurrency !== undefined) checkWhole(`${path}.concurrency`, concurrency, 1, 1000)
  if (maxRetries !== undefined) checkWhole(`${path}.maxRetries`, maxRetries, 0)
  if (timeoutMs !== undefined) checkWhole(`${path}.timeoutMs`, timeoutMs, 1, LONGEST_TIMER_MS)
  if (missingRouteMs !== undefined) checkWhole(`${path}.missingRouteMs`, missingRouteMs, 0)
  if (leaseMs !== undefined) checkWhole(`${path}.leaseMs`, leaseMs, 100, LONGEST_TIMER_MS)
  if (closeGraceMs !== undefined) checkWhole(`${path}.closeGraceMs`, closeGraceMs, 0, LONGEST_TIMER_MS)
}

function readUser (user: UserOptions): Required<UserOptions> {
  expect('user', user, 'an object', isRecord(user))
  const { id = userOf, load = (id: string) => ({ id }), ...unknown } = user
  refuse(unknown, 'user')
  expect('user.id', id, 'a function', typeof id === 'function')
  expect('user.load', load, 'a function', typeof load === 'function')
  return { id, load }
}

function userOf (request: FastifyRequest): string | undefined {
  const { user } = request as { user?: { id?: string, sub?: string } }
  return user?.id ?? user?.sub
}

function readSecret (secret: Secret): Buffer {
  const bytes = typeof secret === 'string' || secret instanceof Uint8Array ? Buffer.from(secret) : undefined
  // Not shown: it may be one that is only too short.
  if (bytes === undefined || bytes.length < 32) throw new FST_TASKQUEUE_INVALID_OPTION('secrets', 'one key or several, of 32 bytes or more', 'another value')
  return bytes
}

function checkRedis (path: string, redis: RedisLocation): void {
  const isLocation = typeof redis === 'string' ? /^(?:rediss?:\/\/|unix:\/\/|\/)./.test(redis) : isRecord(redis)
  // Not shown: it may hold a password.
  if (!isLocation) throw new FST_TASKQUEUE_INVALID_OPTION(path, 'a redis:, rediss: or unix: URL, options of ioredis or a client', `another ${typeof redis}`)
}

function isCopyHeaders (value: unknown): boolean {
  if (typeof value === 'boolean' || typeof value === 'function') return true
  return Array.isArray(value) && value.every(name => typeof name === 'string' && isInheritable(name.toLowerCase()))
}

function refuse (unknown: object, path: string, known: string[] = []): void {
  for (const name of Object.keys(unknown)) {
    if (known.includes(name)) continue
    throw new FST_TASKQUEUE_INVALID_OPTION(path === '' ? cut(name) : `${path}.${cut(name)}`, 'left out', 'an option that does not exist')
  }
}

function expect (path: string, value: unknown, expected: string, isMet: boolean): void {
  if (!isMet) throw new FST_TASKQUEUE_INVALID_OPTION(path, expected, show(value))
}

function isRecord (value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
