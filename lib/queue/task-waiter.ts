import { FST_TASKQUEUE_CLOSING, FST_TASKQUEUE_TIMEOUT, FST_TASKQUEUE_TOO_MANY_WAITS } from '../errors.js'
import type { News } from '../store/news.js'
import type { Codec } from '../task/codec.js'
import { answered } from './queue.js'
import type { Queues } from './queues.js'
import { statusOf, type TaskStatus } from './status.js'

/** How long to rely on hearing of an end: news may be lost. */
const LOOK_AGAIN_MS = 5000
/** How often to see what is to be looked at again, and how many tasks at most. */
const ROUND_MS = 100
const MAX_IN_ROUND = 50
/** How many looks may be under way at once. */
const MAX_LOOKS = 16
/** How many calls may wait at once. */
const MAX_WAITS = 20_000

const ENDED: ReadonlySet<string> = new Set(['done', 'dead', 'cancelled', 'expired'])

/**
 * Waits for the ends of tasks, wherever they are among the queues of an app.
 *
 * All who wait for a task share the looks at it, of which there is one at a time, and what a look finds. News of
 * its end ask for a look, and so does each new wait, since a look that began before it may have found another
 * task of the id. Whatever asks for many looks at once gets them a few at a time.
 */
export class TaskWaiter {
  readonly #queues: Queues
  readonly #codec: Codec
  /** By the ids of tasks, those at which nobody has looked for longest first. */
  readonly #watches = new Map<string, Watch>()
  /** Ids of tasks at which to look next. */
  readonly #asked = new Set<string>()
  #listening: Promise<unknown> | undefined
  #rounds: NodeJS.Timeout | undefined
  #looks = 0
  #waits = 0
  #isClosed = false

  constructor (queues: Queues, codec: Codec) {
    this.#queues = queues
    this.#codec = codec
  }

