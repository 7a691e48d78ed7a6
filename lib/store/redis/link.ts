import type { Socket } from 'node:net'
import type { Cluster, Redis } from 'ioredis'

export type Client = Redis | Cluster

/** What a link asks of its store. */
export interface LinkEnds {
  /** Makes a client like the given one that connects by itself for as long as it is not closed. It does not connect yet. */
  readonly duplicate: (client: Client) => Client
  /** Called whenever there is a connection again. */
  readonly onReady: (client: Client) => void
  /** Whether something has to be said that only a connection can bring about. */
  readonly isAwaited: () => boolean
}

/** How long a connection that stands in is kept when it is not used. */
const IDLE_MS = 1000

/**
 * The connection of a store to Redis. A client that the store has made connects again as soon as it can. A client that
 * was passed in is its owner's, who may close it at any time, or have it connect again as late as they like: while it is
 * not connected, a connection of the store's own stands in for it.
 */
export class Link {
  readonly client: Client
  readonly #isOurs: boolean
  readonly #ends: LinkEnds
  readonly #listeners: Array<[event: string, listener: (value: unknown) => void]> = []
  /** Why and since when there is no connection: an error of a command says only that there is none. */
  #lastError: Error | undefined
  #downSince: number | undefined
  /** Before the client has been connected for the first time nothing stands in for it. */
  #wasUp = false
  /** Whether it was still said to be closing when it was connected last: so it is if it was disconnected while it waited to connect again. */
  #wasClosing = false
  #isOver = false
  #isBypassed = false
  /** Reject the commands that are under way on a client of somebody else's, which may keep them to send them again. */
  readonly #underWay = new Set<(error: Error) => void>()
  /** How many commands it has kept so, and may yet send. */
  #kept = 0
  #standIn: { readonly client: Client, readonly connected: Promise<unknown> } | undefined
  /** How many commands are under way on the connection that stands in. */
  #uses = 0
  #idle: NodeJS.Timeout | undefined
  readonly #waiters = new Set<() => void>()

