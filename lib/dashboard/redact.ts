/** Names of values that are never shown. */
const SECRET = /authorization|cookie|token|secret|password|passwd|api-?key/i

const MASK = '[hidden]'

/** How many characters of a value are shown. */
const SHOWN = 4096

/** Masks what is named like a secret, at any depth. Bytes become a text. */
export function mask (value: unknown): unknown {
  if (typeof value === 'string') return value
  if (value instanceof Uint8Array) {
    return `${value.length} bytes: ${Buffer.from(value.subarray(0, 1024)).toString('hex')}`
  }
  const json = JSON.stringify(value, (name, inner) => SECRET.test(name) ? MASK : inner)
  return json === undefined ? undefined : JSON.parse(json)
}

/** Masks the parameters of a query that are named like secrets. */
export function maskUrl (url: string): string {
  return url.replace(/([?&])([^=&]*)=([^&]*)/g, (all, mark: string, name: string) =>
    SECRET.test(name) ? `${mark}${name}=${MASK}` : all)
}

/** Writes a value as text, at most so much of it. */
export function present (value: unknown): { readonly text: string, readonly more: number } {
  const text = typeof value === 'string' ? value : JSON.stringify(value, undefined, 2) ?? String(value)
  return { text: text.slice(0, SHOWN), more: Math.max(0, text.length - SHOWN) }
}
