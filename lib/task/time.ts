import { isDate } from 'node:util/types'
import { FST_TASKQUEUE_INVALID_DELAY } from '../errors.js'
import { show } from '../show.js'
import type { AddOptions } from './options.js'

/** The longest delay of a task, in milliseconds: 30 days. */
export const MAX_DELAY_MS = 30 * 24 * 60 * 60 * 1000

/** The longest text that is parsed as a time. An ISO 8601 string is a third as long. */
const MAX_TIME_LENGTH = 100

/** When a store is to make the task due: after milliseconds, at milliseconds since the epoch, or at once. */
export function dueOf (
  { delayMs, runAt }: Pick<AddOptions, 'delayMs' | 'runAt'>
): { delayMs?: number, runAt?: number } {
  if (runAt === undefined) {
    if (delayMs === undefined) return {}
    if (typeof delayMs === 'number' && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return { delayMs: Math.ceil(delayMs) }
    throw new FST_TASKQUEUE_INVALID_DELAY('0 to 2592000000 milliseconds, which is 30 days', show(delayMs))
  }
  if (delayMs !== undefined) throw new FST_TASKQUEUE_INVALID_DELAY('delayMs or runAt, not both', 'both')
  const isTime = typeof runAt === 'number' || isDate(runAt) ||
    (typeof runAt === 'string' && runAt.length <= MAX_TIME_LENGTH && /^\d{4}-\d\d-\d\d/.test(runAt))
  const time = isTime ? new Date(runAt).getTime() : NaN
  if (time - Date.now() <= MAX_DELAY_MS) return { runAt: time }
  throw new FST_TASKQUEUE_INVALID_DELAY('a time at most 30 days ahead, as a Date or an ISO 8601 string', show(runAt))
}
