import type { FastifyBaseLogger } from 'fastify'
import { isPlain } from '../check.js'
import {
  FST_TASKQUEUE_CLOSED, FST_TASKQUEUE_COMMIT_FAILED, FST_TASKQUEUE_DUPLICATE, FST_TASKQUEUE_INVALID_OPTION,
  FST_TASKQUEUE_INVALID_SAVEPOINT, FST_TASKQUEUE_TOO_LARGE, FST_TASKQUEUE_TOO_MANY
} from '../errors.js'
import { commits as traced, type CommitTrace, tracedTask } from '../observe/tracing.js'
import { show } from '../show.js'
import type { Store } from '../store/store.js'
import type { NewTask, Prepared } from '../store/tasks.js'
import type { AddOptions } from '../task/options.js'
import { type Added, type AddedTask, asTraced, byStore, describe, sealAll, whichWereAdded } from './added.js'
import type { OpenCommits } from './open-commits.js'
import { TaskRoute } from './task-route.js'

/** A database transaction that is committed with the tasks, or rolled back with them. */
export interface Participant {
  /** Makes sure that `commit` will succeed. If it throws or rejects, all participants are rolled back. */
  prepare?: () => unknown
  /** Commits. May return a promise, as all three may. */
  commit: () => unknown
  /** Rolls back. An error is logged and stops nobody else. */
  rollback: () => unknown
}

/** A point in a transaction to which it can be rolled back. */
export interface Savepoint {
  /** Drops the tasks added since. Throws `FST_TASKQUEUE_INVALID_SAVEPOINT` if the savepoint is gone. */
  rollback (): void
}

/** The arguments of `add` in one object. */
export interface TaskToAdd extends AddOptions { url: string }

/** The arguments of `add` for a route made with `app.task`, in one object. */
export type RouteTaskToAdd<Input> = { route: TaskRoute<Input> } & Input

/** The result of `commit`. */
export interface CommitResult {
  /** The ids of tasks that were not added, because there is another task with that id. */
  readonly keptOut: readonly string[]
}

/** Tasks that are added now and queued together at the commit, or not at all. */
export interface Transaction {
  /**
   * Adds a task: a request to one of this app's routes, made once the transaction has been committed. Nothing leaves
   * the process before that. Returns the task's id. If anything is wrong with the task, throws an error with its code.
   */
  add (url: string, options?: AddOptions): string
  /** Adds a task for a route made with `app.task`, whose schemas check the payload, query and params. */
  add<Input> (route: TaskRoute<Input>, ...options: {} extends Input ? [options?: Input] : [options: Input]): string
  /** Adds several tasks: all of them or, if one is wrong, none. Returns their ids. An error says which one is wrong. */
  addAll (tasks: readonly TaskToAdd[]): string[]
  /** Adds several tasks for a route made with `app.task`, in the same way. */
  addAll<Input> (tasks: ReadonlyArray<RouteTaskToAdd<Input>>): string[]
  /** Returns a point to which the transaction can be rolled back. */
  savepoint (): Savepoint
  /** Has a database transaction committed or rolled back with the tasks. */
  join (participant: Participant): void
  /**
   * Queues the tasks added so far at once: for hijacked replies, and for tasks that are to run even if the request
   * fails later. Rejects with `FST_TASKQUEUE_COMMIT_FAILED`, `FST_TASKQUEUE_DUPLICATE` or the error of a participant.
   * The transaction stays open.
   */
  commit (): Promise<CommitResult>
  /** Drops the tasks added so far and rolls participants back. The transaction stays open. */
  rollback (): Promise<void>
}

/** A task of a commit, and whether it was added: another task with its id may have kept it out. */
interface CommittedTask {
  readonly id: string
  readonly wasAdded: boolean
}

/** Told which tasks a commit has queued. */
type OnQueued = (tasks: readonly AddedTask[]) => void

/** Makes and checks a task. */
export type Compose = (target: string | TaskRoute, options: AddOptions) => Added

/** Has a store take in tasks that are committed together. */
export type Prepare = (store: Store, tasks: readonly NewTask[]) => ReturnType<Store['prepare']>

/**
 * How many characters the messages of one commit may have together. Redis moves them in one step, and everybody else
 * waits for that.
 */
const MAX_COMMIT_LENGTH = 64 * 1024 * 1024

/** Errors that no single task is to blame for. */
const OF_TRANSACTIONS = [FST_TASKQUEUE_CLOSED, FST_TASKQUEUE_TOO_LARGE, FST_TASKQUEUE_TOO_MANY]

