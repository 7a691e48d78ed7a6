import type { Found, State } from '../store/found.js'
import type { Codec } from '../task/codec.js'
import type { Answer } from '../task/outcome.js'
import type { Entry } from '../task/record.js'
import type { Task } from '../task/task.js'

/** A task as it is known at the moment. */
export interface TaskStatus {
  readonly id: string
  readonly queue: string
  readonly state: State
  /** The method of its request; undefined, like `url` and `userId`, if its message cannot be read. */
  readonly method?: string
  readonly url?: string
  /** The id of the user who queued it; undefined if nobody in particular did. */
  readonly userId?: string
  /** When it becomes due, if it is delayed. */
  readonly dueAt?: Date
  /** When it ended, if it is done, dead, cancelled or expired. */
  readonly endedAt?: Date
  /** The last value that it gave to `request.task.progress`, until it ends. */
  readonly progress?: unknown
  /** Why it was given up, or has to be tried again: the status, and up to 500 characters of the error's message. */
  readonly reason?: string
  /** Its last attempts that have ended, the oldest first, at most twenty. */
  readonly attempts: readonly AttemptStatus[]
  /** The answer of the last attempt, if the task is done or dead and was answered. */
  readonly answer?: Answer & { readonly status: number }
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
  const { queue, id, state, message, dueAt, endedAt, reason, progress, records } = found
  const decode = (text: string) => codec.decodeRecord(queue, id, text)
  const read = records.map(text => text === undefined ? undefined : decode(text) as Entry | undefined)
  const last = read.at(-1)
  const why = reason === undefined ? undefined : codec.decodeReason(queue, id, reason)
  const { method, url, userId } = message === undefined ? last ?? {} : requestOf(codec, queue, id, message)
  return {
    id,
    queue,
    state,
    ...method !== undefined && { method },
    ...url !== undefined && { url },
    ...userId !== undefined && { userId },
    ...dueAt !== undefined && { dueAt: new Date(dueAt) },
    ...endedAt !== undefined && { endedAt: new Date(endedAt) },
    ...progress !== undefined && { progress: (decode(progress) as { value?: unknown } | undefined)?.value },
    ...why !== undefined && { reason: why },
    attempts: read.map(attemptOf),
    ...(state === 'done' || state === 'dead') && last?.headers !== undefined && { answer: answerOf(last) }
  }
}

function requestOf (
  codec: Codec, queue: string, id: string, message: string
): Partial<Pick<Task, 'method' | 'url' | 'userId'>> {
  try {
    return codec.decodeHead(queue, id, message)
  } catch {
    return {}
  }
}

function attemptOf (record: Entry | undefined): AttemptStatus {
  if (record === undefined) return { reason: 'its process died, or it reported nothing' }
  const { at, ms, status, reason } = record
  return {
    startedAt: new Date(at),
    durationMs: ms,
    ...status !== undefined && { status },
    ...reason !== undefined && { reason }
  }
}

function answerOf ({ status = 0, headers = {}, text = '', base64, cut }: Entry): Answer & { status: number } {
  const body = base64 === undefined ? Buffer.from(text) : Buffer.from(base64, 'base64')
  return { status, headers, body, whole: cut !== true }
}
