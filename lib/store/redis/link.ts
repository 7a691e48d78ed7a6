import type { Socket } from 'node:net'
import type { Cluster, Redis } from 'ioredis'
import { isTurnedAway, refusalOf } from './refusal.js'

export type Client = Redis | Cluster

/** What a link needs of its store. */
export interface LinkEnds {
  /**
   * Makes a client like the given one. It does not connect yet; once it has, it connects again by itself for as long as
   * it is not closed.
   */
  readonly duplicate: (client: Client) => Client
  /** Is called whenever there is a connection again. */
  readonly onReady: (client: Client) => void
  /** Is called with what Redis says when it turns connections away, once until there is a connection again. */
  readonly onRefused: (text: string) => void
  /** Whether the store has something to tell Redis and needs a connection for it. */
  readonly isAwaited: () => boolean
}

/** For how long a stand-in connection is kept when it is not used, in milliseconds. */
const IDLE_MS = 1000

/**
 * The connection of a store to Redis. A client that the store has made connects again as soon as it can. A client that
 * was passed in belongs to its owner, who may close it at any time, or let it connect again as late as they like. While
 * it is not connected, a connection of the store's own stands in for it.
 */
export class Link {
  readonly client: Client
  readonly #isOurs: boolean
  readonly #ends: LinkEnds
  readonly #listeners: Array<[event: string, listener: (value: unknown) => void]> = []
  /** Why and since when there is no connection. The error of a command says only that there is none. */
  #lastError: Error | undefined
  #downSince: number | undefined
  /** What Redis has said when it turned a connection away. */
  #refusal: Error | undefined
  /** Under way while Redis is asked why it turns connections away. */
  #asking: Promise<void> | undefined
  // These four are independent facts, in any combination, rather than states that follow each other.
  /** Whether the client has ever been connected. Until then nothing stands in for it. */
  #wasUp = false
  /**
   * Whether the client's sign of closing was set already when it connected last, and so means nothing. It stays set if
   * the owner disconnects the client while it waits to connect again, and then connects it.
   */
  #wasClosing = false
  /** Whether `close` was called. */
  #isOver = false
  /** Whether `bypass` was called. */
  #isBypassed = false
  /** Functions that reject the commands under way on the owner's client, which may keep and resend them. */
  readonly #underWay = new Set<(error: Error) => void>()
  /** How many rejected commands the client has kept, and may yet send. */
  #kept = 0
  #standIn: { readonly client: Client, readonly connected: Promise<unknown> } | undefined
  /** How many commands are under way on the stand-in. */
  #uses = 0
  #idle: NodeJS.Timeout | undefined
  readonly #waiters = new Set<() => void>()

  constructor (client: Client, isOurs: boolean, ends: LinkEnds) {
    this.client = client
    this.#isOurs = isOurs
    this.#ends = ends
    this.#wasUp = client.status === 'ready'
    this.#listen('error', error => { this.#noteError(error as Error, client) })
    this.#listen('close', () => { this.#noteLoss() })
    this.#listen('ready', () => {
      this.#wasUp = true
      this.#wasClosing = isClosing(client)
      this.#noteReturn(client)
    })
  }

  get lastError (): Error | undefined { return this.#lastError }

  /** Resolves once `lastError` says what is known of it. */
  async explained (): Promise<void> { await this.#asking }

  /** Since when there is no connection; undefined while there is one. */
  get downSince (): number | undefined { return this.#downSince }

  /** Whether the client is closed or closing, and stays so unless its owner connects it again. */
  get isClosed (): boolean {
    return this.client.status === 'ready' ? isClosing(this.client) && !this.#wasClosing : isClosed(this.client)
  }

  /** Whether the client's owner has closed it. */
  get isAbandoned (): boolean { return !this.#isOver && this.isClosed }

  get isOver (): boolean { return this.#isOver }

  /** How many bytes have come from Redis over the present connections. */
  get bytesRead (): number {
    const client = this.#current()
    const nodes = client.isCluster ? (client as Cluster).nodes() : [client as Redis]
    return nodes.reduce((sum, { stream }) => sum + ((stream as Partial<Socket> | undefined)?.bytesRead ?? 0), 0)
  }

  /** Whether a command would be sent now. */
  get isUp (): boolean {
    return this.#current().status === 'ready' || (!this.#isOurs && !this.#wasUp)
  }

  /** Whether a command that was rejected may still reach Redis. */
  get keepsCommands (): boolean { return this.#kept > 0 }

  /** Runs a command. Rejects if there is no connection, or when it is lost. */
  run<T> (send: (client: Client) => Promise<T>): Promise<T> {
    return this.#isOurs ? send(this.client) : this.#runElsewhere(send)
  }

  async #runElsewhere<T> (send: (client: Client) => Promise<T>): Promise<T> {
    const client = this.#current()
    if (client === this.client) return await this.#unlessLost(send(client))
    this.#uses++
    try {
      // A stand-in that connects for the first time is worth waiting for.
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

  /** Resolves when there is a connection again, at the latest after so many milliseconds. */
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

  /** Does without the owner's client from now on, since it may be connected in name only. */
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
    client.on('error', error => { this.#noteError(error, client) })
    client.on('ready', () => { if (isMeant()) this.#noteReturn(client) })
    client.on('close', () => {
      if (!isMeant()) return
      this.#downSince ??= performance.now()
      // The owner has closed the client, so nothing should keep this process alive for its stand-in.
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

  /** Dismisses the stand-in once nobody has used it for a while. */
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

  #noteError (error: Error, client: Client): void {
    // What Redis has said of the same error holds until there is a connection again.
    if (isTurnedAway(error) && this.#refusal !== undefined) return
    this.#lastError = error
    if (isTurnedAway(error)) this.#askWhy(client)
  }

  #askWhy (client: Client): void {
    this.#asking ??= refusalOf(client).then(text => {
      this.#asking = undefined
      if (text === undefined || this.#downSince === undefined) return
      this.#lastError = this.#refusal = new Error(text)
      this.#ends.onRefused(text)
    })
  }

  #noteReturn (client: Client): void {
    this.#refusal = undefined
    this.#lastError = undefined
    this.#downSince = undefined
    for (const end of [...this.#waiters]) end()
    this.#ends.onReady(client)
    this.#rest()
  }

  /**
   * Rejects the commands under way. The client may resend what it keeps much later, if at all; callers that still want
   * an answer send their commands again.
   */
  #noteLoss (): void {
    this.#downSince ??= performance.now()
    // Redis has closed it without an error, as it may when it turns a connection away.
    if (this.#lastError === undefined && !this.#isOver) this.#askWhy(this.client)
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
 * Whether a client was told to close. Only a private field of the client says so: if it is disconnected while it waits
 * to connect again, it emits nothing, and its status does not change. A command that is sent behind a QUIT can cost the
 * QUIT its answer, so a closing client must not be used.
 */
function isClosing (client: Client): boolean {
  return (client as unknown as { manuallyClosing?: boolean }).manuallyClosing === true
}
