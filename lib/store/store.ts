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
 *     prepare ── commit ───▶   waiting ───────── claim ───────▶ running ── done ──▶ done
 *        │          │             ▲                ▲             │ │ │
 *        │          └─ later ─▶ delayed ◀── retry ─┼─────────────┘ │ └──── dead ──▶ dead
 *        └─ rollback ▶ (gone)          defer    suspects ◀─────────┘
 *                                                     lease expired
 *
 * Besides, a task may be moved, or ended, from outside of its line:
 *
 *     waiting, delayed, suspects, running ── cancel ───▶ cancelled
 *     waiting, delayed, but never attempted ─ too late ▶ expired
 *     waiting ◀────────────────────────────── schedule ▶ delayed
 *     waiting, delayed, suspects ──────────── purge ───▶ (gone)
 *     dead ────────────────────────────────── redrive ─▶ waiting
 *     dead ────────────── remove, replace, `keepDead` ─▶ (gone)
 *     done, cancelled, expired ─ too many, too old ────▶ (gone)
 *
 * Nothing moves by itself: what is due and what has expired is found by the next
 * claim, which also says when to come back. So a store needs no timer, no leader
 * and no process that cleans up. A claim does what time demands in this order, in a
 * paused queue as well: leases expire, tasks expire, tasks become due.
 *
 * The line has one order. What is added, follows a task or becomes due goes to the end of
 * it; what is given back goes to the front, the first of one turn foremost. Tasks that are
 * due at the same time become due in the order in which they were delayed.
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
   * Tells the listener what happens in a queue. News may be lost, late or for nothing: what
   * they say is to be found out anyhow, only later.
   */
  watch (queue: string, listener: (news: News) => void): Promise<void>

  /** Counts the tasks of a queue by state, and says whether it is paused. */
  counts (queue: string): Promise<Counts & { readonly paused: boolean }>

  /**
   * Finds the task of an id in the first of these queues that knows it; undefined when none
   * does, any more. With `awaitMs`, unless the task has ended, its queue tells the listeners of
   * it when it does, for that long: in one step, so that no end slips through between.
   */
  find (queues: readonly string[], id: string, awaitMs?: number): Promise<Found | undefined>

  /**
   * Lists tasks of one state, each once: those waiting and suspects as they are claimed, delayed and running ones by
   * their time, those that have ended the newest first. Fewer than the limit are the last.
   */
  list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]>

  /** Carries out an order, in one atomic step for each task, and returns how many tasks it has changed. */
  operate (queue: string, order: Order): Promise<number>

  /** Keeps what a running task says of its progress, until it says something else or has ended; false when the lease is lost. */
  setProgress (queue: string, lease: Held, progress: string): Promise<boolean>

  /**
   * Lets go of connections and memory; rejects, having done so, when something is left undone. Called once all that was
   * prepared has been committed or rolled back. Nothing else is called afterwards.
   */
  close (): Promise<void>
}

/** Tasks that a store has taken in. One of the two is called, once. */
export interface Prepared {
  /** The tasks that are not added: one of the same id waits, is delayed, runs or is dead, or was done a moment ago. */
  readonly keptOut: ReadonlyArray<Pick<NewTask, 'queue' | 'id'>>
  /**
   * Adds the tasks, one after the other, except for those that are kept out, and those that are not to
   * replace another one whose id waits, is delayed, runs or is dead by then. What was done since `prepare`
   * keeps nothing out. A task whose id is done, cancelled or expired takes the place of that one. Of two
   * tasks of one id the later, if it replaces, leaves nothing of the former. Resolves as soon as
   * nothing but the death of this process can prevent it.
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
  /** When it becomes due: milliseconds from the commit on, or since the epoch, by the store's clock. Neither, 0, or a time that is past: at once. */
  readonly delayMs?: number
  readonly runAt?: number
  /** How long from the commit on it may wait for its first attempt, in milliseconds; then it is expired instead. */
  readonly expiresMs?: number
  /**
   * What becomes of it where its id waits, is delayed, runs or is dead in its queue, or is within the
   * `dedupeMs` of a settlement: it is kept out; it is refused, and with it all tasks that
   * are prepared with it (`FST_TASKQUEUE_DUPLICATE`); or it takes the place of the other one.
   * It follows one that runs when that attempt has ended, whatever the verdict, with its own due time and expiry;
   * until then nothing of it shows. If the lease expires instead, both become one suspect, with the message of the later.
   * Left out where its adder has not chosen the id: then one that
   * is known is left as it is, and nobody is told.
   */
  readonly onDuplicate?: OnDuplicate
}

