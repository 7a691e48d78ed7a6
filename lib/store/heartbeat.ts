import type { Held, Outlook } from './turn.js'

/** The running tasks of one queue whose leases a heartbeat extends. */
export interface Holding {
  readonly queue: string
  /** The name of the consumer. The store shows it with the tasks. */
  readonly consumer: string
  readonly leases: readonly Held[]
  /** The longest time between two heartbeats, in milliseconds. */
  readonly heartbeatMs: number
  readonly leaseMs: number
}

/** What a heartbeat learns about one queue. */
export interface Pulse {
  /** The ids of leases that are no longer held. */
  readonly lost: readonly string[]
  /** Those of them whose task was cancelled within the last `CANCELLED_MS`. */
  readonly cancelled: readonly string[]
  readonly outlook: Outlook
  /** What the store could not do for this queue, although it answers: one of its keys holds what no store put there. */
  readonly fault?: string
}

/** For how long a store knows that a lease was lost by a cancellation, in milliseconds. */
export const CANCELLED_MS = 60 * 60 * 1000
