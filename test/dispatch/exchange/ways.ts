import { request as connect, type IncomingMessage } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import Fastify, {
  type FastifyInstance, type FastifyReply, type FastifyRequest, type FastifyServerOptions
} from 'fastify'
import type { Test } from 'tap'
import { KEPT_HEADERS } from '../../../lib/dispatch/body-capture.js'
import { dispatch } from '../../../lib/dispatch/dispatch.js'
import { exchangers } from '../../../lib/dispatch/exchange.js'
import { LazyAbortController } from '../../../lib/dispatch/abort.js'
import { LocalStore } from '../../../lib/store/local/store.js'
import type { TaskMethod } from '../../../lib/task/method.js'
import type { Outcome } from '../../../lib/task/outcome.js'
import { KEPT_BYTES } from '../../../lib/task/record.js'
import type { Task } from '../../../lib/task/task.js'
import { until } from '../../support/until.js'

/** How a request comes into an app: by either way to dispatch a task, or from a client through a socket. */
export type Way = 'direct' | 'inject' | 'socket'

/** Notes something that the app has seen. */
export type See = (...what: unknown[]) => void

export interface Sight {
  readonly see: See
  /** Ends the exchange from outside, as a timeout does. */
  readonly giveUp: () => void
  /** The app is closed when it has been looked at. */
  readonly teardown: (run: () => unknown) => void
}

export interface Case {
  readonly title: string
  readonly method?: TaskMethod
  readonly url?: string
  readonly headers?: Record<string, string>
  readonly payload?: Buffer | string | undefined
  readonly server?: FastifyServerOptions
  /** Whether its log is seen. */
  readonly log?: boolean
  /** What the app has besides its handler. */
  readonly app?: (app: FastifyInstance, sight: Sight) => unknown
  readonly handler?: (request: FastifyRequest, reply: FastifyReply, sight: Sight) => unknown
  /** What is seen last: it comes after the end of the exchange. */
  readonly last?: string
  /** Why a dispatch is as a server, and not as app.inject. */
  readonly asServer?: string | undefined
  /** Why a dispatch is as app.inject, and not as a server. */
  readonly asInject?: string | undefined
}

/** Makes a test of each case: what an app sees of a request is the same by all ways, or as the case says. */
export function compare (t: Test, cases: readonly Case[]): void {
  for (const each of cases) {
    const { title, asServer, asInject } = each
    t.test([title, asServer ?? asInject].filter(Boolean).join(': '), async t => {
      const direct = await look(each, 'direct')
      const inject = await look(each, 'inject')
      const socket = await look(each, 'socket')
      // A difference that is no more is none to be named.
      if (asServer === undefined) t.strictSame(direct, inject, 'as app.inject')
      else t.notSame(direct, inject, 'not as app.inject')
      if (asInject === undefined) t.strictSame(direct, socket, 'as a server')
      else t.notSame(direct, socket, 'not as a server')
    })
  }
}

/** Sends the request of a case one way; returns all that is seen of it, with its outcome at the end. */
export async function look (each: Case, way: Way): Promise<unknown[]> {
  const { server, log = false, app: setUp, handler, last } = each
  const seen: unknown[] = []
  const closers: Array<() => unknown> = []
  const abort = new AbortController()
  const see: See = (...what) => { if (what.length > 0) seen.push(what.length === 1 ? what[0] : what) }
  const sight: Sight = { see, giveUp: () => { setImmediate(() => { abort.abort(new Error('given up')) }) }, teardown: run => { closers.push(run) } }
  const app = Fastify({ ...server, logger: log && { level: 'trace', stream: { write (line: string) { see(...said(line)) } } } } as FastifyServerOptions) as unknown as FastifyInstance
  try {
    app.addHook('onError', async (_request, _reply, { name, code, message }) => { see('error', name, code ?? message) })
    await setUp?.(app, sight)
    if (handler !== undefined) app.all('/it', (request, reply) => handler(request, reply, sight))
    await app.ready()
    const outcome = await (way === 'socket' ? send(app, each, abort.signal) : take(app, each, way, abort.signal))
    if (last !== undefined) await until(() => seen.flat().includes(last), `${last} of ${each.title}, by ${way}`)
    // What comes late is seen as well.
    for (let turns = 0; turns < 5; turns++) await turn()
    // The reason is for the log only.
    return [...seen, outcome.kind === 'failed' ? outcome.kind : outcome]
  } finally {
    app.server.closeAllConnections()
    await app.close()
    for (const close of closers) await close()
  }
}

