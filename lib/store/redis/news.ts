import type { Redis } from 'ioredis'
import type { News } from '../news.js'
import type { Calls } from './calls.js'
import type { Client } from './link.js'

/** The connection for notifications. It is made when the first queue is watched. */
export class NewsSubscription {
  readonly #create: () => Client
  readonly #connect: (client: Client) => Promise<void>
  readonly #calls: Calls
  readonly #listeners = new Map<string, Array<(news: News) => void>>()
  #client: Client | undefined
  /** The first connecting, for which all queues wait together. */
  #connecting: Promise<void> | undefined

  constructor (create: () => Client, connect: (client: Client) => Promise<void>, calls: Calls) {
    this.#create = create
    this.#connect = connect
    this.#calls = calls
  }

  /** Listens to a channel. A call that has failed may be made again. */
  async listen (channel: string, listener: (news: News) => void): Promise<void> {
    const listeners = this.#listeners.get(channel) ?? []
    if (!listeners.includes(listener)) this.#listeners.set(channel, [...listeners, listener])
    const client = this.#client ??= this.#createClient()
    this.#connecting ??= this.#connect(client).catch(error => {
      this.#connecting = undefined
      throw error
    })
    await this.#connecting
    await this.#calls.answerTo((client as Redis).subscribe(channel))
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
    client.on('message', (channel: string, text: string) => {
      for (const listen of this.#listeners.get(channel) ?? []) listen(newsOf(text))
    })
    client.on('ready', async () => {
      await client.subscribe(...this.#listeners.keys()).catch(() => {})
      // News were missed while the connection was away.
      for (const listen of [...this.#listeners.values()].flat()) listen({ kind: 'change' })
    })
    return client
  }
}

function newsOf (text: string): News {
  const [kind, id = ''] = text.split(' ', 2)
  return kind === 'ended' ? { kind, id } : { kind: kind === 'change' ? kind : 'work' }
}
