import { IncomingMessage, ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import inject from 'light-my-request'
import type { Task } from '../task/task.js'
import { type BodyCapture, captureBody } from './body-capture.js'
import { NullSocket, type Peer } from './null-socket.js'

/** A request and its response on their way through the app, and the beginning of the body that is written to it. */
export interface Exchange {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly body: BodyCapture
}

/**
 * Makes the exchange of a task and passes it to `route`, which takes it into the app. Calls `fail` if that is
 * impossible. The headers, by name in lower case, become part of the request.
 */
export type Exchanger = (
  task: Pick<Task, 'method' | 'url' | 'payload' | 'ip' | 'protocol'>, headers: Record<string, string>,
  route: (exchange: Exchange) => void, fail: (error: unknown) => void
) => void

/**
 * Makes exchanges as Node's server does, without a connection: the socket leads nowhere, and only the beginning of the
 * answer is kept. Where `app.inject` and a server differ, this is like one of the two. It takes a third of the time.
 */
const direct: Exchanger = ({ method, url, payload, ip, protocol }, headers, route) => {
  const body = typeof payload === 'string' ? Buffer.from(payload) : payload
  const nullSocket = new NullSocket(ip, protocol)
  const socket = nullSocket as unknown as Socket
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
  // Setting them spares Node computing them from the lines.
  request.headers = headers
  // A request closes with its answer, and not once its body has been read: until then `request.signal` must not abort.
  request._readableState.autoDestroy = false
  if (body !== undefined && body.length > 0) request.push(body)
  request.push(null)
  request.complete = true

  const response = new ServerResponse(request)
  response.assignSocket(socket)
  nullSocket.response = response
  response.on('finish', endExchange)
  socket.on('error', tellResponse)
  route({ request, response, body: captureBody(response) })
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
  const { response } = this as unknown as NullSocket
  if (response !== undefined && response.listenerCount('error') > 0) response.emit('error', error)
}

/** Makes exchanges as `app.inject` does, by light-my-request. */
const injected: Exchanger = ({ method, url, payload, ip, protocol }, headers, route, fail) => {
  let isRouted = false
  inject((raw, response) => {
    isRouted = true
    const request = raw as unknown as IncomingMessage
    const socket = request.socket as { -readonly [name in keyof Peer]: Peer[name] }
    // The option `remoteAddress` cannot say that there is no address.
    if (ip === '') socket.remoteAddress = undefined
    if (protocol === 'https') socket.encrypted = true
    const sink = response.socket!
    response.on('close', () => { if (!response.writableEnded) Object.assign(sink, { _writev: takeAll }) })
    route({ request, response, body: captureBody(response) })
  }, {
    method,
    url,
    headers,
    payload,
    ...ip !== undefined && { remoteAddress: ip },
    // The answer is not buffered: nobody reads it, and it may have no end.
    payloadAsStream: true
  }, (error, response) => {
    // A later failure is told by the response.
    if (!isRouted) return fail(error)
    if (error !== null && error !== undefined) return
    const stream = response!.stream()
    stream.on('error', () => {}).on('data', () => {
      // light-my-request also writes the answer to a slow socket that leads nowhere. Unless this waits for the socket,
      // an answer without an end fills the memory.
      const { socket } = response!.raw.res
      if (socket?.writableNeedDrain !== true) return
      stream.pause()
      socket.once('drain', () => { stream.resume() })
    })
  })
}

/**
 * Takes the rest of an answer that nobody reads at once. The socket of light-my-request, which leads nowhere, would
 * work it off by one write in each iteration of the event loop.
 */
function takeAll (_writes: unknown, done: () => void): void {
  setImmediate(done)
}

export const exchangers = { direct, inject: injected }

/**
 * Ends an exchange as a client does that goes away. Hooks for aborted requests run, and what the handler still sends
 * goes nowhere. The listeners are the app's: if one throws, that is reported and stops nothing.
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

/** The members of a request that Node's parser and server use. */
interface Received extends IncomingMessage {
  _addHeaderLines (lines: string[], count: number): void
  /** Discards the unread rest of the body. */
  _dump (): void
  readonly _readableState: { autoDestroy: boolean }
}
