import type { Redis } from 'ioredis'
import type { Calls } from './calls.js'
import type { Link } from './link.js'

/** For how long one WAIT waits, in milliseconds. Its connection does nothing else meanwhile. */
const WAIT_MS = 20

/** Makes sure that enough replicas have what was written. */
export class Replicas {
  readonly #link: Link
  readonly #calls: Calls
  readonly #wanted: number
  readonly #timeoutMs: number
  /** The last WAIT that was sent, and the one that follows when that is answered. */
  #last: Promise<unknown> = Promise.resolve()
  #next: Promise<number> | undefined

  constructor (link: Link, calls: Calls, wanted: number, timeoutMs: number) {
    this.#link = link
    this.#calls = calls
    this.#wanted = wanted
    this.#timeoutMs = timeoutMs
  }

  get areWanted (): boolean { return this.#wanted > 0 }

  /** Waits until enough replicas have what was written so far. Rejects if that takes too long. */
  async replicate (): Promise<void> {
    const deadline = performance.now() + this.#timeoutMs
    while (await this.#count() < this.#wanted) {
      if (performance.now() > deadline) throw this.#calls.cannot(`fewer than ${this.#wanted} replicas have the tasks`)
    }
  }

  /** Counts the replicas that have it. One WAIT counts for all commits, and waits only a few milliseconds. */
  #count (): Promise<number> {
    this.#next ??= this.#last.then(async () => {
      this.#next = undefined
      return await this.#calls.answerTo(this.#link.run(client => (client as Redis).wait(this.#wanted, WAIT_MS)))
    })
    this.#last = this.#next.catch(() => {})
    return this.#next
  }
}
