import type { Cluster, Redis, RedisOptions } from 'ioredis'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { cut } from '../show.js'
import { isClient } from '../store/redis/location.js'

/**
 * Checks where Redis is said to be. Its errors name the option and show no part of its value, which may hold a
 * password.
 *
 * @param path the name of the option
 */
export function checkRedis (path: string, redis: unknown): void {
  if (typeof redis === 'string') return checkUrl(path, redis)
  if (isClient(redis)) return checkClient(path, redis)
  if (typeof redis !== 'object' || redis === null || Array.isArray(redis)) throw refuse(path, `another ${typeof redis}`)
  if ('sendCommand' in redis || 'on' in redis) throw refuse(path, 'a client of another package')
  for (const name of Object.keys(redis)) {
    if (Object.hasOwn(OPTIONS, name)) continue
    const expected = name === 'url' ? `left out: '${path}' itself takes a URL` : 'left out'
    throw new FST_TASKQUEUE_INVALID_OPTION(`${path}.${cut(name)}`, expected, 'an option that ioredis does not have')
  }
}

function checkUrl (path: string, text: string): void {
  if (/^(?:unix:\/\/|\/)./.test(text)) return
  if (!/^rediss?:\/\/./i.test(text)) throw refuse(path, 'another string')
  const url = URL.canParse(text) ? new URL(text) : undefined
  if (url === undefined) {
    const expected = 'a URL that can be read; special characters in the user and the password are percent-encoded'
    throw new FST_TASKQUEUE_INVALID_OPTION(path, expected, 'another one')
  }
  if (!/^\/?\d*$/.test(url.pathname)) {
    const expected = 'a URL whose path is the number of a database, or empty'
    throw new FST_TASKQUEUE_INVALID_OPTION(path, expected, 'one with another path')
  }
}

function checkClient (path: string, client: Redis | Cluster): void {
  const options: RedisOptions & { redisOptions?: RedisOptions } = client.options
  const isForced = options.stringNumbers === true || options.redisOptions?.stringNumbers === true
  if (isForced) throw new FST_TASKQUEUE_INVALID_OPTION(path, 'a client without stringNumbers', 'one that sets it')
}

const refuse = (path: string, got: string) =>
  new FST_TASKQUEUE_INVALID_OPTION(
    path, 'a redis://, rediss:// or unix:// URL, options of ioredis or a client of it', got)

type Option = RedisOptions extends infer Options ? Options extends unknown ? keyof Options : never : never

/** All options of ioredis. It takes others without a word, and then connects to a Redis on this machine. */
const OPTIONS: Readonly<Record<Option, true>> = {
  Connector: true,
  autoPipeliningIgnoredCommands: true,
  autoResendUnfulfilledCommands: true,
  autoResubscribe: true,
  blockingTimeout: true,
  blockingTimeoutGrace: true,
  clientInfoTag: true,
  commandQueue: true,
  commandTimeout: true,
  connectTimeout: true,
  connectionName: true,
  db: true,
  disableClientInfo: true,
  disconnectTimeout: true,
  enableAutoPipelining: true,
  enableOfflineQueue: true,
  enableReadyCheck: true,
  enableTLSForSentinelMode: true,
  failoverDetector: true,
  family: true,
  himportFieldsets: true,
  host: true,
  keepAlive: true,
  keyPrefix: true,
  lazyConnect: true,
  maxLoadingRetryTime: true,
  maxRetriesPerRequest: true,
  monitor: true,
  name: true,
  natMap: true,
  noDelay: true,
  offlineQueue: true,
  password: true,
  path: true,
  port: true,
  preferredSlaves: true,
  protocol: true,
  readOnly: true,
  reconnectOnError: true,
  replyMapping: true,
  retryStrategy: true,
  role: true,
  scripts: true,
  sentinelCommandTimeout: true,
  sentinelMaxConnections: true,
  sentinelPassword: true,
  sentinelReconnectStrategy: true,
  sentinelRetryStrategy: true,
  sentinelTLS: true,
  sentinelUsername: true,
  sentinels: true,
  showFriendlyErrorStack: true,
  socketTimeout: true,
  stringNumbers: true,
  tls: true,
  updateSentinels: true,
  username: true
}
