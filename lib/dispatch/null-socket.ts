import { EventEmitter } from 'node:events'
import type { ServerResponse } from 'node:http'
import { LOCAL_IP } from '../task/origin.js'
import type { Task } from '../task/task.js'

/** The members of a response that Node's server uses. */
interface Flushable extends ServerResponse {
  readonly outputData: Array<{ data: string, encoding: string, callback: null }>
  _flush (): void
}

/** How many bytes of an answer are taken in at once. An answer without an end must let others run. */
const AT_ONCE_BYTES = 64 * 1024
/** How many bytes a write counts for in addition to its own. */
const WRITE_BYTES = 64

/** The members of a socket that say where a request comes from. */
export interface Peer {
  readonly remoteAddress?: string | undefined
  readonly remoteFamily?: string | undefined
  readonly encrypted?: true
}

/** A socket without a connection, which drops what is written. It does to a response what Node's server does. */
export class NullSocket extends EventEmitter implements Peer {
  readonly remoteAddress: string | undefined
  readonly remoteFamily: string | undefined
  /** Only sockets of TLS have this. */
  readonly encrypted?: true
  readonly readable = false
  readonly _writableState = { corked: 0 }
  writable = true
  destroyed = false
  /** The bytes that were written and are not gone yet, as far as others can see. */
  writableLength = 0
  writableNeedDrain = false
  response?: ServerResponse
  #taken = 0
  #isWriting = false
  /** Callbacks to call once the written bytes are gone. */
  readonly #waiting: Array<() => void> = []
  #timer?: NodeJS.Timeout

  constructor (ip = LOCAL_IP, protocol?: Task['protocol']) {
    super()
    this.remoteAddress = ip === '' ? undefined : ip
    this.remoteFamily = ip === '' ? undefined : ip.includes(':') ? 'IPv6' : 'IPv4'
    if (protocol === 'https') this.encrypted = true
  }

  write (chunk: string | Uint8Array, encoding?: unknown, callback?: unknown): boolean {
    const done = typeof encoding === 'function' ? encoding : callback
    if (typeof done === 'function') this.#waiting.push(done as () => void)
    this.#timer?.refresh()
    this.writableLength += chunk.length
    this.#taken += chunk.length + WRITE_BYTES
    if (this.#taken >= AT_ONCE_BYTES && !this.writableNeedDrain) {
      this.writableNeedDrain = true
      setImmediate(drain, this)
    }
    if (!this.#isWriting) {
      this.#isWriting = true
      process.nextTick(settle, this)
    }
    return !this.writableNeedDrain
  }

  settle (): void {
    if (this.writableNeedDrain) return
    this.#isWriting = false
    this.writableLength = 0
    for (const done of this.#waiting.splice(0)) done()
  }

  drain (): void {
    this.#taken = 0
    this.writableNeedDrain = false
    this.settle()
    if (this.destroyed) return
    this.emit('drain')
    // A response takes back that it needs to drain only when it flushes something, so it is given an empty piece.
    const response = this.response as Flushable | undefined
    if (response?.writableNeedDrain !== true) return
    response.outputData.push({ data: '', encoding: 'latin1', callback: null })
    response._flush()
  }

  end (): this {
    this.writable = false
    process.nextTick(() => {
      this.emit('finish')
      this.destroy()
    })
    return this
  }

  destroy (error?: Error): this {
    if (this.destroyed) return this
    this.destroyed = true
    this.writable = false
    clearTimeout(this.#timer)
    process.nextTick(() => {
      if (error !== undefined && error !== null) this.emit('error', error)
      this.emit('close')
    })
    return this
  }

  setTimeout (ms: number, callback?: () => void): this {
    clearTimeout(this.#timer)
    this.#timer = undefined
    if (callback !== undefined) this.once('timeout', callback)
    if (ms > 0) this.#timer = setTimeout(() => { this.#timeOut() }, ms)
    return this
  }

  /** Closes the connection unless the response listens for timeouts. */
  #timeOut (): void {
    this.emit('timeout')
    if (this.response?.emit('timeout', this) !== true) this.destroy()
  }

  destroySoon (): void { this.end() }
  cork (): void {}
  uncork (): void {}
  pause (): this { return this }
  resume (): this { return this }
  ref (): this { return this }
  unref (): this { return this }
  setNoDelay (): this { return this }
  setKeepAlive (): this { return this }
  address (): object { return {} }
}

// These are passed with their argument, which costs less than a closure for each call.
const settle = (socket: NullSocket) => { socket.settle() }
const drain = (socket: NullSocket) => { socket.drain() }
