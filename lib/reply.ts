import { validateHeaderName, validateHeaderValue } from 'node:http'
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest, HookHandlerDoneFunction, onSendHookHandler, RouteOptions } from 'fastify'
import type { Prepare, TaskTransaction } from './transaction.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** @internal */
    [kTransaction]: TaskTransaction | null
    /** @internal */
    [kEnd]: End | null
    /** @internal */
    [kHeaders]: ReturnType<FastifyReply['getHeaders']> | null
  }
}

/** The transaction of a request, once it is used. */
export const kTransaction = Symbol('fastify-taskqueue.transaction')
const kEnd = Symbol('fastify-taskqueue.end')
const kHeaders = Symbol('fastify-taskqueue.headers')
const kLast = Symbol('fastify-taskqueue.last')

/** How far the reply to a request that uses its transaction has come. */
interface End {
  /** Counts the errors of the reply: a commit that was begun before one must not send its payload. */
  errors: number
  /** For which `errors` a commit is under way; -1 for none. */
  committing: number
  /** Once tasks are on their way to their stores: whether they have arrived. */
  stored?: Promise<boolean>
  /** They have: what fails now cannot be answered with an error any more. */
  isCommitted: boolean
  /** Once the request has failed. */
  rolledBack?: Promise<void>
}

/** What the reply decides on, besides itself. */
export interface Policy {
  /** The attempt at a task that this request is has been given up: what it adds is not wanted. */
  isAborted (request: FastifyRequest): boolean
  /** Where this request's tasks go. */
  prepareFor (request: FastifyRequest): Prepare | undefined
  /** Stands for the transaction of a request that has used none: it takes no task. */
  closed: TaskTransaction
}

/** A hook that returns this never comes to its end, and Fastify forgets that run of the hooks. */
const drop = () => new Promise<never>(() => {})

/**
 * Binds transactions to replies: commits when a reply succeeds, as late as Fastify
 * allows and before the first byte leaves, and rolls back when it does not.
 *
 * The commit is the last `onSend` hook: instance hooks run before those of a route, and
 * this one is appended to each route. What Fastify checks only after the hooks (that the
 * headers are valid, that the payload can be sent, that a stream opens) is checked before
 * the commit, since an error after it could not be taken back. A commit that fails is an
 * error of an `onSend` hook, which Fastify answers like any other error of the request.
 */
