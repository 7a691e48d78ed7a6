import { EventEmitter } from 'node:events'
import { ServerResponse, type IncomingMessage, type OutgoingHttpHeaders, type ServerOptions } from 'node:http'
import { Http2ServerResponse, type ServerHttp2Stream } from 'node:http2'
import { Readable } from 'node:stream'
import type { FastifyReply } from 'fastify'
import type { Internals, Keyed } from './fastify-internals.js'
import { isStream } from './reply-payload.js'

/** The part of a reply that is sent before its payload, and its trailers. */
export interface Head {
  readonly code: number
  readonly message: string | undefined
  readonly headers: OutgoingHttpHeaders
  /** The headers that were set on the raw response, and not on the reply. */
  readonly rawHeaders: OutgoingHttpHeaders
  readonly trailers: object | null
}

/** A trial throws this as soon as Node has accepted the head, so that nothing follows it. */
const ACCEPTED = new Error('accepted')

/** The context of a request whose reply is sent without hooks. */
const NO_HOOKS = { onSend: null }

/**
 * Returns the head of a reply, or throws the reason why it cannot be sent. Fastify and Node decide that themselves:
 * they are given a trial, which is another reply with the same head and a response that leads nowhere.
 */
export function tryHead (reply: FastifyReply, payload: unknown, internals: Internals): Head {
  const head = headOf(reply, internals)
  if (head.code < 200) throw new RangeError(`the status ${head.code} announces another reply, and there is none`)
  if (reply.raw.headersSent) {
    // Fastify then still sends a stream.
    if (isStream(payload) && head.code !== 204) return head
    throw new Error('the head was sent before the reply')
  }
  const Reply = reply.constructor as new (...parts: unknown[]) => FastifyReply & Keyed
  const trial = new Reply(trialOf(reply, head, payload), reply.request, reply.log)
  trial[internals.headers] = { ...head.headers }
  trial[internals.trailers] = head.trailers
  const request = reply.request as unknown as Keyed
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

/** Gives a reply back the head that it had, unless its head has been sent. */
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

/** Clears the head of a reply, unless it has been sent. The status stays, since the next reply sets it. */
export function clearHead (reply: FastifyReply, internals: Internals): void {
  const { statusCode: code } = reply.raw
  restoreHead(reply, { code, message: undefined, headers: {}, rawHeaders: {}, trailers: null }, internals)
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
    trailers: trailers && { ...trailers }
  }
}

/** Copies headers and their lists, since Fastify adds cookies to a list. */
function copyOf (headers: OutgoingHttpHeaders): OutgoingHttpHeaders {
  const copy: OutgoingHttpHeaders = {}
  for (const name in headers) {
    const value = headers[name]
    copy[name] = Array.isArray(value) ? [...value] : value
  }
  return copy
}

const isHttp2 = (raw: object): raw is Http2ServerResponse => raw instanceof Http2ServerResponse

/** Whether an opened stream has nothing to read. */
const isEmpty = (stream: Readable) => stream.readableLength === 0 && stream.readableFlowing !== true

/** Makes a stream for a trial, so that the real one is not read. */
function standInFor (stream: Readable): Readable {
  const pipe = (response: ServerResponse) => { isEmpty(stream) ? response.end() : response.write(' ') }
  return Object.assign(new Readable(), { pipe }) as unknown as Readable
}

/** Makes a response on which a head can be tried. */
function trialOf (reply: FastifyReply, head: Head, payload: unknown): ServerResponse | Http2ServerResponse {
  const { raw } = reply
  const trial = isHttp2(raw) ? trialOfHttp2(raw, head) : trialOfHttp(reply, head, payload)
  for (const name in head.rawHeaders) trial.setHeader(name, head.rawHeaders[name] as string)
  return trial
}

/** The other properties of a response that decide which heads Node accepts. */
const OF_RESPONSE = [
  'statusCode', 'statusMessage', 'strictContentLength', 'useChunkedEncodingByDefault', 'shouldKeepAlive',
  '_removedTE', '_removedContLen', '_removedConnection'
]

