import { EventEmitter } from 'node:events'
import { ServerResponse, type IncomingMessage, type OutgoingHttpHeaders, type ServerOptions } from 'node:http'
import { Http2ServerResponse, type ServerHttp2Stream } from 'node:http2'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { Internals, Keyed } from './fastify.js'
import { isStream } from './payload.js'

/** What a reply sends before its payload. */
export interface Head {
  readonly code: number
  readonly message: string | undefined
  readonly headers: OutgoingHttpHeaders
  /** Those that were set on the raw response, and not on the reply. */
  readonly rawHeaders: OutgoingHttpHeaders
  readonly trailers: object | null
}

/** Thrown as soon as a head is found to be good, so that nothing comes after it. */
const ACCEPTED = new Error('accepted')

/** Has a reply sent without any of its hooks. */
const NO_HOOKS = { onSend: null }

/**
 * Returns the head of a reply, or throws why it cannot be sent. Fastify and Node decide that
 * themselves: they are given a reply with the same head, and a response that leads nowhere.
 */
export function tryHead (reply: FastifyReply, payload: unknown, internals: Internals): Head {
  const { raw } = reply
  const request = reply.request as unknown as Keyed
  const head = headOf(reply, internals)
  if (head.code < 200) throw new RangeError(`the status ${head.code} announces another reply, so it cannot be that of the last one`)
  if (raw.headersSent) {
    // Fastify goes on with a stream.
    if (isStream(payload) && head.code !== 204) return head
    throw new Error('the head was sent before the reply')
  }
  const Reply = reply.constructor as new (...parts: unknown[]) => FastifyReply & Keyed
  const trial = new Reply(trialOf(reply, head, payload), request, reply.log)
  trial[internals.headers] = { ...head.headers }
  trial[internals.trailers] = head.trailers
  const context = request[internals.context]
  request[internals.context] = NO_HOOKS
  try {
    trial.send(isStream(payload) ? standInFor(payload) : payload ?? undefined)
    throw new Error('no head was sent')
  } catch (error) {
    if (error !== ACCEPTED) throw error
  } finally {
    request[internals.context] = context
  }
  checkLength(reply, head, { ...head.rawHeaders, ...trial[internals.headers] as OutgoingHttpHeaders }, payload)
  return head
}

/**
 * Node sends some heads that no client takes: of those whose content-length is none, or stands
 * beside chunks that say another, or is not that of a payload which is known.
 */
function checkLength (reply: FastifyReply, { code, trailers }: Head, headers: OutgoingHttpHeaders, payload: unknown): void {
  const { 'content-length': length, 'transfer-encoding': encoding } = headers
  if (length === undefined) return
  if (encoding !== undefined) throw new TypeError('a reply cannot have both a content-length and a transfer-encoding')
  if (!/^\d+$/.test(String(length))) throw new TypeError('the content-length of a reply must be a whole number')
  const hasBody = code !== 204 && code !== 304 && reply.request.method !== 'HEAD'
  // Fastify sees to it where there are no trailers.
  const bytes = isStream(payload) ? isEmpty(payload) ? 0 : undefined : trailers === null ? undefined : Buffer.byteLength(payload as string ?? '')
  if (hasBody && bytes !== undefined && bytes !== Number(length)) throw new RangeError(`the content-length ${length} is not that of the payload`)
  if (code === 204 && isHttp2(reply.raw) && Number(length) > 0) throw new RangeError('a reply with the status 204 has no content-length')
}

/** Makes the head of a reply what it was, unless it is on its way. */
export function restoreHead (reply: FastifyReply, head: Head, internals: Internals): void {
  const { raw } = reply
  if (raw.headersSent) return
  const keyed = reply as unknown as Keyed
  keyed[internals.headers] = head.headers
  keyed[internals.trailers] = head.trailers
  raw.statusCode = head.code
  if (!isHttp2(raw)) raw.statusMessage = head.message as string
  for (const name of raw.getHeaderNames()) raw.removeHeader(name)
  for (const [name, value] of Object.entries(head.rawHeaders)) raw.setHeader(name, value!)
}

/** Over HTTP/2 Node sends what makes a reply malformed, and some clients forgive it. */
function checkHttp2Value (name: string, value: string): void {
  if (/[\0\r\n]/.test(value)) throw new TypeError(`the value of the header ${name} has a line break or a NUL`)
}

/** Takes everything from a head but its status, which its next reply sets, unless it is on its way. */
export function clearHead (reply: FastifyReply, internals: Internals): void {
  const { raw } = reply
  if (raw.headersSent) return
  restoreHead(reply, { code: raw.statusCode, message: undefined, headers: {}, rawHeaders: {}, trailers: null }, internals)
}

