import { randomBytes } from 'node:crypto'
import { hostname } from 'node:os'
import type { FastifyRequest } from 'fastify'
import { type CopyHeaders, isInheritable } from '../add/inheritance.js'
import type { OnDead } from '../add/on-dead.js'
import { checkFunction } from '../add/task-config.js'
import { checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { exchangers } from '../dispatch/exchange.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { readLimits } from '../queue/limits.js'
import { checkScheduleId } from '../schedule/plan.js'
import { cut, show } from '../show.js'
import type { Limits } from '../store/limits.js'
import type { RedisLocation } from '../store/redis/location.js'
import type { Keep } from '../store/turn.js'
import type { CreateStore, StoreType } from '../store/types.js'
import { type Backoff, backoffBy, checkBackoff, exponential } from '../task/backoff.js'
import { MAX_DELAY_MS } from '../task/time.js'
import type {
  ConsumerOptions, DeclaredSchedule, QueueOptions, Secret, TaskqueueOptions, UserOptions
} from './options.js'
import { checkRedis } from './redis-option.js'

export type ConsumerSettings = Readonly<Required<Omit<ConsumerOptions, 'backoff'>> & { backoff: Backoff }>

export interface QueueSettings {
  readonly name: string
  readonly type: 'local' | 'redis' | StoreType | CreateStore
  readonly redis: RedisLocation | undefined
  /** Undefined leaves the limits of the store as they are. */
  readonly limits: Limits | undefined
  readonly consumer: ConsumerSettings | false
}

/** The options, checked and with their defaults. */
export interface Settings {
  /** The queues, in the order of their names. */
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
  readonly onDead: OnDead | undefined
  /** Undefined where none are declared with the plugin. */
  readonly schedules: ReadonlyMap<string, DeclaredSchedule> | undefined
  readonly scheduleRevision: number | undefined
  readonly noteAdded: boolean
  readonly dispatch: keyof typeof exchangers
}

export const DEFAULT_PREFIX = 'taskqueue'

const QUEUE_NAME = /^[A-Za-z0-9._-]{1,64}$/
const PREFIX = /^[A-Za-z0-9._:-]{1,64}$/

/** Checks the options and fills in the defaults. Throws `FST_TASKQUEUE_INVALID_OPTION`, which names the option. */
export function readOptions (options: TaskqueueOptions): Settings {
  const {
    redis, queues = { default: {} }, consumer = {}, user = {}, copyHeaders = true, secrets = [], encrypt = true,
    prefix = DEFAULT_PREFIX, commitTimeoutMs = 2000, replicas = 0, maxPayloadBytes = 1024 * 1024,
    maxTasksPerRequest = 1000, maxDepth = 16, keep = 1000, keepMs = 3_600_000, keepDead, keepDeadMs, onDead,
    schedules, scheduleRevision, noteAdded = false, dispatch = 'direct', ...unknown
  } = options
  // Fastify itself may add these to the options of a plugin.
  refuse(unknown, '', ['prefix', 'logLevel', 'logSerializers'])
  if (redis !== undefined) checkRedis('redis', redis)
  expect('queues', queues, 'an object with at least one queue', isRecord(queues) && Object.keys(queues).length > 0)
  if (consumer !== false) checkConsumer('consumer', consumer)
  checkCopyHeaders(copyHeaders)
  expect('prefix', prefix, '1 to 64 of A-Z a-z 0-9 . _ : -', typeof prefix === 'string' && PREFIX.test(prefix))
  checkWhole('commitTimeoutMs', commitTimeoutMs, 1, LONGEST_TIMER_MS)
  expect('encrypt', encrypt, 'true or false', typeof encrypt === 'boolean')
  checkWhole('replicas', replicas, 0)
  // Messages that are much longer are not read from Redis.
  checkWhole('maxPayloadBytes', maxPayloadBytes, 1, 64 * 1024 * 1024)
  checkWhole('maxTasksPerRequest', maxTasksPerRequest, 1)
  checkWhole('maxDepth', maxDepth, 1)
  checkWhole('keep', keep, 0, 1_000_000)
  checkWhole('keepMs', keepMs, 1, MAX_DELAY_MS)
  checkWhole('keepDead', keepDead, 0)
  checkWhole('keepDeadMs', keepDeadMs, 1)
  checkFunction('onDead', onDead)
  if (schedules !== undefined) {
    expect('schedules', schedules, 'an object of schedules by their ids', isRecord(schedules))
    for (const id of Object.keys(schedules)) checkScheduleId(id)
  }
  checkWhole('scheduleRevision', scheduleRevision, 0)
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
    onDead,
    schedules: schedules && new Map(Object.entries(schedules)),
    scheduleRevision,
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
  const {
    redis = defaults.redis, type = redis === undefined ? 'local' : 'redis', consumer = {}, limits, ...unknown
  } = options!
  refuse(unknown, path)
  expect(`${path}.type`, type, "'local', 'redis', a store type or a function that creates a store", isStoreType(type))
  if (options!.redis !== undefined) checkRedis(`${path}.redis`, options!.redis)
  if (type === 'redis') {
    const expected = 'given, here or to the plugin, since the type of the queue is redis'
    expect(`${path}.redis`, redis, expected, redis !== undefined)
  }
  if (consumer !== false) checkConsumer(`${path}.consumer`, consumer)
  const { backoff = exponential, ...own } = { ...defined(defaults.consumer), ...defined(consumer) }
  return {
    name,
    type,
    redis,
    limits: limits === undefined ? undefined : readLimits(`${path}.limits`, limits),
    consumer: consumer !== false && defaults.consumer !== false && {
      name: defaults.name,
      autoStart: true,
      concurrency: 1,
      maxRetries: 10,
      timeoutMs: 60_000,
      missingRouteMs: 3_600_000,
      leaseMs: 10_000,
      closeGraceMs: 10_000,
      ...own,
      backoff: typeof backoff === 'function' ? backoff : backoffBy(backoff)
    }
  }
}

/** Drops options that are undefined, since they would hide a default. */
function defined (consumer: ConsumerOptions | false): ConsumerOptions {
  if (consumer === false) return {}
  return Object.fromEntries(Object.entries(consumer).filter(([, value]) => value !== undefined))
}

function checkConsumer (path: string, consumer: ConsumerOptions): void {
  expect(path, consumer, 'an object, or false', isRecord(consumer))
  for (const [name, value] of Object.entries(consumer)) {
    if (!isConsumerOption(name)) refuse({ [name]: value }, path)
    else if (value !== undefined) CONSUMER_CHECKS[name](`${path}.${name}`, value)
  }
}

const isConsumerOption = (name: string): name is keyof ConsumerOptions => Object.hasOwn(CONSUMER_CHECKS, name)

type Check = (path: string, value: unknown) => void

const whole = (min: number, max?: number): Check => (path, value) => checkWhole(path, value as number, min, max)

const CONSUMER_CHECKS: Readonly<Record<keyof ConsumerOptions, Check>> = {
  name: (path, value) => {
    const isName = typeof value === 'string' && value.length > 0 && value.length < 256
    expect(path, value, 'a string of 1 to 255 characters', isName)
  },
  autoStart: (path, value) => expect(path, value, 'true or false', typeof value === 'boolean'),
  concurrency: whole(1, 1000),
  maxRetries: whole(0),
  backoff: checkBackoff,
  timeoutMs: whole(1, LONGEST_TIMER_MS),
  missingRouteMs: whole(0),
  leaseMs: whole(100, LONGEST_TIMER_MS),
  closeGraceMs: whole(0, LONGEST_TIMER_MS)
}

function readUser (user: UserOptions): Required<UserOptions> {
  expect('user', user, 'an object', isRecord(user))
  const { id = userOf, load = (id: string) => ({ id }), ...unknown } = user
  refuse(unknown, 'user')
  expect('user.id', id, 'a function', typeof id === 'function')
  expect('user.load', load, 'a function', typeof load === 'function')
  return { id, load }
}

/** Returns the id of the user who makes a request, by default. */
export function userOf (request: FastifyRequest): string | undefined {
  const { user } = request as { user?: { id?: string, sub?: string } }
  return user?.id ?? user?.sub
}

function readSecret (secret: Secret): Buffer {
  const bytes = typeof secret === 'string' || secret instanceof Uint8Array ? Buffer.from(secret) : undefined
  if (bytes === undefined || bytes.length < 32) {
    // The error does not show the value, which may be a secret that is only too short.
    throw new FST_TASKQUEUE_INVALID_OPTION('secrets', 'one key or several, of 32 bytes or more', 'another value')
  }
  return bytes
}

function checkCopyHeaders (value: unknown): void {
  if (typeof value === 'boolean' || typeof value === 'function') return
  const isList = Array.isArray(value) && Array.from(value).every(name => typeof name === 'string')
  expect('copyHeaders', value, 'true, false, a list of header names, or a function', isList)
  const name = (value as string[]).find(name => !isInheritable(name.toLowerCase()))
  expect('copyHeaders', name, 'a list of headers that can be inherited', name === undefined)
}

function refuse (unknown: object, path: string, known: string[] = []): void {
  for (const name of Object.keys(unknown)) {
    if (known.includes(name)) continue
    const [at, option] = path === '' ? ['', cut(name)] : [`${path}.`, `${path}.${cut(name)}`]
    const isOfConsumers = isConsumerOption(name) && /^(?:queues\.[^.]+)?$/.test(path)
    const expected = isOfConsumers ? `left out: its place is '${at}consumer.${name}'` : 'left out'
    throw new FST_TASKQUEUE_INVALID_OPTION(option, expected, 'an option that does not exist')
  }
}

function expect (path: string, value: unknown, expected: string, isMet: boolean): void {
  if (!isMet) throw new FST_TASKQUEUE_INVALID_OPTION(path, expected, show(value))
}

function isStoreType (type: unknown): boolean {
  if (type === 'local' || type === 'redis' || typeof type === 'function') return true
  if (!isRecord(type)) return false
  const { name, create } = type as StoreType
  return typeof name === 'string' && typeof create === 'function'
}

function isRecord (value: unknown): boolean {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}
