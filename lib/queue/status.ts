import type { Found, State } from '../store/found.js'
import type { Codec } from '../task/codec.js'
import type { Answer } from '../task/outcome.js'
import type { Entry } from '../task/record.js'
import type { Task } from '../task/task.js'

/** What is known of a task. */
export interface TaskStatus {
  readonly id: string
  readonly queue: string
  readonly state: State
  /** Of the request that it is; undefined when its message cannot be read. */
  readonly method?: string
  readonly url?: string
  readonly userId?: string
  /** When it becomes due, while it is delayed. */
  readonly dueAt?: Date
  /** When it was done, given up, cancelled or expired. */
  readonly endedAt?: Date
  /** What it said last with `request.task.progress`, until it ends. */
  readonly progress?: unknown
  /** Why it was given up, or has to be tried again: what the error said, if there was one. */
  readonly reason?: string
  /** Those that have ended, the oldest first, at most twenty. */
  readonly attempts: readonly AttemptStatus[]
  /** The last one, of a task that is done or was given up. */
  readonly answer?: Answer & { readonly status: number }
}

/** How an attempt has ended: with a status, or for another reason. */
export interface AttemptStatus {
  /** Unknown of one whose process has died. */
  readonly startedAt?: Date
  readonly durationMs?: number
  readonly status?: number
  readonly reason?: string
}

/** Reads what a store has found. */
export function statusOf (codec: Codec, { queue, id, state, message, dueAt, endedAt, reason, progress, records }: Found): TaskStatus {
  const read = records.map(text => text === undefined ? undefined : codec.decodeRecord(queue, id, text) as Entry | undefined)
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
    ...progress !== undefined && { progress: (codec.decodeRecord(queue, id, progress) as { value?: unknown } | undefined)?.value },
    ...why !== undefined && { reason: why },
    attempts: read.map(attemptOf),
    ...(state === 'done' || state === 'dead') && last?.headers !== undefined && { answer: answerOf(last) }
  }
}

function requestOf (codec: Codec, queue: string, id: string, message: string): Partial<Pick<Task, 'method' | 'url' | 'userId'>> {
  try {
    return codec.decodeHead(queue, id, message)
  } catch {
    return {}
  }
}

function attemptOf (record: Entry | undefined): AttemptStatus {
  if (record === undefined) return { reason: 'its process died, or did not say' }
  const { at, ms, status, reason } = record
  return { startedAt: new Date(at), durationMs: ms, ...status !== undefined && { status }, ...reason !== undefined && { reason } }
}

function answerOf ({ status = 0, headers = {}, text = '', base64, cut }: Entry): Answer & { status: number } {
  return { status, headers, body: base64 === undefined ? Buffer.from(text) : Buffer.from(base64, 'base64'), whole: cut !== true }
}
