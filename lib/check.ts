import { FST_TASKQUEUE_INVALID_OPTION } from './errors.js'
import { cut, kindOf, show } from './show.js'

/** The longest delay of a timer, in milliseconds. With a longer one a timer fires at once. */
export const LONGEST_TIMER_MS = 0x7fffffff

/**
 * Whether a value is an object that its own entries describe completely.
 * A Headers, a Map or a URLSearchParams is not: what it holds is not in its entries.
 */
export function isPlain (value: unknown): boolean {
  try {
    return Object.prototype.toString.call(value) === '[object Object]'
  } catch {
    return false
  }
}

/** Throws unless `options` is an object with no other keys than the known ones. @param of what takes the options */
export function checkOptions (
  name: string, options: unknown, known: readonly string[], of: string
): asserts options is object {
  if (!isPlain(options)) throw new FST_TASKQUEUE_INVALID_OPTION(name, 'an object', kindOf(options))
  for (const key of Object.keys(options as object)) {
    if (known.includes(key)) continue
    const expected = `one of ${known.join(', ')}`
    throw new FST_TASKQUEUE_INVALID_OPTION(cut(key), expected, `an option that ${of} does not have`)
  }
}

export function isWhole (value: number, min: number, max = Number.MAX_SAFE_INTEGER): boolean {
  return Number.isSafeInteger(value) && value >= min && value <= max
}

export function checkWhole (name: string, value: number | undefined, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined || isWhole(value, min, max)) return
  const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`
  throw new FST_TASKQUEUE_INVALID_OPTION(name, `a whole number, ${range}`, show(value))
}
