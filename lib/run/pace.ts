/** How much work a consumer may hold that it has not begun, in milliseconds: others could have it. */
const AHEAD_MS = 20

/** Claiming more at once would make no measurable difference. */
const MOST_AHEAD = 128

/**
 * How fast tasks of a queue end here, and so how many to claim before there is room for them:
 * where a task takes no longer than the round trip that brings the next one, a consumer that
 * claims what it has room for waits most of the time.
 */
export class Pace {
  #meanMs = Infinity

  /** Takes note of how long an attempt took. */
  note (ms: number): void {
    this.#meanMs = this.#meanMs === Infinity ? ms : this.#meanMs * 0.8 + ms * 0.2
  }

  /** Claims nothing ahead until attempts have been short again: one of them has turned out to be long. */
  slow (): void {
    this.#meanMs = Infinity
  }

  /** Returns how many tasks to claim beyond those that can run at once. */
  ahead (concurrency: number): number {
    return Math.min(Math.floor(AHEAD_MS / this.#meanMs * concurrency), MOST_AHEAD)
  }
}
