import { IncomingMessage, ServerResponse } from 'node:http'
import { Socket } from 'node:net'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_UNSUPPORTED_FASTIFY } from '../errors.js'
import { type Hook, hooksOf, type Internals, type Keyed } from './fastify-internals.js'
import { tryHead } from './reply-head.js'

/**
 * Finds the internals by rehearsing replies with an app's own classes. If Fastify runs hooks or sends heads in a way
 * that this library does not know, this throws `FST_TASKQUEUE_UNSUPPORTED_FASTIFY` as the app starts. Otherwise tasks
 * would be queued for requests that fail.
 */
export function rehearse (app: FastifyInstance): Internals {
  try {
    const Request = classOf<FastifyRequest>(app, 'fastify.Request')
    const Reply = classOf<FastifyReply>(app, 'fastify.Reply')
    const raw = new IncomingMessage(new Socket())
    Object.assign(raw, { method: 'GET', httpVersionMajor: 1, httpVersionMinor: 1 })
    const events: string[] = []
    const errorHandler = { func (error: unknown) { events.push(String(error)) } }
    const context: Record<string, unknown> = { onSend: null, onError: null, errorHandler, server: app, config: {} }
    const request = new Request('rehearsal', {}, raw, {}, app.log, context)
    const replyWith = (response: ServerResponse) => new Reply(response, request, app.log)

    const marked = replyWith(new ServerResponse(raw)).header('x-rehearsal', 'header').trailer('x-rehearsal', trailer)
    const internals: Internals = {
      context: keyOf(request, value => value === context),
      headers: keyOf(marked, value => mark(value) === 'header'),
      trailers: keyOf(marked, value => mark(value) === trailer)
    }

    const last: Hook = (_request, _reply, _payload, done) => {
      events.push('last hook')
      done()
    }
    const first: Hook = (request, _reply, _payload, done) => {
      events.push('first hook')
      hooksOf(request, internals, 'onSend').push(last)
      done()
    }
    context.onSend = [first]
    replyWith(new RehearsedResponse(raw, events)).send('')
    assert(events.join() === 'first hook,last hook,head', `hooks and head came in the order ${events.join()}`)

    tryHead(marked, '', internals)
    tryHead(marked, undefined, internals)
    assert(events.length === 3, 'hooks run')
    assert(isRefused(() => tryHead(marked.header('x-rehearsal', 'a\nb'), '', internals)), 'a bad head is accepted')
    return internals
  } catch (cause) {
    throw Object.assign(new FST_TASKQUEUE_UNSUPPORTED_FASTIFY(app.version), { cause })
  }
}

const trailer = async () => 'trailer'
const mark = (value: unknown) => (value as Record<string, unknown> | null | undefined)?.['x-rehearsal']

/** A response without a connection that notes when its head is sent. */
class RehearsedResponse extends ServerResponse {
  readonly #events: string[]

  constructor (request: IncomingMessage, events: string[]) {
    super(request)
    this.#events = events
  }

  override writeHead (...head: unknown[]): this {
    this.#events.push('head')
    return super.writeHead(...head as Parameters<ServerResponse['writeHead']>)
  }
}

function classOf<T> (app: FastifyInstance, description: string): new (...parts: unknown[]) => T {
  const key = Object.getOwnPropertySymbols(app).find(symbol => symbol.description === description)
  assert(key !== undefined, `${description} is not found`)
  return (app as unknown as Keyed)[key] as new (...parts: unknown[]) => T
}

function keyOf (object: object, isHeld: (value: unknown) => boolean): symbol {
  const key = Object.getOwnPropertySymbols(object).find(symbol => isHeld((object as Keyed)[symbol]))
  assert(key !== undefined, 'a property is not found')
  return key
}

function isRefused (run: () => unknown): boolean {
  try {
    run()
    return false
  } catch {
    return true
  }
}

function assert (condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(message)
}
