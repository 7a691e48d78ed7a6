import type { Keep } from '../store/store.js'

/** What bounds a consumer. */
export interface ConsumerLimits {
  readonly name: string
  readonly concurrency: number
  readonly leaseMs: number
  readonly closeGraceMs: number
  readonly keep: Keep
  readonly keepDead: Keep | undefined
}
