import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { LocalStore } from '../store/local/local-store.js'
import { type RedisLocation, RedisStore } from '../store/redis/redis-store.js'
import type { Store } from '../store/store.js'
import type { QueueSettings, Settings } from './options.js'

/** Queues that are given the same Redis, or for which a custom type returns the same store, share it. */
export function storeMaker ({ queues, prefix, commitTimeoutMs, replicas }: Settings): (queue: QueueSettings) => Store {
  const leaseMs = Math.min(...queues.map(({ consumer }) => consumer === false ? Infinity : consumer.leaseMs))
  const local = new LocalStore()
  const redis = new Map<RedisLocation | undefined, Store>()
  return ({ name, type, redis: location, options }) => {
    if (typeof type === 'function') return checkStore(name, type(name, options))
    if (type === 'local') return local
    const store = redis.get(location) ?? new RedisStore(location!, prefix, commitTimeoutMs, replicas, leaseMs)
    redis.set(location, store)
    return store
  }
}

const STORE_METHODS = ['open', 'prepare', 'turn', 'extend', 'watch', 'counts', 'find', 'list', 'steer', 'note', 'close'] as const satisfies ReadonlyArray<keyof Store>

function checkStore (queue: string, store: Store): Store {
  const missing = STORE_METHODS.filter(method => typeof store?.[method] !== 'function')
  if (missing.length === 0) return store
  throw new FST_TASKQUEUE_INVALID_OPTION(`queues.${queue}.type`, `a function that returns a store with ${missing.join(', ')}`, show(store))
}
