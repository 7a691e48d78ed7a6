import { EventEmitter } from 'node:events'
import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import inject from 'light-my-request'
import { LOCAL_IP } from '../task/origin.js'
import type { Task } from '../task/task.js'
import { Written } from './body-capture.js'

/** A request and the response to it, on their way through the app, and what has been written to that. */
export interface Exchange { readonly request: IncomingMessage, readonly response: ServerResponse, readonly written: Written }

/**
 * Makes the exchange of a task, and has `route` take it into the app, or calls `fail` where that cannot be
 * done. The headers are its own, by name in lower case.
 */
export type Exchanger = (
  task: Pick<Task, 'method' | 'url' | 'payload' | 'ip' | 'protocol'>, headers: Record<string, string>,
  route: (exchange: Exchange) => void, fail: (error: unknown) => void
) => void

/**
 * Exchanges as Node's server makes them, without a connection: between request and response is a
 * socket that leads nowhere, and of what nobody reads nothing is kept. Where what `app.inject`
 * makes differs from what a server makes, it is as one of the two. It takes a third of the time.
 */
const direct: Exchanger = ({ method, url, payload, ip, protocol }, headers, route) => {
  const body = typeof payload === 'string' ? Buffer.from(payload) : payload
  const nowhere = new Nowhere(ip, protocol)
  const socket = nowhere as unknown as Socket
  const request = new IncomingMessage(socket) as Received
  request.httpVersionMajor = 1
  request.httpVersionMinor = 1
  request.httpVersion = '1.1'
  request.method = method
  request.url = url
  if (body !== undefined) headers['content-length'] = String(body.length)
  const lines: string[] = []
  for (const name in headers) lines.push(name, headers[name]!)
  request._addHeaderLines(lines, lines.length)
  // They need not be made of the lines.
  request.headers = headers
  // It closes with its answer, although its body has been read before: until then nothing is aborted.
  request._readableState.autoDestroy = false
  if (body !== undefined && body.length > 0) request.push(body)
  request.push(null)
  request.complete = true

  const response = new Sent(request)
  response.assignSocket(socket)
  nowhere.response = response
  response.on('finish', endExchange)
  socket.on('error', tellResponse)
  route({ request, response, written: response.written })
}

function endExchange (this: ServerResponse): void {
  const { socket } = this
  const request = this.req as Received
  process.nextTick(() => { socket?.destroy() })
  request._readableState.autoDestroy = true
  if (request.readableEnded) request.destroy()
  else request._dump()
}

function tellResponse (this: Socket, error: Error): void {
  const { response } = this as unknown as Nowhere
  if (response !== undefined && response.listenerCount('error') > 0) response.emit('error', error)
}

