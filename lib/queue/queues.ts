import { FST_TASKQUEUE_UNKNOWN_QUEUE } from '../errors.js'
import { show } from '../show.js'
import type { Found } from '../store/found.js'
import type { Store } from '../store/store.js'
import type { Keep } from '../store/turn.js'
import type { Queue } from './queue.js'
import { reach } from './reach.js'

/** The queues of an app, in the order of their names. */
export class Queues {
  readonly all: readonly Queue[]
  /** How many done, cancelled and expired tasks a queue keeps, and for how long. */
  readonly keep: Keep
  /** The names of the queues of each store. */
  readonly #byStore = new Map<Store, string[]>()

  constructor (all: readonly Queue[], keep: Keep) {
    this.all = all
    this.keep = keep
    for (const { name, store } of all) this.#byStore.set(store, [...this.#byStore.get(store) ?? [], name])
  }

  get stores (): Store[] { return [...this.#byStore.keys()] }

  /**
   * Returns the queue of that name. Throws `FST_TASKQUEUE_UNKNOWN_QUEUE` if there is none.
   * @param name the alphabetically first queue by default
   */
  get (name: string = this.all[0]!.name): Queue {
    const queue = this.all.find(queue => queue.name === name)
    if (queue !== undefined) return queue
    throw new FST_TASKQUEUE_UNKNOWN_QUEUE(show(name), this.all.map(({ name }) => name).join(', '))
  }

  /** Finds a task by its id in any of the queues. With `awaitMs` its store reports the task's end for that long. */
  async find (id: string, awaitMs?: number): Promise<Found | undefined> {
    for (const [store, names] of this.#byStore) {
      const found = await reach(store.find(names, id, awaitMs))
      if (found !== undefined) return found
    }
    return undefined
  }
}
