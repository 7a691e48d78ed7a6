/** How much work a consumer may hold that it has not begun, in milliseconds, besides what it does in a round trip. */
const AHEAD_MS = 20

/** Claiming more at once for so many milliseconds of work would make no measurable difference. */
const MOST_AHEAD = 128

/** A round trip that takes longer counts as one of this length, in milliseconds: others could have the work. */
const LONGEST_TRIP_MS = 500

/** A round trip that takes no longer is covered by the work that a consumer holds anyway. */
const SHORT_TRIP_MS = 10

/**
 * How fast tasks of a queue end here, and how long the store takes to bring more: so how many to claim before there is
 * room for them. Where a task takes no longer than the round trip that brings the next one, a consumer that claims what
 * it has room for waits most of the time.
 */
export class Pace {
  #meanMs = Infinity
  #tripMs = 0

  /** Takes note of how long an attempt took. */
  note (ms: number): void {
    this.#meanMs = this.#meanMs === Infinity ? ms : this.#meanMs * 0.8 + ms * 0.2
  }

  /** Takes note of how long the store took to answer. One answer that comes late is no reason to claim more. */
  noteTrip (ms: number): void {
    this.#tripMs = ms < this.#tripMs ? ms : this.#tripMs * 0.9 + ms * 0.1
  }

  /** Claims nothing ahead until attempts have been short again: one of them has turned out to be long. */
  slow (): void {
    this.#meanMs = Infinity
  }

  /** Returns how many tasks to claim beyond those that can run at once. */
  ahead (concurrency: number): number {
    const tripMs = this.#tripMs <= SHORT_TRIP_MS ? 0 : Math.min(this.#tripMs, LONGEST_TRIP_MS)
    const windowMs = AHEAD_MS + tripMs
    return Math.floor(Math.min(windowMs / this.#meanMs * concurrency, MOST_AHEAD * windowMs / AHEAD_MS))
  }
}
