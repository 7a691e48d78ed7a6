import type { Reporter } from './reporter.js'

/** The longest pause between two tries, in milliseconds. */
const LONGEST_PAUSE_MS = 2000

/** For how long a consumer that closes tries to tell the store what has ended. */
const LAST_TRIES_MS = 1500

/**
 * Whether the store answers a consumer, and when to try again if it does not. It tells of that only when it
 * changes.
 */
export class Outage {
  readonly #reporter: Reporter
  /** How many tries have failed since the store answered last. */
  #failures = 0
  #lastTriesSince: number | undefined
  #heardAt = performance.now()

  constructor (reporter: Reporter) {
    this.#reporter = reporter
  }

  get isOn (): boolean { return this.#failures > 0 }

  /** For how long the store has answered nothing, in milliseconds. */
  get silentMs (): number { return Math.round(performance.now() - this.#heardAt) }

  noteHeartbeat (): void { this.#heardAt = performance.now() }

  noteAnswer (): void {
    this.#heardAt = performance.now()
    if (this.#failures > 0) this.#reporter.tell('store:recovered', {})
    this.#failures = 0
    this.#lastTriesSince = undefined
  }

  /**
   * Takes note of a try that began at `start` and failed. Returns the pause before the next one, in milliseconds;
   * undefined if it was one of the last tries, and the time for these is over.
   */
  noteFailure (err: unknown, start: number, isLastTries: boolean): number | undefined {
    this.#failures++
    if (this.#failures === 1) this.#reporter.tell('store:failed', { err })
    if (isLastTries) {
      this.#lastTriesSince ??= start
      if (performance.now() - this.#lastTriesSince > LAST_TRIES_MS) return undefined
    }
    return Math.min(50 * 2 ** this.#failures, LONGEST_PAUSE_MS)
  }
}
