import { connect } from 'node:net'
import type { Cluster, Redis, RedisOptions } from 'ioredis'

/** The longest wait for what Redis says, in milliseconds. */
const LONGEST_MS = 500

/** Whether an error may be that of a connection that Redis has closed as soon as it took it. */
export function isTurnedAway ({ code }: NodeJS.ErrnoException): boolean {
  return code === 'EPIPE' || code === 'ECONNRESET'
}

/**
 * Resolves to what Redis says when it turns a connection away, such as that it has too many clients; undefined if it
 * says nothing. The client of Redis writes to each connection at once, and so never reads that.
 */
export function refusalOf (client: Redis | Cluster): Promise<string | undefined> {
  const { path, host = 'localhost', port = 6379, tls, sentinels } = client.options as RedisOptions
  if (client.isCluster || tls !== undefined || sentinels != null) return Promise.resolve(undefined)
  return new Promise(resolve => {
    const socket = connect(path == null ? { host, port } : { path })
    const end = (text?: string) => {
      socket.destroy()
      resolve(text)
    }
    socket.setTimeout(LONGEST_MS, () => { end() })
    socket.once('data', data => { end(/^-([^\r\n]{1,300})/.exec(data.toString())?.[1]) })
    socket.once('close', () => { end() })
    socket.on('error', () => {})
  })
}
