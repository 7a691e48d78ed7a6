import type { ServerResponse } from 'node:http'

/** What is kept of the answer to a task. */
export interface Answer {
  /** Those of its headers that say what its body is, or where else to look. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  /** Whether that is all of its body. */
  readonly whole: boolean
}

export const KEPT_HEADERS = ['content-type', 'content-encoding', 'content-language', 'content-disposition', 'location', 'etag', 'last-modified', 'retry-after']

/** How much of a body is kept. */
export const KEPT_BYTES = 64 * 1024

/** Listens to what an app writes to a response, and returns what returns the answer. */
export function listenTo (response: ServerResponse): () => Answer {
  const chunks: Buffer[] = []
  let length = 0
  const take = ([chunk, encoding]: unknown[]) => {
    if (length > KEPT_BYTES || (typeof chunk !== 'string' && !(chunk instanceof Uint8Array))) return
    const bytes = typeof chunk === 'string' ? Buffer.from(chunk, typeof encoding === 'string' ? encoding as BufferEncoding : 'utf8') : chunk
    // A copy: what is not kept is not held either, and what is kept is not changed by its writer.
    chunks.push(Buffer.from(bytes.subarray(0, KEPT_BYTES - length)))
    length += bytes.length
  }
  let isWriting = false
  for (const name of ['write', 'end'] as const) {
    const method = response[name] as (...args: unknown[]) => unknown
    Object.assign(response, {
      [name] (this: ServerResponse, ...args: unknown[]) {
        // One may call the other.
        const isOuter = !isWriting
        isWriting = true
        try {
          if (isOuter && !this.writableEnded) take(args)
          return method.apply(this, args)
        } finally {
          if (isOuter) isWriting = false
        }
      }
    })
  }
  return () => {
    const headers: Record<string, string> = {}
    for (const name of KEPT_HEADERS) if (response.hasHeader(name)) headers[name] = String(response.getHeader(name))
    const hasBody = response.statusCode !== 204 && response.statusCode !== 304
    const body = chunks.length === 1 ? chunks[0]! : Buffer.concat(chunks)
    return { headers, body: hasBody ? body : Buffer.of(), whole: !hasBody || length <= KEPT_BYTES }
  }
}