export function bindToReply (app: FastifyInstance, policy: Policy): void {
  app.decorateRequest(kTransaction, null)
  app.decorateRequest(kEnd, null)
  app.decorateRequest(kHeaders, null)

  /** The headers before the handler has run: those that a failed commit leaves to the error's reply. */
  function noteHeaders (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void {
    request[kHeaders] = reply.getHeaders()
    done()
  }

  /** Synchronous where there is nothing to wait for; a promise otherwise, since what Fastify throws after `done` in a promise crashes the process. */
  function commitTasks (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: HookHandlerDoneFunction): Promise<unknown> | void {
    const transaction = request[kTransaction] ??= policy.closed
    const end = request[kEnd] ??= { errors: 0, committing: -1, isCommitted: false }
    // A second send() while the first one's tasks are committed: the first wins.
    if (end.committing === end.errors || end.isCommitted) return drop()
    if (end.stored !== undefined || end.rolledBack !== undefined) return answerLater(transaction, end, request, reply, payload)
    return decide(transaction, end, request, reply, payload) ?? done()
  }

  /** An error that came while the tasks were being stored answers only if they cannot be, and any error after the rollback. */
  async function answerLater (transaction: TaskTransaction, end: End, request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> {
    const { errors } = end
    end.committing = errors
    if (await end.stored === true) {
      await transaction.rollback()
      return await drop()
    }
    await end.rolledBack
    if (end.errors !== errors) return await drop()
    end.committing = -1
    end.rolledBack = undefined
    return await (decide(transaction, end, request, reply, payload) ?? payload)
  }

  function decide (transaction: TaskTransaction, end: End, request: FastifyRequest, reply: FastifyReply, payload: unknown): Promise<unknown> | undefined {
    transaction.close()
    if (transaction.size === 0) return undefined
    const { status } = isResponse(payload) ? payload : { status: reply.statusCode }
    if (status < 400 && !policy.isAborted(request)) return commit(transaction, end, request, reply, payload)
    return transaction.rollback().then(() => payload)
  }

  async function commit (transaction: TaskTransaction, end: End, request: FastifyRequest, reply: FastifyReply, given: unknown): Promise<unknown> {
    const { errors } = end
    end.committing = errors
    const isOvertaken = () => end.errors !== errors || reply.sent
    let payload = given
    let success: Pick<FastifyReply, 'statusCode'> & { headers: ReturnType<FastifyReply['getHeaders']> }
    try {
      payload = sendable(reply, given)
      if (isStream(payload)) await opened(payload, reply.raw)
      if (isOvertaken()) {
        dispose(payload)
        return await drop()
      }
      success = { statusCode: reply.statusCode, headers: reply.getHeaders() }
      const committed = transaction.commit(policy.prepareFor(request))
      end.stored = committed.then(() => true, () => false)
      await committed
    } catch (error) {
      end.stored = undefined
      dispose(payload)
      if (isOvertaken()) return await drop()
      await transaction.rollback()
      replaceHeaders(reply, request[kHeaders] ?? {})
      throw error
    } finally {
      if (end.committing === errors) end.committing = -1
    }
    end.isCommitted = true
    transaction.close()
    if (end.errors !== errors) {
      request.log.error('an error came too late for the reply: its tasks have been queued')
      reply.code(success.statusCode)
      replaceHeaders(reply, success.headers)
    }
    return payload
  }

  app.addHook('onRoute', (route: RouteOptions) => {
    route.config = { ...route.config, [kLast]: true } as NonNullable<typeof route.config>
    route.preHandler = atEnd(route.preHandler, noteHeaders)
    route.onSend = atEnd(route.onSend, commitTasks as onSendHookHandler)
  })

  // Routes that were declared before the plugin, and the handlers of what is not found.
  app.addHook('onSend', (request, reply, payload, done) => {
    if (kLast in (request.routeOptions.config ?? {})) return done()
    return commitTasks(request, reply, payload, done) as void
  })
  app.addHook('preHandler', (request, reply, done) => {
    if (kLast in (request.routeOptions.config ?? {})) return done()
    noteHeaders(request, reply, done)
  })

  app.addHook('onError', (request, reply, _error, done) => {
    if (request[kTransaction] === policy.closed) request[kTransaction] = null
    const transaction = request[kTransaction]
    if (transaction === null) {
      request[kEnd] = null
      return done()
    }
    const end = request[kEnd] ??= { errors: 0, committing: -1, isCommitted: false }
    end.errors++
    // An error in place of the success would deny what has been queued; a broken reply leaves it open.
    if (end.isCommitted) reply.raw.destroy()
    else if (!reply.sent) transaction.reopen()
    // Not waited for here: until this hook is done, Fastify throws at a handler that goes on and sends.
    if (transaction.size > 0) end.rolledBack = transaction.rollback()
    done()
  })

  app.addHook('onResponse', (request, _reply, done) => {
    const transaction = request[kTransaction] ??= policy.closed
    transaction.close()
    if (transaction.size > 0) request.log.error({ tasks: transaction.size }, 'reply was sent without committing the tasks of its request; after hijack(), await request.taskqueue.commit()')
    return rollBack(transaction, done)
  })
}

/** Synchronous where there is nothing to roll back. */
function rollBack (transaction: TaskTransaction, done: HookHandlerDoneFunction): void {
  if (transaction.size === 0) done()
  else transaction.rollback().then(() => { done() }, done)
}

/** The hooks of a route with one more at their end, which those of its HEAD route have got from it already. */
function atEnd<Hook> (hooks: Hook | Hook[] | undefined, last: Hook): Hook[] {
  return [...[hooks ?? []].flat().filter(hook => hook !== last) as Hook[], last]
}

const isObject = (value: unknown): value is object => typeof value === 'object' && value !== null
const isResponse = (value: unknown): value is Response => Object.prototype.toString.call(value) === '[object Response]'
const isStream = (value: unknown): value is Readable => isObject(value) && 'pipe' in value && typeof value.pipe === 'function'
const isWebStream = (value: unknown): value is ReadableStream => isObject(value) && 'getReader' in value && typeof value.getReader === 'function'

function replaceHeaders (reply: FastifyReply, headers: Partial<ReturnType<FastifyReply['getHeaders']>>): void {
  for (const name of Object.keys(reply.getHeaders())) reply.removeHeader(name)
  reply.headers(headers)
}

/**
 * Returns the payload as it can be sent, web streams as streams of Node, so that they can
 * be opened; throws what Fastify would throw after the last hook, when it is about to send.
 */
function sendable (reply: FastifyReply, payload: unknown): unknown {
  if (isResponse(payload)) {
    reply.code(payload.status)
    for (const [name, value] of payload.headers) reply.header(name, value)
    if (payload.bodyUsed) throw new TypeError('the body of the Response has been used')
    return sendable(reply, payload.body)
  }
  for (const [name, values] of Object.entries(reply.getHeaders())) {
    validateHeaderName(name)
    for (const value of [values].flat()) validateHeaderValue(name, value as string)
  }
  if (payload === undefined || payload === null || typeof payload === 'string' || Buffer.isBuffer(payload)) return payload
  if (isWebStream(payload)) return Readable.fromWeb(payload as Parameters<typeof Readable.fromWeb>[0])
  if (!isStream(payload)) throw new TypeError(`a payload of type ${typeof payload} cannot be sent`)
  if (payload.errored) throw payload.errored
  return payload
}

/**
 * Waits for the first byte of a stream, or its end: one that fails before it (a file that
 * does not exist) is an error of the request. Fastify listens for errors only after the
 * hooks, and until then one without a listener would crash the process.
 */
async function opened (stream: Readable, client: FastifyReply['raw']): Promise<void> {
  stream.on('error', () => {})
  if (stream.readableLength > 0 || stream.readableEnded || stream.destroyed || stream.readableFlowing === true || typeof stream.read !== 'function') return
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

/** Lets go of a payload that will not be sent; Fastify would leave it open. */
function dispose (payload: unknown): void {
  if (isStream(payload)) payload.destroy?.()
  else if (isWebStream(payload)) payload.cancel().catch(() => {})
  else if (isResponse(payload)) payload.body?.cancel().catch(() => {})
}
