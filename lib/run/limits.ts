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

/** Returns the period, in milliseconds, that leaves a lease four chances to be prolonged. */
export const heartbeatMs = (leaseMs: number): number => leaseMs / 5
