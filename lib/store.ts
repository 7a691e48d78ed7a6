/**
 * The port between queues and whatever keeps their tasks: in this process, in
 * Redis, in a file. A store keeps the tasks of one queue or of several; queues
 * that share a store commit together, in one atomic step.
 *
 * A store moves opaque messages between a few places. A task is in exactly one of
 * them, or gone:
 *
 *                                 ┌───── release: to the front ────┐
 *                                 ▼                                │
 *     prepare ── commit ───▶   waiting ───────── claim ───────▶ running ── done ──▶ (gone)
 *        │          │             ▲                ▲             │ │ │
 *        │          └─ later ─▶ delayed ◀── retry ─┼─────────────┘ │ └──── dead ──▶ dead
 *        └─ rollback ▶ (gone)                   suspects ◀─────────┘
 *                                                     lease expired
 *
 * Nothing moves by itself: what is due and what has expired is found by the next
 * claim, which also says when to come back. So a store needs no timer, no leader
 * and no process that cleans up.
 *
 * A lease that expires is a consumer that has died, and one of its tasks may have killed
 * it. All of them become suspects, which are claimed one at a time and by a consumer that
 * runs nothing else meanwhile; only a death that a task dies alone is counted as its own.
 *
 * `storeConformance` states all this as tests, for any implementation.
 */
export interface Store {
  /** Connects. Rejects when tasks cannot be kept: unreachable, refused, too old. */
  open (): Promise<void>

  /**
   * Takes all the tasks in, or none when it rejects, and is the vote of the store: what
   * it has taken in can be committed. No task is claimed before that, and no task of a
   * call that rejects is ever claimed.
   */
  prepare (tasks: readonly NewTask[]): Promise<Prepared>

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

  /**
   * Calls `wake` when a queue may have something to claim, or has it sooner; when others wait for
   * it already it need not. Wake-ups may be lost, late or for nothing.
   */
  watch (queue: string, wake: () => void): Promise<void>

  /** Counts the tasks of a queue by state. */
  counts (queue: string): Promise<Counts>

  /** Drops the tasks of a queue that wait or are delayed, and returns how many those were. */
  purge (queue: string): Promise<number>

  /** Lets go of connections and memory; rejects, having done so, when something is left undone. Nothing else is called afterwards. */
  close (): Promise<void>
}

/** Tasks that a store has taken in. One of the two is called, once. */
export interface Prepared {
  /**
   * Adds the tasks, in order. A task whose id waits, is delayed or runs in its queue is
   * left as it is, so adding twice is the same as adding once; one whose id is dead takes
   * the dead one's place. Resolves as soon as nothing but the death of this process can
   * prevent it.
   */
  commit (): Promise<void>
  /** Drops the tasks. What cannot be done at once is done later. */
  rollback (): void
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
  /** Tells this lease from every other one of its task, and of any other task that has its id: so it fences off who had it before. */
  readonly fence: number
  /** Counts the claims of this task of which it cannot be said that the app has not seen it, from 1. */
  readonly attempt: number
  /** How often the task was sent back to be tried again. */
  readonly retries: number
  /** How often its lease expired while it ran alone, presumably because it killed its consumer. */
  readonly deaths: number
  /** Whether it has to run alone. It has not any more once it is tried again. */
  readonly suspect: boolean
}

/** A lease as its holder knows it. */
export type Held = Pick<Lease, 'id' | 'fence'>

/** What becomes of a task. A `reason` is kept with it, for whoever looks. */
export type Verdict =
  | { readonly kind: 'done' }
  | { readonly kind: 'retry', readonly delayMs: number, readonly reason: string }
  /** To the front. If the app has not seen it, the attempt does not count. */
  | { readonly kind: 'release', readonly unseen?: boolean }
  | { readonly kind: 'dead', readonly reason: string }

/** The end of an attempt. A lease that is no longer held settles nothing. */
export interface Settlement {
  readonly lease: Held
  readonly verdict: Verdict
  /** Tasks that this task added: stored in the same step if it is settled, and otherwise not. */
  readonly chain?: readonly NewTask[]
}

export interface Turn {
  readonly settlements: readonly Settlement[]
  /** How many tasks to claim at most; may be 0. */
  readonly limit: number
  /** Claims one suspect or nothing: the claimer runs nothing else meanwhile. */
  readonly alone: boolean
  /**
   * How long they are the claimer's unless extended, in milliseconds in which the queue was in
   * contact with anybody. What one turn claims expires together.
   */
  readonly leaseMs: number
}

export interface TurnResult {
  /**
   * Whether each settlement was carried out; false where the lease was lost. Those for
   * which it says nothing, at the end, are to be handed in again.
   */
  readonly settled: readonly boolean[]
  readonly leases: readonly Lease[]
  readonly outlook: Outlook
}

/** What is left to claim in a queue. */
export interface Outlook {
  /** Milliseconds until there is something to claim; 0 when there is now, Infinity when nothing is known to come. */
  readonly wakeInMs: number
  /** Whether there are suspects. */
  readonly suspects: boolean
}

/** The running tasks of one queue whose leases to prolong. */
export interface Holding {
  readonly queue: string
  readonly leases: readonly Held[]
  readonly leaseMs: number
}

export interface Pulse {
  /** Ids of the leases that are no longer held. */
  readonly lost: readonly string[]
  readonly outlook: Outlook
}

/** Tasks by state. A delayed task that has become due counts as waiting, and so does a suspect. */
export interface Counts {
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  readonly dead: number
}

/** How many dead letters a queue keeps: the newest. */
export const DEAD_LIMIT = 1000
