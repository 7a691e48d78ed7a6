import type { FastifyBaseLogger } from 'fastify'
import { isPlain } from '../check.js'
import {
  FST_TASKQUEUE_CLOSED, FST_TASKQUEUE_COMMIT_FAILED, FST_TASKQUEUE_DUPLICATE, FST_TASKQUEUE_INVALID_OPTION,
  FST_TASKQUEUE_INVALID_SAVEPOINT, FST_TASKQUEUE_TOO_LARGE, FST_TASKQUEUE_TOO_MANY
} from '../errors.js'
import { show } from '../show.js'
import type { Store } from '../store/store.js'
import type { NewTask, Prepared } from '../store/tasks.js'
import type { AddOptions } from '../task/options.js'
import type { Task } from '../task/task.js'
import type { Commits } from './commits.js'
import type { TaskRoute } from './task-route.js'

/** A database transaction that stands or falls with the tasks. */
export interface Participant {
  /** Makes sure that `commit` will succeed, or rejects, and then everybody is rolled back. */
  prepare?: () => unknown
  commit: () => unknown
  rollback: () => unknown
}

/** A point in a transaction to come back to. */
export interface Savepoint {
  /** Drops what was added since; throws `FST_TASKQUEUE_INVALID_SAVEPOINT` when the savepoint is gone. */
  rollback (): void
}

/** What `add` takes, in one. */
export interface TaskToAdd extends AddOptions { url: string }

export interface CommitResult {
  /** The ids of tasks that were not added, since there is one of that id already. */
  readonly keptOut: readonly string[]
}

/** Tasks that are added now and queued together at the commit, or not at all. */
export interface Transaction {
  /**
   * Adds a request to one of this app's routes, to be made when the transaction has been
   * committed, and returns the task's id. Nothing leaves the process before that.
   * What is wrong with the task is thrown at once, with a code of its own.
   */
  add (url: string, options?: AddOptions): string
  /** Adds a request to a route made with `app.task`, whose schemas check what is given. */
  add<Input> (route: TaskRoute<Input>, ...options: {} extends Input ? [options?: Input] : [options: Input]): string
  /** Adds several, all of them or, if one is wrong, none. */
  addAll (tasks: readonly TaskToAdd[]): string[]
  savepoint (): Savepoint
  /** Makes a database transaction stand or fall with the tasks. */
  join (participant: Participant): void
  /**
   * Queues what was added so far, at once: for hijacked replies, and for tasks that are
   * to run even if the request fails later. The transaction stays open.
   */
  commit (): Promise<CommitResult>
  /** Drops what was added so far and rolls participants back. The transaction stays open. */
  rollback (): Promise<void>
}

/** A task that was added, ready for its store. Its message waits for the user's id, where that takes time. */
export interface Added {
  readonly store: Store
  readonly task: Omit<NewTask, 'message'>
  readonly message: string | Promise<string>
  /** Of the message, as far as it is known. */
  readonly length: number
  /** For whoever looks what was added. */
  readonly describe: () => AddedTask
}

/** A task as it was queued. */
export interface AddedTask extends Pick<Task, 'id' | 'method' | 'url' | 'headers'>, Pick<NewTask, 'queue' | 'delayMs' | 'runAt' | 'expiresMs'> {
  /** What JSON says, as a value; text; other bytes as they are. */
  readonly payload?: unknown
}

/** Makes and checks a task. */
export type Compose = (target: string | TaskRoute, options: AddOptions) => Added

/** Has a store take in tasks that belong together. */
export type Prepare = (store: Store, tasks: readonly NewTask[]) => Promise<Prepared>

/** How long the messages of one commit may be together: Redis moves them in one step, for which everybody else waits. */
const MAX_COMMIT_LENGTH = 64 * 1024 * 1024

/** The one implementation, which `bindToReply` steers through the end of a request. */
export class TaskTransaction implements Transaction {
  readonly #compose: Compose
  readonly #commits: Commits
  readonly #log: FastifyBaseLogger
  readonly #maxTasks: number
  readonly #note: ((tasks: readonly AddedTask[]) => void) | undefined
  #added: Added[] = []
  /** Of their messages together. */
  #length = 0
  #participants: Participant[] = []
  /** How many tasks were committed before the end. */
  #committed = 0
  #open = true

  constructor (compose: Compose, commits: Commits, log: FastifyBaseLogger, maxTasks: number, note?: (tasks: readonly AddedTask[]) => void) {
    this.#compose = compose
    this.#commits = commits
    this.#log = log
    this.#maxTasks = maxTasks
    this.#note = note
  }

