import { isDate } from 'node:util/types'
import { FST_TASKQUEUE_INVALID_DELAY } from '../errors.js'
import { show } from '../show.js'

/** The longest delay of a task, in milliseconds: 30 days. */
export const MAX_DELAY_MS = 30 * 24 * 60 * 60 * 1000

/** The latest time of a Date, in milliseconds since the epoch (ECMA-262 §21.4.1.1). */
export const LATEST_TIME_MS = 8.64e15

/** A time of RFC 3339 §5.6. Without a zone it would be another time on another machine. */
const TIME = /^(\d{4}-\d\d-\d\d)[Tt ](?:[01]\d|2[0-3]):[0-5]\d(?::[0-5]\d(?:\.\d{1,9})?)?(?:[Zz]|[+-](?:[01]\d|2[0-3]):[0-5]\d)$/

/** When a store is to make the task due: after milliseconds, at milliseconds since the epoch, or at once. */
export function dueOf (
  { delayMs, runAt }: { readonly delayMs?: number, readonly runAt?: Date | string | number }
): { delayMs?: number, runAt?: number } {
  if (runAt === undefined) {
    if (delayMs === undefined) return {}
    if (typeof delayMs === 'number' && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return { delayMs: Math.ceil(delayMs) }
    throw new FST_TASKQUEUE_INVALID_DELAY('0 to 2592000000 milliseconds, which is 30 days', show(delayMs))
  }
  if (delayMs !== undefined) throw new FST_TASKQUEUE_INVALID_DELAY('delayMs or runAt, not both', 'both')
  const time = timeOf(runAt)
  if (time - Date.now() <= MAX_DELAY_MS) return { runAt: time }
  const expected = 'a time at most 30 days ahead, as a Date, milliseconds since the epoch, ' +
    'or text with a zone like 2030-01-31T18:00:00Z'
  throw new FST_TASKQUEUE_INVALID_DELAY(expected, show(runAt))
}

/** Returns a time in milliseconds since the epoch; NaN if it is no time, or ambiguous. */
export function timeOf (runAt: unknown): number {
  if (typeof runAt === 'number' || isDate(runAt)) return new Date(runAt).getTime()
  const date = typeof runAt === 'string' && runAt.length < 40 ? TIME.exec(runAt)?.[1] : undefined
  // Date takes 31 November, and makes it 1 December.
  if (date === undefined || !new Date(`${date}T00:00Z`).toJSON()?.startsWith(date)) return NaN
  return new Date((runAt as string).toUpperCase()).getTime()
}
