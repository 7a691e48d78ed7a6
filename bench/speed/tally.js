import { gate } from '../../build/test/support/gate.js'
import { cpuUs } from '../support/meter.js'

/** Sees to it that each of so many tasks runs once, and knows when the first and the last one do. */
export class Tally {
  #seen
  #total
  #count = 0
  #repeated = 0
  #firstMs = NaN
  #lastMs = NaN
  #cpuAtFirst = process.cpuUsage()
  #done = gate()

  /**
   * @param {number} total
   * @param {number} of How many there are in all.
   */
  constructor (total, of = total) {
    this.#total = total
    this.#seen = new Uint8Array(of)
  }

  /** @param {number} n */
  note = n => {
    const now = performance.now()
    if (this.#count === 0) {
      this.#firstMs = now
      this.#cpuAtFirst = process.cpuUsage()
    }
    if (this.#seen[n] === 1) this.#repeated++
    this.#seen[n] = 1
    this.#count++
    if (this.#count === this.#total) {
      this.#lastMs = now
      this.#done.open()
    }
  }

  get count () { return this.#count }

  /** Resolves in the very moment in which the last one runs. */
  get done () { return this.#done.opened }

  get perSecond () { return this.#total / (this.#lastMs - this.#firstMs) * 1000 }

  /** The microseconds of CPU of this process since the first one ran, by task. */
  get nodeUs () { return cpuUs(this.#cpuAtFirst) / this.#total }

  check () {
    if (this.#count === this.#total && this.#repeated === 0) return
    throw new Error(`${this.#count} runs of ${this.#total} tasks, ${this.#repeated} of them again`)
  }
}
