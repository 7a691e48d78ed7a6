import { Cluster, Redis, type RedisOptions } from 'ioredis'
import type { Client } from './link.js'

/** The longest wait for a connection at the start, in milliseconds. */
export const CONNECT_TIMEOUT_MS = 5000

export type ClientTerms = ReturnType<typeof termsOf>

/**
 * Returns the terms of a client that fails a command at once while it is not connected, and that connects again for as
 * long as it is not closed.
 *
 * @param beatMs the longest time between two heartbeats of the leases that are held over this client
 */
export function termsOf (timeoutMs: number, beatMs: number) {
  // While this client is away it extends no lease, but other processes may be in contact again. They may move the lease
  // clock on by two heartbeats, and then by the time that this client takes to come back.
  const longestPauseMs = Math.min(200, beatMs)
  const pauseMs = (times: number) => Math.min(25 * 2 ** (times - 1), longestPauseMs)
  return {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_TIMEOUT_MS,
    // A connection that brings nothing back is half open, or is of no use until Redis is there again.
    socketTimeout: 2 * timeoutMs,
    // A server that has become a replica stays one. The next connection finds the new master.
    reconnectOnError: ({ message }: Error) => message.startsWith('READONLY'),
    retryStrategy: pauseMs,
    sentinelRetryStrategy: pauseMs,
    // This is the pause between two looks at a Redis that loads its data. ioredis would wait for as long as the loading
    // may take, and for at least a second.
    maxLoadingRetryTime: longestPauseMs
  } satisfies RedisOptions
}

export function createClient (location: string | RedisOptions, terms: ClientTerms): Redis {
  const client = typeof location === 'string' ? new Redis(location, terms) : new Redis({ ...terms, ...location })
  // The numbers in replies are read as numbers.
  client.options.stringNumbers = false
  return client
}

/** Makes a client that connects to where the given one does, on the plugin's terms. */
export function duplicate (client: Client, terms: ClientTerms): Client {
  const settings = { ...terms, autoResubscribe: false }
  if (!client.isCluster) {
    // Only the connection knows the database that was selected last.
    const { select } = (client as unknown as { condition?: { select?: number } }).condition ?? {}
    return (client as Redis).duplicate({ ...settings, ...select !== undefined && { db: select } })
  }
  const { lazyConnect, enableOfflineQueue, retryStrategy, ...redisOptions } = settings
  return (client as Cluster).duplicate([], {
    lazyConnect, enableOfflineQueue, clusterRetryStrategy: retryStrategy, redisOptions
  })
}

/** Says where a client connects to, without its user and password. */
export function addressOf (client: Client): string {
  if (client instanceof Cluster || client.isCluster) return 'The Redis cluster'
  const { path, host = 'localhost', port = 6379, db = 0, name, sentinels } = (client as Redis).options
  if (sentinels != null) return `Redis master ${name}`
  return `Redis at ${path?.replace(/^\/+/, '/') ?? `${host}:${port}`}${db === 0 ? '' : `, database ${db}`}`
}