export type OnDuplicate = 'keep' | 'reject' | 'replace'

/** One attempt at one task: what a claim hands out. */
export interface Lease {
  readonly id: string
  /**
   * Or, where it is too large to come with the claim, what fetches it: for as long as that takes, unless the
   * signal says that nobody wants it any more. Undefined when it is gone, or the lease lost, by then.
   */
  readonly message: string | ((signal: AbortSignal) => Promise<string | undefined>)
  /** Tells this lease from every other one of its task, and of any other task that has its id: so it fences off who had it before. */
  readonly fence: number
  /** Counts the claims of this task of which it cannot be said that the app has not seen it, from 1. */
  readonly attempt: number
  /** How often the task was sent back to be tried again. */
  readonly retries: number
  /**
   * For how many milliseconds in all it was deferred since it was added or redriven, and for how many of
   * these because it was unrouted.
   */
  readonly deferredMs: number
  readonly unroutedMs: number
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
  /**
   * Like a retry, but it costs none: `Lease.deferredMs` grows by the delay. If no route of the claimer
   * takes the task, `unroutedMs` grows as well, the attempt does not count, and others should
   * hear of it, since they may have the route.
   */
  | { readonly kind: 'defer', readonly delayMs: number, readonly reason: string, readonly unrouted?: boolean }
  /** To the front. If the app has not seen it, the attempt does not count. */
  | { readonly kind: 'release', readonly unseen?: boolean }
  | { readonly kind: 'dead', readonly reason: string }

/** The end of an attempt. A lease that is no longer held settles nothing. */
export interface Settlement {
  readonly lease: Held
  readonly verdict: Verdict
  /**
   * Tasks that this task added: stored in the same step if it is settled, and otherwise not, when all settlements of
   * the turn are carried out. Which of them are kept out is decided then.
   */
  readonly chain?: readonly NewTask[]
  /** What is to be known of this attempt, a text that is not empty: kept with the task, the newest `RECORD_LIMIT` of it. */
  readonly record?: string
  /** For how long after it is done its id keeps others out, in milliseconds; the longest that was given counts. */
  readonly dedupeMs?: number
}

/** What a turn claims. */
export interface Claim {
  /** How many tasks at most, 1 or more. */
  readonly limit: number
  /** Claims one suspect or nothing: the claimer runs nothing else meanwhile. */
  readonly alone: boolean
  /**
   * How long they are the claimer's unless extended, in milliseconds in which the queue was in
   * contact with anybody by `turn` or `extend`. What one turn claims expires together. No lease becomes shorter.
   */
  readonly leaseMs: number
}

export interface Turn {
  readonly settlements: readonly Settlement[]
  /** The longest time between two beats of the claimer's heartbeat, in milliseconds. */
  readonly heartbeatMs: number
  /** Without a claim nothing is done that time demands. */
  readonly claim?: Claim | undefined
  readonly keep: Keep
  /** Which dead letters are kept; all if it is left out. One turn drops a thousand at most. */
  readonly keepDead?: Keep
}

/**
 * What is kept of tasks that are done, cancelled or expired, or dead: the newest `count` of a queue, none longer
 * than `ms` milliseconds. What one turn ends is kept in the order of its settlements, and then of what expires.
 */
export interface Keep { readonly count: number, readonly ms: number }

export interface TurnResult {
  /**
   * Whether each settlement was carried out; false where the lease was lost. Those for
   * which it says nothing, at the end, are to be handed in again.
   */
  readonly settled: readonly boolean[]
  readonly leases: readonly Lease[]
  readonly outlook: Outlook
  /** How many dead letters `keepDead` has cost. */
  readonly dropped?: number
}

/** What is left to claim in a queue; nothing while it is paused. */
export interface Outlook {
  /** Milliseconds until there is something to claim; 0 when there is now, and only then; Infinity when nothing is known to come. */
  readonly wakeInMs: number
  /** Whether there are suspects. */
  readonly suspects: boolean
}

/** The running tasks of one queue whose leases to prolong. */
export interface Holding {
  readonly queue: string
  readonly leases: readonly Held[]
  /** The longest time between two heartbeats, in milliseconds. */
  readonly heartbeatMs: number
  readonly leaseMs: number
}

export interface Pulse {
  /** Ids of the leases that are no longer held. */
  readonly lost: readonly string[]
  /** Those of them whose task was cancelled, within the last `CANCELLED_MS`. */
  readonly cancelled: readonly string[]
  readonly outlook: Outlook
  /** What the store could not do for this queue, although it answers: a key of it holds what no store has put there. */
  readonly fault?: string
}

/**
 * There may be something to claim, or something sooner (but where others wait already, this need
 * not be said); what is running may have been cancelled, or news have been lost; a task that is awaited has ended.
 */
export type News = { readonly kind: 'work' | 'change' } | { readonly kind: 'ended', readonly id: string }

/** Tasks by state. A delayed task that has become due counts as waiting, and so does a suspect. */
export interface Counts {
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  readonly dead: number
}

export type State = 'waiting' | 'delayed' | 'running' | 'dead' | 'done' | 'cancelled' | 'expired'

/** What a store knows of a task. Times are milliseconds since the epoch by its clock. */
export interface Found {
  readonly queue: string
  readonly id: string
  readonly state: State
  /**
   * No less than its first line with the line break behind it: of the task that runs, where another one follows it.
   * Not any more of one that is done.
   */
  readonly message?: string
  /** When it becomes due, of one that is delayed. */
  readonly dueAt?: number
  /** Of one that has ended, which dead ones have as well. */
  readonly endedAt?: number
  readonly attempt: number
  /** Why it is dead, or was tried again or deferred, and cancelled maybe. Not any more of one that is done. */
  readonly reason?: string
  /** What was noted last, of one that runs or waits to be tried again. */
  readonly progress?: string
  /** Of its attempts, the oldest first; undefined for one whose consumer has died. */
  readonly records: ReadonlyArray<string | undefined>
}

/** What to do with tasks of a queue. Ids in another state than those named are passed over. */
export type Order =
  /** Ends waiting, delayed and running ones: a running one loses its lease. */
  | { readonly kind: 'cancel', readonly ids: readonly string[], readonly keep: Keep }
  /** Makes waiting and delayed ones due at another time, as in `NewTask`; at once without any. */
  | { readonly kind: 'schedule', readonly ids: readonly string[], readonly delayMs?: number, readonly runAt?: number }
  /** Puts dead ones, or all of them, back in line with all their retries. */
  | { readonly kind: 'redrive', readonly ids?: readonly string[] }
  /** Forgets dead ones, or all of them. */
  | { readonly kind: 'remove', readonly ids?: readonly string[] }
  /** Forgets all that are waiting or delayed. */
  | { readonly kind: 'purge' }
  /** Has nothing claimed any more, by anybody, until it is resumed. */
  | { readonly kind: 'pause' }
  | { readonly kind: 'resume' }

/** How many attempts of a task are kept: the newest. */
export const RECORD_LIMIT = 20

/** For how long it is known of a lease that its task was cancelled, in milliseconds. */
export const CANCELLED_MS = 60 * 60 * 1000
