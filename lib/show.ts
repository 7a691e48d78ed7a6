/** How many characters of a text an error shows. */
const SHOWN_LENGTH = 100

/**
 * Describes a value for an error: briefly, on one line, and recognisable by its type. The contents of an object are
 * left out, since they may be a header, a payload or a password. No value makes this throw or take long.
 */
export function show (value: unknown): string {
  switch (typeof value) {
    case 'string': return cut(JSON.stringify(conceal(value).slice(0, SHOWN_LENGTH)))
    case 'bigint': return value > -LONG_BIGINT && value < LONG_BIGINT ? `${value}n` : 'a long bigint'
    case 'function': return 'a function'
    case 'symbol': return 'a symbol'
    case 'object':
      if (value === null) return 'null'
      return Array.isArray(value) ? 'an array' : nameOf(value, 'a ') ?? 'an object'
    default: return String(value)
  }
}

/** Writing a longer bigint in decimals takes time. */
const LONG_BIGINT = 10n ** 30n

/** Says what kind of value this is, and nothing of what it holds. */
export function kindOf (value: unknown): string {
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : `a value of type ${typeof value}`
  return nameOf(value, 'a value of type ') ?? 'an object'
}

/** Cuts a text, by default to the length that an error shows. */
export function cut (text: string, length = SHOWN_LENGTH): string {
  return text.length > length ? `${text.slice(0, length)}…` : text
}

/** Hides everything before the last `@`: a text in the wrong place may be an address with a password in it. */
function conceal (text: string): string {
  const end = text.lastIndexOf('@')
  return end === -1 ? text : `…${text.slice(end)}`
}

/**
 * Names the class of an object, article included; undefined for a plain object.
 * Asking may throw, since an object can be a proxy or have getters.
 */
function nameOf (value: object, article: string): string | undefined {
  try {
    const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
    return typeof name === 'string' && name !== 'Object' && name !== '' ? article + cut(name) : undefined
  } catch {
    return undefined
  }
}
