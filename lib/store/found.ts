import type { Limits } from './limits.js'
import type { Priority } from './tasks.js'

export type State = 'waiting' | 'delayed' | 'running' | 'dead' | 'done' | 'cancelled' | 'expired'

/** Tasks by state. Suspects, and delayed tasks that have become due, count as waiting. */
export interface Counts {
  readonly waiting: number
  readonly delayed: number
  readonly running: number
  readonly dead: number
}

/** The state of a queue, as operators watch it. */
export interface QueueView extends Counts {
  readonly paused: boolean
  /** The task that would be claimed first; missing if none waits. */
  readonly first?: Found | undefined
  /** For how many milliseconds the whole queue rests. @default 0 */
  readonly restMs?: number
  /** The limits of the queue, if it was given any. */
  readonly limits?: Limits | undefined
}

/** The past of a queue: a number for each of the last `HISTORY_MINUTES`, the present minute last. */
export interface History {
  /** How many tasks were done. */
  readonly done: readonly number[]
  /** How many attempts have failed: their tasks are to be tried again, or dead. */
  readonly failed: readonly number[]
}

/** How many minutes a store remembers. */
export const HISTORY_MINUTES = 60

/** What a store knows of a task. Times are milliseconds since the epoch by the store's clock. */
export interface Found {
  readonly queue: string
  readonly id: string
  readonly state: State
  /**
   * At least the first line of the message, including its line break. If another task follows a running one, this is
   * the message of the running one. Missing once the task is done.
   */
  readonly message?: string
  /**
   * Whether `message` is the whole message. `find` returns that of a task that waits, is delayed, runs or is dead, if
   * it has at most `SHOWN_BYTES` and its end is not awaited. @default false
   */
  readonly isWhole?: boolean | undefined
  /** The level of the task until it has ended, unless that is `normal`; and its key. A dead task has both. */
  readonly priority?: Priority | undefined
  readonly key?: string | undefined
  /** When a running task was claimed. */
  readonly startedAt?: number | undefined
  /** The name of the consumer that runs the task, once that has extended the lease. Only `find` tells it. */
  readonly consumer?: string | undefined
  /** When a delayed task becomes due. */
  readonly dueAt?: number
  /** When the task ended. A dead task has ended as well. */
  readonly endedAt?: number
  readonly attempt: number
  /**
   * Why the task is dead, or was last retried or deferred. A cancelled task may have a reason; a task that is done has
   * none.
   */
  readonly reason?: string
  /** The last progress that was reported, of a task that runs or waits to be tried again. */
  readonly progress?: string
  /** The records of the attempts, the oldest first; undefined for an attempt whose consumer died. */
  readonly records: ReadonlyArray<string | undefined>
}

/** The longest message that `find` returns as a whole, in bytes of UTF-8. */
export const SHOWN_BYTES = 64 * 1024

/** How many records of a task's attempts a store keeps: the newest. */
export const RECORD_LIMIT = 20
