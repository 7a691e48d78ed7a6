import type { FastifyBaseLogger } from 'fastify'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { heartbeatMs } from '../run/limits.js'
import { show } from '../show.js'
import { LocalStore } from '../store/local/store.js'
import type { RedisLocation } from '../store/redis/location.js'
import type { Store } from '../store/store.js'
import type { StoreContext, StoreType } from '../store/types.js'
import type { QueueSettings, Settings } from './settings.js'

/** A queue with the store that keeps its tasks. */
export interface KeptQueue {
  readonly name: string
  readonly store: Store
  readonly isVolatile: boolean
  /** Where the tasks are, for people who read logs. It shows no secret. */
  readonly location: string
}

interface LocatedType extends StoreType {
  /** Says where the tasks are, once the store is created. */
  readonly location?: () => string
}

/** Creates the stores of all queues. Local queues share one store; so do queues that are given the same Redis. */
export async function createStores (settings: Settings, log: FastifyBaseLogger): Promise<KeptQueue[]> {
  const leases = settings.queues.map(({ consumer }) => consumer === false ? Infinity : consumer.leaseMs)
  const context: StoreContext = { heartbeatMs: heartbeatMs(Math.min(...leases)), log, clock: Date }
  const typeOf = typesWith(settings)
  return await Promise.all(settings.queues.map(async queue => {
    const { name: type, isVolatile = false, location = () => `a store of type ${type}`, create } = typeOf(queue)
    const created = create(queue.name, context)
    // A store may be a proxy that knows only the methods of a store. `await` would ask it for `then`.
    const store = created instanceof Promise ? await created : created
    return { name: queue.name, store: checkStore(queue.name, store), isVolatile, location: location() }
  }))
}

function typesWith (settings: Settings): (queue: QueueSettings) => LocatedType {
  const local = localType()
  const redis = new Map<RedisLocation, LocatedType>()
  return ({ type, redis: location }) => {
    if (type === 'local') return local
    if (type !== 'redis') return typeof type === 'function' ? { name: 'custom', create: type } : type
    if (!redis.has(location!)) redis.set(location!, redisType(location!, settings))
    return redis.get(location!)!
  }
}

function localType (): LocatedType {
  let store: LocalStore | undefined
  return { name: 'local', isVolatile: true, location: () => 'this process', create: () => (store ??= new LocalStore()) }
}

/** Makes the type of Redis stores. An app without a queue on Redis never loads the client of Redis. */
function redisType (location: RedisLocation, { prefix, commitTimeoutMs, replicas }: Settings): LocatedType {
  let store: Promise<Store> | undefined
  let where = ''
  return {
    name: 'redis',
    location: () => where,
    create (_queue, { heartbeatMs, log }) {
      const warn = (message: string) => { log.error(message) }
      store ??= import('../store/redis/store.js').then(({ RedisStore }) => {
        const made = new RedisStore(location, prefix, commitTimeoutMs, replicas, heartbeatMs, warn)
        where = made.location
        return made
      })
      return store
    }
  }
}

const METHODS = [
  'open', 'prepare', 'turn', 'extend', 'watch', 'counts', 'history', 'consumers', 'find', 'list', 'keys',
  'schedules', 'plan', 'tick', 'operate', 'setProgress', 'close'
] as const satisfies ReadonlyArray<keyof Store>

function checkStore (queue: string, store: Store): Store {
  const missing = METHODS.filter(method => typeof store?.[method] !== 'function')
  if (missing.length === 0) return store
  throw new FST_TASKQUEUE_INVALID_OPTION(
    `queues.${queue}.type`, `a type whose stores have ${missing.join(', ')}`, show(store))
}
