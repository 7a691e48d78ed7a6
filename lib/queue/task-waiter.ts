import { FST_TASKQUEUE_CLOSING, FST_TASKQUEUE_TIMEOUT, FST_TASKQUEUE_TOO_MANY_WAITS } from '../errors.js'
import type { News } from '../store/news.js'
import type { Codec } from '../task/codec.js'
import { reach } from './reach.js'
import type { Queues } from './queues.js'
import { statusOf, type TaskStatus } from './status.js'

/** After how many milliseconds to look at a task again, since the news of its end may be lost. */
const LOOK_AGAIN_MS = 5000
/** How many milliseconds pass between two rounds, which find the tasks to look at again. */
const ROUND_MS = 100
/** How many tasks one round finds at most. */
const MAX_IN_ROUND = 50
/** How many looks may be under way at once. */
const MAX_LOOKS = 16
/** How many calls may wait at once. */
const MAX_WAITS = 20_000

const ENDED: ReadonlySet<string> = new Set(['done', 'dead', 'cancelled', 'expired'])

/**
 * Waits for the ends of tasks in all the queues of an app.
 *
 * All waiters for a task share the looks at it and their results. There is one look at a task at a time. News of its
 * end ask for a look. So does each new waiter, since a look that began before it may have found an earlier task with
 * the id. If many looks are asked for at once, they are taken a few at a time.
 */
export class TaskWaiter {
  readonly #queues: Queues
  readonly #codec: Codec
  /** The watches by the ids of their tasks. The one whose last look is the oldest comes first. */
  readonly #watches = new Map<string, Watch>()
  /** The ids of the tasks at which to look next. */
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

  /**
   * Resolves to the status of a task once it has ended, and to undefined once no queue knows it. Rejects with
   * `FST_TASKQUEUE_TIMEOUT`, `FST_TASKQUEUE_TOO_MANY_WAITS`, `FST_TASKQUEUE_CLOSING` or `FST_TASKQUEUE_UNREACHABLE`, or
   * with the reason of the signal.
   */
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

  /** Ends all waits, now and later. A request that is held open by a wait would delay the end of the app. */
  close (): void {
    this.#isClosed = true
    this.#asked.clear()
    for (const { waiters } of this.#watches.values()) {
      for (const waiter of waiters) waiter.reject(new FST_TASKQUEUE_CLOSING())
    }
  }

  /** Asks for a look at a task. */
  #ask (id: string): void {
    if (!this.#watches.has(id)) return
    this.#asked.add(id)
    this.#lookAtAsked()
  }

  #lookAtAsked (): void {
    for (const id of this.#asked) {
      if (this.#looks >= MAX_LOOKS) return
      const watch = this.#watches.get(id)
      // The look that was asked for begins when the one under way has ended.
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
    // The next looks wait for a turn of the event loop: with a store in this process they would block everything else.
    setImmediate(() => {
      this.#looks--
      this.#lookAtAsked()
    })
  }

  /** Fails the waiters of a look that failed, and of those asked for, which would fail too. See `Watch.fail`. */
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

  /** Listens to all queues. If that fails, the next look tries again. */
  async #listen (): Promise<void> {
    const watchAll = () => Promise.all(this.#queues.all.map(async ({ name, store }) => {
      await store.watch(name, this.#hear)
    }))
    this.#listening ??= reach(watchAll())
    try {
      await this.#listening
    } catch (error) {
      this.#listening = undefined
      throw error
    }
  }

  readonly #hear = (news: News): void => {
    if (news.kind === 'ended') this.#ask(news.id)
    // News of ends may have been lost.
    if (news.kind === 'change') for (const id of [...this.#watches.keys()]) this.#ask(id)
  }
}

/** The waiters for one task, and the looks at it. */
class Watch {
  readonly waiters = new Set<Waiter>()
  /** The waiters whose time is over. The next look is their last. */
  readonly late = new Set<Waiter>()
  /** The latest deadline of all waiters. */
  until = 0
  lookedAt = performance.now()
  isLooking = false
  /** How many looks have begun. */
  begun = 0
  /** The number of the last look that found the task and that it had not ended. */
  #seen = 0

  begin (): number { return ++this.begun }

  end (look: number, status: TaskStatus | undefined): void {
    for (const waiter of this.waiters) if (waiter.after < look) waiter.resolve(status)
  }

  expire (look: number, id: string): void {
    this.#seen = look
    for (const waiter of this.late) {
      if (waiter.after < look) waiter.reject(new FST_TASKQUEUE_TIMEOUT(id, waiter.timeoutMs))
    }
  }

  /** Fails the waiters for which no look has succeeded yet, and the late ones. The others may outlast the failure. */
  fail (error: unknown): void {
    for (const waiter of this.waiters) if (waiter.after >= this.#seen || this.late.has(waiter)) waiter.reject(error)
  }
}

class Waiter {
  readonly timeoutMs: number
  readonly deadline: number
  /** How many looks had begun before this waiter came. Only later looks count for it. */
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
