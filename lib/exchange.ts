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
 * socket that leads nowhere, and of what nobody reads nothing is kept. What `app.inject` makes
 * differs in nothing that an app can see, and takes three times as long.
 */
export const direct: Exchanger = ({ method, url, payload }, headers, route) => {
  const socket = new Nowhere() as unknown as Socket
  const request = new IncomingMessage(socket)
  request.httpVersionMajor = 1
  request.httpVersionMinor = 1
  request.httpVersion = '1.1'
  request.method = method
  request.url = url
  request.headers = { ...headers, host: headers.host ?? 'localhost:80', ...payload !== undefined && { 'content-length': String(payload.length) } }
  for (const name in request.headers) request.rawHeaders.push(name, request.headers[name] as string)
  // As long as its answer lasts, whatever has been read of it.
  ;(request as unknown as { _readableState: { autoDestroy: boolean } })._readableState.autoDestroy = false
  if (payload !== undefined && payload.length > 0) request.push(payload)
  request.push(null)
  request.complete = true

  const response = new ServerResponse(request)
  response.assignSocket(socket)
  // From then on headers that are passed to writeHead() can be asked for as well.
  response.setHeader('x', '')
  response.removeHeader('x')
  response.once('finish', () => { process.nextTick(() => { response.emit('close') }) })
  socket.once('error', error => { if (response.listenerCount('error') > 0) response.emit('error', error) })
  route({ request, response })
}

/** Exchanges as `app.inject` makes them, by light-my-request. */
export const injected: Exchanger = ({ method, url, payload }, headers, route) => {
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

/** Ends an exchange as a client does that goes away: hooks for aborted requests run, and what the handler sends goes nowhere. */
export function hangUp ({ request, response }: Exchange, reason: Error): void {
  request.aborted = true
  request.emit('close')
  response.destroy(reason)
}

/** How much of an answer is taken in at once: one without an end must let others run. */
const AT_ONCE_BYTES = 64 * 1024

/** The end of a connection that has no other end. */
class Nowhere extends Writable {
  readonly remoteAddress = '127.0.0.1'
  readonly remoteFamily = 'IPv4'
  readonly readable = false
  #taken = 0

  constructor () {
    super({ decodeStrings: false })
    this.on('drain', () => { (this as { _httpMessage?: ServerResponse })._httpMessage?.emit('drain') })
  }

  override _write (chunk: string | Uint8Array, _encoding: unknown, done: () => void): void {
    this.#taken += chunk.length
    if (this.#taken < AT_ONCE_BYTES) return done()
    this.#taken = 0
    setImmediate(done)
  }

  destroySoon (): void { this.end() }
  pause (): this { return this }
  resume (): this { return this }
  ref (): this { return this }
  unref (): this { return this }
  setTimeout (): this { return this }
  setNoDelay (): this { return this }
  setKeepAlive (): this { return this }
  address (): object { return {} }
}
