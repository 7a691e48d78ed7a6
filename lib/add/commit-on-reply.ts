import type { FastifyInstance, FastifyReply, FastifyRequest, HookHandlerDoneFunction } from 'fastify'
import { hooksOf, rehearse, type Hook, type Internals } from './fastify-internals.js'
import { clearHead, restoreHead, tryHead, type Head } from './reply-head.js'
import { dispose, isResponse, isStream, opened, sendable } from './reply-payload.js'
import type { Prepare, TaskTransaction } from './transaction.js'

declare module 'fastify' {
  interface FastifyRequest {
    /** @internal */
    [kTransaction]: TaskTransaction | null | undefined
    /** @internal */
    [kReply]: FastifyReply | null | undefined
    /** @internal */
    [kEnd]: End | null
    /** @internal */
    [kHeaders]: Headers | null
  }
}

/** The transaction of a request, once it is used. */
const kTransaction = Symbol('fastify-taskqueue.transaction')
const kReply = Symbol('fastify-taskqueue.reply')
const kEnd = Symbol('fastify-taskqueue.end')
const kHeaders = Symbol('fastify-taskqueue.headers')

type Headers = Partial<ReturnType<FastifyReply['getHeaders']>>

/** What the transaction of a request depends on, besides its reply. */
export interface Policy {
  begin (request: FastifyRequest): TaskTransaction
  /** The attempt at a task that this request is has been given up: what it adds is not wanted. */
  isAborted (request: FastifyRequest): boolean
  /** Where this request's tasks go. */
  prepareFor (request: FastifyRequest): Prepare | undefined
  /** Stands for the transaction of a request that has used none: it takes no task. */
  closed: TaskTransaction
}

/**
 * Binds transactions to replies: commits when a reply succeeds, as late as Fastify
 * allows and before the first byte leaves, and rolls back when it does not.
 *
 * The commit is the last `onSend` hook: while the hooks of a reply run, one of them puts it
 * behind all others. A commit that fails is an error of an `onSend` hook, which Fastify
 * answers like any other error of the request.
 */
export function bindToReply (app: FastifyInstance, policy: Policy): void {
  const internals = rehearse(app)
  app.decorateRequest(kTransaction, null)
  app.decorateRequest(kReply, null)
  app.decorateRequest(kEnd, null)
  app.decorateRequest(kHeaders, null)

  const endOf = (request: FastifyRequest, reply: FastifyReply, transaction: TaskTransaction): End => {
    request[kEnd] ??= new End(policy, internals, request, reply, transaction)
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
      request.log.error({ tasks: transaction.size }, 'reply was sent without committing the tasks of its request; after hijack(), await request.taskqueue.commit()')
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

  /** Synchronous where there is nothing to wait for; a promise otherwise, since what Fastify throws after `done` in a promise crashes the process. */
  function commitTasks (request: FastifyRequest, reply: FastifyReply, payload: unknown, done: HookHandlerDoneFunction): Promise<unknown> | void {
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
    // Another hook may have been before this one. In a plugin that was there before, nothing is set that is null here.
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

/** A hook that returns this never comes to its end, and Fastify forgets that run of the hooks. */
const drop = () => new Promise<never>(() => {})

/** The end of a request that uses its transaction: its replies, of which one is sent, and the errors between them. */
class End {
  readonly #policy: Policy
  readonly #internals: Internals
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #transaction: TaskTransaction
  /** Counts the errors: a commit that was begun before one must not send its payload. */
  #errors = 0
  /** After how many errors the reply came for which something is waited; -1 for none. */
  #waiting = -1
  /** Once tasks are on their way to their stores: whether they arrive. */
  #stored: Promise<boolean> | undefined
  /** They have: what fails now cannot be answered with an error any more. */
  #isCommitted = false
  /** Once an error has come. */
  #rolledBack: Promise<void> | undefined

  constructor (
    policy: Policy, internals: Internals, request: FastifyRequest, reply: FastifyReply, transaction: TaskTransaction
  ) {
    this.#policy = policy
    this.#internals = internals
    this.#request = request
    this.#reply = reply
    this.#transaction = transaction
  }

  /** Takes in a reply that is about to be sent; returns what is sent, unless that is this payload, at once. */
  send (payload: unknown): Promise<unknown> | undefined {
    // A second send() while the first one's tasks are committed: the first wins.
    if (this.#waiting === this.#errors || this.#isCommitted) return drop()
    if (this.#stored !== undefined || this.#rolledBack !== undefined) return this.#sendLater(payload)
    return this.#decide(payload)
  }

  /** Takes in an error of the request. */
  fail (): void {
    this.#errors++
    // An error in place of the success would deny what has been queued; a broken reply leaves it open.
    if (this.#isCommitted) this.#reply.raw.destroy()
    else if (!this.#reply.sent) this.#transaction.reopen()
    // Not waited for here: until the hook is done, Fastify throws at a handler that goes on and sends.
    if (this.#transaction.size > 0) this.#rolledBack = this.#transaction.rollback()
  }

  /** An error that came while tasks were being stored answers only if they cannot be, and any error after the rollback. */
  async #sendLater (payload: unknown): Promise<unknown> {
    const errors = this.#waiting = this.#errors
    if (await this.#stored === true) {
      await this.#transaction.rollback()
      return await drop()
    }
    await this.#rolledBack
    if (this.#errors !== errors) return await drop()
    this.#waiting = -1
    this.#rolledBack = undefined
    return await (this.#decide(payload) ?? payload)
  }

  #decide (payload: unknown): Promise<unknown> | undefined {
    this.#transaction.close()
    if (this.#transaction.size === 0) return undefined
    const { status } = isResponse(payload) ? payload : { status: this.#reply.statusCode }
    if (status < 400 && !this.#policy.isAborted(this.#request)) return this.#commit(payload)
    return this.#transaction.rollback().then(() => payload)
  }

  /**
   * Commits before the payload is sent. What fails only after the hooks (a payload that cannot
   * be sent, a stream that does not open, a head that Node refuses) is found out first, since
   * an error after the commit could not be taken back.
   */
  async #commit (given: unknown): Promise<unknown> {
    const errors = this.#waiting = this.#errors
    const isOvertaken = () => this.#errors !== errors || this.#reply.sent
    let payload = given
    let head: Head
    try {
      payload = sendable(this.#reply, given)
      if (isStream(payload)) await opened(payload, this.#reply.raw)
      if (isOvertaken()) {
        dispose(payload)
        return await drop()
      }
      head = tryHead(this.#reply, payload, this.#internals)
      const committed = this.#transaction.commit(this.#policy.prepareFor(this.#request))
      this.#stored = committed.then(() => true, () => false)
      await committed
    } catch (error) {
      this.#stored = undefined
      dispose(payload)
      if (isOvertaken()) return await drop()
      await this.#transaction.rollback()
      this.#forgetHead()
      throw error
    } finally {
      if (this.#waiting === errors) this.#waiting = -1
    }
    this.#isCommitted = true
    this.#transaction.close()
    if (this.#errors !== errors) {
      this.#request.log.error('an error came too late for the reply: its tasks have been queued')
    }
    // Without the commit it would have been sent before anything else was done to it.
    restoreHead(this.#reply, head, this.#internals)
    return payload
  }

  /** Leaves to an error's reply what was there before the handler. */
  #forgetHead (): void {
    clearHead(this.#reply, this.#internals)
    this.#reply.headers(this.#request[kHeaders] ?? {})
  }
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
