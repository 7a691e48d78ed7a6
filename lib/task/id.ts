import { randomUUID } from 'node:crypto'
import { FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_USER_ID } from '../errors.js'
import { show } from '../show.js'

export function idOf (id: unknown): string {
  if (id === undefined) return uuidv7()
  checkId(id)
  return id
}

/** Throws unless this can be the id of a task: whatever is given as one, anywhere, comes through here first. */
export function checkId (id: unknown): asserts id is string {
  if (typeof id !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(id)) throw new FST_TASKQUEUE_INVALID_ID(show(id))
}

/** The same for several, as they are at the moment. */
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
 * Returns a UUID v7 (RFC 9562 §5.7) that sorts behind all those made before it in this
 * process: `rand_a` is a counter (§6.2, method 1) that carries over into the time, so
 * that neither a burst nor a clock set back breaks the order.
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
  // The rest of one of version 4 is random as well.
  return `${prefix}${sequence.toString(16).padStart(3, '0')}${randomUUID().slice(18)}`
}

/** Reads the id that `user.id` returned; a number becomes a string. */
export function checkUserId (id: unknown): string | undefined {
  if (id === undefined || id === null) return undefined
  const text = Number.isFinite(id) || (typeof id === 'bigint' && BigInt.asIntN(256, id) === id) ? String(id) : id
  if (typeof text === 'string' && /^[\x20-\x7e]{1,255}$/.test(text) && text === text.trim()) return text
  throw new FST_TASKQUEUE_INVALID_USER_ID(show(id))
}
