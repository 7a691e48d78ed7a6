import type { FastifyReply, FastifyRequest } from 'fastify'
import type { Internals } from './fastify-internals.js'
import { clearHead, restoreHead, tryHead, type Head } from './reply-head.js'
import { dispose, isResponse, isStream, opened, sendable } from './reply-payload.js'
import type { Prepare, TaskTransaction } from './transaction.js'

/** What the end of a request depends on. */
export interface ReplyPolicy {
  /** Whether the request is an attempt at a task whose result no longer matters: what it adds is not wanted. */
  isAborted (request: FastifyRequest): boolean
  /** Says where the tasks of the request go; undefined where their stores take them. */
  prepareFor (request: FastifyRequest): Prepare | undefined
}

/**
 * How far the tasks of a request have come.
 *
 *     open ── a reply succeeds, or an error drops tasks ──▶ busy ── stored ──▶ committed
 *      ▲                                                     │
 *      └────────────────── not stored ──────────────────────┘
 */
type Stage =
  /** A reply may be decided on. */
  | { readonly kind: 'open' }
  /** Tasks are being stored or dropped. Resolves to whether tasks were stored. */
  | { readonly kind: 'busy', readonly isStored: Promise<boolean> }
  /** The tasks are stored: what fails now cannot be answered with an error. */
  | { readonly kind: 'committed' }

const OPEN: Stage = { kind: 'open' }
const COMMITTED: Stage = { kind: 'committed' }

/** A hook that returns this never comes to its end, and Fastify forgets that run of the hooks. */
const drop = () => new Promise<never>(() => {})

/** The end of a request that uses its transaction: its replies, of which one is sent, and the errors between them. */
export class ReplyEnd {
  readonly #policy: ReplyPolicy
  readonly #internals: Internals
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply
  readonly #transaction: TaskTransaction
  readonly #headersBefore: () => Parameters<FastifyReply['headers']>[0]
  #stage: Stage = OPEN
  /** Stands for the payload that is being made ready to be sent. An error takes its place away. */
  #candidate: symbol | undefined

  /** @param headersBefore returns the headers of the reply as they were before the handler ran */
  constructor (
    policy: ReplyPolicy, internals: Internals, request: FastifyRequest, reply: FastifyReply,
    transaction: TaskTransaction, headersBefore: () => Parameters<FastifyReply['headers']>[0]
  ) {
    this.#policy = policy
    this.#internals = internals
    this.#request = request
    this.#reply = reply
    this.#transaction = transaction
    this.#headersBefore = headersBefore
  }

  /** Takes in a reply that is about to be sent. Returns what to send in its place; undefined to send it at once. */
  send (payload: unknown): Promise<unknown> | undefined {
    // This is a second send() while the first one's tasks are committed: the first wins.
    if (this.#candidate !== undefined || this.#stage.kind === 'committed') return drop()
    if (this.#stage.kind === 'busy') return this.#sendLater(payload, this.#stage.isStored)
    return this.#decide(payload)
  }

  /** Takes in an error of the request. */
  fail (): void {
    this.#candidate = undefined
    // An error in place of the success would deny what has been queued; a broken reply leaves it open.
    if (this.#stage.kind === 'committed') this.#reply.raw.destroy()
    else if (!this.#reply.sent) this.#transaction.reopen()
    // This does not wait: until the hook is done, Fastify throws at a handler that goes on and sends.
    if (this.#transaction.size > 0) this.#waitFor(this.#transaction.rollback().then(() => false))
  }

  /**
   * Sends the reply to an error that came while tasks were stored or dropped. If they were stored, it is not sent: the
   * reply that they belong to is.
   */
  async #sendLater (payload: unknown, isStored: Promise<boolean>): Promise<unknown> {
    const candidate = this.#candidate = Symbol('later')
    if (await isStored) {
      await this.#transaction.rollback()
      return await drop()
    }
    if (this.#candidate !== candidate) return await drop()
    this.#candidate = undefined
    this.#stage = OPEN
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
    const candidate = this.#candidate = Symbol('success')
    const isOvertaken = () => this.#candidate !== candidate || this.#reply.sent
    let payload = given
    let head: Head
    let isLate: boolean
    try {
      payload = sendable(this.#reply, given)
      if (isStream(payload)) await opened(payload, this.#reply.raw)
      if (isOvertaken()) {
        dispose(payload)
        return await drop()
      }
      head = tryHead(this.#reply, payload, this.#internals)
      const committed = this.#transaction.commit(this.#policy.prepareFor(this.#request))
      this.#waitFor(committed.then(() => true, () => false))
      await committed
      isLate = this.#candidate !== candidate
    } catch (error) {
      dispose(payload)
      if (isOvertaken()) return await drop()
      this.#stage = OPEN
      await this.#transaction.rollback()
      this.#forgetHead()
      throw error
    } finally {
      if (this.#candidate === candidate) this.#candidate = undefined
    }
    this.#stage = COMMITTED
    this.#transaction.close()
    if (isLate) this.#request.log.error('an error came too late for the reply: its tasks have been queued')
    // Without the commit it would have been sent before anything else was done to it.
    restoreHead(this.#reply, head, this.#internals)
    return payload
  }

  /** Makes replies wait for tasks that are stored or dropped, besides what they wait for already. */
  #waitFor (isStored: Promise<boolean>): void {
    if (this.#stage.kind === 'committed') return
    const both = this.#stage.kind === 'busy' ? [this.#stage.isStored, isStored] : [isStored]
    this.#stage = { kind: 'busy', isStored: Promise.all(both).then(stored => stored.includes(true)) }
  }

  /** Leaves to an error's reply what was there before the handler. */
  #forgetHead (): void {
    clearHead(this.#reply, this.#internals)
    this.#reply.headers(this.#headersBefore())
  }
}
