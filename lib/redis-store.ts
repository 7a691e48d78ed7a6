import { createHash } from 'node:crypto'
import { once } from 'node:events'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { FST_TASKQUEUE_UNREACHABLE } from './errors.js'
import { heartbeatMs } from './heartbeat.js'
import { KEYS, scripts } from './redis-scripts.js'
import {
  DEAD_LIMIT, type Counts, type Holding, type Lease, type NewTask, type Pulse, type Store, type Turn, type TurnResult
} from './store.js'

/** Where Redis is: a URL, the options of ioredis, or a client that the user has made and closes. */
export type RedisLocation = string | RedisOptions | Redis | Cluster

/**
 * Keeps tasks in Redis, where all processes with the same `prefix` share them. One
 * connection carries the commands of all queues, and a second one the notifications for
 * those that are consumed here.
 */
export class RedisStore implements Store {
  readonly #client: Redis | Cluster
  readonly #isOurs: boolean
  readonly #prefix: string
  readonly #address: string
  readonly #watchers = new Map<string, () => void>()
  #subscriber: Redis | Cluster | undefined
  /** Why the connection is down: what fails meanwhile says only that it is. */
  #lastError: Error | undefined

  constructor (location: RedisLocation, prefix: string, timeoutMs: number) {
    this.#prefix = prefix
    this.#isOurs = !isClient(location)
    this.#client = isClient(location) ? location : connect(location, timeoutMs)
    this.#address = addressOf(this.#client)
    this.#noteErrors(this.#client)
  }

  async open (): Promise<void> {
    await this.#connect(this.#client)
    await this.vote()
  }

  async vote (): Promise<void> {
    await this.#run('vote', [`${this.#prefix}:vote`], [])
  }

  async add (tasks: readonly NewTask[]): Promise<void> {
    for (const queues of this.#together(tasks.map(({ queue }) => queue))) {
      const batch = tasks.filter(({ queue }) => queues.includes(queue))
      await this.#run('add', this.#keysOf(queues), argsOf(batch, queues))
    }
  }

