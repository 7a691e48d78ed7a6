import { isPlain } from '../check.js'

/** What a value of JSON was: another value of the same shape, with the same texts. */
export type Snapshot = { readonly value: unknown } | undefined

/** Remembers a value, which takes no longer for long texts; undefined if it holds anything that is not of JSON, nor bytes. */
export function snapshotOf (value: unknown): Snapshot {
  try {
    return { value: copyOf(value) }
  } catch {
    return undefined
  }
}

/** Whether a value is as it was. */
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
  if (typeof value !== 'object' || value === null || typeof copy !== 'object' || copy === null) return Object.is(value, copy)
  if (Array.isArray(value)) return Array.isArray(copy) && value.length === copy.length && value.every((entry, index) => isSame(entry, copy[index]))
  if (value instanceof Uint8Array) return Buffer.isBuffer(copy) && copy.equals(value)
  if (!isRecord(value) || Array.isArray(copy) || Buffer.isBuffer(copy)) return false
  const [entries, others] = [Object.entries(value), Object.entries(copy)]
  return entries.length === others.length && entries.every(([name, entry], index) => name === others[index]![0] && isSame(entry, others[index]![1]))
}

/** Whether what JSON says of an object is its entries. */
const isRecord = (value: object): boolean => isPlain(value) && !('toJSON' in value)
