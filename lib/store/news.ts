import type { Lease } from './turn.js'

/**
 * What happens in a queue.
 *
 * - `work`: there may be something to claim, or something sooner than was known. If other tasks wait already, a store
 *   need not say so.
 * - `change`: running tasks may have been cancelled, or news have been lost.
 * - `ended`: a task whose end is awaited has ended.
 * - `leases`: the store has claimed tasks for the listener, which waits.
 */
export type News =
  | { readonly kind: 'work' | 'change' }
  | { readonly kind: 'ended', readonly id: string }
  | { readonly kind: 'leases', readonly leases: readonly Lease[] }
