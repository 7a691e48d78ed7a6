import type { NewTask } from './tasks.js'

/**
 * A schedule: it adds a task at each of its slots. A slot is a time in milliseconds since the epoch. The app computes
 * the slots, and the store keeps them.
 */
export interface ScheduleView {
  readonly id: string
  /** What the schedule is to do, as the app has written it. */
  readonly plan: string
  /** The next slot; missing if there is none, or while the schedule is paused. */
  readonly next?: number | undefined
  readonly paused: boolean
  /** The last task that was added, and when. */
  readonly last?: { readonly taskId: string, readonly at: number } | undefined
  /** How many slots have added no task because the task of an earlier one had not ended. */
  readonly skipped: number
  /** How many slots were over before anybody could add their tasks. */
  readonly missed: number
}

/** The schedules to list: those with these ids, as far as there are any, those that are declared, or a part of all. */
export type WhichSchedules =
  | { readonly ids: readonly string[] }
  | { readonly declared: true }
  | { readonly offset: number, readonly limit: number }

/** Schedules of a queue, as they were at one moment. */
export interface ScheduleList {
  /** That moment, in milliseconds since the epoch, by the store's clock. */
  readonly now: number
  /** Whether the queue is paused. */
  readonly isPaused: boolean
  /** The highest revision with which schedules were changed; 0 if none was given. */
  readonly revision: number
  readonly schedules: readonly ScheduleView[]
}

/** A change of one schedule. */
export interface ScheduleChange {
  readonly id: string
  /** The plan that the schedule has now; missing if there is no such schedule. */
  readonly expects?: string | undefined
  /** The plan that it shall have; missing to forget the schedule. */
  readonly plan?: string | undefined
  /** Its next slot, which is in the future or the same as before; missing if there is none. */
  readonly next?: number | undefined
  /** Whether it is paused. @default as it was */
  readonly paused?: boolean | undefined
  /** Whether it is declared, so that it is found among those that are. @default as it was, or false */
  readonly declared?: boolean | undefined
}

/** What to do at a slot that is over. */
export interface Tick {
  readonly id: string
  /** The slot, which has to be the next one of the schedule. Missing to add a task besides those of its slots. */
  readonly slot?: number | undefined
  /** The slot that follows; missing if none does. */
  readonly next?: number | undefined
  /** How many slots are passed over, as too late. */
  readonly missed: number
  /** The task to add; missing if the slot itself is too late. */
  readonly task?: NewTask | undefined
  readonly overlap: Overlap
}

/**
 * What to do while the last task of the schedule has not ended.
 *
 * - `skip`: nothing is added, unless that task waits to be tried again. Then it is cancelled.
 * - `allow`: the task is added.
 * - `replace`: the last task is cancelled, and the task is added.
 */
export type Overlap = 'skip' | 'allow' | 'replace'

/**
 * What has become of a slot: its task was added; nothing was added, since another task has not ended or the slot is too
 * late; or the slot is no longer the next one, or the queue is paused.
 */
export type TickResult = 'added' | 'skipped' | 'missed' | 'over'
