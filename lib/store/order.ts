import type { KeyLimits, Limits } from './limits.js'
import type { Priority } from './tasks.js'
import type { Keep } from './turn.js'

/** What to do with tasks of a queue. An order passes over ids of tasks in any state that it does not name. */
export type Order =
  /** Ends waiting, delayed and running tasks. A running task loses its lease. */
  | { readonly kind: 'cancel', readonly ids: readonly string[], readonly keep: Keep }
  /** Makes waiting and delayed tasks due at another time, as in `NewTask`; at once if no time is given. */
  | { readonly kind: 'reschedule', readonly ids: readonly string[], readonly delayMs?: number, readonly runAt?: number }
  /** Puts dead letters, or all of them, back in line with all their retries. */
  | { readonly kind: 'redrive', readonly ids?: readonly string[] }
  /** Forgets dead letters, or all of them. */
  | { readonly kind: 'remove', readonly ids?: readonly string[] }
  /** Forgets all tasks that wait or are delayed. */
  | { readonly kind: 'purge' }
  /** Stops all claims, by any consumer, until the queue is resumed. */
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }
  /** Gives tasks that wait, are delayed or run another level. One that waits goes to the end of the line there. */
  | { readonly kind: 'prioritize', readonly ids: readonly string[], readonly priority: Priority }
  /** Sets the limits of the queue, in place of those that it has. */
  | { readonly kind: 'limit', readonly limits: Limits }
  /** Sets the limits of one key, in place of those that each key has; without limits, takes that back. */
  | { readonly kind: 'limitKey', readonly key: string, readonly limits?: KeyLimits }
  /** Has a key, or the queue, rest for so many milliseconds from now on, in place of a former rest; 0 ends a rest. */
  | { readonly kind: 'rest', readonly ms: number, readonly key?: string }
