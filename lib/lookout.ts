import { EventEmitter, once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { FST_TASKQUEUE_TIMEOUT } from './errors.js'
import type { Queue } from './queue.js'
import type { Found } from './store.js'

/** How long to rely on hearing of an end: news may be lost. */
const LOOK_AGAIN_MS = 5000

const ENDED: ReadonlySet<string> = new Set(['done', 'dead', 'cancelled', 'expired'])

/** Finds tasks wherever they are among some queues, and waits for their ends. */
export class Lookout {
  readonly #queues: readonly Queue[]
  readonly #news = new EventEmitter().setMaxListeners(0)
  readonly #watched = new Map<string, Promise<void>>()

  constructor (queues: readonly Queue[]) {
    this.#queues = queues
  }

  async find (id: string, awaitMs?: number): Promise<Found | undefined> {
    for (const store of new Set(this.#queues.map(({ store }) => store))) {
      const names = this.#queues.filter(queue => queue.store === store).map(({ name }) => name)
      const found = await store.find(names, id, awaitMs)
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Returns what is found of a task once it has ended; undefined when nothing is known of it, any more. */
  async wait (id: string, timeoutMs: number): Promise<Found | undefined> {
    const deadline = performance.now() + timeoutMs
    await Promise.all(this.#queues.map(queue => this.#watch(queue)))
    for (;;) {
      const leftMs = deadline - performance.now()
      const over = new AbortController()
      const heard = this.#hear(id, Math.min(leftMs, LOOK_AGAIN_MS), over.signal)
      try {
        const found = await this.find(id, Math.max(1, Math.ceil(leftMs)))
        if (found === undefined || ENDED.has(found.state)) return found
        if (leftMs <= 0) throw new FST_TASKQUEUE_TIMEOUT(id, timeoutMs)
        await heard
      } finally {
        over.abort()
      }
    }
  }

  #watch ({ name, store }: Queue): Promise<void> {
    const watched = this.#watched.get(name) ?? store.watch(name, news => {
      if (news.kind === 'ended') this.#news.emit(news.id)
      // Some may have been lost.
      if (news.kind === 'change') this.#news.emit(CHANGE)
    })
    this.#watched.set(name, watched)
    return watched
  }

  /** Resolves with the next news that may be of this task, after some time, or when it is over; listens at once. */
  async #hear (id: string, ms: number, signal: AbortSignal): Promise<void> {
    await Promise.race([once(this.#news, id, { signal }), once(this.#news, CHANGE, { signal }), sleep(Math.max(ms, 0), undefined, { signal })]).catch(() => {})
  }
}

const CHANGE = Symbol('change')
