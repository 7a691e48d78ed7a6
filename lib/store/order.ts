import type { Keep } from './turn.js'

/** What to do with tasks of a queue. An order passes over ids of tasks in any state that it does not name. */
export type Order =
  /** Ends waiting, delayed and running tasks. A running task loses its lease. */
  | { readonly kind: 'cancel', readonly ids: readonly string[], readonly keep: Keep }
  /** Makes waiting and delayed tasks due at another time, as in `NewTask`; at once if no time is given. */
  | { readonly kind: 'schedule', readonly ids: readonly string[], readonly delayMs?: number, readonly runAt?: number }
  /** Puts dead letters, or all of them, back in line with all their retries. */
  | { readonly kind: 'redrive', readonly ids?: readonly string[] }
  /** Forgets dead letters, or all of them. */
  | { readonly kind: 'remove', readonly ids?: readonly string[] }
  /** Forgets all tasks that wait or are delayed. */
  | { readonly kind: 'purge' }
  /** Stops all claims, by any consumer, until the queue is resumed. */
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }
