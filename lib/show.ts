/** How much of a text an error shows. */
const SHOWN_LENGTH = 100

/**
 * Shows a value in an error: short, on one line, and recognisable by its type. Nothing that an object holds
 * is shown, since it may be a header, a payload or a password. No value makes this throw or take long.
 */
export function show (value: unknown): string {
  switch (typeof value) {
    case 'string': return cut(JSON.stringify(conceal(value).slice(0, SHOWN_LENGTH)))
    case 'bigint': return value > -LONG_BIGINT && value < LONG_BIGINT ? `${value}n` : 'a long bigint'
    case 'function': return 'a function'
    case 'symbol': return 'a symbol'
    case 'object': return value === null ? 'null' : Array.isArray(value) ? 'an array' : nameOf(value, 'a ') ?? 'an object'
    default: return String(value)
  }
}

/** To write a longer one in decimals takes time. */
const LONG_BIGINT = 10n ** 30n

/** Says what kind of thing a value is, and nothing of what is in it. */
export function kindOf (value: unknown): string {
  if (typeof value !== 'object' || value === null) return value === null ? 'null' : `a value of type ${typeof value}`
  return nameOf(value, 'a value of type ') ?? 'an object'
}

/** Cuts a text to what an error shows. */
export function cut (text: string): string {
  return text.length > SHOWN_LENGTH ? `${text.slice(0, SHOWN_LENGTH)}…` : text
}

/** A text in the wrong place may be the address that holds a password. */
function conceal (text: string): string {
  const end = text.lastIndexOf('@')
  return end === -1 ? text : `…${text.slice(end)}`
}

/** Names the class of an object, unless it is a plain one. An object may answer questions about itself with an error. */
function nameOf (value: object, article: string): string | undefined {
  try {
    const name: unknown = Object.getPrototypeOf(value)?.constructor?.name
    return typeof name === 'string' && name !== 'Object' && name !== '' ? article + cut(name) : undefined
  } catch {
    return undefined
  }
}
