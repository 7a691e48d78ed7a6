import { isUtf8 } from 'node:buffer'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { kindOf, show } from '../show.js'
import type { Verdict } from '../store/turn.js'
import type { Answer, Outcome } from './outcome.js'
import { lostIn } from './payload.js'
import type { Task } from './task.js'

/** How many bytes of an answer's body are kept, and how many characters of a task's progress. */
export const KEPT_BYTES = 64 * 1024

/**
 * An attempt as it is kept. The last attempt also holds the answer, and the method, url and user of the task.
 * `at` is when it began, in milliseconds since the epoch; `ms` is how long it took.
 */
export interface Entry {
  readonly at: number
  readonly ms: number
  readonly status?: number
  readonly reason?: string
  /** For how long the task is then put off, in milliseconds. */
  readonly delayMs?: number
  readonly method?: string
  readonly url?: string
  readonly userId?: string
  readonly addedAt?: number
  readonly originReqId?: string
  readonly headers?: Readonly<Record<string, string>>
  /** The body of the answer, if it is text: most bodies are, and text is shorter than base64 and legible. */
  readonly text?: string
  /** The body of the answer, if it is not text. */
  readonly base64?: string
  /** The answer had more body than is kept. */
  readonly cut?: true
}

/**
 * Makes the record of an attempt. That of a last attempt includes the answer and the request. It has no JSON of what is
 * undefined, and is one literal, since every task has a record.
 */
export function recordOf (
  { method, url, userId, addedAt, originReqId }: Task, outcome: Outcome, verdict: Verdict, at: number, ms: number
): object {
  const { status, reason, answer } = outcome as { status?: number, reason?: string, answer?: Answer }
  const ended = { at, ms: Math.round(ms), status, reason }
  if (verdict.kind !== 'done' && verdict.kind !== 'dead') {
    return { ...ended, delayMs: (verdict as { delayMs?: number }).delayMs }
  }
  const isText = answer !== undefined && isUtf8(answer.body)
  return {
    at,
    ms: ended.ms,
    status,
    reason,
    method,
    url,
    userId,
    addedAt,
    originReqId,
    headers: answer?.headers,
    text: isText ? answer.body.toString() : undefined,
    base64: isText ? undefined : answer?.body.toString('base64'),
    cut: answer?.whole === false ? true : undefined
  }
}

/** Makes the record of the progress that a task reports. Throws if the value has no JSON, or too much. */
export function progressOf (value: unknown): object {
  let json: string | undefined
  let lost: unknown
  try {
    json = JSON.stringify(value)
    lost = lostIn(value)
  } catch {}
  if ((json === undefined && value !== undefined) || lost !== undefined) {
    const got = lost === undefined || lost === value ? kindOf(value) : `one with ${show(lost)} in it`
    throw new FST_TASKQUEUE_INVALID_OPTION('progress', 'a value that has JSON', got)
  }
  if (json !== undefined && json.length > KEPT_BYTES) {
    throw new FST_TASKQUEUE_INVALID_OPTION('progress', `at most ${KEPT_BYTES} characters of JSON`, String(json.length))
  }
  return { value }
}
