import { isUtf8 } from 'node:buffer'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { kindOf } from '../show.js'
import type { Answer, Outcome } from './outcome.js'
import type { Task } from './task.js'

/** How much of a body is kept. */
export const KEPT_BYTES = 64 * 1024

/** An attempt as it is kept, and with the last one what else is to be known of its task. */
export interface Entry {
  readonly at: number
  readonly ms: number
  readonly status?: number
  readonly reason?: string
  readonly method?: string
  readonly url?: string
  readonly userId?: string
  readonly headers?: Readonly<Record<string, string>>
  /** The body of the answer: most are text, and text is shorter and legible. */
  readonly text?: string
  readonly base64?: string
  readonly cut?: true
}

/** Makes the record of an attempt; with `isLast` the answer and the request are in it. */
export function recordOf ({ method, url, userId }: Task, outcome: Outcome, at: number, ms: number, isLast: boolean): object {
  const ended = { at, ms: Math.round(ms), ...outcome.kind === 'answered' ? { status: outcome.status } : { reason: (outcome as { reason?: string }).reason } }
  if (!isLast) return ended
  return { ...ended, method, url, userId, ...outcome.kind === 'answered' && kept(outcome.answer) }
}

function kept ({ headers, body, whole }: Answer): Partial<Entry> {
  return { headers, ...isUtf8(body) ? { text: body.toString() } : { base64: body.toString('base64') }, ...!whole && { cut: true } }
}

/** Makes the record of what a task says of its progress. */
export function progressOf (value: unknown): object {
  let json: string | undefined
  try {
    json = JSON.stringify(value)
  } catch {}
  if (json === undefined && value !== undefined) throw new FST_TASKQUEUE_INVALID_OPTION('progress', 'a value that has JSON', kindOf(value))
  if (json !== undefined && json.length > KEPT_BYTES) {
    throw new FST_TASKQUEUE_INVALID_OPTION('progress', `at most ${KEPT_BYTES} characters of JSON`, String(json.length))
  }
  return { value }
}
