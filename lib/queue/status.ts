import type { Found, State } from '../store/found.js'
import type { Priority } from '../store/tasks.js'
import type { Codec } from '../task/codec.js'
import { timeOfId } from '../task/id.js'
import type { Answer } from '../task/outcome.js'
import { valueOf } from '../task/payload.js'
import type { Entry } from '../task/record.js'
import { firstDueOf, type Task } from '../task/task.js'

/** A task as it is known at the moment. */
export interface TaskStatus {
  readonly id: string
  readonly queue: string
  readonly state: State
  /** The method of its request; undefined, like `url` and `userId`, if its message cannot be read. */
  readonly method?: string
  readonly url?: string
  /** The id of the user as whom it runs; undefined if nobody in particular queued it. */
  readonly userId?: string
  /**
   * The body of its request: a value if it is JSON, a string if it is text, otherwise bytes. Only `get` and `wait` tell
   * it, of a task that waits, is delayed, runs or is dead, and whose whole message has at most 64 KiB.
   */
  readonly payload?: unknown
  /** Its level in the queue, unless it has ended. @default 'normal' */
  readonly priority?: Priority
  /** Its key, unless it has ended. */
  readonly key?: string
  /** When it was added. */
  readonly addedAt?: Date
  /** The id of the request that added it, or that added the first task of the chain that led to it. */
  readonly originReqId?: string
  /** When it becomes due, if it is delayed. */
  readonly dueAt?: Date
  /** When it ended, if it is done, dead, cancelled or expired. */
  readonly endedAt?: Date
  /** The attempt that is under way, if it runs. */
  readonly running?: RunningStatus
  /** The last value that it gave to `request.task.progress`, until it ends. */
  readonly progress?: unknown
  /** Why it was given up, or has to be tried again: the status, and up to 500 characters of the error's message. */
  readonly reason?: string
  /** Its last attempts that have ended, the oldest first, at most twenty. */
  readonly attempts: readonly AttemptStatus[]
  /** The answer of the last attempt, if the task is done or dead and was answered. */
  readonly answer?: TaskAnswer
}

/** An attempt that is under way. */
export interface RunningStatus {
  /** Its number, from 1. */
  readonly attempt: number
  readonly startedAt?: Date
  /**
   * The name of the consumer that makes it. The store learns it by the first heartbeat, which comes within a fifth of
   * `leaseMs`.
   */
  readonly consumer?: string
}

/** The answer to an attempt, and the text or value that its body holds. */
export interface TaskAnswer extends Answer {
  readonly status: number
  text (): string
  /** Parses the body. Throws a `SyntaxError` if it is no JSON, as it is none if it was cut. */
  json (): unknown
}

/** How an attempt ended: with a status, or without one for a reason. */
export interface AttemptStatus {
  /** When the attempt began; undefined, like `durationMs`, if its process died. */
  readonly startedAt?: Date
  readonly durationMs?: number
  /** The status of its answer, if there was one. */
  readonly status?: number
  /** Why there was no answer. */
  readonly reason?: string
}

/** Makes the status of a task that a store has found. */
export function statusOf (codec: Codec, found: Found): TaskStatus {
  const { queue, id, state, message, priority, key, dueAt, endedAt, reason, progress, records, isWhole = false } = found
  const decode = (text: string) => codec.decodeRecord(queue, id, text)
  const read = records.map(text => text === undefined ? undefined : decode(text) as Entry | undefined)
  const last = read.at(-1)
  const why = reason === undefined ? undefined : codec.decodeReason(queue, id, reason)
  const request: Partial<Task> = message === undefined ? asked(last) : requestOf(codec, queue, id, message, isWhole)
  const { method, url, userId, payload, headers, addedAt = timeOfId(id), originReqId } = request
  return {
    id,
    queue,
    state,
    ...method !== undefined && { method },
    ...url !== undefined && { url },
    ...userId !== undefined && { userId },
    ...payload !== undefined && { payload: valueOf(payload, headers?.['content-type']) },
    ...priority !== undefined && { priority },
    ...key !== undefined && { key },
    ...addedAt !== undefined && { addedAt: new Date(addedAt) },
    ...originReqId !== undefined && { originReqId },
    ...dueAt !== undefined && { dueAt: new Date(dueAt) },
    ...endedAt !== undefined && { endedAt: new Date(endedAt) },
    ...state === 'running' && { running: runningOf(found) },
    ...progress !== undefined && { progress: (decode(progress) as { value?: unknown } | undefined)?.value },
    ...why !== undefined && { reason: why },
    attempts: read.map(attemptOf),
    ...(state === 'done' || state === 'dead') && last?.headers !== undefined && { answer: new KeptAnswer(last) }
  }
}

/**
 * Returns since when a task waits, in milliseconds since the epoch: since it was first due, or since its last attempt
 * and the delay after that. NaN if its message cannot be read.
 */
export function waitingSince (codec: Codec, { queue, id, message = '', records }: Found): number {
  const last = records.findLast(text => text !== undefined)
  const record = last === undefined ? undefined : codec.decodeRecord(queue, id, last)
  const { at = 0, ms = 0, delayMs = 0 } = (record ?? {}) as Partial<Entry>
  return Math.max(at + ms + delayMs, firstDueOf({ id, ...requestOf(codec, queue, id, message, false) }))
}

/** Returns what the record of the last attempt says of the request. */
function asked ({ method, url, userId, addedAt, originReqId }: Partial<Entry> = {}): Partial<Task> {
  return { method, url, userId, addedAt, originReqId } as Partial<Task>
}

function requestOf (codec: Codec, queue: string, id: string, message: string, isWhole: boolean): Partial<Task> {
  try {
    return isWhole ? codec.decode(queue, id, message) : codec.decodeHead(queue, id, message)
  } catch {
    return {}
  }
}

function runningOf ({ attempt, startedAt, consumer }: Found): RunningStatus {
  return {
    attempt,
    ...startedAt !== undefined && { startedAt: new Date(startedAt) },
    ...consumer !== undefined && { consumer }
  }
}

const LEASE_EXPIRED = 'its lease expired: its process died, or its handler blocked the event loop'

function attemptOf (record: Entry | undefined): AttemptStatus {
  if (record === undefined) return { reason: LEASE_EXPIRED }
  const { at, ms, status, reason } = record
  return {
    startedAt: new Date(at),
    durationMs: ms,
    ...status !== undefined && { status },
    ...reason !== undefined && { reason }
  }
}

class KeptAnswer implements TaskAnswer {
  readonly status: number
  readonly headers: Answer['headers']
  readonly body: Buffer
  readonly whole: boolean

  constructor ({ status = 0, headers = {}, text = '', base64, cut }: Entry) {
    this.status = status
    this.headers = headers
    this.body = base64 === undefined ? Buffer.from(text) : Buffer.from(base64, 'base64')
    this.whole = cut !== true
  }

  text (): string { return this.body.toString() }

  json (): unknown { return JSON.parse(this.text()) }
}
