import { BEATS_PER_LEASE } from '../store/heartbeat.js'
import type { Keep } from '../store/turn.js'

/** What bounds a consumer. */
export interface ConsumerLimits {
  readonly name: string
  readonly concurrency: number
  readonly leaseMs: number
  readonly closeGraceMs: number
  readonly keep: Keep
  readonly keepDead: Keep | undefined
}

/** Returns the period of the heartbeat that prolongs a lease, in milliseconds. */
export const heartbeatMs = (leaseMs: number): number => leaseMs / BEATS_PER_LEASE
