import { isPlain } from '../check.js'

/** Whether a value is still what was copied from it: its JSON, parsed again, or its bytes. */
export function isUnchanged (value: unknown, copy: unknown): boolean {
  try {
    return isSame(value, copy)
  } catch {
    return false
  }
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