function headOf (reply: FastifyReply, internals: Internals): Head {
  const { raw } = reply
  const keyed = reply as unknown as Keyed
  const trailers = keyed[internals.trailers] as object | null
  return {
    code: raw.statusCode,
    message: isHttp2(raw) ? undefined : raw.statusMessage,
    headers: copyOf(keyed[internals.headers] as OutgoingHttpHeaders),
    rawHeaders: raw.getHeaders(),
    trailers: trailers === null ? null : { ...trailers }
  }
}

/** A copy to whose lists nothing is added. */
function copyOf (headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const copy: OutgoingHttpHeaders = {}
  for (const name in headers) {
    const value = headers[name]
    copy[name] = Array.isArray(value) ? [...value] : value
  }
  return copy
}

const isHttp2 = (raw: object): raw is Http2ServerResponse => raw instanceof Http2ServerResponse

/** Whether a stream that has been opened has nothing to read. */
const isEmpty = (stream: Readable) => stream.readableLength === 0 && stream.readableFlowing !== true

/** Takes the place of a stream, which is not read. */
function standInFor (stream: Readable): Readable {
  const pipe = (response: ServerResponse) => { isEmpty(stream) ? response.end() : response.write(' ') }
  return Object.assign(new Readable(), { pipe }) as unknown as Readable
}

/** A response that a head can be tried on. */
function trialOf (reply: FastifyReply, head: Head, payload: unknown): ServerResponse | Http2ServerResponse {
  const { raw } = reply
  if (isHttp2(raw)) {
    for (const headers of [head.headers, head.rawHeaders]) {
      for (const name in headers) checkHttp2Value(name, String(headers[name]))
    }
    const trial = new TrialHttp2Response(new TrialStream(raw.stream) as unknown as ServerHttp2Stream)
    trial.statusCode = head.code
    for (const name in head.rawHeaders) trial.setHeader(name, head.rawHeaders[name] as string)
    return trial
  }
  const { rejectNonStandardBodyWrites } = reply.server.server as ServerOptions
  const hasBody = typeof payload === 'string' || Buffer.isBuffer(payload)
  const isBodyChecked = raw.strictContentLength || rejectNonStandardBodyWrites === true
  const trial = new TrialResponse(reply.request.raw, { rejectNonStandardBodyWrites }, hasBody && isBodyChecked && head.trailers === null)
  for (const name of OF_RESPONSE) {
    const value = (raw as unknown as Record<string, unknown>)[name]
    if (value !== undefined) (trial as unknown as Record<string, unknown>)[name] = value
  }
  for (const name in head.rawHeaders) trial.setHeader(name, head.rawHeaders[name]!)
  return trial
}

/** What else of a response decides which heads Node takes. */
const OF_RESPONSE = [
  'statusCode', 'statusMessage', 'strictContentLength', 'useChunkedEncodingByDefault', 'shouldKeepAlive', '_removedTE', '_removedContLen', '_removedConnection'
] as const

class TrialResponse extends ServerResponse {
  readonly #takesBody: boolean

  constructor (request: IncomingMessage, options: object, takesBody: boolean) {
    // Node's types do not know the options.
    super(...[request, options] as unknown as [IncomingMessage])
    this.#takesBody = takesBody
  }

  override writeHead (...head: unknown[]): this {
    super.writeHead(...head as Parameters<ServerResponse['writeHead']>)
    if (!this.#takesBody) throw ACCEPTED
    return this
  }

  override end (...args: unknown[]): this {
    super.end(...args as Parameters<ServerResponse['end']>)
    throw ACCEPTED
  }
}

/** A header that nobody sets. */
const UNUSED = 'x-fastify-taskqueue-trial'

class TrialHttp2Response extends Http2ServerResponse {
  override writeHead (...head: unknown[]): this {
    super.writeHead(...head as Parameters<Http2ServerResponse['writeHead']>)
    // Its client has gone, or it would have been thrown.
    throw ACCEPTED
  }
}

/** Stands between a response and its stream: the stream sees its head, but cannot send it. */
class TrialStream extends EventEmitter {
  readonly #stream: ServerHttp2Stream

  constructor (stream: ServerHttp2Stream) {
    super()
    this.#stream = stream
  }

  get headersSent (): boolean { return false }
  get destroyed (): boolean { return this.#stream.destroyed }
  get closed (): boolean { return this.#stream.closed }

  respond (headers: OutgoingHttpHeaders): void {
    // It turns values into text one after the other, before it sends any.
    this.#stream.respond({ ...headers, [UNUSED]: { toString () { throw ACCEPTED } } as unknown as string }, {})
  }

  destroy (error: Error): void { throw error }
}
