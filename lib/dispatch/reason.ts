/** How many UTF-16 code units of an error's message are kept. */
const LONGEST = 500

/** Returns the message of an error, in bounds. Any value can be thrown, and the message need not be a string. */
export function reasonOf (error: unknown): string {
  try {
    const object = typeof error === 'object' && error !== null ? error : { message: error }
    const { message, code, name } = object as Record<string, unknown>
    return bounded(String(message || code || name || error) || SAYS_NOTHING)
  } catch {
    return SAYS_NOTHING
  }
}

const SAYS_NOTHING = 'an error that says nothing'

/** Cuts a text that is too long, between characters. Characters that some stores cannot keep become U+FFFD. */
export function bounded (text: string): string {
  const cut = text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1).replace(/[\ud800-\udbff]$/, '')}…`
  return cut.replace(/\0|\p{Surrogate}/gu, '\ufffd')
}