  /** How many tasks and participants wait for the commit. */
  get size (): number { return this.#added.length + this.#participants.length }

  add (target: string | TaskRoute, options: AddOptions = {}): string {
    if (!this.#open) throw new FST_TASKQUEUE_CLOSED()
    if (this.#committed + this.#added.length >= this.#maxTasks) throw new FST_TASKQUEUE_TOO_MANY(this.#maxTasks)
    const added = this.#compose(target, options)
    const length = this.#length + added.length
    // Now, and not at the commit: until then all of them would be in memory.
    if (length > MAX_COMMIT_LENGTH && this.#added.length > 0) throw new FST_TASKQUEUE_TOO_LARGE(MAX_COMMIT_LENGTH, length)
    this.#length = length
    this.#added.push(added)
    return added.task.id
  }

  addAll (tasks: readonly TaskToAdd[]): string[] {
    if (!Array.isArray(tasks)) throw new FST_TASKQUEUE_INVALID_OPTION('tasks', 'an array', show(tasks))
    const savepoint = this.savepoint()
    try {
      return Array.from(tasks, task => {
        if (!isPlain(task)) throw new FST_TASKQUEUE_INVALID_OPTION('tasks', 'an array of objects with a url', show(task))
        const { url, ...options } = task
        return this.add(url, options)
      })
    } catch (error) {
      savepoint.rollback()
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
        // Tasks are only ever added at the end, so nothing was rolled back over while `last` is in its place.
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
   * Stores prepare, which is their vote; participants prepare; participants commit; stores
   * commit. So nothing that fails after the vote can lose a task, and what a task is about
   * can be seen before it runs. A commit in which only one store takes part waits for one
   * round trip.
   */
  async commit (prepare?: Prepare): Promise<CommitResult> {
    return { keptOut: (await this.commitAll(prepare)).filter(({ wasAdded }) => !wasAdded).map(({ id }) => id) }
  }

  /** The same; returns for each task whether it was added. */
  async commitAll (prepare: Prepare = (store, tasks) => store.prepare(tasks)): Promise<Array<{ readonly id: string, readonly wasAdded: boolean }>> {
    if (this.size === 0) return []
    const added = this.#added
    const participants = this.#participants
    this.#added = []
    this.#length = 0
    this.#participants = []
    this.#committed += added.length
    const { timeoutMs } = this.#commits
    const preparing: Array<Promise<Prepared>> = []
    const committing: Array<Promise<void>> = []
    let committed = 0
    let isDecided = false
    if (!this.#commits.begin()) throw await this.#refuse(participants)
    try {
      const messages = added.map(({ message }) => message)
      const texts = messages.every(message => typeof message === 'string') ? messages : await inTime(timeoutMs, Promise.all(messages))
      const length = texts.reduce((sum, text) => sum + text.length, 0)
      if (length > MAX_COMMIT_LENGTH && added.length > 1) throw new FST_TASKQUEUE_TOO_LARGE(MAX_COMMIT_LENGTH, length)
      for (const [store, tasks] of group(added, texts)) preparing.push(prepare(store, tasks))
      const prepared = await inTime(timeoutMs, Promise.all(preparing), commitFailure)
      for (const participant of participants) await participant.prepare?.()
      for (const participant of participants) {
        await participant.commit()
        committed++
      }
      isDecided = true
      for (const tasks of prepared) committing.push(tasks.commit())
      await inTime(timeoutMs, Promise.all(committing), commitFailure)
      const wereAdded = whichWereAdded(added.map(({ task }) => task), prepared.flatMap(tasks => tasks.keptOut))
      this.#note?.(added.filter((_, index) => wereAdded[index]).map(({ describe }) => describe()))
      this.#commits.end()
      return added.map(({ task }, index) => ({ id: task.id, wasAdded: wereAdded[index]! }))
    } catch (error) {
      if (!isDecided) for (const prepared of preparing) prepared.then(tasks => { tasks.rollback() }).catch(() => {})
      // Every store that takes tasks in has to be told what becomes of them, and one may never answer.
      inTime(timeoutMs, Promise.allSettled([...preparing, ...committing])).catch(() => {})
        .then(() => { this.#commits.end() })
      // Stores that have answered have been told by then; others are told when they do.
      await null
      await this.#rollBack(participants.slice(committed))
      throw error
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

  /** Accepts tasks again: an error handler answers in place of what has failed. */
  reopen (): void { this.#open = true }

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

function group (added: readonly Added[], messages: readonly string[]): Map<Store, NewTask[]> {
  const batches = new Map<Store, NewTask[]>()
  added.forEach(({ store, task }, index) => {
    const whole = { ...task, message: messages[index]! }
    const batch = batches.get(store)
    if (batch === undefined) batches.set(store, [whole])
    else batch.push(whole)
  })
  return batches
}

/** Says of each of the tasks of a commit whether it was added. Of several with one id in a queue those that came first were. */
function whichWereAdded (tasks: ReadonlyArray<Pick<NewTask, 'queue' | 'id'>>, keptOut: Prepared['keptOut']): boolean[] {
  if (keptOut.length === 0) return tasks.map(() => true)
  const nameOf = ({ queue, id }: Pick<NewTask, 'queue' | 'id'>) => `${queue}\n${id}`
  const left = new Map<string, number>()
  for (const kept of keptOut) left.set(nameOf(kept), (left.get(nameOf(kept)) ?? 0) + 1)
  return tasks.toReversed().map(task => {
    const count = left.get(nameOf(task)) ?? 0
    left.set(nameOf(task), count - 1)
    return count <= 0
  }).toReversed()
}

/** Waits at most `ms` milliseconds; `failure` says what a rejection means. */
function inTime<T> (ms: number, answer: Promise<T>, failure = (cause: unknown) => cause): Promise<T> {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => { reject(commitFailure(new Error(`no answer within ${ms} ms`))) }, ms)
    answer.then(value => {
      clearTimeout(timer)
      resolve(value)
    }, cause => {
      clearTimeout(timer)
      reject(failure(cause))
    })
  })
}

/** What a store says, or fails to say in time, is the commit's failure. */
function commitFailure (cause: unknown): Error {
  return cause instanceof FST_TASKQUEUE_DUPLICATE ? cause : Object.assign(new FST_TASKQUEUE_COMMIT_FAILED(), { cause })
}
