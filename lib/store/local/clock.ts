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

/** The time of day minus the clock of this process, as of the last time that the time of day was set. */
let aheadMs = Date.now() - performance.now()

const AT_ONCE: Due = { due: 0, dueAt: 0 }

export function dueOf (delayMs: number | undefined, runAt?: number): Due {
  if (delayMs === undefined && runAt === undefined) return AT_ONCE
  const now = Date.now()
  if (delayMs !== undefined) return { due: performance.now() + delayMs, dueAt: now + delayMs }
  // The time of day has whole milliseconds only, so the difference varies a little. Tasks with the same `runAt` need
  // the same difference.
  const nowAheadMs = now - performance.now()
  if (Math.abs(nowAheadMs - aheadMs) > 2) aheadMs = nowAheadMs
  return { due: runAt! - aheadMs, dueAt: runAt! }
}
