import { FST_TASKQUEUE_INVALID_OPTION } from './errors.js'
import { cut, kindOf, show } from './show.js'

/** A longer one would fire at once. */
export const LONGEST_TIMER_MS = 0x7fffffff

/** An object whose entries are all there is to it: a Headers, a Map or a URLSearchParams has none. */
export function isPlain (value: unknown): boolean {
  try {
    return Object.prototype.toString.call(value) === '[object Object]'
  } catch {
    return false
  }
}

/** Throws unless what a function is given are options that it has. */
export function checkOptions (name: string, options: unknown, known: readonly string[], of: string): asserts options is object {
  if (!isPlain(options)) throw new FST_TASKQUEUE_INVALID_OPTION(name, 'an object', kindOf(options))
  for (const key of Object.keys(options as object)) {
    if (!known.includes(key)) throw new FST_TASKQUEUE_INVALID_OPTION(cut(key), `one of ${known.join(', ')}`, `an option that ${of} does not have`)
  }
}

export function checkWhole (name: string, value: number | undefined, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)) return
  const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`
  throw new FST_TASKQUEUE_INVALID_OPTION(name, `a whole number, ${range}`, show(value))
}
