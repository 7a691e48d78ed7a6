import type { Store } from '../store/store.js'
import type { NewTask } from '../store/tasks.js'
import type { Prepare } from './transaction.js'

/**
 * Has the tasks of a commit wait in a chain if they belong to the store that keeps the task that adds them. That store
 * adds them when it settles the task, in the same step.
 */
export function chainTo (chain: NewTask[], ofStore: Store): Prepare {
  return (store, tasks) => {
    if (store !== ofStore) return store.prepare(tasks)
    return { keptOut: [], commit: () => { chain.push(...tasks) }, rollback () {} }
  }
}
