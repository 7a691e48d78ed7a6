import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { MAX_DELAY_MS } from './time.js'

/** Returns how many milliseconds to wait before the given retry, counted from 1. */
export type Backoff = (retry: number) => number

/** The milliseconds before each retry, at most 30 days each. The last of them serves all further retries. */
export type BackoffList = readonly number[]

/** The longest list of delays. */
const MAX_LENGTH = 100

export function isBackoffList (value: unknown): value is BackoffList {
  const isDelay = (ms: unknown) => typeof ms === 'number' && ms >= 0 && ms <= MAX_DELAY_MS
  return Array.isArray(value) && value.length > 0 && value.length <= MAX_LENGTH && Array.from(value).every(isDelay)
}

const LIST = `a list of 1 to ${MAX_LENGTH} delays, each of 0 to 2592000000 milliseconds, which is 30 days`

export function checkBackoffList (name: string, value: unknown): void {
  if (value === undefined || isBackoffList(value)) return
  throw new FST_TASKQUEUE_INVALID_OPTION(name, LIST, show(value))
}

export function checkBackoff (name: string, value: unknown): void {
  if (value === undefined || typeof value === 'function' || isBackoffList(value)) return
  throw new FST_TASKQUEUE_INVALID_OPTION(name, `a function, or ${LIST}`, show(value))
}

export function backoffBy (list: BackoffList): Backoff {
  return retry => list[Math.min(retry, list.length) - 1]!
}

/**
 * The default backoff: doubles from one second to one hour. Each delay is random within its upper half, so that tasks
 * that failed together come back apart.
 */
export function exponential (retry: number, random = Math.random): number {
  return spread(Math.min(1000 * 2 ** (retry - 1), 3_600_000), random)
}

export function spread (ceilingMs: number, random = Math.random): number {
  return Math.round(ceilingMs * (1 + random()) / 2)
}

/** Calls the user's backoff. If it throws or returns no delay, the default takes its place: the task must survive. */
export function backOff (backoff: Backoff, retry: number): number {
  try {
    const delayMs: unknown = backoff(retry)
    if (typeof delayMs === 'number' && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return delayMs
  } catch {}
  return exponential(retry)
}
