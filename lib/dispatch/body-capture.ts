import type { ServerResponse } from 'node:http'
import type { Answer } from '../task/outcome.js'
import { KEPT_BYTES } from '../task/record.js'

export const KEPT_HEADERS = ['content-type', 'content-encoding', 'content-language', 'content-disposition', 'location', 'etag', 'last-modified', 'retry-after']

/** The body of an answer as far as it is kept, while it is written. */
export class Written {
  readonly #chunks: Buffer[] = []
  #length = 0

  /** Takes in what is passed to `write` or `end`. */
  take (chunk: unknown, encoding: unknown): void {
    const isText = typeof chunk === 'string'
    if (this.#length > KEPT_BYTES || (!isText && !(chunk instanceof Uint8Array))) return
    // A copy: what is not kept is not held either, and what is kept is not changed by its writer.
    const bytes = isText ? Buffer.from(chunk, typeof encoding === 'string' ? encoding as BufferEncoding : 'utf8') : Buffer.from(chunk.subarray(0, KEPT_BYTES + 1))
    this.#chunks.push(bytes)
    this.#length += bytes.length
  }

  /** Returns the answer to which this is the body. */
  answerOf (response: ServerResponse): Answer {
    const headers = keptOf(headOf(response))
    if (response.statusCode === 204 || response.statusCode === 304) return { headers, body: Buffer.of(), whole: true }
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    return this.#length <= KEPT_BYTES ? { headers, body, whole: true } : { headers, body: body.subarray(0, KEPT_BYTES), whole: false }
  }
}

/** Status and headers as they were sent, whatever they have been set to since, and also if writeHead() was given them. */
export const headOf = (response: ServerResponse): string => (response as ServerResponse & { _header: string })._header

function keptOf (head: string): Record<string, string> {
  const headers: Record<string, string> = {}
  const lines = head.toLowerCase()
  for (const name of KEPT_HEADERS) {
    const start = lines.indexOf(`\r\n${name}: `)
    if (start !== -1) headers[name] = head.slice(start + name.length + 4, head.indexOf('\r\n', start + 2))
  }
  return headers
}
