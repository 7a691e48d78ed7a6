/**
 * The port between queues and whatever keeps their tasks: in this process, in
 * Redis, in a file. A store keeps the tasks of one queue or of several; queues
 * that share a store commit together, in one atomic step.
 *
 * A store moves opaque messages between four places. A task is in exactly one of
 * them, or gone:
 *
 *                       ┌─────────────── release: to the front ────┐
 *                       ▼                                          │
 *     add ───────▶   waiting ────── claim, up to a limit ──────▶ running ── done ──▶ (gone)
 *      │                ▲ ▲                                       │ │ │
 *      │            due │ └──────── lease expired: to the front ──┘ │ └──── dead ──▶ dead
 *      └─ later ──▶  delayed ◀───────────── retry ──────────────────┘
 *
 * Nothing moves by itself: what is due and what has expired is found by the next
 * claim, which also says when to come back. So a store needs no timer, no leader
 * and no process that cleans up.
 *
 * `storeConformance` states all this as tests, for any implementation.
 */
export interface Store {
  /** Connects. Rejects when tasks cannot be kept: unreachable, refused, too old. */
  open (): Promise<void>

  /** Rejects unless `add` could be expected to succeed now: the store answers and may be written to. */
  vote (): Promise<void>

  /**
   * Adds all the tasks, in order, or none when it rejects. A task whose id waits,
   * is delayed or runs in its queue is left as it is, so adding twice is the same
   * as adding once; one whose id is dead takes the dead one's place.
   */
  add (tasks: readonly NewTask[]): Promise<void>

  /**
   * Takes one turn of a consumer's loop, in one atomic step: carries out the
   * verdicts on the attempts that have ended, then claims the tasks there is room for.
   */
  turn (queue: string, turn: Turn): Promise<TurnResult>

  /**
   * Prolongs the leases of running tasks, of any number of queues, and says for
   * each queue which leases are lost and when it next has something to claim.
   * The heartbeat of a process: called every fifth of the shortest lease.
   */
  extend (holdings: readonly Holding[]): Promise<Pulse[]>

  /** Calls `wake` when a queue may have something to claim. Wake-ups may be lost, late or for nothing. */
  watch (queue: string, wake: () => void): Promise<void>

  /** Counts the tasks of a queue by state. */
  counts (queue: string): Promise<Counts>

  /** Drops the tasks of a queue that wait or are delayed, and returns how many those were. */
  purge (queue: string): Promise<number>

  /** Lets go of connections and memory. Nothing else is called afterwards. */
  close (): Promise<void>
}

/** A task on its way into a store. */
export interface NewTask {
  readonly queue: string
  readonly id: string
  readonly message: string
  /** When it becomes due: milliseconds from now, or since the epoch, by the store's clock. Neither: at once. */
  readonly delayMs?: number
  readonly runAt?: number
}

/** One attempt at one task: what a claim hands out. */
export interface Lease {
  readonly id: string
  readonly message: string
  /** Counts the claims of this task from 1 and only grows, so that it fences off holders of earlier leases. */
  readonly attempt: number
  /** How often the task was sent back to be tried again. */
  readonly retries: number
  /** How often its lease expired, presumably because its consumer died. */
  readonly deaths: number
}

/** What becomes of a task. A `reason` is kept with it, for whoever looks. */
export type Verdict =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry', readonly delayMs: number, readonly reason: string }
  | { readonly kind: 'release' }
  | { readonly kind: 'dead', readonly reason: string }

/** The end of an attempt. A lease that is no longer held settles nothing. */
export interface Settlement {
  readonly lease: Pick<Lease, 'id' | 'attempt'>
  readonly verdict: Verdict
  /** Tasks that this task added: stored in the same step if it is settled, and otherwise not. */
  readonly chain?: readonly NewTask[]
}

export interface Turn {
  readonly settlements: readonly Settlement[]
  /** How many tasks to claim at most; may be 0. */
  readonly limit: number
  /** How long they are the claimer's unless extended, in milliseconds in which the queue was in contact with anybody. */
  readonly leaseMs: number
}

export interface TurnResult {
  /** Whether each settlement was carried out; false where the lease was lost. */
  readonly settled: readonly boolean[]
  readonly leases: readonly Lease[]
  /** Milliseconds until there is something to claim; 0 when there is now, Infinity when nothing is known to come. */
  readonly wakeInMs: number
}

/** The running tasks of one queue whose leases to prolong. */
export interface Holding {
  readonly queue: string
  readonly leases: ReadonlyArray<Pick<Lease, 'id' | 'attempt'>>
  readonly leaseMs: number
}

export interface Pulse {
  /** Ids of the leases that are no longer held. */
  readonly lost: readonly string[]
  readonly wakeInMs: number
}

/** Tasks by state. A delayed task that has become due counts as waiting. */
export interface Counts {
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  readonly dead: number
}

/** How many dead letters a queue keeps: the newest. */
export const DEAD_LIMIT = 1000
