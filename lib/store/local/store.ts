import { FST_TASKQUEUE_DUPLICATE } from '../../errors.js'
import type { Found, History, QueueView, State } from '../found.js'
import type { Holding, Presence, Pulse } from '../heartbeat.js'
import type { KeyView } from '../limits.js'
import type { News } from '../news.js'
import type { Order } from '../order.js'
import type { ScheduleChange, ScheduleList, Tick, TickResult, WhichSchedules } from '../schedules.js'
import type { Store } from '../store.js'
import type { NewTask, Prepared } from '../tasks.js'
import type { Held, Keep, Turn, TurnResult } from '../turn.js'
import { Clock } from './clock.js'
import { LocalQueue } from './queue.js'

/**
 * Keeps tasks in the memory of this process. It is fast, but the tasks are lost with the process. Its structures have
 * the names of the keys of the Redis store and hold the same, so that the two can be read side by side.
 */
export class LocalStore implements Store {
  readonly clock = new Clock()
  readonly #queues = new Map<string, LocalQueue>()
  /** The names that an open commit has reserved, each with the end of that commit. */
  readonly #reserved = new Map<string, Promise<void>>()

  async open (): Promise<void> {}

  prepare (tasks: readonly NewTask[]): Promise<Prepared> | Prepared {
    if (tasks.some(({ onDuplicate }) => onDuplicate !== undefined)) return this.#prepareChosen(tasks)
    return { keptOut: [], commit: () => { this.#add(tasks, isFree) }, rollback () {} }
  }

  /** Prepares tasks of which the adder has chosen some ids, which other commits may want as well. */
  async #prepareChosen (tasks: readonly NewTask[]): Promise<Prepared> {
    const names = namesOf(tasks)
    const findReserved = () => names.find(name => this.#reserved.has(name))
    for (let name = findReserved(); name !== undefined; name = findReserved()) await this.#reserved.get(name)
    const isKeptOut = this.#decide(tasks)
    const prepared = tasks.filter((_, index) => !isKeptOut[index])
    const conclude = this.#reserve(prepared)
    return {
      keptOut: tasks.filter((_, index) => isKeptOut[index]).map(({ queue, id }) => ({ queue, id })),
      commit: () => {
        this.#add(prepared, isFree)
        conclude()
      },
      rollback: conclude
    }
  }

  /** Returns for each task whether it is kept out; throws if one is refused. */
  #decide (tasks: readonly NewTask[]): boolean[] {
    const names = new Set<string>()
    return tasks.map(task => {
      const name = nameOf(task)
      const isDuplicate = names.has(name) || this.#queue(task.queue).keepsOut(task)
      names.add(name)
      if (isDuplicate && task.onDuplicate === 'reject') throw new FST_TASKQUEUE_DUPLICATE(task.id)
      return isDuplicate && task.onDuplicate === 'keep'
    })
  }

  /** Reserves the ids of tasks, until the returned function is called. */
  #reserve (tasks: readonly NewTask[]): () => void {
    const names = namesOf(tasks)
    let conclude: () => void
    const concluded = new Promise<void>(resolve => { conclude = resolve })
    for (const name of names) this.#reserved.set(name, concluded)
    return () => {
      for (const name of names) this.#reserved.delete(name)
      conclude()
    }
  }

  async turn (name: string, { settlements, heartbeatMs, claim, keep, keepDead }: Turn): Promise<TurnResult> {
    const queue = this.#queue(name)
    queue.leaseClock.tick(heartbeatMs)
    const { isShared: wasShared, isBlocked } = queue
    const settled = queue.settle(settlements)
    const chained = settlements.flatMap(({ chain = [] }, index) => settled[index] === true ? chain : [])
    this.#add(chained, (queue, task) => !queue.keepsOut(task))
    const { isShared } = queue
    const leases = claim === undefined ? [] : queue.claim(claim, isShared)
    queue.keep(keep)
    const dropped = keepDead === undefined ? 0 : queue.dropDead(keepDead)
    const { outlook } = queue
    // Others may wait for what this turn has made room for.
    if (wasShared && isBlocked && outlook.wakeInMs === 0) queue.listeners.wake()
    return {
      settled, leases, outlook, ...dropped > 0 && { dropped }, ...isShared && { isShared: true }
    }
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    return holdings.map(holding => {
      const { queue: name, consumer, leases, heartbeatMs, leaseMs } = holding
      const queue = this.#queue(name)
      queue.leaseClock.tick(heartbeatMs)
      queue.consumers.note(holding)
      const lost = leases.filter(lease => !queue.extend(lease, leaseMs, consumer))
      const cancelled = lost.filter(lease => queue.wasRevoked(lease))
      return { lost: lost.map(({ id }) => id), cancelled: cancelled.map(({ id }) => id), outlook: queue.outlook }
    })
  }

