import type { NewTask } from './tasks.js'

/** One attempt at one task: what a claim hands out. */
export interface Lease {
  readonly id: string
  /**
   * The message, or, if it is too large to come with the claim, a function that fetches it. The function takes as long
   * as it needs, unless the signal aborts because nobody wants the message any longer. It returns undefined if the
   * message is gone or the lease lost by then.
   */
  readonly message: string | ((signal: AbortSignal) => Promise<string | undefined>)
  /**
   * Tells this lease from every other lease of this task, and of any other task with this id. It thereby fences off
   * earlier holders.
   */
  readonly fence: number
  /** Counts the claims of this task, from 1. A claim that the app certainly has not seen does not count. */
  readonly attempt: number
  /** How often the task was sent back to be tried again. */
  readonly retries: number
  /**
   * For how many milliseconds in all the task was deferred since it was added or redriven. `unroutedMs` is the part of
   * these for which no route took the task.
   */
  readonly deferredMs: number
  readonly unroutedMs: number
  /** How often the lease expired while the task ran alone, presumably because the task killed its consumer. */
  readonly deaths: number
  /** Whether the task must run alone. A retry or a deferral clears this. */
  readonly suspect: boolean
}

/** A lease as its holder knows it. */
export type Held = Pick<Lease, 'id' | 'fence'>

/** What shall become of a task. The store keeps a `reason` with the task and shows it. */
export type Verdict =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry', readonly delayMs: number, readonly reason: string }
  /**
   * Like a retry, but it costs none: `Lease.deferredMs` grows by the delay.
   *
   * - `unrouted` says that no route of the claimer takes the task. Then `unroutedMs` grows as well, the attempt does
   *   not count, and the store should tell other consumers, which may have the route.
   * - `busy` says that there was no room for the task. If the task has a key, or else if the queue has limits, the task
   *   goes to the front of its line instead, and the key or the queue rests for the delay.
   */
  | {
    readonly kind: 'defer'
    readonly delayMs: number
    readonly reason: string
    readonly unrouted?: boolean
    readonly busy?: boolean
  }
  /**
   * Puts the task back to the front of the line. If the app has not seen the task, the attempt does not count, neither
   * for the task nor for a rate.
   */
  | { readonly kind: 'release', readonly unseen?: boolean }
  | { readonly kind: 'dead', readonly reason: string }

/** The end of an attempt. A lease that is lost settles nothing. */
export interface Settlement {
  readonly lease: Held
  readonly verdict: Verdict
  /**
   * Tasks that this task added. The store adds them if it settles the task, and otherwise not: in the same step, but
   * after all settlements of the turn. Only then does it decide which of them are kept out.
   */
  readonly chain?: readonly NewTask[]
  /** A description of this attempt, not empty. The store keeps the newest `RECORD_LIMIT` of them with the task. */
  readonly record?: string | undefined
  /**
   * For how long the id keeps other tasks out after the task is done, in milliseconds. If an id is given several such
   * times, the one that ends last counts.
   */
  readonly dedupeMs?: number | undefined
}

/** What a turn claims. */
export interface Claim {
  /** The most tasks to claim, 1 or more. */
  readonly limit: number
  /**
   * How many of these cannot begin at once. The store leaves them unclaimed if the queue has keys or limits.
   * @default 0
   */
  readonly ahead?: number
  /** Whether to claim one suspect or nothing. The claimer runs nothing else meanwhile. */
  readonly alone: boolean
  /**
   * How long the leases last unless they are extended, in milliseconds. Only time counts in which somebody was in
   * contact with the queue, by `turn` or `extend`. Leases of one turn expire together. No lease becomes shorter.
   */
  readonly leaseMs: number
  /**
   * Whether the claimer holds nothing and waits. If there is nothing to claim, the store may later claim for it what
   * comes, up to the limit, and tell it by the news `leases`. It may do so until the next turn of the claimer, which
   * returns what the claimer has not been told.
   */
  readonly waits?: boolean
}

export interface Turn {
  readonly settlements: readonly Settlement[]
  /** The longest time between two beats of the claimer's heartbeat, in milliseconds. */
  readonly heartbeatMs: number
  /** What to claim. A turn without a claim does nothing that time demands. */
  readonly claim?: Claim | undefined
  readonly keep: Keep
  /** Which dead letters the queue keeps; all if left out. One turn drops at most a thousand. */
  readonly keepDead?: Keep
}

/**
 * How many ended tasks a queue keeps: the newest `count`, and none for longer than `ms` milliseconds. As `Turn.keep`
 * this concerns tasks that are done, cancelled or expired; as `keepDead`, dead letters. Tasks that one turn settles are
 * kept in the order of their settlements, followed by those that expire.
 */
export interface Keep { readonly count: number, readonly ms: number }

export interface TurnResult {
  /**
   * Whether each settlement was carried out; false if its lease was lost. This may be shorter than the settlements:
   * the remaining ones are to be handed in again.
   */
  readonly settled: readonly boolean[]
  readonly leases: readonly Lease[]
  readonly outlook: Outlook
  /** How many dead letters this turn dropped because of `keepDead`. */
  readonly dropped?: number
  /** Whether the queue has keys or limits, so that nothing is claimed ahead. @default false */
  readonly isShared?: boolean
}

/** What is left to claim in a queue; nothing while the queue is paused. */
export interface Outlook {
  /**
   * Milliseconds until there is something that may be claimed. 0 means that there is something now; Infinity, that
   * nothing is known to come. What waits only for other tasks to end is not known to come.
   */
  readonly wakeInMs: number
  /** Whether there are suspects. */
  readonly suspects: boolean
  /** Milliseconds until the next slot of a schedule, with the meanings of `wakeInMs`. @default Infinity */
  readonly slotInMs?: number
}