  async turn (queue: string, { settlements, limit, leaseMs }: Turn): Promise<TurnResult> {
    const chains = settlements.map(({ chain = [] }) => chain)
    const [queues = []] = this.#together([queue, ...chains.flat().map(task => task.queue)])
    // What is out of reach of this turn's script is added before it: twice, if it comes to the worst, rather than never.
    const elsewhere = chains.flat().filter(task => !queues.includes(task.queue))
    if (elsewhere.length > 0) await this.add(elsewhere)
    const args = settlements.flatMap(({ lease: { id, attempt }, verdict }, index) => {
      const { kind, delayMs, reason } = { delayMs: 0, reason: '', ...verdict }
      const chain = chains[index]!.filter(task => queues.includes(task.queue))
      return [id, attempt, kind, Math.ceil(delayMs), reason, chain.length, ...argsOf(chain, queues)]
    })
    const [wakeInMs, settled, flat] = await this.#run(
      'turn', this.#keysOf(queues), [Math.ceil(heartbeatMs(leaseMs)), leaseMs, limit, DEAD_LIMIT, ...args]
    ) as [number, number[], Array<string | number>]
    const leases: Lease[] = []
    for (let i = 0; i < flat.length; i += 5) {
      const [id, message, attempt, retries, deaths] = flat.slice(i, i + 5) as [string, string, number, number, number]
      leases.push({ id, message, attempt, retries, deaths })
    }
    return { settled: settled.map(Boolean), leases, wakeInMs: wakeInMs === -1 ? Infinity : wakeInMs }
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    const pulses: Pulse[] = []
    for (const queues of this.#together(holdings.map(({ queue }) => queue))) {
      const args = holdings.filter(({ queue }) => queues.includes(queue)).flatMap(({ leases, leaseMs }) =>
        [Math.ceil(heartbeatMs(leaseMs)), leaseMs, leases.length, ...leases.flatMap(({ id, attempt }) => [id, attempt])])
      const reply = await this.#run('extend', this.#keysOf(queues), args) as Array<[number, string[]]>
      pulses.push(...reply.map(([wakeInMs, lost]) => ({ lost, wakeInMs: wakeInMs === -1 ? Infinity : wakeInMs })))
    }
    return pulses
  }

  async watch (queue: string, wake: () => void): Promise<void> {
    const channel = `${this.#client.options.keyPrefix ?? ''}${this.#nameOf(queue)}`
    this.#watchers.set(channel, wake)
    const subscriber = this.#subscriber ??= this.#makeSubscriber()
    await this.#connect(subscriber)
    await subscriber.subscribe(channel)
  }

  async counts (queue: string): Promise<Counts> {
    const [waiting, delayed, running, dead] = await this.#run('counts', this.#keysOf([queue]), []) as [number, number, number, number]
    return { waiting, delayed, running, dead }
  }

  async purge (queue: string): Promise<number> {
    const { waiting, delayed } = await this.counts(queue)
    let purged = 0
    // As many as there were, so that adding faster than this cannot keep it busy for ever.
    while (purged < waiting + delayed) {
      const count = await this.#run('purge', this.#keysOf([queue]), []) as number
      if (count === 0) break
      purged += count
    }
    return purged
  }

  async close (): Promise<void> {
    this.#subscriber?.disconnect()
    if (this.#isOurs) this.#client.disconnect()
  }

  /** The keys of one queue share a hash tag, and with it a slot of a cluster. */
  #nameOf (queue: string): string {
    return `${this.#prefix}:{${queue}}`
  }

  /** Queues by what one script can reach: all of them, but in a cluster each alone. */
  #together (queues: readonly string[]): string[][] {
    const distinct = [...new Set(queues)]
    return this.#client.isCluster ? distinct.map(queue => [queue]) : [distinct]
  }

  #keysOf (queues: readonly string[]): string[] {
    return queues.flatMap(queue => KEYS.map(key => `${this.#nameOf(queue)}:${key}`))
  }

  async #run (script: keyof typeof scripts, keys: readonly string[], args: ReadonlyArray<string | number>): Promise<unknown> {
    try {
      return await this.#client.evalsha(digests[script], keys.length, ...keys, ...args)
        .catch(async (error: Error) => {
          if (!error.message.startsWith('NOSCRIPT')) throw error
          return await this.#client.eval(scripts[script], keys.length, ...keys, ...args)
        })
    } catch (error) {
      throw this.#unreachable(error)
    }
  }

  #makeSubscriber (): Redis | Cluster {
    const subscriber = (this.#client as Redis).duplicate()
    this.#noteErrors(subscriber)
    subscriber.on('message', (channel: string) => { this.#watchers.get(channel)?.() })
    // Notifications were missed while it was away.
    subscriber.on('ready', () => { for (const wake of this.#watchers.values()) wake() })
    return subscriber
  }

  /** Connects, or waits for a client that connects by itself, but not for ever. */
  async #connect (client: Redis | Cluster): Promise<void> {
    if (client.status === 'ready') return
    try {
      if (client.status === 'wait') await client.connect()
      else await once(client, 'ready', { signal: AbortSignal.timeout(CONNECT_TIMEOUT_MS) })
    } catch (error) {
      throw this.#unreachable(error)
    }
  }

  #noteErrors (client: Redis | Cluster): void {
    client.on('error', (error: Error) => { this.#lastError = error })
    client.on('ready', () => { this.#lastError = undefined })
  }

  /** An error of the client carries its command, and with it payloads and passwords that do not belong in a log: only its message is passed on. */
  #unreachable (error: unknown): Error {
    const { message, code } = (this.#lastError ?? error) as NodeJS.ErrnoException
    // The error of a name with several addresses, none of which answers, has a code and no message.
    return new FST_TASKQUEUE_UNREACHABLE(this.#address, message || String(code))
  }
}

/** How long to wait for a connection at the start. */
const CONNECT_TIMEOUT_MS = 5000

const digests = Object.fromEntries(
  Object.entries(scripts).map(([name, body]) => [name, createHash('sha1').update(body).digest('hex')])
) as Record<keyof typeof scripts, string>

function argsOf (tasks: readonly NewTask[], queues: readonly string[]): Array<string | number> {
  return tasks.flatMap(({ queue, id, message, delayMs, runAt }) => [
    queues.indexOf(queue), id, message, ...delayMs !== undefined ? ['in', delayMs] : runAt !== undefined ? ['at', runAt] : ['', 0]
  ])
}

function isClient (location: RedisLocation): location is Redis | Cluster {
  return typeof location === 'object' && 'evalsha' in location && 'duplicate' in location
}

/** A client that fails a command at once while it is not connected, and connects again for as long as it is not closed. */
function connect (location: string | RedisOptions, timeoutMs: number): Redis {
  const options = {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: timeoutMs,
    retryStrategy: (times: number) => Math.min(25 * 2 ** (times - 1), 1000)
  }
  return typeof location === 'string' ? new Redis(location, options) : new Redis({ ...options, ...location as object })
}

/** Says where a client connects to, and not as whom. */
function addressOf (client: Redis | Cluster): string {
  if (client instanceof Cluster || client.isCluster) return 'The Redis cluster'
  const { path, host = 'localhost', port = 6379, db = 0, name, sentinels } = (client as Redis).options
  if (sentinels != null) return `Redis master ${name}`
  return `Redis at ${path ?? `${host}:${port}`}${db === 0 ? '' : `, database ${db}`}`
}
