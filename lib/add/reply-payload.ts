import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null
export const isResponse = (value: unknown): value is Response =>
  Object.prototype.toString.call(value) === '[object Response]'
export const isStream = (value: unknown): value is Readable =>
  isObject(value) && 'pipe' in value && typeof value.pipe === 'function'
const isWebStream = (value: unknown): value is ReadableStream =>
  isObject(value) && 'getReader' in value && typeof value.getReader === 'function'

/**
 * Returns the payload in the form in which it can be sent. Web streams become streams of Node, so that they can be
 * opened. A payload that cannot be sent throws here; Fastify would throw after the last hook, when it is about to send.
 */
export function sendable (reply: FastifyReply, payload: unknown): unknown {
  if (isResponse(payload)) {
    reply.code(payload.status)
    for (const [name, value] of payload.headers) reply.header(name, value)
    if (payload.bodyUsed) throw new TypeError('the body of the Response has been used')
    return sendable(reply, payload.body)
  }
  if (payload === undefined || payload === null) return payload
  if (typeof payload === 'string' || Buffer.isBuffer(payload)) return payload
  if (isWebStream(payload)) return Readable.fromWeb(payload as Parameters<typeof Readable.fromWeb>[0])
  if (!isStream(payload)) throw new TypeError(`a payload of type ${typeof payload} cannot be sent`)
  if (payload.errored) throw payload.errored
  return payload
}

/**
 * Waits for the first byte of a stream, or its end. If the stream fails before that, as with a file that does not
 * exist, the request fails. Fastify listens for errors only after the hooks, and until then an error without a listener
 * would crash the process.
 */
export async function opened (stream: Readable, client: FastifyReply['raw']): Promise<void> {
  stream.on('error', () => {})
  const hasBegun = stream.readableLength > 0 || stream.readableFlowing === true
  const hasEnded = stream.readableEnded || stream.destroyed
  if (hasBegun || hasEnded || typeof stream.read !== 'function') return
  await new Promise<void>((resolve, reject) => {
    const settle = (error?: Error) => {
      for (const event of ['readable', 'end', 'close', 'error']) stream.off(event, settle)
      client.off('close', leave)
      if (error === undefined) resolve()
      else reject(error)
    }
    const leave = () => { settle(new Error('the client has left before the answer began')) }
    for (const event of ['readable', 'end', 'close', 'error']) stream.on(event, settle)
    client.on('close', leave)
  })
}

/** Closes a payload that will not be sent. Fastify would leave it open. */
export function dispose (payload: unknown): void {
  if (isStream(payload)) payload.destroy?.()
  else if (isWebStream(payload)) payload.cancel().catch(() => {})
  else if (isResponse(payload)) payload.body?.cancel().catch(() => {})
}
