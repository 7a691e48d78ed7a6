import { FST_TASKQUEUE_UNKNOWN_QUEUE } from '../errors.js'
import { show } from '../show.js'
import type { Found, History } from '../store/found.js'
import type { Presence } from '../store/heartbeat.js'
import type { Store } from '../store/store.js'
import type { Keep } from '../store/turn.js'
import type { Queue } from './queue.js'
import { reach } from './reach.js'

/** The queues of an app, in the order of their names. */
export class Queues {
  readonly all: readonly Queue[]
  /** How many done, cancelled and expired tasks a queue keeps, and for how long. */
  readonly keep: Keep
  /** The queues of each store. */
  readonly byStore: ReadonlyArray<readonly [Store, readonly Queue[]]>

  constructor (all: readonly Queue[], keep: Keep) {
    this.all = all
    this.keep = keep
    const stores = [...new Set(all.map(({ store }) => store))]
    this.byStore = stores.map(store => [store, all.filter(queue => queue.store === store)])
  }

  get stores (): Store[] { return this.byStore.map(([store]) => store) }

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
    for (const [store, queues] of this.byStore) {
      const found = await reach(store.find(namesOf(queues), id, awaitMs))
      if (found !== undefined) return found
    }
    return undefined
  }

  /** Returns what has happened in each queue whose store answers, by the queue's name. */
  async histories (): Promise<Map<string, History>> {
    const asked = this.byStore.map(async ([store, queues]) => {
      const histories = await store.history(namesOf(queues)).catch(() => [])
      return histories.map((history, index): [string, History] => [queues[index]!.name, history])
    })
    return new Map((await Promise.all(asked)).flat())
  }

  /** Returns the consumers of all queues. */
  async consumers (): Promise<Presence[]> {
    const asked = this.byStore.map(async ([store, queues]) => await reach(store.consumers(namesOf(queues))))
    return (await Promise.all(asked)).flat()
  }
}

export const namesOf = (queues: readonly Queue[]): string[] => queues.map(({ name }) => name)
