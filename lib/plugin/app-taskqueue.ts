import type { FastifyInstance } from 'fastify'
import type { TaskRoute } from '../add/task-route.js'
import type { AddedTask } from '../add/added.js'
import type { RouteTaskToAdd, TaskToAdd, TaskTransaction, Transaction } from '../add/transaction.js'
import { checkOptions, checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import type { Queue } from '../queue/queue.js'
import type { Queues } from '../queue/queues.js'
import type { Consumer } from '../run/consumer.js'
import type { ScheduleOptions, ScheduleTiming } from '../schedule/plan.js'
import type { Schedules, ScheduleStatus } from '../schedule/schedules.js'
import { show } from '../show.js'
import { processesOf, type ProcessStatus } from '../queue/processes.js'
import { statusOf, type TaskStatus } from '../queue/status.js'
import type { TaskWaiter } from '../queue/task-waiter.js'
import type { History } from '../store/found.js'
import type { Clock } from '../store/local/clock.js'
import { LocalStore } from '../store/local/store.js'
import type { Order } from '../store/order.js'
import type { Priority } from '../store/tasks.js'
import type { Codec } from '../task/codec.js'
import { checkId } from '../task/id.js'
import type { AddOptions } from '../task/options.js'
import { checkPriority } from '../task/task.js'
import { dueOf } from '../task/time.js'
import type { Health } from './health.js'

/** The queues of an app, for use outside of requests. */
export interface Taskqueue {
  /**
   * Queues one task at once. It has no user, and copies nothing, since there is no current request. Resolves to the
   * id of the task, or to null if `options` has an `id` and another task of that id keeps this one out.
   *
   * Rejects if the task is invalid, with a code of its own (`FST_TASKQUEUE_INVALID_URL` for instance), with
   * `FST_TASKQUEUE_DUPLICATE` if `onDuplicate` is `'reject'` and the id is taken, and with
   * `FST_TASKQUEUE_COMMIT_FAILED` if the task cannot be stored.
   */
  add (url: string, options: AddOptions & { id: string }): Promise<string | null>
  add (url: string, options?: AddOptions & { id?: undefined }): Promise<string>
  add (url: string, options?: AddOptions): Promise<string | null>
  /** Queues one task for a route made with `app.task`. The route's schemas check the input. */
  add<Input> (
    route: TaskRoute<Input>, ...options: {} extends Input ? [options?: Input] : [options: Input]
  ): Promise<string | null>
  /**
   * Queues up to 10,000 tasks, all of them or none. Resolves to what `add` would for each. Rejects as `add` does, and
   * with `FST_TASKQUEUE_TOO_MANY` if there are more.
   */
  addAll (tasks: readonly TaskToAdd[]): Promise<Array<string | null>>
  /** Queues tasks for a route made with `app.task`, in the same way. */
  addAll<Input> (tasks: ReadonlyArray<RouteTaskToAdd<Input>>): Promise<Array<string | null>>
  /**
   * Runs a function, queues the tasks that it adds, and resolves to what it returns. If the function throws or the
   * commit fails, this rejects with that error, and no task is queued.
   */
  transaction<T> (run: (transaction: Transaction) => T | PromiseLike<T>): Promise<T>
  /** Returns a queue by its name. Throws `FST_TASKQUEUE_UNKNOWN_QUEUE` if there is none of that name. */
  queue (name: string): Queue
  /** All queues, in the order of their names. */
  readonly queues: readonly Queue[]
  /** Resolves to what is known of a task; undefined if nothing is known, or nothing is kept any longer. */
  get (id: string): Promise<TaskStatus | undefined>
  /**
   * Waits until a task is done, dead, cancelled or expired, and resolves to what `get` would.
   *
   * Rejects with `FST_TASKQUEUE_TIMEOUT` after `timeoutMs` milliseconds (60000 by default), with
   * `FST_TASKQUEUE_CLOSING` when the app begins to close, with the reason of `signal` when that aborts, and with
   * `FST_TASKQUEUE_TOO_MANY_WAITS` if this process waits for too many tasks already.
   */
  wait (id: string, options?: { timeoutMs?: number, signal?: AbortSignal }): Promise<TaskStatus | undefined>
  /**
   * Ends a task that waits, is delayed or runs, in this process or another. A running task loses its lease, and its
   * signal aborts. Resolves to whether there was such a task.
   */
  cancel (id: string): Promise<boolean>
  /**
   * Makes a task that waits or is delayed run at another time. Resolves to whether there was such a task. Rejects with
   * `FST_TASKQUEUE_INVALID_DELAY` if `due` is no time, or more than 30 days ahead.
   */
  reschedule (id: string, due: Pick<AddOptions, 'delayMs' | 'runAt'>): Promise<boolean>
  /** Makes a delayed task run now. Resolves to whether there was a task that waits or is delayed. */
  runNow (id: string): Promise<boolean>
  /**
   * Gives a task that waits, is delayed or runs another level. One that waits goes to the end of the line there; one
   * that runs has it when it is tried again. Resolves to whether there was such a task.
   */
  prioritize (id: string, priority: Priority): Promise<boolean>
  /**
   * Makes a schedule, or changes the one of this id, in the queue of its tasks: at each slot it adds a task. A schedule
   * that changes goes on with its next slot; one that is what it was is left alone. It lasts until `unschedule`, in
   * whatever process. A route made with `app.task` may stand in place of the url.
   *
   * Rejects if a task would be refused, with the code of that, with `FST_TASKQUEUE_INVALID_SCHEDULE` if the schedule
   * was given what it cannot take or is declared with the plugin, and with `FST_TASKQUEUE_UNREACHABLE`.
   */
  schedule (id: string, options: ScheduleOptions & { url: string }): Promise<void>
  schedule<Input> (id: string, options: ScheduleTiming & RouteTaskToAdd<Input>): Promise<void>
  /**
   * Removes a schedule. Resolves to whether there was one. Its tasks go on. Rejects with
   * `FST_TASKQUEUE_INVALID_SCHEDULE` if the schedule is declared with the plugin or a route.
   */
  unschedule (id: string): Promise<boolean>
  /** Resolves to all schedules of all queues, those with the earliest next slot first. */
  schedules (): Promise<ScheduleStatus[]>
  /** Has a schedule add no tasks until it is resumed. Resolves to whether there is such a schedule. */
  pauseSchedule (id: string): Promise<boolean>
  /**
   * Ends the pause of a schedule. The slots that have passed are not caught up. Resolves to whether there is such a
   * schedule.
   */
  resumeSchedule (id: string): Promise<boolean>
  /**
   * Adds a task of a schedule at once, besides those of its slots, also while it is paused. Resolves to the id of the
   * task; null if there is no such schedule, or its last task has not ended, as its `overlap` says. `force` adds the
   * task whatever that says.
   */
  runSchedule (id: string, options?: { force?: boolean }): Promise<string | null>
  /**
   * Says how the queues fare: whether their stores answer, how many tasks wait and for how long, and what the consumers
   * of this process do. Never rejects, and resolves within two seconds.
   */
  health (): Promise<Health>
  /**
   * Resolves to how many tasks were done and how many attempts have failed in each of the last 60 minutes, by the names
   * of the queues, in all processes. The present minute is the last. Queues whose store does not answer are missing.
   */
  history (): Promise<ReadonlyMap<string, History>>
  /**
   * Resolves to the processes that consume the queues, in the order of their names: those that were heard of within the
   * last hour and have not closed. Rejects with `FST_TASKQUEUE_UNREACHABLE` if a store does not answer.
   */
  processes (): Promise<ProcessStatus[]>
  /**
   * Runs all tasks that are due in the queues that this process consumes, and the due tasks that these add. Resolves
   * when none is left that may be claimed: it does not wait for a rate, a limit or a rest.
   *
   * With `advanceMs` it then moves the clock ahead by that, and runs what becomes due on the way, each when it is due:
   * delayed tasks, retries and those of schedules. Only the clock of the local queues of this app moves. It rejects
   * with `FST_TASKQUEUE_INVALID_OPTION` if another queue is consumed.
   */
  drain (options?: { advanceMs?: number }): Promise<void>
  /**
   * Runs the next task of a queue whose consumer does not start by itself. Resolves to whether there was one.
   *
   * @param queue the alphabetically first queue by default
   */
  runOne (queue?: string): Promise<boolean>
  /** The tasks that this process has queued, the oldest first, if `noteAdded` is set. Empty it between tests. */
  readonly added: AddedTask[]
}

/** How many tasks one transaction outside of a request may add. */
export const MOST_AT_ONCE = 10_000

type Adder = Pick<Taskqueue, 'add' | 'addAll' | 'transaction' | 'added'>
type Inspector = Pick<
  Taskqueue,
  'queue' | 'queues' | 'get' | 'wait' | 'cancel' | 'reschedule' | 'runNow' | 'prioritize' | 'health' | 'history' |
  'processes'
>
type Planner = Pick<
  Taskqueue, 'schedule' | 'unschedule' | 'schedules' | 'pauseSchedule' | 'resumeSchedule' | 'runSchedule'
>
type Runner = Pick<Taskqueue, 'drain' | 'runOne'>

/** Creates the part of `app.taskqueue` that adds tasks. */
export function createAdder (begin: () => TaskTransaction, added: AddedTask[]): Adder {
  const within = async <T>(run: (transaction: Transaction) => T | PromiseLike<T>) => {
    if (typeof run !== 'function') throw new FST_TASKQUEUE_INVALID_OPTION('transaction', 'given a function', show(run))
    const transaction = begin()
    try {
      const result = await run(transaction)
      transaction.close()
      return { result, added: await transaction.commitAll() }
    } catch (error) {
      transaction.close()
      await transaction.rollback()
      throw error
    }
  }
  const addAll = async (tasks: readonly TaskToAdd[]) => {
    const { added } = await within(transaction => transaction.addAll(tasks))
    return added.map(({ id, wasAdded }) => wasAdded ? id : null)
  }
  return {
    added,
    addAll: addAll as Taskqueue['addAll'],
    add: (async (target: string, options?: AddOptions) => {
      const transaction = begin()
      transaction.add(target, options)
      const [task] = await transaction.commitAll()
      return task!.wasAdded ? task!.id : null
    }) as Taskqueue['add'],
    transaction: async run => (await within(run)).result
  }
}

/** Creates the part of `app.taskqueue` that looks at tasks and changes what becomes of them. */
export function createInspector (
  queues: Queues, codec: Codec, waiter: TaskWaiter, health: () => Promise<Health>
): Inspector {
  const operate = async (id: string, order: SingleOrder) => {
    const found = await queues.find(id)
    return found !== undefined && await queues.get(found.queue).operate({ ...order, ids: [id] }) > 0
  }
  return {
    queue: name => queues.get(name),
    queues: queues.all,
    async get (id) {
      checkId(id)
      const found = await queues.find(id)
      return found && statusOf(codec, found)
    },
    async wait (id, options = {}) {
      checkId(id)
      checkOptions('options', options, ['timeoutMs', 'signal'], 'wait')
      const { timeoutMs = 60_000, signal } = options
      checkWhole('timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
      if (signal !== undefined && !(signal instanceof AbortSignal)) {
        throw new FST_TASKQUEUE_INVALID_OPTION('signal', 'an AbortSignal', show(signal))
      }
      return await waiter.wait(id, timeoutMs, signal)
    },
    async cancel (id) {
      checkId(id)
      return await operate(id, { kind: 'cancel', keep: queues.keep })
    },
    async reschedule (id, due) {
      checkId(id)
      checkOptions('due', due, ['delayMs', 'runAt'], 'reschedule')
      return await operate(id, { kind: 'reschedule', ...dueOf(due) })
    },
    async runNow (id) {
      checkId(id)
      return await operate(id, { kind: 'reschedule' })
    },
    async prioritize (id, priority) {
      checkId(id)
      checkPriority('priority', priority ?? null)
      return await operate(id, { kind: 'prioritize', priority })
    },
    health,
    history: () => queues.histories(),
    processes: async () => processesOf(await queues.consumers())
  }
}

/** Creates the part of `app.taskqueue` that makes schedules and looks at them. */
export function createPlanner (schedules: Schedules): Planner {
  return {
    schedule: async (id: string, options: ScheduleOptions) => { await schedules.set(id, options) },
    unschedule: id => schedules.remove(id),
    schedules: () => schedules.list(),
    pauseSchedule: id => schedules.pause(id),
    resumeSchedule: id => schedules.resume(id),
    async runSchedule (id, options = {}) {
      checkOptions('options', options, ['force'], 'runSchedule')
      return await schedules.run(id, options.force === true)
    }
  }
}

/** Returns the clocks of the stores of consumers, which all have to be local. */
function clocksOf (queues: Queues, consumers: readonly Consumer[]): Iterable<Clock> {
  return new Set(consumers.map(({ queue }) => {
    const { store } = queues.get(queue)
    if (store instanceof LocalStore) return store.clock
    throw new FST_TASKQUEUE_INVALID_OPTION('advanceMs', 'left out unless all queues are local', queue)
  }))
}

/** Runs what is due, and what that adds. */
async function runDue (consumers: readonly Consumer[]): Promise<void> {
  let runs: number[]
  do runs = await Promise.all(consumers.map(consumer => consumer.run()))
  while (runs.some(count => count > 0))
}

/** Returns in how many milliseconds something becomes due that consumers may do. */
async function nextIn (queues: Queues, consumers: readonly Consumer[]): Promise<number> {
  const times = consumers.map(async consumer => {
    const [pulse] = await queues.get(consumer.queue).store.extend([consumer.heldLeases()])
    const { wakeInMs, slotInMs = Infinity } = pulse!.outlook
    return Math.min(wakeInMs, slotInMs)
  })
  return Math.min(...await Promise.all(times))
}

/** An order that concerns one task. */
type SingleOrder = {
  [Kind in 'cancel' | 'reschedule' | 'prioritize']: Omit<Extract<Order, { kind: Kind }>, 'ids'>
}['cancel' | 'reschedule' | 'prioritize']

/** Creates the part of `app.taskqueue` that runs tasks on demand. */
export function createRunner (
  app: FastifyInstance, queues: Queues, consumers: ReadonlyMap<string, Consumer>
): Runner {
  const refuse = (queue: string) =>
    new FST_TASKQUEUE_INVALID_OPTION('consumer', 'given for tasks to run here', `false for ${queue}`)
  return {
    async drain (options = {}) {
      checkOptions('options', options, ['advanceMs'], 'drain')
      const { advanceMs = 0 } = options
      checkWhole('advanceMs', advanceMs, 0)
      await app.ready()
      const all = [...consumers.values()]
      if (all.length === 0) throw refuse('every queue')
      const clocks = advanceMs > 0 ? clocksOf(queues, all) : []
      await runDue(all)
      for (let left = advanceMs; left > 0;) {
        const ms = Math.min(left, Math.max(1, Math.ceil(await nextIn(queues, all))))
        for (const clock of clocks) clock.advance(ms)
        left -= ms
        await runDue(all)
      }
    },
    async runOne (name) {
      await app.ready()
      const { name: queue } = queues.get(name)
      const consumer = consumers.get(queue)
      if (consumer === undefined) throw refuse(queue)
      return await consumer.run(1) > 0
    }
  }
}
