/** How much is kept of what an error says, in UTF-16 code units. */
const LONGEST = 500

/** Returns what an error says, in bounds. It may be no error at all, and its message no text. */
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

/** Cuts a text that is too long, between characters. What not every store can keep becomes U+FFFD. */
export function bounded (text: string): string {
  const cut = text.length <= LONGEST ? text : `${text.slice(0, LONGEST - 1).replace(/[\ud800-\udbff]$/, '')}…`
  return cut.replace(/\0|\p{Surrogate}/gu, '\ufffd')
}