/** A line of the log, without what differs each time. */
function said (line: string): unknown[] {
  const { level, msg, req, res, reqId, err, responseTime } = JSON.parse(line)
  const { remotePort: _, ...request } = req ?? {}
  return /^Server listening/.test(msg) ? [] : [level, msg, request, res, reqId, err?.message, typeof responseTime]
}

function headersOf ({ headers = {}, payload }: Case): Record<string, string> {
  return { ...payload !== undefined && { 'content-type': 'text/plain' }, ...headers }
}

/** By a dispatch. */
async function take (app: FastifyInstance, each: Case, way: 'direct' | 'inject', signal: AbortSignal): Promise<Outcome> {
  const { method = 'GET', url = '/it', payload } = each
  const described = { id: 'id', method, url, headers: headersOf(each), payload: payload === undefined ? undefined : Buffer.from(payload) } as unknown as Task
  let closed!: Promise<unknown>
  const aborter = new LazyAbortController()
  signal.addEventListener('abort', () => { aborter.abort(signal.reason) })
  const outcome = await dispatch(app, (...[task, headers, route, fail]) => {
    exchangers[way](task, headers, exchange => {
      closed = new Promise(resolve => { exchange.response.once('close', resolve) })
      route(exchange)
    }, fail)
  }, described, {
    task: { id: 'id', queue: 'default', attempt: 1, userId: 'ada', schedule: undefined, signal, progress: async () => {} },
    aborter,
    depth: 1,
    store: new LocalStore(),
    chain: [],
    request: {} as FastifyRequest,
    // What is compared are answers, those to what is not found as well.
    get routed () { return true },
    set routed (_) {}
  })
  await closed
  return outcome
}

/** From a client that says the same. */
async function send (app: FastifyInstance, each: Case, signal: AbortSignal): Promise<Outcome> {
  const { method = 'GET', url = '/it', payload } = each
  await app.listen({ port: 0, host: '127.0.0.1' })
  const closed = new Promise(resolve => { app.server.prependListener('request', (_request, response) => { response.once('close', resolve) }) })
  const headers = {
    ...headersOf(each), 'user-agent': 'fastify-taskqueue', 'x-task-id': 'id', 'x-task-user-id': 'ada', host: headersOf(each).host ?? 'localhost'
  }
  const outcome = await new Promise<Outcome>(resolve => {
    const fail = () => { resolve({ kind: 'failed', reason: signal.aborted ? 'given up' : 'response destroyed before completion' }) }
    const { port } = app.server.address() as AddressInfo
    const client = connect({ port, host: '127.0.0.1', method, path: url, headers: { ...headers, ...payload !== undefined && { 'content-length': Buffer.byteLength(payload) } } })
    // No task has them, and a server keeps a connection without.
    for (const name of ['connection', 'transfer-encoding', ...payload === undefined ? ['content-length'] : []]) client.removeHeader(name)
    client.on('error', fail).on('response', (answer: IncomingMessage) => {
      const chunks: Buffer[] = []
      answer.on('error', fail).on('data', (chunk: Buffer) => { chunks.push(chunk) }).on('end', () => {
        const body = Buffer.concat(chunks)
        const kept = KEPT_HEADERS.filter(name => name in answer.headers).map(name => [name, String(answer.headers[name])])
        resolve({
          kind: 'answered',
          status: answer.statusCode!,
          answer: { headers: Object.fromEntries(kept), body: body.subarray(0, KEPT_BYTES), whole: body.length <= KEPT_BYTES }
        })
      })
    }).end(payload)
    signal.addEventListener('abort', () => { client.destroy() })
  })
  await closed
  return outcome
}
