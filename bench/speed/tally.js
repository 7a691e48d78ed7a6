import { withResolvers } from '../support/resolvers.js'

/** Sees to it that each of so many tasks runs once, and knows when the first and the last one do. */
export class Tally {
  #seen
  #total
  #count = 0
  #repeated = 0
  #onFirst
  #done = withResolvers()

  constructor (total, { onFirst = () => {}, of = total } = {}) {
    this.#total = total
    this.#seen = new Uint8Array(of)
    this.#onFirst = onFirst
  }

  note = n => {
    const now = performance.now()
    if (this.#count === 0) {
      this.firstMs = now
      this.#onFirst()
    }
    if (this.#seen[n] === 1) this.#repeated++
    this.#seen[n] = 1
    this.#count++
    if (this.#count === this.#total) {
      this.lastMs = now
      this.#done.resolve()
    }
  }

  get count () { return this.#count }

  /** Resolves in the very moment in which the last one runs. */
  get done () { return this.#done.promise }

  get perSecond () { return this.#total / (this.lastMs - this.firstMs) * 1000 }

  check () {
    if (this.#count !== this.#total || this.#repeated > 0) throw new Error(`${this.#count} runs of ${this.#total} tasks, ${this.#repeated} of them again`)
  }
}
