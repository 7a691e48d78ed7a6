import type { Lease, Verdict } from '../store/turn.js'
import { type Backoff, backOff, spread } from './backoff.js'
import type { Outcome } from './outcome.js'
import { MAX_DELAY_MS } from './time.js'

/** How tasks are tried again. */
export interface RetryPolicy {
  readonly maxRetries: number
  readonly backoff: Backoff
  /** For how many milliseconds in all a task without a route here is left to other processes, which may have one. */
  readonly missingRouteMs: number
}

/** A task that has killed its consumer this often becomes a dead letter. */
const MAX_DEATHS = 3

/** For how long in all a task may be deferred by "not now, in n seconds" without costing a retry: a day. */
const MAX_DEFERRED_MS = 24 * 60 * 60 * 1000

/** Client errors that say "not now". Any other client error would come again however often the task is tried. */
const TRANSIENT: ReadonlySet<number> = new Set([408, 409, 425, 429])

/** Statuses whose Retry-After says when there will be room, and nothing about the task. */
const BUSY: ReadonlySet<number> = new Set([429, 503])

const HTTP_DATE = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun)[a-z]*,? .*\d\d:\d\d:\d\d/

type Counters = Pick<Lease, 'retries' | 'deferredMs' | 'unroutedMs'>

/** Decides what becomes of a task whose attempt has ended. */
export function judge (outcome: Outcome, lease: Counters, policy: RetryPolicy): Verdict {
  switch (outcome.kind) {
    case 'unseen': return { kind: 'release', unseen: true }
    case 'unrouted': return leaveToOthers(outcome.reason, lease, policy)
    case 'failed': return tryAgain(outcome.reason, lease, policy)
  }
  const { status, error, answer } = outcome
  if (status < 400) return { kind: 'done' }
  const reason = error === undefined ? `status ${status}` : `status ${status}: ${error}`
  if (status < 500 && !TRANSIENT.has(status)) return { kind: 'dead', reason }
  const retryAfterMs = parseRetryAfter(answer.headers['retry-after'])
  // At least a second, so that a task does not come back in vain all the time.
  const isBusy = retryAfterMs !== undefined && retryAfterMs > 0 && BUSY.has(status)
  const deferMs = isBusy ? Math.max(retryAfterMs, 1000) : Infinity
  if (lease.deferredMs + deferMs <= MAX_DEFERRED_MS) return { kind: 'defer', delayMs: deferMs, reason, busy: true }
  return tryAgain(reason, lease, policy, retryAfterMs)
}

function tryAgain (
  reason: string, { retries }: Counters, { maxRetries, backoff }: RetryPolicy, retryAfterMs?: number
): Verdict {
  if (retries >= maxRetries) return { kind: 'dead', reason: `${reason}, after ${retries} retries` }
  return { kind: 'retry', delayMs: retryAfterMs ?? backOff(backoff, retries + 1), reason }
}

/** Waits half as long again each time, up to a minute: another process has the route now, or will within minutes. */
function leaveToOthers (reason: string, { unroutedMs }: Counters, { missingRouteMs }: RetryPolicy): Verdict {
  const leftMs = missingRouteMs - unroutedMs
  if (leftMs <= 0) return { kind: 'dead', reason }
  const delayMs = Math.min(spread(Math.min(Math.max(unroutedMs / 2, 100), 60_000)), leftMs)
  return { kind: 'defer', delayMs, reason, unrouted: true }
}

/**
 * Returns why a task is dead without another attempt; undefined if it may be attempted. It is deadly if even its burial
 * has killed a consumer.
 */
export function prejudge (
  { deaths }: Pick<Lease, 'deaths'>
): { readonly reason: string, readonly isDeadly: boolean } | undefined {
  if (deaths < MAX_DEATHS) return undefined
  const reason = `${deaths} times its lease has expired while it ran alone: ` +
    'its process has died, or its handler has blocked the event loop'
  return { reason, isDeadly: deaths > MAX_DEATHS }
}

/** Reads a number of seconds or a date (RFC 9110 §10.2.3) as milliseconds from now; undefined for anything else. */
export function parseRetryAfter (value: string | undefined, now = Date.now()): number | undefined {
  if (value === undefined) return undefined
  // Date.parse alone takes '-1' and '1.5' for days of 2001, and a date without a zone for local time.
  const isDate = value.length < 100 && HTTP_DATE.test(value)
  const date = isDate ? Date.parse(value.endsWith('GMT') ? value : `${value} GMT`) : NaN
  const delayMs = /^\d+$/.test(value.trim()) ? Number(value) * 1000 : date - now
  return Number.isNaN(delayMs) ? undefined : Math.min(Math.max(delayMs, 0), MAX_DELAY_MS)
}
