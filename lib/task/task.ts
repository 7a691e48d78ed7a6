import { checkOptions, checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { type NewTask, type OnDuplicate, PRIORITIES, type Priority } from '../store/tasks.js'
import { type BackoffList, checkBackoffList } from './backoff.js'
import { headersOf } from './headers.js'
import { checkKey, idOf, timeOfId } from './id.js'
import { checkMethod, type TaskMethod } from './method.js'
import type { AddOptions, Inheritance } from './options.js'
import type { Protocol } from './origin.js'
import { payloadOf } from './payload.js'
import { dueOf, MAX_DELAY_MS } from './time.js'
import { canonicalUrl } from './url.js'

/** A request to be made later. */
export interface Task {
  readonly id: string
  readonly method: TaskMethod
  /** A path of this app, in canonical form. */
  readonly url: string
  /** Headers by name in lower case, the inherited ones first. */
  readonly headers: Readonly<Record<string, string>>
  /** How many of the headers were inherited. They do not choose the task's route. @default 0 */
  readonly inherited?: number
  /** The IP address that the task comes from; empty if it comes from none. @default 127.0.0.1 */
  readonly ip?: string
  /** @default http */
  readonly protocol?: Protocol
  /** The body: a string, or bytes that need not be text. */
  readonly payload?: string | Buffer
  /** The user who queued the task, if somebody in particular did. */
  readonly userId?: string
  /** The place of the task in a chain in which each task was added by the one before, counted from 1. */
  readonly depth: number
  /** When the task was added, in milliseconds since the epoch. @default the time in the task's id, a UUID v7 */
  readonly addedAt?: number
  /**
   * When the task was to become due as it was added, in milliseconds since the epoch. `reschedule` does not change it.
   * @default at once
   */
  readonly dueAt?: number
  /** The id of the request that added the task, or that added the first task of the chain that led to it. */
  readonly originReqId?: string
  /** How often the task is tried again. @default the consumer's */
  readonly maxRetries?: number
  /** The milliseconds before each retry. @default the route's, or else the consumer's */
  readonly backoff?: BackoffList
  /** How long one attempt may take, in milliseconds. @default the consumer's */
  readonly timeoutMs?: number
  /** For how many milliseconds after the task is done its id keeps others out. @default 0 */
  readonly dedupeMs?: number
  /** The schedule that added the task, the slot that the task is for, and how many slots were missed before it. */
  readonly schedule?: { readonly id: string, readonly slot: number, readonly missed: number }
}

/** How many characters of the id of a request are kept. */
export const MAX_REQ_ID_LENGTH = 255

const OPTIONS: readonly string[] = [
  'method', 'query', 'headers', 'payload', 'queue', 'id', 'onDuplicate', 'dedupeMs', 'delayMs', 'runAt', 'expiresMs',
  'priority', 'key', 'maxRetries', 'backoff', 'timeoutMs', 'user'
] satisfies Array<keyof AddOptions>
const ON_DUPLICATE: ReadonlySet<unknown> = new Set<OnDuplicate>(['keep', 'reject', 'replace'])

/**
 * Makes a task of the arguments of `add`, the first of its chain. Checks all of them first, so that a refusal leaves
 * nothing half done.
 */
export function makeTask (url: string, options: AddOptions, inheritance?: Inheritance): Task {
  checkOptions('options', options, OPTIONS, 'add')
  const method = options.method ?? (options.payload == null ? 'GET' : 'POST')
  checkMethod(method)
  const payload = payloadOf(method, options.payload, inheritance)
  const { maxRetries, backoff, timeoutMs, dedupeMs } = options
  checkWhole('maxRetries', maxRetries, 0)
  checkBackoffList('backoff', backoff)
  checkWhole('timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
  checkWhole('dedupeMs', dedupeMs, 0, MAX_DELAY_MS)
  const { headers, inherited } = headersOf(options.headers, payload, inheritance)
  return {
    id: idOf(options.id),
    method,
    url: canonicalUrl(url, options.query),
    headers,
    inherited,
    ip: undefined,
    protocol: undefined,
    payload: payload?.content,
    userId: undefined,
    depth: 1,
    // An id that was made here tells the time itself.
    addedAt: options.id === undefined ? undefined : Date.now(),
    dueAt: undefined,
    originReqId: undefined,
    maxRetries,
    backoff: backoff?.slice(),
    timeoutMs,
    dedupeMs,
    schedule: undefined
  }
}

/** When and how a store is to add the task: its due time, its expiry and what to do with a duplicate. */
export function placeOf (options: AddOptions): Pick<NewTask, 'delayMs' | 'runAt' | 'expiresMs' | 'onDuplicate'> {
  const { id, dedupeMs, expiresMs, onDuplicate = id === undefined ? undefined : 'keep' } = options
  if (id === undefined && (onDuplicate !== undefined || dedupeMs !== undefined)) {
    const [name, value] = onDuplicate === undefined ? ['dedupeMs', dedupeMs] : ['onDuplicate', onDuplicate]
    throw new FST_TASKQUEUE_INVALID_OPTION(name, 'left out where the task is given no id', show(value))
  }
  if (onDuplicate !== undefined && !ON_DUPLICATE.has(onDuplicate)) {
    throw new FST_TASKQUEUE_INVALID_OPTION('onDuplicate', "'keep', 'reject' or 'replace'", show(onDuplicate))
  }
  checkWhole('expiresMs', expiresMs, 1, MAX_DELAY_MS)
  return {
    ...dueOf(options),
    ...expiresMs !== undefined && { expiresMs },
    ...onDuplicate !== undefined && { onDuplicate }
  }
}

/**
 * Returns the level and the key of a task, as far as they are not the usual ones. `defaults` are those of its route,
 * which hold if `add` says nothing.
 */
export function laneOf (
  options: Pick<AddOptions, 'priority' | 'key'>, defaults: { readonly priority?: Priority, readonly key?: unknown } = {}
): Pick<NewTask, 'priority' | 'key'> {
  const priority = options.priority ?? defaults.priority ?? 'normal'
  checkPriority('priority', priority)
  const key = options.key === undefined ? checkKey(defaults.key) : checkKey(options.key)
  return { ...priority !== 'normal' && { priority }, ...key !== undefined && { key } }
}

export function checkPriority (name: string, priority: unknown): asserts priority is Priority | undefined {
  if (priority === undefined || PRIORITIES.some(one => one === priority)) return
  throw new FST_TASKQUEUE_INVALID_OPTION(name, "'high', 'normal' or 'low'", show(priority))
}

/** Returns when a task was first due, in milliseconds since the epoch, by the clock of the process that added it. */
export function firstDueOf (
  { id, addedAt = timeOfId(id) ?? NaN, dueAt = 0 }: Pick<Task, 'id' | 'addedAt' | 'dueAt'>
): number {
  return Math.max(addedAt, dueAt)
}
