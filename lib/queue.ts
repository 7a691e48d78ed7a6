import { FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_UNKNOWN_QUEUE } from './errors.js'
import { LocalStore } from './local-store.js'
import type { QueueSettings, Settings } from './options.js'
import { RedisStore, type RedisLocation } from './redis-store.js'
import { show } from './show.js'
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

/** The queues of an app, in the order of their names. */
export class Queues {
  readonly all: readonly Queue[]

  constructor (settings: Settings) {
    const storeOf = storeMaker(settings)
    this.all = settings.queues.map(queue => new Queue(queue.name, storeOf(queue)))
  }

  /** Finds a queue, the first one where there is no name; throws `FST_TASKQUEUE_UNKNOWN_QUEUE` unless there is one. */
  get (name: string = this.all[0]!.name): Queue {
    const queue = this.all.find(queue => queue.name === name)
    if (queue !== undefined) return queue
    throw new FST_TASKQUEUE_UNKNOWN_QUEUE(show(name), this.all.map(({ name }) => name).join(', '))
  }

  get stores (): Store[] { return [...new Set(this.all.map(({ store }) => store))] }
}

/** Queues that are given the same Redis, or for which a custom type returns the same store, share it. */
function storeMaker ({ prefix, commitTimeoutMs, replicas }: Settings): (queue: QueueSettings) => Store {
  const local = new LocalStore()
  const redis = new Map<RedisLocation | undefined, Store>()
  return ({ name, type, redis: location, options }) => {
    if (typeof type === 'function') return checkStore(name, type(name, options))
    if (type === 'local') return local
    const store = redis.get(location) ?? new RedisStore(location!, prefix, commitTimeoutMs, replicas)
    redis.set(location, store)
    return store
  }
}

const STORE_METHODS = ['open', 'prepare', 'turn', 'extend', 'watch', 'counts', 'purge', 'close'] as const satisfies ReadonlyArray<keyof Store>

function checkStore (queue: string, store: Store): Store {
  const missing = STORE_METHODS.filter(method => typeof store?.[method] !== 'function')
  if (missing.length === 0) return store
  throw new FST_TASKQUEUE_INVALID_OPTION(`queues.${queue}.type`, `a function that returns a store with ${missing.join(', ')}`, show(store))
}