function trialOfHttp (reply: FastifyReply, { trailers }: Head, payload: unknown): TrialResponse {
  const { raw, request, server } = reply
  const { rejectNonStandardBodyWrites } = server.server as ServerOptions
  const isBodyChecked = raw.strictContentLength || rejectNonStandardBodyWrites === true
  const hasBody = typeof payload === 'string' || Buffer.isBuffer(payload)
  // A trial with trailers takes no body: the functions of the trailers would run behind it.
  const takesBody = isBodyChecked && hasBody && trailers === null
  const trial = new TrialResponse(request.raw, { rejectNonStandardBodyWrites }, takesBody)
  const from = raw as unknown as Record<string, unknown>
  const to = trial as unknown as Record<string, unknown>
  for (const name of OF_RESPONSE) if (from[name] !== undefined) to[name] = from[name]
  return trial
}

function trialOfHttp2 (raw: Http2ServerResponse, { code, headers, rawHeaders }: Head): TrialHttp2Response {
  // Node would send these characters, which make a reply malformed, although some clients forgive it.
  for (const [name, value] of Object.entries({ ...rawHeaders, ...headers })) {
    if (/[\0\r\n]/.test(String(value))) throw new TypeError(`the value of the header ${name} has a line break or a NUL`)
  }
  const trial = new TrialHttp2Response(new TrialStream(raw.stream) as unknown as ServerHttp2Stream)
  trial.statusCode = code
  return trial
}

/**
 * Throws if the content-length of a reply is not a number, or contradicts the transfer-encoding, the status or a
 * payload of known length. Node would send such a head, and no client accepts it.
 */
function checkLength (reply: FastifyReply, head: Head, headers: OutgoingHttpHeaders, payload: unknown): void {
  const { 'content-length': length, 'transfer-encoding': encoding } = headers
  if (length === undefined) return
  if (encoding !== undefined) throw new TypeError('a reply cannot have both a content-length and a transfer-encoding')
  if (!/^\d+$/.test(String(length))) throw new TypeError('the content-length of a reply must be a whole number')
  if (reply.request.method === 'HEAD' || head.code === 304 || head.code === 204) {
    if (head.code !== 204 || !isHttp2(reply.raw) || Number(length) === 0) return
    throw new RangeError('a reply with the status 204 cannot have a content-length')
  }
  const bytes = bytesOf(payload, head)
  if (bytes === undefined || bytes === Number(length)) return
  throw new RangeError(`a reply with the content-length ${String(length)} cannot have ${bytes} bytes`)
}

/** Returns the length of a payload in bytes; undefined if it is unknown, or Fastify sets the content-length itself. */
function bytesOf (payload: unknown, { trailers }: Head): number | undefined {
  if (isStream(payload)) return isEmpty(payload) ? 0 : undefined
  return trailers === null ? undefined : Buffer.byteLength((payload ?? '') as string | Buffer)
}

class TrialResponse extends ServerResponse {
  readonly #takesBody: boolean

  constructor (request: IncomingMessage, options: object, takesBody: boolean) {
    // Node's types lack this second argument.
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

class TrialHttp2Response extends Http2ServerResponse {
  override writeHead (...head: unknown[]): this {
    super.writeHead(...head as Parameters<Http2ServerResponse['writeHead']>)
    // The stream was not shown the head, since it is closed: its client has gone.
    throw ACCEPTED
  }
}

/** The name of a header that nobody sets. */
const UNUSED = 'x-fastify-taskqueue-trial'

/** Stands between a response and its stream: the stream checks the head and is kept from sending it. */
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
    // The stream checks the headers one by one and turns each value into a string before it sends: the last one throws.
    this.#stream.respond({ ...headers, [UNUSED]: { toString () { throw ACCEPTED } } as unknown as string }, {})
  }

  destroy (error: Error): void { throw error }
}