/** Exchanges as `app.inject` makes them, by light-my-request. */
const injected: Exchanger = ({ method, url, payload, ip, protocol }, headers, route, fail) => {
  let isRouted = false
  inject((raw, response) => {
    isRouted = true
    const request = raw as unknown as IncomingMessage
    const socket = request.socket as { -readonly [name in keyof Peer]: Peer[name] }
    // The option cannot say that there is none.
    if (ip === '') socket.remoteAddress = undefined
    if (protocol === 'https') socket.encrypted = true
    const sink = response.socket
    response.on('close', () => { if (!response.writableEnded) setImmediate(abandon, sink) })
    route({ request, response, written: listenTo(response) })
  }, {
    method,
    url,
    headers,
    payload,
    ...ip !== undefined && { remoteAddress: ip },
    // Nobody reads the answer, so it is not kept: it may have no end.
    payloadAsStream: true
  }, (error, response) => {
    // What fails later the response tells.
    if (!isRouted) return fail(error)
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

/** Drops what nobody reads any more of an answer without an end: the socket of light-my-request would go on working it off, write by write. */
function abandon (sink: Socket | null): void {
  if (sink === null || sink.writableLength === 0) return
  // Nobody is told: its response has closed already.
  sink.removeAllListeners('close')
  sink.destroy()
}

export const exchangers = { direct, inject: injected }

/**
 * Ends an exchange as a client does that goes away: hooks for aborted requests run, and what the handler sends
 * goes nowhere. What listens to that is the app's, and may throw: that is reported, and stops nothing.
 */
export function hangUp ({ request, response }: Exchange, reason: Error, report: (error: unknown) => void): void {
  request.aborted = true
  for (const step of [() => request.emit('aborted'), () => request.emit('close'), () => response.destroy(reason)]) {
    try {
      step()
    } catch (error) {
      report(error)
    }
  }
}

/** What Node's parser and server use of a request. */
interface Received extends IncomingMessage {
  _addHeaderLines (lines: string[], count: number): void
  /** Reads what nobody has read, up to the end. */
  _dump (): void
  readonly _readableState: { autoDestroy: boolean }
}

/** A response that notes what it sends. */
class Sent extends ServerResponse {
  readonly written = new Written()

  override write (...args: unknown[]): boolean {
    if (!this.writableEnded) this.written.take(args[0], args[1])
    return super.write(...args as Parameters<ServerResponse['write']>)
  }

  override end (...args: unknown[]): this {
    if (!this.writableEnded) this.written.take(args[0], args[1])
    return super.end(...args as Parameters<ServerResponse['end']>)
  }
}

/** Has a response of light-my-request do the same. */
function listenTo (response: ServerResponse): Written {
  const written = new Written()
  let isWriting = false
  for (const name of ['write', 'end'] as const) {
    const method = response[name] as (...args: unknown[]) => unknown
    Object.assign(response, {
      [name] (this: ServerResponse, ...args: unknown[]) {
        // Its end() calls write().
        const isOuter = !isWriting
        isWriting = true
        try {
          if (isOuter && !this.writableEnded) written.take(args[0], args[1])
          return method.apply(this, args)
        } finally {
          if (isOuter) isWriting = false
        }
      }
    })
  }
  return written
}

/** What Node's server uses of a response. */
interface Flushable extends ServerResponse {
  readonly outputData: Array<{ data: string, encoding: string, callback: null }>
  _flush (): void
}

/** How much of an answer is taken in at once: one without an end must let others run. */
const AT_ONCE_BYTES = 64 * 1024
/** What a write costs, however little it brings. */
const WRITE_BYTES = 64

/** What a socket says of where a request comes from. */
interface Peer {
  readonly remoteAddress?: string | undefined
  readonly remoteFamily?: string | undefined
  readonly encrypted?: true
}

/** The end of a connection that has no other end. It does to a response what Node's server does. */
class Nowhere extends EventEmitter implements Peer {
  readonly remoteAddress: string | undefined
  readonly remoteFamily: string | undefined
  /** As a socket of TLS has it, and no other has it. */
  readonly encrypted?: true
  readonly readable = false
  readonly _writableState = { corked: 0 }
  writable = true
  destroyed = false
  /** What was written and is not gone yet, as far as others can see. */
  writableLength = 0
  writableNeedDrain = false
  response?: ServerResponse
  #taken = 0
  #isWriting = false
  /** Who waits until what was written is gone. */
  readonly #waiting: Array<() => void> = []
  #timer?: NodeJS.Timeout

  constructor (ip = LOCAL_IP, protocol?: Task['protocol']) {
    super()
    this.remoteAddress = ip === '' ? undefined : ip
    this.remoteFamily = ip === '' ? undefined : ip.includes(':') ? 'IPv6' : 'IPv4'
    if (protocol === 'https') this.encrypted = true
  }

  write (chunk: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean {
    const done = typeof encoding === 'function' ? encoding : callback
    if (typeof done === 'function') this.#waiting.push(done as () => void)
    this.#timer?.refresh()
    this.writableLength += chunk.length
    this.#taken += chunk.length + WRITE_BYTES
    if (this.#taken >= AT_ONCE_BYTES && !this.writableNeedDrain) {
      this.writableNeedDrain = true
      setImmediate(drain, this)
    }
    if (!this.#isWriting) {
      this.#isWriting = true
      process.nextTick(settle, this)
    }
    return !this.writableNeedDrain
  }

  settle (): void {
    if (this.writableNeedDrain) return
    this.#isWriting = false
    this.writableLength = 0
    for (const done of this.#waiting.splice(0)) done()
  }

  drain (): void {
    this.#taken = 0
    this.writableNeedDrain = false
    this.settle()
    if (this.destroyed) return
    this.emit('drain')
    // Only what has anything to flush takes it back that it needs to drain.
    const response = this.response as Flushable | undefined
    if (response?.writableNeedDrain !== true) return
    response.outputData.push({ data: '', encoding: 'latin1', callback: null })
    response._flush()
  }

  end (): this {
    this.writable = false
    process.nextTick(() => {
      this.emit('finish')
      this.destroy()
    })
    return this
  }

  destroy (error?: Error): this {
    if (this.destroyed) return this
    this.destroyed = true
    this.writable = false
    clearTimeout(this.#timer)
    process.nextTick(() => {
      if (error !== undefined && error !== null) this.emit('error', error)
      this.emit('close')
    })
    return this
  }

  setTimeout (ms: number, callback?: () => void): this {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (callback !== undefined) this.once('timeout', callback)
    if (ms > 0) this.#timer = setTimeout(() => { this.#timeOut() }, ms)
    return this
  }

  /** An answer that does not listen is over. */
  #timeOut (): void {
    this.emit('timeout')
    if (this.response?.emit('timeout', this) !== true) this.destroy()
  }

  destroySoon (): void { this.end() }
  cork (): void {}
  uncork (): void {}
  pause (): this { return this }
  resume (): this { return this }
  ref (): this { return this }
  unref (): this { return this }
  setNoDelay (): this { return this }
  setKeepAlive (): this { return this }
  address (): object { return {} }
}

// Passed with what they are about, which is less than a function for each time.
const settle = (nowhere: Nowhere) => { nowhere.settle() }
const drain = (nowhere: Nowhere) => { nowhere.drain() }
