import type { Answer } from './answer.js'
import type { Lease, Verdict } from './store.js'
import { MAX_DELAY_MS } from './task.js'

/** How an attempt ended: with an answer, without one, or before the app had seen the request. */
export type Outcome =
  | { readonly kind: 'answered', readonly status: number, readonly answer: Answer }
  | { readonly kind: 'failed', readonly reason: string }
  | { readonly kind: 'unseen' }

export interface RetryPolicy {
  readonly maxRetries: number
  readonly backoff: Backoff
}

/** Returns how many milliseconds to wait before the given retry, counted from 1. */
export type Backoff = (retry: number) => number

/** How often a task may take its consumer down with it. */
const MAX_DEATHS = 3

/** Answers that say "not now"; any other in the range of client errors will be the same however often one asks. */
const TRANSIENT: ReadonlySet<number> = new Set([408, 409, 425, 429])

const HTTP_DATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d\d:\d\d:\d\d/

/** Decides what becomes of a task whose attempt has ended. */
export function judge (outcome: Outcome, { retries }: Pick<Lease, 'retries'>, policy: RetryPolicy): Verdict {
  if (outcome.kind === 'unseen') return { kind: 'release', unseen: true }
  const { status = 500 } = outcome as { status?: number }
  if (status < 400) return { kind: 'done' }
  const reason = outcome.kind === 'failed' ? outcome.reason : `status ${status}`
  if (status < 500 && !TRANSIENT.has(status)) return { kind: 'dead', reason }
  if (retries >= policy.maxRetries) return { kind: 'dead', reason: `${reason}, after ${retries} retries` }
  const retryAfterMs = outcome.kind === 'answered' ? parseRetryAfter(outcome.answer.headers['retry-after']) : undefined
  return { kind: 'retry', delayMs: retryAfterMs ?? backOff(policy.backoff, retries + 1), reason }
}

/** Decides about a task before it is attempted once more. */
export function prejudge ({ deaths }: Pick<Lease, 'deaths'>): Verdict | undefined {
  if (deaths < MAX_DEATHS) return undefined
  return { kind: 'dead', reason: `its consumer died ${deaths} times while running it` }
}

/** Doubles from one second to one hour, each time spread over the upper half so that what failed together comes back apart. */
export function exponential (retry: number, random = Math.random): number {
  const ceiling = Math.min(1000 * 2 ** (retry - 1), 3_600_000)
  return Math.round(ceiling * (1 + random()) / 2)
}

/** A backoff of the user's that fails must not cost the task. */
function backOff (backoff: Backoff, retry: number): number {
  try {
    const delayMs: unknown = backoff(retry)
    if (typeof delayMs === 'number' && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return delayMs
  } catch {}
  return exponential(retry)
}

/** Reads a number of seconds or a date (RFC 9110 §10.2.3); returns undefined for anything else. */
export function parseRetryAfter (value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined
  // Date.parse alone takes '-1' and '1.5' for days of 2001, and the form without a zone for local time.
  const date = HTTP_DATE.test(value) ? Date.parse(value.endsWith('GMT') ? value : `${value} GMT`) : NaN
  const delayMs = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : date - now
  return Number.isNaN(delayMs) ? undefined : Math.min(Math.max(delayMs, 0), MAX_DELAY_MS)
}