  /** Returns what is known of a task once it has ended; undefined when nothing is, any more. */
  async wait (id: string, timeoutMs: number, signal?: AbortSignal): Promise<TaskStatus | undefined> {
    if (this.#isClosed) throw new FST_TASKQUEUE_CLOSING()
    signal?.throwIfAborted()
    if (this.#waits >= MAX_WAITS) throw new FST_TASKQUEUE_TOO_MANY_WAITS(MAX_WAITS)
    const watch = this.#watches.get(id) ?? new Watch()
    const waiter = new Waiter(timeoutMs, watch.begun)
    const expire = () => {
      watch.late.add(waiter)
      this.#ask(id)
    }
    const abort = () => { waiter.reject(signal!.reason) }
    const timer = setTimeout(expire, timeoutMs)
    signal?.addEventListener('abort', abort, { once: true })
    this.#waits++
    watch.waiters.add(waiter)
    watch.until = Math.max(watch.until, waiter.deadline)
    this.#watches.set(id, watch)
    this.#rounds ??= setInterval(() => { this.#lookAgain() }, ROUND_MS).unref()
    this.#ask(id)
    try {
      return await waiter.result
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
      this.#waits--
      watch.waiters.delete(waiter)
      watch.late.delete(waiter)
      if (watch.waiters.size === 0 && this.#watches.get(id) === watch) this.#watches.delete(id)
      if (this.#waits === 0) {
        clearInterval(this.#rounds)
        this.#rounds = undefined
      }
    }
  }

  /** Ends all waits, now and later: who holds a request open for one would hold up the end of the app. */
  close (): void {
    this.#isClosed = true
    this.#asked.clear()
    for (const { waiters } of this.#watches.values()) for (const waiter of waiters) waiter.reject(new FST_TASKQUEUE_CLOSING())
  }

  /** Has a task looked at soon. */
  #ask (id: string): void {
    if (!this.#watches.has(id)) return
    this.#asked.add(id)
    this.#lookAtAsked()
  }

  #lookAtAsked (): void {
    for (const id of this.#asked) {
      if (this.#looks >= MAX_LOOKS) return
      const watch = this.#watches.get(id)
      // It stays asked for until the look that is under way has ended.
      if (watch?.isLooking === true) continue
      this.#asked.delete(id)
      if (watch !== undefined) this.#look(id, watch)
    }
  }

  async #look (id: string, watch: Watch): Promise<void> {
    this.#looks++
    watch.isLooking = true
    watch.lookedAt = performance.now()
    this.#watches.delete(id)
    this.#watches.set(id, watch)
    try {
      await this.#listen()
      const look = watch.begin()
      const found = await this.#queues.find(id, Math.max(1, Math.ceil(watch.until - performance.now())))
      if (found === undefined || ENDED.has(found.state)) watch.end(look, found && statusOf(this.#codec, found))
      else watch.expire(look, id)
    } catch (error) {
      this.#fail(watch, error)
    }
    watch.isLooking = false
    // Not at once: a store in this process would let nobody else run until all have been looked at.
    setImmediate(() => {
      this.#looks--
      this.#lookAtAsked()
    })
  }

  /** A store that fails one look fails those that are asked for as well. What waits since before may outlast it. */
  #fail (failed: Watch, error: unknown): void {
    for (const watch of [failed, ...[...this.#asked].map(id => this.#watches.get(id))]) watch?.fail(error)
  }

  #lookAgain (): void {
    const before = performance.now() - LOOK_AGAIN_MS
    const ids: string[] = []
    for (const [id, { lookedAt }] of this.#watches) {
      if (lookedAt > before || ids.length === MAX_IN_ROUND) break
      ids.push(id)
    }
    for (const id of ids) this.#ask(id)
  }

  /** Listens to all queues. What fails is tried again by the next look. */
  async #listen (): Promise<void> {
    this.#listening ??= answered(Promise.all(this.#queues.all.map(async ({ name, store }) => { await store.watch(name, this.#hear) })))
    try {
      await this.#listening
    } catch (error) {
      this.#listening = undefined
      throw error
    }
  }

  readonly #hear = (news: News): void => {
    if (news.kind === 'ended') this.#ask(news.id)
    // Some may have been lost.
    if (news.kind === 'change') for (const id of [...this.#watches.keys()]) this.#ask(id)
  }
}

/** What is waited for of one task. */
class Watch {
  readonly waiters = new Set<Waiter>()
  /** Those of them whose time is over: the next look is their last. */
  readonly late = new Set<Waiter>()
  /** The latest deadline of them. */
  until = 0
  lookedAt = performance.now()
  isLooking = false
  /** How many looks have begun, and the last of those that found the task as it was. */
  begun = 0
  #seen = 0

  begin (): number { return ++this.begun }

  end (look: number, status: TaskStatus | undefined): void {
    for (const waiter of this.waiters) if (waiter.after < look) waiter.resolve(status)
  }

  expire (look: number, id: string): void {
    this.#seen = look
    for (const waiter of this.late) if (waiter.after < look) waiter.reject(new FST_TASKQUEUE_TIMEOUT(id, waiter.timeoutMs))
  }

  fail (error: unknown): void {
    for (const waiter of this.waiters) if (waiter.after >= this.#seen || this.late.has(waiter)) waiter.reject(error)
  }
}

class Waiter {
  readonly timeoutMs: number
  readonly deadline: number
  /** The number of the last look that had begun before it waited. */
  readonly after: number
  readonly result: Promise<TaskStatus | undefined>
  resolve!: (status: TaskStatus | undefined) => void
  reject!: (reason: unknown) => void

  constructor (timeoutMs: number, after: number) {
    this.timeoutMs = timeoutMs
    this.deadline = performance.now() + timeoutMs
    this.after = after
    this.result = new Promise((resolve, reject) => {
      this.resolve = resolve
      this.reject = reject
    })
  }
}