  constructor (client: Client, isOurs: boolean, ends: LinkEnds) {
    this.client = client
    this.#isOurs = isOurs
    this.#ends = ends
    this.#wasUp = client.status === 'ready'
    this.#listen('error', error => { this.#lastError = error as Error })
    this.#listen('close', () => { this.#noteLoss() })
    this.#listen('ready', () => {
      this.#wasUp = true
      this.#wasClosing = isClosing(client)
      this.#noteReturn(client)
    })
  }

  get lastError (): Error | undefined { return this.#lastError }

  /** Since when there is no connection; undefined while there is. */
  get downSince (): number | undefined { return this.#downSince }

  /** Whether the client is closed, or about to be, and stays so unless its owner connects it again. */
  get isClosed (): boolean {
    return this.client.status === 'ready' ? isClosing(this.client) && !this.#wasClosing : isClosed(this.client)
  }

  /** Whether that is its owner's doing. */
  get isAbandoned (): boolean { return !this.#isOver && this.isClosed }

  get isOver (): boolean { return this.#isOver }

  /** How many bytes have come from Redis over the connections that there are. */
  get bytesRead (): number {
    const client = this.#current()
    const nodes = client.isCluster ? (client as Cluster).nodes() : [client as Redis]
    return nodes.reduce((sum, { stream }) => sum + ((stream as Partial<Socket> | undefined)?.bytesRead ?? 0), 0)
  }

  /** Whether a command would be sent now. */
  get isUp (): boolean {
    return this.#current().status === 'ready' || (!this.#isOurs && !this.#wasUp)
  }

  /** Whether a command that was given up may still reach Redis. */
  get keepsCommands (): boolean { return this.#kept > 0 }

  /** Runs a command; rejects when its connection is lost, or there is none. */
  run<T> (send: (client: Client) => Promise<T>): Promise<T> {
    return this.#isOurs ? send(this.client) : this.#runElsewhere(send)
  }

  async #runElsewhere<T> (send: (client: Client) => Promise<T>): Promise<T> {
    const client = this.#current()
    if (client === this.client) return await this.#unlessLost(send(client))
    this.#uses++
    try {
      // The first time it is worth waiting for.
      if (client.status !== 'ready') await this.#standIn!.connected
      return await send(client)
    } finally {
      this.#uses--
      this.#rest()
    }
  }

  #unlessLost<T> (command: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const lose = (error: Error) => {
        this.#kept++
        command.catch(() => {}).finally(() => { this.#kept-- })
        reject(error)
      }
      this.#underWay.add(lose)
      command.finally(() => { this.#underWay.delete(lose) }).then(resolve, reject)
    })
  }

  /** Resolves when there is a connection again, or after some time. */
  reconnected (ms: number): Promise<void> {
    return new Promise(resolve => {
      const timer = setTimeout(() => { end() }, ms).unref()
      const end = () => {
        clearTimeout(timer)
        this.#waiters.delete(end)
        resolve()
      }
      this.#waiters.add(end)
    })
  }

  /** Does without the client from now on, unless it is the store's own: it may be connected in name only. */
  bypass (): void { this.#isBypassed = true }

  close (): void {
    this.#isOver = true
    clearTimeout(this.#idle)
    this.#dismiss()
    if (this.#isOurs) this.client.disconnect()
    else for (const [event, listener] of this.#listeners) this.client.off(event, listener)
  }

  #current (): Client {
    if (this.#isOurs || this.#isOver) return this.client
    const isFit = this.client.status === 'ready' ? !this.#isBypassed : !this.#wasUp
    return isFit && !this.isClosed ? this.client : (this.#standIn ??= this.#makeStandIn()).client
  }

  #makeStandIn (): { client: Client, connected: Promise<unknown> } {
    const client = this.#ends.duplicate(this.client)
    const isMeant = () => client === this.#standIn?.client
    client.on('error', error => { this.#lastError = error as Error })
    client.on('ready', () => { if (isMeant()) this.#noteReturn(client) })
    client.on('close', () => {
      if (!isMeant()) return
      this.#downSince ??= performance.now()
      // Nobody would keep this process alive for it, whose client is closed.
      if (this.isClosed && !this.#isAwaited) this.#dismiss()
    })
    const connected = client.connect()
    connected.catch(() => {})
    return { client, connected }
  }

  #dismiss (): void {
    this.#standIn?.client.disconnect()
    this.#standIn = undefined
  }

  /** Does without the connection that stands in once nobody has used it for a while. */
  #rest (): void {
    clearTimeout(this.#idle)
    if (this.#standIn === undefined) return
    this.#idle = setTimeout(() => {
      const isNeeded = this.#isAwaited || (this.client.status !== 'ready' && !this.isClosed)
      if (isNeeded) this.#rest()
      else this.#dismiss()
    }, IDLE_MS).unref()
  }

  get #isAwaited (): boolean {
    return this.#uses + this.#waiters.size > 0 || this.#ends.isAwaited()
  }

  #noteReturn (client: Client): void {
    this.#lastError = undefined
    this.#downSince = undefined
    for (const end of [...this.#waiters]) end()
    this.#ends.onReady(client)
    this.#rest()
  }

  /** What the client keeps may be sent again much later, if at all: it is given up here, and sent again by whoever still wants it. */
  #noteLoss (): void {
    this.#downSince ??= performance.now()
    const error = new Error('the connection was lost')
    for (const lose of [...this.#underWay]) lose(error)
    this.#underWay.clear()
    if (this.#ends.isAwaited()) this.#current()
  }

  #listen (event: string, listener: (value: unknown) => void): void {
    this.#listeners.push([event, listener])
    this.client.on(event, listener)
  }
}

/** Whether a client is closed and does not connect again by itself. */
export function isClosed (client: Client): boolean {
  return client.status === 'end' || isClosing(client)
}

/**
 * Whether a client was told to close. One that is disconnected while it waits to connect again says nothing, and its
 * status does not change; and what is sent behind a QUIT can cost that its answer. What tells is a field of its own.
 */
function isClosing (client: Client): boolean {
  return (client as unknown as { manuallyClosing?: boolean }).manuallyClosing === true
}
