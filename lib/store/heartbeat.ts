import type { Held, Outlook } from './turn.js'

/** The running tasks of one queue whose leases a heartbeat extends. */
export interface Holding {
  readonly queue: string
  /** The name of the consumer. The store shows it with the tasks. */
  readonly consumer: string
  readonly leases: readonly Held[]
  /** When the consumer began to consume, in milliseconds since the epoch, and how many tasks it runs at once. */
  readonly startedAt: number
  readonly concurrency: number
  /** The longest time between two heartbeats, in milliseconds. */
  readonly heartbeatMs: number
  readonly leaseMs: number
}

/** A consumer of one queue, as its last heartbeat has described it. */
export interface Presence extends Pick<Holding, 'queue' | 'consumer' | 'startedAt' | 'concurrency' | 'heartbeatMs'> {
  /** For how long the store has not heard of it, in milliseconds. */
  readonly silentMs: number
  /** How many leases it held, and of which tasks: at most `SHOWN_LEASES` of them. */
  readonly held: number
  readonly taskIds: readonly string[]
}

/** How many beats of a heartbeat a lease lasts: it leaves a lease four chances to be prolonged. */
export const BEATS_PER_LEASE = 5

/** How many tasks of a consumer are shown. */
export const SHOWN_LEASES = 100

/** For how long a consumer is remembered after its last heartbeat, in milliseconds. */
export const FORGET_CONSUMER_MS = 60 * 60 * 1000

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
