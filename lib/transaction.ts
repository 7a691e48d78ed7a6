import type { FastifyBaseLogger } from 'fastify'
import {
  FST_TASKQUEUE_CLOSED, FST_TASKQUEUE_COMMIT_FAILED, FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_SAVEPOINT
} from './errors.js'
import { show } from './show.js'
import type { NewTask, Store } from './store.js'
import type { AddOptions } from './task.js'

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

/** Tasks that are added now and queued together at the commit, or not at all. */
export interface Transaction {
  /**
   * Adds a request to one of this app's routes, to be made when the transaction has been
   * committed, and returns the task's id. Nothing leaves the process before that.
   * What is wrong with the task is thrown at once, with a code of its own.
   */
  add (url: string, options?: AddOptions): string
  savepoint (): Savepoint
  /** Makes a database transaction stand or fall with the tasks. */
  join (participant: Participant): void
  /**
   * Queues what was added so far, at once: for hijacked replies, and for tasks that are
   * to run even if the request fails later. The transaction stays open.
   */
  commit (): Promise<void>
  /** Drops what was added so far and rolls participants back. The transaction stays open. */
  rollback (): Promise<void>
}

/** A task that was added, ready for its store. Its message waits for the user's id, where that takes time. */
export interface Added {
  readonly store: Store
  readonly task: Omit<NewTask, 'message'>
  readonly message: string | Promise<string>
}

/** Makes and checks a task. */
export type Prepare = (url: string, options: AddOptions) => Added

/** Stores tasks that belong together; resolves once they are stored. */
export type Keep = (store: Store, tasks: readonly NewTask[]) => Promise<void>

/** The one implementation, which `bindToReply` steers through the end of a request. */
export class TaskTransaction implements Transaction {
  readonly #prepare: Prepare
  readonly #timeoutMs: number
  readonly #log: FastifyBaseLogger
  #added: Added[] = []
  #participants: Participant[] = []
  #open = true

  constructor (prepare: Prepare, timeoutMs: number, log: FastifyBaseLogger) {
    this.#prepare = prepare
    this.#timeoutMs = timeoutMs
    this.#log = log
  }

  /** How many tasks and participants wait for the commit. */
  get size (): number { return this.#added.length + this.#participants.length }

  add (url: string, options: AddOptions = {}): string {
    if (!this.#open) throw new FST_TASKQUEUE_CLOSED()
    const added = this.#prepare(url, options)
    this.#added.push(added)
    return added.task.id
  }

  savepoint (): Savepoint {
    const added = this.#added
    const { length } = added
    const last = added.at(-1)
    return {
      rollback: () => {
        // Tasks are only ever added at the end, so nothing was rolled back over while `last` is in its place.
        if (this.#added !== added || added[length - 1] !== last) throw new FST_TASKQUEUE_INVALID_SAVEPOINT()
        added.length = length
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
   * Stores vote, participants prepare, participants commit, tasks are stored: so what a
   * task is about can be seen before it runs. Where one store alone takes part its answer
   * to `add` is vote enough, and the commit one round trip.
   */
  async commit (keep: Keep = (store, tasks) => store.add(tasks)): Promise<void> {
    if (this.size === 0) return
    const added = this.#added
    const participants = this.#participants
    this.#added = []
    this.#participants = []
    let committed = 0
    try {
      const batches = [...await group(added)]
      let left = this.#timeoutMs
      if (participants.length > 0 || batches.length > 1) {
        left = await inTime(left, batches.map(([store]) => store.vote()))
      }
      for (const participant of participants) await participant.prepare?.()
      for (const participant of participants) {
        await participant.commit()
        committed++
      }
      await inTime(left, batches.map(([store, tasks]) => keep(store, tasks)))
    } catch (error) {
      await this.#rollBack(participants.slice(committed))
      throw error
    }
  }

  async rollback (): Promise<void> {
    const participants = this.#participants
    this.#added = []
    this.#participants = []
    await this.#rollBack(participants)
  }

  /** Refuses any further task. */
  close (): void { this.#open = false }

  /** Accepts tasks again: an error handler answers in place of what has failed. */
  reopen (): void { this.#open = true }

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

async function group (added: readonly Added[]): Promise<Map<Store, NewTask[]>> {
  const batches = new Map<Store, NewTask[]>()
  for (const { store, task, message } of added) {
    const whole = { ...task, message: typeof message === 'string' ? message : await message }
    const batch = batches.get(store)
    if (batch === undefined) batches.set(store, [whole])
    else batch.push(whole)
  }
  return batches
}

/** Waits for stores, at most `ms` milliseconds, and returns how many are left. What they say, or fail to say, is the commit's failure. */
async function inTime (ms: number, answers: ReadonlyArray<Promise<unknown>>): Promise<number> {
  const start = performance.now()
  let timer: NodeJS.Timeout | undefined
  const timeout = new Promise<never>((_resolve, reject) => {
    timer = setTimeout(() => { reject(new Error(`no answer within ${Math.round(ms)} ms`)) }, ms)
  })
  try {
    await Promise.race([Promise.all(answers), timeout])
    return ms - (performance.now() - start)
  } catch (cause) {
    throw new FST_TASKQUEUE_COMMIT_FAILED((cause as Error).message, { cause })
  } finally {
    clearTimeout(timer)
  }
}
