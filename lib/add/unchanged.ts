import { isPlain } from '../check.js'

/** A copy of a JSON value, in an object; undefined if no copy could be made. Strings are shared, not copied. */
export type Snapshot = { readonly value: unknown } | undefined

/**
 * Takes a snapshot of a value. That takes no longer for long strings. Returns undefined if the value holds anything
 * that is neither JSON nor bytes.
 */
export function snapshotOf (value: unknown): Snapshot {
  try {
    return { value: copyOf(value) }
  } catch {
    return undefined
  }
}

/** Whether a value is as it was when the snapshot was taken. */
export function isUnchanged (value: unknown, snapshot: Snapshot): boolean {
  try {
    return snapshot !== undefined && isSame(value, snapshot.value)
  } catch {
    return false
  }
}

function copyOf (value: unknown): unknown {
  if (typeof value === 'function' || typeof value === 'symbol') throw new Error('it is not of JSON')
  if (typeof value !== 'object' || value === null) return value
  if (Array.isArray(value)) return value.map(copyOf)
  if (value instanceof Uint8Array) return Buffer.from(value)
  if (!isRecord(value)) throw new Error('it is not of JSON')
  return Object.fromEntries(Object.entries(value).map(([name, entry]) => [name, copyOf(entry)]))
}

function isSame (value: unknown, copy: unknown): boolean {
  if (!isObject(value) || !isObject(copy)) return Object.is(value, copy)
  if (Array.isArray(value)) {
    return Array.isArray(copy) && value.length === copy.length &&
      value.every((entry, index) => isSame(entry, copy[index]))
  }
  if (value instanceof Uint8Array) return Buffer.isBuffer(copy) && copy.equals(value)
  if (!isRecord(value) || Array.isArray(copy) || Buffer.isBuffer(copy)) return false
  const [entries, others] = [Object.entries(value), Object.entries(copy)]
  return entries.length === others.length && entries.every(([name, entry], index) => {
    const [otherName, other] = others[index]!
    return name === otherName && isSame(entry, other)
  })
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null

/** Whether the JSON of an object consists of its entries. */
const isRecord = (value: object): boolean => isPlain(value) && !('toJSON' in value)
