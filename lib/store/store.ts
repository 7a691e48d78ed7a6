import type { Found, History, QueueView, State } from './found.js'
import type { Holding, Presence, Pulse } from './heartbeat.js'
import type { KeyView } from './limits.js'
import type { News } from './news.js'
import type { Order } from './order.js'
import type { ScheduleChange, ScheduleList, Tick, TickResult, WhichSchedules } from './schedules.js'
import type { NewTask, Prepared } from './tasks.js'
import type { Held, Keep, Turn, TurnResult } from './turn.js'

/**
 * The port between queues and whatever keeps their tasks: this process, Redis, a file. A store keeps the tasks of one
 * queue or of several. Queues that share a store commit together, in one atomic step.
 *
 * A store moves opaque messages between a few places. A task is in exactly one of them, or gone:
 *
 *                                 ┌───── release: to the front ────┐
 *                                 ▼                                │
 *     prepare ── commit ───▶   waiting ───────── claim ───────▶ running ── done ──▶ done
 *        │          │             ▲                ▲             │ │ │
 *        │          └─ later ─▶ delayed ◀── retry ─┼─────────────┘ │ └──── dead ──▶ dead
 *        └─ rollback ▶ (gone)          defer    suspects ◀─────────┘
 *                                                     lease expired
 *
 * In addition, orders, time and limits may move or end a task:
 *
 *     waiting, delayed, suspects, running ── cancel ───▶ cancelled
 *     waiting, delayed, but never attempted ─ too late ▶ expired
 *     waiting ◀──────────────────────────── reschedule ▶ delayed
 *     waiting, delayed, suspects ──────────── purge ───▶ (gone)
 *     dead ────────────────────────────────── redrive ─▶ waiting
 *     dead ────────────── remove, replace, `keepDead` ─▶ (gone)
 *     done, cancelled, expired ─ too many, too old ────▶ (gone)
 *
 * Nothing moves by itself. The next claim finds what is due and what has expired, and says when to come back. A store
 * therefore needs no timer, no leader and no process that cleans up. A claim does what time demands in this order, in
 * a paused queue as well: leases expire, tasks expire, delayed tasks become due.
 *
 * The tasks with one key wait in a lane of their own, and all tasks without a key in one lane. A lane has a line for
 * each level. A task goes to the end of its line when it is added, follows another task or becomes due. A task that is
 * released goes to the front; of several that one turn releases, the first is foremost. Tasks that are due at the same
 * time become due in the order in which they were delayed.
 *
 * A claim takes each task from the lane of which the fewest tasks run, suspects included. Among several such lanes it
 * takes the one that has been so for the longest time. Within a lane it takes the highest level that waits, with two
 * exceptions, so that no level starves. While several levels wait, every eighth claim takes the lowest one. While all
 * three wait, the fourth of each eight takes the middle one.
 *
 * A lane whose key has reached a limit or rests is passed over. A limit of the queue, or its rest, holds for all lanes
 * and for suspects.
 *
 * A lease expires because its consumer has died, and one of the consumer's tasks may have killed it. All of them
 * become suspects. A suspect is claimed alone, by a consumer that runs nothing else meanwhile. Only a death during
 * such an attempt counts against the task.
 *
 * `storeConformance`, of `fastify-taskqueue/conformance`, states all this as tests, for any implementation.
 *
 * @experimental The port may change before 1.0, when a third store needs it to.
 */
export interface Store {
  /** Connects. Rejects when the store cannot keep tasks: it is unreachable, refuses, or is too old. */
  open (): Promise<void>

  /**
   * Takes all the tasks in, or none if it fails. This is the store's vote: it can commit what it has taken in. No task
   * is claimed before its commit, and no task of a call that fails is ever claimed.
   */
  prepare (tasks: readonly NewTask[]): Promise<Prepared> | Prepared

  /**
   * Takes one turn of a consumer's loop, in one atomic step: carries out the verdicts on the attempts that have ended,
   * then claims the tasks for which there is room.
   */
  turn (queue: string, turn: Turn): Promise<TurnResult>

  /**
   * Extends the leases of running tasks, in any number of queues. Says for each queue which leases are lost, and when
   * it next has something to claim. This is the heartbeat of a process, which calls it every fifth of its shortest
   * lease.
   */
  extend (holdings: readonly Holding[]): Promise<Pulse[]>

  /**
   * Tells the listener what happens in a queue. News may be lost, come late or be about nothing: the app finds out
   * without them as well, only later.
   */
  watch (queue: string, listener: (news: News) => void): Promise<void>

  /** Counts the tasks of each of these queues by state, and says whether it is paused and which task is the first. */
  counts (queues: readonly string[]): Promise<readonly QueueView[]>

  /** Returns how many tasks of each of these queues were done, and how many attempts have failed, minute by minute. */
  history (queues: readonly string[]): Promise<readonly History[]>

  /** Returns which consumers of these queues were heard of within the last hour and have not closed, in any order. */
  consumers (queues: readonly string[]): Promise<readonly Presence[]>

  /**
   * Finds the task with this id in the first of these queues that knows it; undefined if none does. With `awaitMs`,
   * and unless the task has ended, its queue also tells its listeners if the task ends within that many milliseconds.
   * Both happen in one step, so that no end is missed in between.
   */
  find (queues: readonly string[], id: string, awaitMs?: number): Promise<Found | undefined>

  /**
   * Lists tasks of one state, each once. Waiting tasks come in this order: suspects; the lane without a key, then the
   * other lanes by their keys, each with the highest level first; delayed tasks that have become due. Delayed and
   * running tasks come in the order of their times, ended tasks with the newest first. A list shorter than the limit is
   * the last.
   */
  list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]>

  /** Lists the keys behind `after` of which tasks wait or run, in the order of their bytes. */
  keys (queue: string, after: string, limit: number): Promise<readonly KeyView[]>

  /**
   * Lists the schedules of a queue in the order of their next slots, and of several with the same one in the order of
   * the bytes of their ids. Those without a next slot are the last. Those that are declared come in any order.
   */
  schedules (queue: string, which: WhichSchedules): Promise<ScheduleList>

  /**
   * Changes schedules of a queue in one atomic step, and returns whether it has. It changes nothing if any of them is
   * not as expected, if a new next slot is no longer in the future, or if the revision is lower than that of an
   * earlier change.
   */
  plan (queue: string, changes: readonly ScheduleChange[], revision?: number): Promise<boolean>

  /**
   * Does what slots of schedules demand, each in one atomic step, and returns what it has done. Any number of processes
   * may do so for the same slot: only the first adds a task. The task is added as by a commit, and it is kept out if a
   * task of its id waits, is delayed, runs or is dead.
   *
   * @param keep how many ended tasks the queue keeps, if a tick cancels one
   */
  tick (queue: string, ticks: readonly Tick[], keep: Keep): Promise<readonly TickResult[]>

  /** Carries out an order, in one atomic step for each task, and returns how many tasks it has changed. */
  operate (queue: string, order: Order): Promise<number>

  /**
   * Keeps the progress of a running task until the task reports other progress or has ended. Returns false if the
   * lease is lost.
   */
  setProgress (queue: string, lease: Held, progress: string): Promise<boolean>

  /**
   * Lets go of connections and memory. If something is left undone, it rejects, but has let go all the same. The app
   * calls it once every prepared commit is committed or rolled back, and calls nothing afterwards.
   */
  close (): Promise<void>
}
