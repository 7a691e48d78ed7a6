import type { Phase } from './phase.js'

/** The state of a consumer of this process. */
export interface ConsumerStatus {
  /** Its name. */
  readonly name: string
  /**
   * `new` until it is started; `turned away` for a moment after the app has refused a task; `closing` once the app
   * closes.
   */
  readonly state: Phase
  /** How many tasks it runs at once at most, how many it runs, and how many it has claimed ahead. */
  readonly concurrency: number
  readonly running: number
  readonly ahead: number
  /** How long its leases last, in milliseconds. */
  readonly leaseMs: number
  /** For how long its store has not answered it, in milliseconds. It asks every fifth of a lease at least. */
  readonly silentMs: number
}
