/** A task on its way into a store. */
export interface NewTask {
  readonly queue: string
  readonly id: string
  readonly message: string
  /**
   * When the task becomes due, by the store's clock: so many milliseconds after the commit, or with `runAt` at that
   * time, in milliseconds since the epoch. The task is due at once if neither is given, or the time is past.
   */
  readonly delayMs?: number
  readonly runAt?: number
  /** How long after the commit the task may wait for its first attempt, in milliseconds. After that it expires. */
  readonly expiresMs?: number
  /**
   * What to do if the id is taken: a task of this id waits, is delayed, runs or is dead in this queue, or was done
   * within its `dedupeMs`.
   *
   * - `keep`: this task is kept out.
   * - `reject`: `prepare` rejects with `FST_TASKQUEUE_DUPLICATE`, and takes in none of its tasks.
   * - `replace`: this task takes the place of the other one. If that one runs, this task follows it when the attempt
   *   has ended, whatever the verdict, with its own due time and expiry; until then it is invisible. If the lease
   *   expires instead, the two become one suspect, with the message of this task.
   *
   * Left out if the adder did not choose the id. Then a task of this id that waits, is delayed, runs or is dead stays
   * as it is, and nobody is told.
   */
  readonly onDuplicate?: OnDuplicate
  /** The level of the task in line, which it keeps until it ends or an order changes it. @default 'normal' */
  readonly priority?: Priority
  /**
   * Whose task it is: 1 to 255 printable ASCII characters. Tasks share the consumers of the queue by their keys, and
   * each key has limits of its own.
   */
  readonly key?: string
}

/** The levels, in the order of claiming. */
export const PRIORITIES = ['high', 'normal', 'low'] as const

export type Priority = typeof PRIORITIES[number]

export type OnDuplicate = 'keep' | 'reject' | 'replace'

/** Tasks that a store has taken in. The app calls either `commit` or `rollback`, once. */
export interface Prepared {
  /** The tasks that are not added, because a task of the same id waits, is delayed, runs, is dead or was just done. */
  readonly keptOut: ReadonlyArray<Pick<NewTask, 'queue' | 'id'>>
  /**
   * Adds the tasks, one after the other. Returns as soon as only the death of this process can prevent that, or a
   * promise that resolves then.
   *
   * - It leaves out the tasks in `keptOut`.
   * - It leaves out a task whose id by now waits, is delayed, runs or is dead, unless the task is to replace that one.
   *   A task that was done since `prepare` keeps nothing out.
   * - A task whose id is done, cancelled or expired takes the place of that one.
   * - If two of the tasks have the same id and the later one replaces, nothing remains of the former.
   */
  commit (): Promise<void> | void
  /** Drops the tasks, at once or as soon as the store can. */
  rollback (): void
}
