import type { FastifyInstance, FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify'
import { type Hook, hooksOf, type Internals } from './fastify-internals.js'
import { ReplyEnd, type ReplyPolicy } from './reply-end.js'
import type { TaskTransaction } from './transaction.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** @internal */
    [kTransaction]: TaskTransaction | null | undefined
    /** @internal */
    [kReply]: FastifyReply | null | undefined
    /** @internal */
    [kEnd]: ReplyEnd | null
    /** @internal */
    [kHeaders]: ReplyHeaders | null
  }
}

const NOT_COMMITTED = 'reply was sent without committing the tasks of its request; ' +
  'after hijack(), await request.taskqueue.commit()'

/** The transaction of a request, once it is used. */
const kTransaction = Symbol('fastify-taskqueue.transaction')
const kReply = Symbol('fastify-taskqueue.reply')
const kEnd = Symbol('fastify-taskqueue.end')
const kHeaders = Symbol('fastify-taskqueue.headers')

type ReplyHeaders = Partial<ReturnType<FastifyReply['getHeaders']>>

/** What the transactions of an app's requests depend on. */
export interface BindingPolicy extends ReplyPolicy {
  begin (request: FastifyRequest): TaskTransaction
  /** Stands for the transaction of a request that has used none: it takes no task. */
  readonly closed: TaskTransaction
}

/**
 * Binds transactions to replies: commits when a reply succeeds, as late as Fastify
 * allows and before the first byte leaves, and rolls back when it does not.
 *
 * The commit is the last `onSend` hook: while the hooks of a reply run, one of them puts it
 * behind all others. A commit that fails is an error of an `onSend` hook, which Fastify
 * answers like any other error of the request.
 */
export function bindToReply (app: FastifyInstance, internals: Internals, policy: BindingPolicy): void {
  app.decorateRequest(kTransaction, null)
  app.decorateRequest(kReply, null)
  app.decorateRequest(kEnd, null)
  app.decorateRequest(kHeaders, null)

  const endOf = (request: FastifyRequest, reply: FastifyReply, transaction: TaskTransaction): ReplyEnd => {
    const headersBefore = () => request[kHeaders] ?? {}
    request[kEnd] ??= new ReplyEnd(policy, internals, request, reply, transaction, headersBefore)
    return request[kEnd]
  }

  app.decorateRequest('taskqueue', {
    getter () {
      this[kTransaction] ??= begin(this)
      return this[kTransaction]
    }
  })

  function begin (request: FastifyRequest): TaskTransaction {
    const reply = request[kReply]
    if (reply?.raw.writableEnded === true) return policy.closed
    const transaction = policy.begin(request)
    if (reply != null) endWith(request, reply, transaction)
    return transaction
  }

  // A hook for all responses would cost every request something, this one only those that use their transaction.
  function endWith (request: FastifyRequest, { raw }: FastifyReply, transaction: TaskTransaction): void {
    const end = () => {
      transaction.close()
      if (transaction.size === 0) return
      request.log.error({ tasks: transaction.size }, NOT_COMMITTED)
      transaction.rollback()
    }
    // Before the hooks of a response, which come too late to add anything.
    raw.prependListener('finish', end).prependListener('error', end)
  }

  /** The headers before the handler has run: those that a failed commit leaves to the error's reply. */
  function noteHeaders (request: FastifyRequest, reply: FastifyReply, done: HookHandlerDoneFunction): void {
    request[kHeaders] = reply.getHeaders()
    done()
  }

  /**
   * Calls `done` at once where there is nothing to wait for. It returns a promise otherwise, since what Fastify throws
   * after `done` in a promise crashes the process.
   */
  function commitTasks (
    request: FastifyRequest, reply: FastifyReply, payload: unknown, done: HookHandlerDoneFunction
  ): Promise<unknown> | void {
    if (putLast(hooksOf(request, internals, 'onSend'), commitTasks)) return done()
    const transaction = request[kTransaction] ??= policy.closed
    if (transaction === policy.closed) return done()
    return endOf(request, reply, transaction).send(payload) ?? done()
  }

  app.addHook('onSend', (request, _reply, _payload, done) => {
    putLast(hooksOf(request, internals, 'onSend'), commitTasks)
    done()
  })
  app.addHook('preHandler', (request, _reply, done) => {
    putLast(hooksOf(request, internals, 'preHandler'), noteHeaders)
    done()
  })

  app.addHook('onRequest', (request, reply, done) => {
    request[kReply] = reply
    // A hook that ran before this one may have used the transaction. Requests of a plugin that was registered before
    // this one lack the decorators, so the value may also be undefined.
    if (request[kTransaction] != null) endWith(request, reply, request[kTransaction])
    done()
  })

  app.addHook('onError', (request, reply, _error, done) => {
    // The error's handler may use a transaction, if the request has not.
    if (request[kTransaction] === policy.closed) request[kTransaction] = null
    const transaction = request[kTransaction]
    if (transaction != null) endOf(request, reply, transaction).fail()
    done()
  })
}

/**
 * Puts a hook behind all others of a route, and returns whether it was not there. The list may
 * be in use by other requests, so the others keep their places.
 */
function putLast (hooks: Hook[], last: Hook): boolean {
  if (hooks[hooks.length - 1] === last) return false
  const index = hooks.indexOf(last)
  if (index >= 0) hooks[index] = skip
  hooks.push(last)
  return true
}

/** Stands where the last hook was before somebody added one behind it. */
const skip: Hook = (...args) => { (args.at(-1) as () => void)() }
