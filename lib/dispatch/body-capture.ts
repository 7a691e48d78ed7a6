import type { ServerResponse } from 'node:http'
import type { Answer } from '../task/outcome.js'
import { KEPT_BYTES } from '../task/record.js'

/** The headers of an answer that are kept. */
export const KEPT_HEADERS = [
  'content-type', 'content-encoding', 'content-language', 'content-disposition', 'location', 'etag', 'last-modified',
  'retry-after'
]

/** Keeps the beginning of an answer's body while it is written. */
export class BodyCapture {
  readonly #chunks: Buffer[] = []
  #length = 0

  /** Takes in the arguments of `write` or `end`. */
  take (chunk: unknown, encoding: unknown): void {
    const isText = typeof chunk === 'string'
    if (this.#length > KEPT_BYTES || (!isText && !(chunk instanceof Uint8Array))) return
    // The chunk is copied: the rest of its memory is not held, and its writer cannot change the kept part.
    const bytes = isText
      ? Buffer.from(chunk, typeof encoding === 'string' ? encoding as BufferEncoding : 'utf8')
      : Buffer.from(chunk.subarray(0, KEPT_BYTES + 1))
    this.#chunks.push(bytes)
    this.#length += bytes.length
  }

  /** Returns the answer to which this body belongs. */
  answerOf (response: ServerResponse): Answer {
    const headers = keptOf(headOf(response))
    if (response.statusCode === 204 || response.statusCode === 304) return { headers, body: Buffer.of(), whole: true }
    const body = this.#chunks.length === 1 ? this.#chunks[0]! : Buffer.concat(this.#chunks)
    if (this.#length <= KEPT_BYTES) return { headers, body, whole: true }
    return { headers, body: body.subarray(0, KEPT_BYTES), whole: false }
  }
}

type Writes = Record<'write' | 'end', (...args: unknown[]) => unknown>

const kCapture = Symbol('fastify-taskqueue.capture')

/** A response whose body is captured. */
interface Captured extends Writes {
  readonly writableEnded: boolean
  [kCapture]: { readonly body: BodyCapture, readonly methods: Writes, isEnding: boolean }
}

/**
 * Keeps what is written to a response. The methods that do so are the response's own, since Express and others replace
 * its prototype, and the same for every response, since making some for each takes time.
 */
export function captureBody (response: ServerResponse): BodyCapture {
  const body = new BodyCapture()
  const captured = response as unknown as Captured
  const { write, end } = captured
  captured[kCapture] = { body, methods: { write, end }, isEnding: false }
  captured.write = writeCaptured
  captured.end = endCaptured
  return body
}

function writeCaptured (this: Captured, ...args: unknown[]): unknown {
  const { body, methods, isEnding } = this[kCapture]
  // The end() of light-my-request calls write().
  if (!isEnding && !this.writableEnded) body.take(args[0], args[1])
  return methods.write.apply(this, args)
}

function endCaptured (this: Captured, ...args: unknown[]): unknown {
  const capture = this[kCapture]
  if (!this.writableEnded) capture.body.take(args[0], args[1])
  capture.isEnding = true
  try {
    return capture.methods.end.apply(this, args)
  } finally {
    capture.isEnding = false
  }
}

/**
 * Returns the status line and the headers as they were sent, including those given to writeHead(), even if the response
 * has been given others since.
 */
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
