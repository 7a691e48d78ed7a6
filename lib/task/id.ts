import { randomUUID } from 'node:crypto'
import {
  FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_KEY, FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_USER_ID
} from '../errors.js'
import { show } from '../show.js'

/** Checks the id given to `add`; makes one if none was given. */
export function idOf (id: unknown): string {
  if (id === undefined) return uuidv7()
  checkId(id)
  return id
}

/** Whether a value is a text of printable ASCII characters without spaces, at most so many of them. */
export function isId (value: unknown, most: number): value is string {
  return typeof value === 'string' && value.length <= most && /^[\x21-\x7e]+$/.test(value)
}

/** Throws unless this can be the id of a task. Every function that is given an id calls this first. */
export function checkId (id: unknown): asserts id is string {
  if (!isId(id, 255)) throw new FST_TASKQUEUE_INVALID_ID(show(id))
}

/** Checks an array of ids and returns a copy, so that the caller cannot change it afterwards. */
export function checkIds (ids: unknown): string[] {
  if (!Array.isArray(ids)) throw new FST_TASKQUEUE_INVALID_OPTION('ids', 'an array of ids', show(ids))
  return Array.from(ids, id => {
    checkId(id)
    return id
  })
}

let lastMs = 0
let sequence = 0
let prefix = ''

/**
 * Returns a UUID v7 (RFC 9562 §5.7) that sorts behind all that this process has made before. Its `rand_a` is a
 * counter (§6.2, method 1) that carries over into the time, so neither a burst nor a clock set back breaks the order.
 */
export function uuidv7 (now = Date.now()): string {
  if (now > lastMs) {
    lastMs = now
    sequence = 0
  } else if (++sequence === 0x1000) {
    lastMs++
    sequence = 0
  }
  if (sequence === 0) {
    const hex = lastMs.toString(16).padStart(12, '0')
    prefix = `${hex.slice(0, 8)}-${hex.slice(8)}-7`
  }
  // The last two groups of a UUID v4 are made the same way: a variant and random bits.
  return `${prefix}${sequence.toString(16).padStart(3, '0')}${randomUUID().slice(18)}`
}

/** Returns the time in a UUID v7, in milliseconds since the epoch; undefined for any other id. */
export function timeOfId (id: string): number | undefined {
  const isV7 = /^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.test(id)
  return isV7 ? Number.parseInt(id.slice(0, 8) + id.slice(9, 13), 16) : undefined
}

/** Checks the key of a task. A number becomes a string, null becomes undefined. */
export function checkKey (key: unknown): string | undefined {
  if (key === undefined || key === null) return undefined
  const text = printable(key)
  if (text !== undefined) return text
  throw new FST_TASKQUEUE_INVALID_KEY(show(key))
}

/** Checks the id of a user. A number becomes a string, null becomes undefined. */
export function checkUserId (id: unknown): string | undefined {
  if (id === undefined || id === null) return undefined
  const text = printable(id)
  if (text !== undefined) return text
  throw new FST_TASKQUEUE_INVALID_USER_ID(show(id))
}

/** Returns a text of 1 to 255 printable ASCII characters, or a number as such a text; undefined for anything else. */
function printable (value: unknown): string | undefined {
  const isNumber = Number.isFinite(value) || (typeof value === 'bigint' && BigInt.asIntN(256, value) === value)
  const text = isNumber ? String(value) : value
  const isPrintable = typeof text === 'string' && /^[\x20-\x7e]{1,255}$/.test(text) && text === text.trim()
  return isPrintable ? text : undefined
}
