import type { Cluster, Redis, RedisOptions } from 'ioredis'

/** Where Redis is: a URL, the options of ioredis, or a client that the user has made and closes. */
export type RedisLocation = string | RedisOptions | Redis | Cluster

/** Whether this is a client of ioredis, of whatever copy of it. */
export function isClient (location: unknown): location is Redis | Cluster {
  return typeof location === 'object' && location !== null && 'evalsha' in location && 'duplicate' in location
}
