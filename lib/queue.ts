import type { Counts, Store } from './store.js'

/** A queue, for those who look in on it. What cannot be asked because the store is unreachable rejects with `FST_TASKQUEUE_UNREACHABLE`. */
export class Queue {
  readonly name: string
  /** @internal */
  readonly store: Store

  /** @internal */
  constructor (name: string, store: Store) {
    this.name = name
    this.store = store
  }

  /** Counts the tasks that are due and wait for a consumer. */
  async length (): Promise<number> {
    return (await this.counts()).waiting
  }

  /** Counts the tasks by state. */
  async counts (): Promise<Counts> {
    return await this.store.counts(this.name)
  }

  /** Drops the tasks that wait or are delayed, and returns how many. Running tasks go on, and dead letters stay. */
  async purge (): Promise<number> {
    return await this.store.purge(this.name)
  }
}
