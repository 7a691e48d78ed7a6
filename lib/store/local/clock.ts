/**
 * The clock by which leases expire. It stands still while nobody is in contact with the queue, or the event loop is
 * blocked.
 */
export class LeaseClock {
  #now = 0
  #lastContact = performance.now()

  get now (): number { return this.#now }

  /** Moves on by the time since the last contact, but by one heartbeat at most. */
  tick (heartbeatMs: number): void {
    const now = performance.now()
    this.#now += Math.min(now - this.#lastContact, heartbeatMs)
    this.#lastContact = now
  }
}

/** When a task becomes due: `due` by the clock of this process, `dueAt` in milliseconds since the epoch. */
export interface Due { due: number, dueAt: number }

const AT_ONCE: Due = { due: 0, dueAt: 0 }

/** The clock of a store. Tests can move it ahead. */
export class Clock {
  #movedMs = 0
  /** The time of day minus `now`, as of the last time that the time of day was set. */
  #aheadMs = Date.now() - performance.now()

  /** Milliseconds that are never set back. */
  get now (): number { return performance.now() + this.#movedMs }

  /** Milliseconds since the epoch. */
  get timeOfDay (): number { return Date.now() + this.#movedMs }

  advance (ms: number): void { this.#movedMs += ms }

  dueOf (delayMs: number | undefined, runAt?: number): Due {
    if (delayMs === undefined && runAt === undefined) return AT_ONCE
    const { now, timeOfDay } = this
    if (delayMs !== undefined) return { due: now + delayMs, dueAt: timeOfDay + delayMs }
    // The time of day has whole milliseconds only, so the difference varies a little. Tasks with the same `runAt` need
    // the same difference.
    const nowAheadMs = timeOfDay - now
    if (Math.abs(nowAheadMs - this.#aheadMs) > 2) this.#aheadMs = nowAheadMs
    return { due: runAt! - this.#aheadMs, dueAt: runAt! }
  }
}
