import type { FastifyInstance } from 'fastify'
import type { TaskRoute } from '../add/task-route.js'
import type { AddedTask, TaskToAdd, TaskTransaction, Transaction } from '../add/transaction.js'
import { checkOptions, checkWhole, LONGEST_TIMER_MS } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import type { Queue } from '../queue/queue.js'
import type { Queues } from '../queue/queues.js'
import type { Consumer } from '../run/consumer.js'
import { show } from '../show.js'
import { statusOf, type TaskStatus } from '../queue/status.js'
import type { TaskWaiter } from '../queue/task-waiter.js'
import type { Order } from '../store/order.js'
import type { Codec } from '../task/codec.js'
import { checkId } from '../task/id.js'
import type { AddOptions } from '../task/options.js'
import { dueOf } from '../task/time.js'

/** The queues of an app, for use outside of requests. */
export interface Taskqueue {
  /**
   * Queues one task at once. There is no current request to copy anything from, and no user.
   * Resolves to its id; to null if an `id` was given and another task of that id keeps this one out.
   */
  add (url: string, options: AddOptions & { id: string }): Promise<string | null>
  add (url: string, options?: AddOptions & { id?: undefined }): Promise<string>
  add (url: string, options?: AddOptions): Promise<string | null>
  /** The same for a route made with `app.task`, whose schemas check what is given. */
  add<Input> (route: TaskRoute<Input>, ...options: {} extends Input ? [options?: Input] : [options: Input]): Promise<string | null>
  /** Queues up to 10,000 tasks, all of them or none; resolves to what `add` would for each. */
  addAll (tasks: readonly TaskToAdd[]): Promise<Array<string | null>>
  /** Runs a function and queues what it has added when it succeeds; returns what it returns. */
  transaction<T> (run: (transaction: Transaction) => T | PromiseLike<T>): Promise<T>
  /** Throws `FST_TASKQUEUE_UNKNOWN_QUEUE` unless there is a queue of that name. */
  queue (name: string): Queue
  /** All queues, in the order of their names. */
  readonly queues: readonly Queue[]
  /** Returns what is known of a task; undefined when nothing is, any more. */
  get (id: string): Promise<TaskStatus | undefined>
  /**
   * Waits until a task has ended (is done, given up, cancelled or expired), and resolves to what
   * `get` would. Rejects with `FST_TASKQUEUE_TIMEOUT` when that takes longer than `timeoutMs`, 60000 by default,
   * with `FST_TASKQUEUE_CLOSING` when the app begins to close, and with the reason of `signal` when that aborts.
   */
  wait (id: string, options?: { timeoutMs?: number, signal?: AbortSignal }): Promise<TaskStatus | undefined>
  /** Ends a task that waits, is delayed or runs, wherever it does: the signal of one that runs aborts. Resolves to whether there was one. */
  cancel (id: string): Promise<boolean>
  /** Has a task that waits or is delayed run at another time. Resolves to whether there was one. */
  reschedule (id: string, due: Pick<AddOptions, 'delayMs' | 'runAt'>): Promise<boolean>
  /** Has a delayed task run now. Resolves to whether there was one. */
  runNow (id: string): Promise<boolean>
  /** Runs everything that is due in the queues that are consumed here, and what that adds; resolves when nothing is left. */
  drain (): Promise<void>
  /** Runs the next task of a queue whose consumer does not start by itself; resolves to whether there was one. @param queue the alphabetically first by default */
  runOne (queue?: string): Promise<boolean>
  /** What was queued here, the oldest first, if the option `noteAdded` is set: empty it between tests. */
  readonly added: AddedTask[]
}

/** How many tasks one transaction outside of a request takes in. */
export const MOST_AT_ONCE = 10_000

/** What `app.taskqueue` is made of. */
export function createAdder (begin: () => TaskTransaction, added: AddedTask[]): Pick<Taskqueue, 'add' | 'addAll' | 'transaction' | 'added'> {
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
  const addAll: Taskqueue['addAll'] = async tasks => {
    const { added } = await within(transaction => transaction.addAll(tasks))
    return added.map(({ id, wasAdded }) => wasAdded ? id : null)
  }
  return {
    added,
    addAll,
    add: (async (target: string, options?: AddOptions) => {
      const { added: [task] } = await within(transaction => transaction.add(target, options))
      return task!.wasAdded ? task!.id : null
    }) as Taskqueue['add'],
    transaction: async run => (await within(run)).result
  }
}

export function createInspector (queues: Queues, codec: Codec, waiter: TaskWaiter): Pick<Taskqueue, 'queue' | 'queues' | 'get' | 'wait' | 'cancel' | 'reschedule' | 'runNow'> {
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
      if (signal !== undefined && !(signal instanceof AbortSignal)) throw new FST_TASKQUEUE_INVALID_OPTION('signal', 'an AbortSignal', show(signal))
      return await waiter.wait(id, timeoutMs, signal)
    },
    async cancel (id) {
      checkId(id)
      return await operate(id, { kind: 'cancel', keep: queues.keep })
    },
    async reschedule (id, due) {
      checkId(id)
      checkOptions('due', due, ['delayMs', 'runAt'], 'reschedule')
      return await operate(id, { kind: 'schedule', ...dueOf(due) })
    },
    async runNow (id) {
      checkId(id)
      return await operate(id, { kind: 'schedule' })
    }
  }
}

/** An order that concerns one task. */
type SingleOrder = Omit<Extract<Order, { kind: 'cancel' }>, 'ids'> | Omit<Extract<Order, { kind: 'schedule' }>, 'ids'>

export function createRunner (app: FastifyInstance, queues: Queues, consumers: ReadonlyMap<string, Consumer>): Pick<Taskqueue, 'drain' | 'runOne'> {
  const refuse = (queue: string) => new FST_TASKQUEUE_INVALID_OPTION('consumer', 'given for tasks to run here', `false for ${queue}`)
  return {
    async drain () {
      await app.ready()
      if (consumers.size === 0) throw refuse('every queue')
      let runs: number[]
      do runs = await Promise.all([...consumers.values()].map(consumer => consumer.run()))
      while (runs.some(count => count > 0))
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
