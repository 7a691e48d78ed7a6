import type { Redis } from 'ioredis'
import type { News } from '../news.js'
import type { Calls } from './calls.js'
import type { Client } from './link.js'

type Listener = (news: News) => void

/** What is heard on a channel. */
interface Channel {
  /** Reads what was published; undefined if it is no news. */
  readonly read: (text: string) => News | undefined
  readonly listeners: Set<Listener>
}

/** The connection for notifications. It is made when the first queue is watched. */
export class NewsSubscription {
  readonly #create: () => Client
  readonly #connect: (client: Client) => Promise<void>
  readonly #calls: Calls
  readonly #channels = new Map<string, Channel>()
  #client: Client | undefined
  /** The first connecting, for which all queues wait together. */
  #connecting: Promise<void> | undefined

  constructor (create: () => Client, connect: (client: Client) => Promise<void>, calls: Calls) {
    this.#create = create
    this.#connect = connect
    this.#calls = calls
  }

  /** Listens to a channel. A call that has failed may be made again. */
  async listen (name: string, read: Channel['read'], listener: Listener): Promise<void> {
    const channel = this.#channels.get(name) ?? { read, listeners: new Set() }
    this.#channels.set(name, channel)
    channel.listeners.add(listener)
    const client = this.#client ??= this.#createClient()
    this.#connecting ??= this.#connect(client).catch(error => {
      this.#connecting = undefined
      throw error
    })
    await this.#connecting
    await this.#calls.answerTo((client as Redis).subscribe(name))
  }

  /**
   * Asks the connection for a sign of life, when there is work that it may not have told. If none comes, the client
   * drops the connection and makes a new one.
   */
  probe (): void {
    if (this.#client?.status === 'ready') this.#client.ping().catch(() => {})
  }

  close (): void { this.#client?.disconnect() }

  #createClient (): Client {
    const client = this.#create()
    // The client for commands reports the same errors. Without a listener they would be printed.
    client.on('error', () => {})
    client.on('message', (name: string, text: string) => {
      const channel = this.#channels.get(name)
      const news = channel?.read(text)
      if (news !== undefined) for (const listen of channel!.listeners) listen(news)
    })
    client.on('ready', async () => {
      await client.subscribe(...this.#channels.keys()).catch(() => {})
      // News were missed while the connection was away.
      const listeners = new Set([...this.#channels.values()].flatMap(({ listeners }) => [...listeners]))
      for (const listen of listeners) listen({ kind: 'change' })
    })
    return client
  }
}

/** Reads what scripts publish on the channel of a queue. */
export function newsOf (text: string): News {
  const [kind, id = ''] = text.split(' ', 2)
  return kind === 'ended' ? { kind, id } : { kind: kind === 'change' ? kind : 'work' }
}