/** The one implementation. `bindToReply` commits or rolls back that of a request as the request ends. */
export class TaskTransaction implements Transaction {
  readonly #compose: Compose
  readonly #commits: OpenCommits
  readonly #log: FastifyBaseLogger
  readonly #maxTasks: number
  readonly #onQueued: OnQueued | undefined
  #added: Added[] = []
  /** The length of their messages together. */
  #length = 0
  #participants: Participant[] = []
  /** How many tasks were committed before the end. */
  #committed = 0
  #open = true

  constructor (compose: Compose, commits: OpenCommits, log: FastifyBaseLogger, maxTasks: number, onQueued?: OnQueued) {
    this.#compose = compose
    this.#commits = commits
    this.#log = log
    this.#maxTasks = maxTasks
    this.#onQueued = onQueued
  }

  /** How many tasks and participants wait for the commit. */
  get size (): number { return this.#added.length + this.#participants.length }

  add (target: string | TaskRoute, options: AddOptions = {}): string {
    if (!this.#open) throw new FST_TASKQUEUE_CLOSED()
    if (this.#committed + this.#added.length >= this.#maxTasks) throw new FST_TASKQUEUE_TOO_MANY(this.#maxTasks)
    const added = this.#compose(target, options)
    const length = this.#length + added.length
    // This is checked now and not only at the commit, until which all of them would be in memory.
    const isTooLarge = length > MAX_COMMIT_LENGTH && this.#added.length > 0
    if (isTooLarge) throw new FST_TASKQUEUE_TOO_LARGE(MAX_COMMIT_LENGTH, length)
    this.#length = length
    this.#added.push(added)
    return added.entry.id
  }

  addAll (tasks: ReadonlyArray<TaskToAdd | RouteTaskToAdd<AddOptions>>): string[] {
    if (!Array.isArray(tasks)) throw new FST_TASKQUEUE_INVALID_OPTION('tasks', 'an array', show(tasks))
    const savepoint = this.savepoint()
    let index = 0
    try {
      return Array.from(tasks, (task, place) => {
        index = place
        if (!isPlain(task)) throw new FST_TASKQUEUE_INVALID_OPTION('tasks', 'an array of objects', show(task))
        const { url, route, ...options } = task
        if (route !== undefined && !(route instanceof TaskRoute)) {
          throw new FST_TASKQUEUE_INVALID_OPTION('route', 'what app.task has returned', show(route))
        }
        return this.add(route ?? url, options)
      })
    } catch (error) {
      savepoint.rollback()
      const isOfTask = error instanceof Error && String((error as { code?: unknown }).code).startsWith('FST_TASKQUEUE_')
      if (isOfTask && !OF_TRANSACTIONS.some(type => error instanceof type)) {
        error.message = `tasks[${index}]: ${error.message}`
      }
      throw error
    }
  }

  savepoint (): Savepoint {
    const added = this.#added
    const { length } = added
    const last = added.at(-1)
    const messagesLength = this.#length
    return {
      rollback: () => {
        // Tasks are only ever added at the end: while `last` is in its place, no earlier savepoint was rolled back.
        if (this.#added !== added || added[length - 1] !== last) throw new FST_TASKQUEUE_INVALID_SAVEPOINT()
        added.length = length
        this.#length = messagesLength
      }
    }
  }

  join (participant: Participant): void {
    if (!this.#open) throw new FST_TASKQUEUE_CLOSED()
    for (const [name, required] of [['prepare', false], ['commit', true], ['rollback', true]] as const) {
      const value = participant?.[name]
      if (typeof value === 'function' || (!required && value === undefined)) continue
      throw new FST_TASKQUEUE_INVALID_OPTION(`join ${name}`, 'a function', show(value))
    }
    this.#participants.push(participant)
  }

  /**
   * Stores prepare, which is their vote; participants prepare; participants commit; stores commit. So no failure after
   * the vote can lose a task, and the data of a task is visible before the task runs. A commit in which only one store
   * takes part waits for one round trip.
   */
  async commit (prepare?: Prepare): Promise<CommitResult> {
    return { keptOut: (await this.commitAll(prepare)).filter(({ wasAdded }) => !wasAdded).map(({ id }) => id) }
  }

  /** Does the same, and returns for each task whether it was added. */
  async commitAll (prepare: Prepare = (store, tasks) => store.prepare(tasks)): Promise<CommittedTask[]> {
    if (this.size === 0) return []
    if (!traced.hasSubscribers) return await this.#commitAll(prepare)
    const trace: CommitTrace = { tasks: this.#added.map(({ task, entry }) => tracedTask(task, entry.queue)) }
    return await traced.tracePromise(async () => {
      const tasks = await this.#commitAll(prepare, trace)
      trace.keptOut = tasks.filter(({ wasAdded }) => !wasAdded).map(({ id }) => id)
      return tasks
    }, trace)
  }

  async #commitAll (prepare: Prepare, trace?: CommitTrace): Promise<CommittedTask[]> {
    const added = this.#added
    const participants = this.#participants
    this.#added = []
    this.#length = 0
    this.#participants = []
    this.#committed += added.length
    const preparing: Array<Promise<Prepared> | Prepared> = []
    const committing: Array<Promise<void> | void> = []
    let committed = 0
    let isDecided = false
    let failureOf = unchanged
    if (!this.#commits.begin()) throw await this.#refuse(participants)
    try {
      let sealed = added.some(({ sealing }) => sealing !== undefined) ? await this.#inTime(sealAll(added)) : added
      if (trace !== undefined) sealed = sealed.map((one, index) => asTraced(one, trace.tasks[index]!))
      const length = sealed.reduce((sum, { entry }) => sum + entry.message.length, 0)
      if (length > MAX_COMMIT_LENGTH && added.length > 1) throw new FST_TASKQUEUE_TOO_LARGE(MAX_COMMIT_LENGTH, length)
      failureOf = commitFailure
      for (const [store, tasks] of byStore(sealed)) preparing.push(prepare(store, tasks))
      const prepared = preparing.some(isPromise) ? await this.#inTime(allOf(preparing)) : preparing as Prepared[]
      failureOf = unchanged
      for (const participant of participants) await participant.prepare?.()
      for (const participant of participants) {
        await participant.commit()
        committed++
      }
      isDecided = true
      failureOf = commitFailure
      for (const tasks of prepared) committing.push(tasks.commit())
      if (committing.some(isPromise)) await this.#inTime(allOf(committing))
      failureOf = unchanged
      const wereAdded = whichWereAdded(sealed, prepared.flatMap(tasks => tasks.keptOut))
      this.#onQueued?.(sealed.filter((_, index) => wereAdded[index]).map(describe))
      this.#commits.end()
      return sealed.map(({ entry: { id } }, index) => ({ id, wasAdded: wereAdded[index]! }))
    } catch (error) {
      if (!isDecided) {
        for (const prepared of preparing) Promise.resolve(prepared).then(tasks => { tasks.rollback() }).catch(() => {})
      }
      // The commit is under way until every store has been told what becomes of its tasks. A store may never answer.
      this.#inTime(Promise.allSettled([...preparing, ...committing])).catch(() => {})
        .then(() => { this.#commits.end() })
      // After this tick the stores that have answered have been told. The others are told when they answer.
      await null
      await this.#rollBack(participants.slice(committed))
      throw failureOf(error)
    }
  }

  async rollback (): Promise<void> {
    const participants = this.#participants
    this.#added = []
    this.#length = 0
    this.#participants = []
    await this.#rollBack(participants)
  }

  /** Refuses any further task. */
  close (): void { this.#open = false }

  /** Accepts tasks again, since an error handler answers in place of the reply that has failed. */
  reopen (): void { this.#open = true }

  #inTime<T> (answer: Promise<T>): Promise<T> {
    const { deadlines } = this.#commits
    return deadlines.within(answer, () => commitFailure(new Error(`no answer within ${deadlines.ms} ms`)))
  }

  async #refuse (participants: readonly Participant[]): Promise<Error> {
    await this.#rollBack(participants)
    return commitFailure(new Error('the app has closed'))
  }

  async #rollBack (participants: readonly Participant[]): Promise<void> {
    for (const participant of participants) {
      try {
        await participant.rollback()
      } catch (err) {
        this.#log.error({ err }, 'participant could not be rolled back')
      }
    }
  }
}

const isPromise = (value: unknown): boolean => typeof (value as PromiseLike<unknown> | undefined)?.then === 'function'

function allOf<T> (answers: ReadonlyArray<Promise<T> | T>): Promise<T[]> {
  if (answers.length > 1) return Promise.all(answers)
  return (answers[0] as Promise<T>).then(answer => [answer])
}

/** Leaves the error of somebody other than a store as it is. */
const unchanged = (error: unknown): unknown => error

/** Makes the error of a commit from the reason why a store failed or did not answer in time. */
function commitFailure (cause: unknown): Error {
  const isFailure = cause instanceof FST_TASKQUEUE_DUPLICATE || cause instanceof FST_TASKQUEUE_COMMIT_FAILED
  return isFailure ? cause as Error : Object.assign(new FST_TASKQUEUE_COMMIT_FAILED(), { cause })
}