  async watch (queue: string, listener: (news: News) => void): Promise<void> {
    this.#queue(queue).listeners.add(listener)
  }

  async counts (queues: readonly string[]): Promise<QueueView[]> {
    return queues.map(queue => this.#queue(queue).view())
  }

  async history (queues: readonly string[]): Promise<History[]> {
    return queues.map(queue => this.#queue(queue).history)
  }

  async consumers (queues: readonly string[]): Promise<Presence[]> {
    return queues.flatMap(queue => this.#queue(queue).consumers.present())
  }

  async find (queues: readonly string[], id: string, awaitMs = 0): Promise<Found | undefined> {
    for (const name of queues) {
      const queue = this.#queue(name)
      const found = queue.find(id)
      if (found === undefined) continue
      if (awaitMs > 0 && found.endedAt === undefined) queue.listeners.await(id, awaitMs)
      return found
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    return this.#queue(queue).list(state, offset, limit)
  }

  async keys (queue: string, after: string, limit: number): Promise<KeyView[]> {
    return this.#queue(queue).keys(after, limit)
  }

  async schedules (queue: string, which: WhichSchedules): Promise<ScheduleList> {
    const { schedules, isPaused } = this.#queue(queue)
    return schedules.list(this.clock.timeOfDay, isPaused, which)
  }

  async plan (name: string, changes: readonly ScheduleChange[], revision?: number): Promise<boolean> {
    const queue = this.#queue(name)
    const isPlanned = queue.schedules.plan(this.clock.timeOfDay, changes, revision)
    if (isPlanned && changes.length > 0) queue.listeners.wake()
    return isPlanned
  }

  async tick (name: string, ticks: readonly Tick[], keep: Keep): Promise<TickResult[]> {
    const { schedules, isPaused } = this.#queue(name)
    return ticks.map(tick =>
      isPaused && tick.slot !== undefined ? 'over' : schedules.tick(this.clock.timeOfDay, tick, keep))
  }

  async operate (queue: string, order: Order): Promise<number> {
    return this.#queue(queue).operate(order)
  }

  async setProgress (queue: string, lease: Held, progress: string): Promise<boolean> {
    return this.#queue(queue).setProgress(lease, progress)
  }

  async close (): Promise<void> {
    this.#queues.clear()
  }

  #add (tasks: readonly NewTask[], isAdmitted: (queue: LocalQueue, task: NewTask) => boolean): void {
    for (const task of tasks) {
      const queue = this.#queue(task.queue)
      if (isAdmitted(queue, task)) queue.add(task)
    }
    for (const queue of new Set(tasks.map(({ queue }) => queue))) this.#queue(queue).listeners.wake()
  }

  #queue (name: string): LocalQueue {
    let queue = this.#queues.get(name)
    if (queue === undefined) this.#queues.set(name, queue = new LocalQueue(name, this.clock))
    return queue
  }
}

/** Whether a task may be added although others were added since it was prepared. */
const isFree = (queue: LocalQueue, { id, onDuplicate }: NewTask): boolean =>
  onDuplicate === 'replace' || !queue.isTaken(id)

/** The names to reserve. Ids without `onDuplicate` were not chosen by their adder, so no two tasks have the same. */
const namesOf = (tasks: readonly NewTask[]) => tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(nameOf)

/** The name of a task among those of all queues. There is no line break in an id. */
const nameOf = ({ queue, id }: NewTask) => `${queue}\n${id}`
