import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import { Writable } from 'node:stream'
import inject from 'light-my-request'
import type { Task } from './task.js'

/** A request and the response to it, on their way through the app. */
export interface Exchange { readonly request: IncomingMessage, readonly response: ServerResponse }

/** Makes the exchange of a task, and has `route` take it into the app. */
export type Exchanger = (task: Pick<Task, 'method' | 'url' | 'payload'>, headers: Record<string, string>, route: (exchange: Exchange) => void) => void

/**
 * Exchanges as Node's server makes them, without a connection: between request and response is a
 * socket that leads nowhere, and of what nobody reads nothing is kept. Where what `app.inject`
 * makes differs from what a server makes, it is as one of the two. It takes little more than half the time.
 */
const direct: Exchanger = ({ method, url, payload }, headers, route) => {
  const nowhere = new Nowhere()
  const socket = nowhere as unknown as Socket
  const request = new IncomingMessage(socket) as Received
  request.httpVersionMajor = 1
  request.httpVersionMinor = 1
  request.httpVersion = '1.1'
  request.method = method
  request.url = url
  const lines: string[] = []
  for (const name in headers) lines.push(name.toLowerCase(), headers[name]!)
  if (headers.host === undefined) lines.push('host', 'localhost:80')
  if (payload !== undefined) lines.push('content-length', String(payload.length))
  request._addHeaderLines(lines, lines.length)
  // It closes with its answer, although its body has been read before: until then nothing is aborted.
  request._readableState.autoDestroy = false
  if (payload !== undefined && payload.length > 0) request.push(payload)
  request.push(null)
  request.complete = true

  const response: ServerResponse = new ServerResponse(request)
  response.assignSocket(socket)
  nowhere.response = response as Sent
  // From then on headers that are passed to writeHead() can be asked for as well.
  response.setHeader('x', '')
  response.removeHeader('x')
  response.once('finish', () => {
    process.nextTick(() => { socket.destroy() })
    request._readableState.autoDestroy = true
    if (request.readableEnded) request.destroy()
    else request._dump()
  })
  socket.on('error', error => { if (response.listenerCount('error') > 0) response.emit('error', error) })
  route({ request, response })
}

/** Exchanges as `app.inject` makes them, by light-my-request. */
const injected: Exchanger = ({ method, url, payload }, headers, route) => {
  inject((raw, response) => { route({ request: raw as unknown as IncomingMessage, response }) }, {
    method,
    url,
    headers,
    payload,
    // Nobody reads the answer, so it is not kept: it may have no end.
    payloadAsStream: true
  }, (error, response) => {
    if (error !== null && error !== undefined) return
    const stream = response!.stream()
    stream.on('error', () => {}).on('data', () => {
      // light-my-request also writes it to a socket that goes nowhere, but slowly: unless
      // that is waited for, an answer without an end fills the memory.
      const { socket } = response!.raw.res
      if (socket?.writableNeedDrain !== true) return
      stream.pause()
      socket.once('drain', () => { stream.resume() })
    })
  })
}

export const exchangers = { direct, inject: injected }

/** Ends an exchange as a client does that goes away: hooks for aborted requests run, and what the handler sends goes nowhere. */
export function hangUp ({ request, response }: Exchange, reason: Error): void {
  request.aborted = true
  request.emit('aborted')
  request.emit('close')
  response.destroy(reason)
}

/** What Node's parser and server use of a request. */
interface Received extends IncomingMessage {
  _addHeaderLines (lines: string[], count: number): void
  /** Reads what nobody has read, up to the end. */
  _dump (): void
  readonly _readableState: { autoDestroy: boolean }
}

/** What Node's server uses of a response. */
interface Sent extends ServerResponse {
  readonly outputData: Array<{ data: string, encoding: string, callback: null }>
  _flush (): void
}

/** How much of an answer is taken in at once: one without an end must let others run. */
const AT_ONCE_BYTES = 64 * 1024
/** What a write costs, however little it brings. */
const WRITE_BYTES = 64

/** The end of a connection that has no other end. It does to a response what Node's server does. */
class Nowhere extends Writable {
  readonly remoteAddress = '127.0.0.1'
  readonly remoteFamily = 'IPv4'
  readonly readable = false
  response?: Sent
  #taken = 0
  #timer?: NodeJS.Timeout

  constructor () {
    super({ decodeStrings: false })
    this.on('drain', () => { this.#drain() })
    // An answer that does not listen is over.
    this.on('timeout', () => { if (this.response?.emit('timeout', this) !== true) this.destroy() })
  }

  override _write (chunk: string | Uint8Array, _encoding: unknown, done: () => void): void {
    this.#timer?.refresh()
    this.#taken += chunk.length + WRITE_BYTES
    if (this.#taken < AT_ONCE_BYTES) return done()
    this.#taken = 0
    setImmediate(done)
  }

  override _destroy (error: Error | null, done: (error: Error | null) => void): void {
    clearTimeout(this.#timer)
    done(error)
  }

  setTimeout (ms: number, callback?: () => void): this {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (callback !== undefined) this.once('timeout', callback)
    if (ms > 0) this.#timer = setTimeout(() => { this.emit('timeout') }, ms)
    return this
  }

  /** Only what has anything to flush takes it back that it needs to drain. */
  #drain (): void {
    if (this.response?.writableNeedDrain !== true) return
    this.response.outputData.push({ data: '', encoding: 'latin1', callback: null })
    this.response._flush()
  }

  destroySoon (): void { this.end() }
  pause (): this { return this }
  resume (): this { return this }
  ref (): this { return this }
  unref (): this { return this }
  setNoDelay (): this { return this }
  setKeepAlive (): this { return this }
  address (): object { return {} }
}
