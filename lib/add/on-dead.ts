import type { Store } from '../store/store.js'
import type { NewTask } from '../store/tasks.js'
import { valueOf } from '../task/payload.js'
import type { Task } from '../task/task.js'
import { chainTo } from './chain.js'
import type { TaskTransaction, Transaction } from './transaction.js'

/** A task that was given up. */
export interface DeadTask extends Pick<Task, 'id' | 'method' | 'url' | 'headers'> {
  readonly queue: string
  /** A value if it is JSON, a string if it is text, otherwise bytes; undefined if the task has no body. */
  readonly payload?: unknown
  /** The user as whom it ran, if somebody in particular. */
  readonly userId?: string
  /** The number of its last attempt. */
  readonly attempt: number
  /** Why it was given up, as its status says. */
  readonly reason: string
  /** The status of its last answer, if there was one. */
  readonly status?: number
}

/**
 * Told of a task that becomes a dead letter. The tasks that it adds run as the user of the dead one. Its queue's store
 * keeps the dead letter and adds them in one step. May be async, and takes no longer than an attempt of the task may.
 */
export type OnDead = (task: DeadTask, taskqueue: Pick<Transaction, 'add' | 'addAll'>) => unknown

/** How a task died. */
export type Death = Pick<DeadTask, 'queue' | 'attempt' | 'reason' | 'status'>

/**
 * Tells of a task that dies, and resolves to the tasks to add to its store as that buries it. Rejects if `onDead` fails
 * or takes longer than `longestMs`, and no task is added then.
 */
export type TellDead = (
  task: Task, death: Death, store: Store, longestMs: number
) => Promise<readonly NewTask[]> | readonly NewTask[]

/** Makes the function that calls the `onDead` of a task, if there is one. */
export function tellDeadBy (
  onDeadOf: (task: Task) => OnDead | undefined, begin: (task: Task) => TaskTransaction
): TellDead {
  return (task, death, store, longestMs) => {
    const onDead = onDeadOf(task)
    return onDead === undefined ? [] : ask(onDead, task, death, begin(task), store, longestMs)
  }
}

async function ask (
  onDead: OnDead, task: Task, death: Death, transaction: TaskTransaction, store: Store, longestMs: number
): Promise<readonly NewTask[]> {
  const chain: NewTask[] = []
  let timer: NodeJS.Timeout | undefined
  const tooLong = new Promise((_resolve, reject) => {
    timer = setTimeout(() => { reject(new Error(`onDead took more than ${longestMs} ms`)) }, longestMs)
  })
  try {
    await Promise.race([onDead(describe(task, death), transaction), tooLong])
    transaction.close()
    await transaction.commit(chainTo(chain, store))
  } catch (error) {
    transaction.close()
    await transaction.rollback()
    throw error
  } finally {
    clearTimeout(timer)
  }
  return chain
}

function describe ({ id, method, url, headers, payload, userId }: Task, death: Death): DeadTask {
  return {
    id,
    method,
    url,
    headers,
    ...death,
    ...payload !== undefined && { payload: valueOf(payload, headers['content-type']) },
    ...userId !== undefined && { userId }
  }
}
