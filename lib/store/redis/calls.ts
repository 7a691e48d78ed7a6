import { createHash, randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { Deadlines } from '../../deadlines.js'
import { FST_TASKQUEUE_UNREACHABLE } from '../../errors.js'
import type { Held } from '../turn.js'
import { encodePart } from './commands/part.js'
import { encodeSlice } from './commands/slice.js'
import type { Link } from './link.js'
import { PART_MISSING } from './lua/prelude.js'
import { scripts, type ScriptName } from './scripts.js'
import { pack, SliceSize } from './slices.js'

export type Arguments = ReadonlyArray<string | number>

/**
 * A script with its keys and arguments. Arguments that are too large for one message are sent ahead, in parts, of which
 * `at` bytes have arrived.
 */
export interface Call {
  readonly script: ScriptName
  readonly keys: readonly string[]
  readonly args: Arguments
  readonly upload?: { readonly key: string, readonly bytes: Buffer, at: number, parts: number }
}

/** The most arguments that one message has. */
export const MAX_ARGS = 10_000

const digests = Object.fromEntries(
  Object.entries(scripts).map(([name, { body }]) => [name, createHash('sha1').update(body).digest('hex')])
) as Record<ScriptName, string>

/**
 * Calls scripts of Redis over a link. All answers come one behind the other. Large arguments and messages therefore
 * travel in slices, with room for other calls between them, so that no call waits long for the bytes of another.
 */
export class Calls {
  readonly #link: Link
  readonly #isOurs: boolean
  readonly #timeoutMs: number
  readonly #deadlines: Deadlines
  readonly #address: string
  readonly #upSize = new SliceSize()
  readonly #downSize = new SliceSize()
  /** The last slices to be sent and to be fetched. Only one is on its way at a time, in each direction. */
  #sending: Promise<unknown> = Promise.resolve()
  #fetching: Promise<unknown> = Promise.resolve()

  /** @param isOurs whether the store has made the client, which then sends a command now or never */
  constructor (link: Link, isOurs: boolean, timeoutMs: number, address: string) {
    this.#link = link
    this.#isOurs = isOurs
    this.#timeoutMs = timeoutMs
    this.#deadlines = new Deadlines(timeoutMs)
    this.#address = address
  }

  /** How many bytes of messages one reply should hold. It adapts to the connection. */
  get replyBytes (): number { return this.#downSize.bytes }

  /** Learns how long a reply with so many bytes of messages took. */
  noteReply (bytes: number, ms: number): void {
    if (bytes > 0) this.#downSize.note(bytes, ms)
  }

  /** Learns that a reply has not come. */
  noteNoReply (): void { this.#downSize.shrink() }

  /** Runs a script. Rejects if there is no answer in time. */
  async run (script: ScriptName, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.inTime(this.#call(script, keys, args))
  }

  /** Whether arguments of so many bytes travel in one message. */
  fits (args: Arguments, bytes: number): boolean {
    return bytes <= this.#upSize.bytes && args.length <= MAX_ARGS
  }

  /**
   * Decides how arguments of so many bytes travel. Redis keeps arguments that arrive in parts under a key that begins
   * with `name`, for a while.
   */
  callOf (script: ScriptName, keys: readonly string[], args: Arguments, bytes: number, name: string): Call {
    if (this.fits(args, bytes)) return { script, keys, args }
    const upload = { key: `${name}:call:${randomUUID()}`, bytes: pack(args), at: 0, parts: 0 }
    return { script, keys, args: [], upload }
  }

  /**
   * Makes a call, however long the answer takes. Rejects when the connection is lost, which the client notices.
   *
   * @param sent is called if Redis may get the call, whatever its answer
   * @param isWanted is asked once the parts have arrived; if it says no, the call is not made
   */
  async send ({ script, keys, args, upload }: Call, sent?: () => void, isWanted = () => true): Promise<unknown> {
    if (upload === undefined) return await this.#call(script, keys, args, sent)
    for (let isLast = false; ; isLast = true) {
      while (upload.at < upload.bytes.length) {
        const part = this.#sending.then(() => this.#sendPart(upload, script === 'turn', isWanted))
        this.#sending = part.catch(() => {})
        await part
      }
      if (!isWanted()) throw this.#tooSlow()
      try {
        const reply = await this.#call(script, [...keys, upload.key], ['', upload.parts], sent)
        this.#call('leave', [upload.key], []).catch(() => {})
        return reply
      } catch (error) {
        if (isLast || !(error as Error).message.includes(PART_MISSING)) throw error
        upload.at = upload.parts = 0
      }
    }
  }

  async #sendPart (upload: NonNullable<Call['upload']>, whenFull: boolean, isWanted: () => boolean): Promise<void> {
    if (!isWanted()) throw this.#tooSlow()
    const start = performance.now()
    const bytes = upload.bytes.subarray(upload.at, upload.at + this.#upSize.bytes)
    try {
      await this.#call('part', [upload.key], encodePart(upload.parts + 1, bytes, whenFull))
    } catch (error) {
      if (!isAnswer(error)) this.#upSize.shrink()
      throw error
    }
    this.#upSize.note(bytes.length, performance.now() - start)
    upload.at += bytes.length
    upload.parts++
  }

  /** Makes a call, and makes it again after each loss of the connection while there is time. */
  async insist (call: Call, sent: () => void): Promise<unknown> {
    const start = performance.now()
    for (;;) {
      let isWanted = true
      try {
        return await this.inTime(this.send(call, sent, () => isWanted))
      } catch (error) {
        isWanted = false
        const leftMs = Math.min(start, this.#link.downSince ?? start) + this.#timeoutMs - performance.now()
        if (isAnswer(error) || leftMs <= 0) throw error
        await this.#untilBack(leftMs)
      }
    }
  }

  /**
   * Fetches the message of a held lease, of so many bytes, slice by slice. It waits for the messages that are being
   * fetched already, so that their tasks can run. After a loss of the connection it goes on from where it was. Resolves
   * to undefined if the lease is lost, or when the signal aborts.
   */
  async fetch (keys: readonly string[], lease: Held, length: number, signal: AbortSignal): Promise<string | undefined> {
    const message = this.#fetching.then(() => this.#fetchSlices(keys, lease, length, signal))
    this.#fetching = message
    const aborted = new Promise<undefined>(resolve => {
      signal.addEventListener('abort', () => { resolve(undefined) }, { once: true })
    })
    return await Promise.race([message, aborted])
  }

  async #fetchSlices (
    keys: readonly string[], lease: Held, length: number, signal: AbortSignal
  ): Promise<string | undefined> {
    const slices: Buffer[] = []
    let at = 0
    while (at < length && !signal.aborted && !this.#link.isOver) {
      const start = performance.now()
      try {
        const args = encodeSlice(lease, at, this.replyBytes)
        const slice = await this.#call('slice', keys, args, undefined, true) as Buffer | null
        if (slice === null || slice.length === 0) return undefined
        this.#downSize.note(slice.length, performance.now() - start)
        slices.push(slice)
        at += slice.length
      } catch (error) {
        if (isAnswer(error)) return undefined
        this.#downSize.shrink()
        await this.#untilBack(this.#timeoutMs)
      }
    }
    return at === length ? Buffer.concat(slices).toString() : undefined
  }

  /** Waits for the answer to a command that is no script, and rejects if it takes too long. */
  async answerTo<T> (command: Promise<T>): Promise<T> {
    return await this.inTime(command.catch(error => { throw this.unreachable(error) }))
  }

  /** Waits for an answer, and rejects if it takes too long. */
  inTime<T> (answer: Promise<T>): Promise<T> {
    return this.#deadlines.within(answer, () => this.#tooSlow())
  }

  /** Waits for an answer for as long as bytes keep coming from Redis. */
  whileItFlows<T> (answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      let read = this.#link.bytesRead
      const timer = setInterval(() => {
        const before = read
        read = this.#link.bytesRead
        if (read !== before) return
        clearInterval(timer)
        reject(this.#tooSlow())
      }, this.#timeoutMs)
      answer.finally(() => { clearInterval(timer) }).then(resolve, reject)
    })
  }

  /** Returns the error that says why Redis cannot be used. */
  cannot (why: string): Error {
    return new FST_TASKQUEUE_UNREACHABLE(this.#address, why)
  }

  /**
   * Makes the store's error of one of the client. The client's carries its command, and with it payloads and passwords
   * that do not belong in a log, so only its message is passed on.
   */
  unreachable (error: unknown): Error {
    // A command that cannot even be sent counts as refused by Redis.
    const isReply = (error as Error).name === 'ReplyError' || error instanceof RangeError || error instanceof TypeError
    if (!isReply && this.#link.isAbandoned) return this.cannot(CLIENT_IS_CLOSED)
    const { message, code } = (isReply ? error : this.#link.lastError ?? error) as NodeJS.ErrnoException
    // If a host has several addresses and none answers, the error has a code and no message.
    const unreachable = this.cannot(message || String(code))
    if (isReply && !TURNS_AWAY.test(unreachable.message)) answers.add(unreachable)
    return unreachable
  }

  #tooSlow (): Error {
    return this.unreachable(new Error(`no answer within ${this.#timeoutMs} ms`))
  }

  async #call (
    script: ScriptName, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>, sent?: () => void,
    asBytes = false
  ): Promise<unknown> {
    const [evalsha, evaluate] = asBytes ? ['evalshaBuffer', 'evalBuffer'] as const : ['evalsha', 'eval'] as const
    try {
      return await this.#link.run(client => {
        // A client that the user has made may keep the command and send it later.
        if (client.status === 'ready' || !this.#isOurs) sent?.()
        // The client's types lack some of its methods.
        const methods = client as unknown as Record<typeof evalsha | typeof evaluate, Redis['evalsha']>
        return methods[evalsha](digests[script], keys.length, ...keys, ...args).catch(async (error: Error) => {
          if (!error.message.startsWith('NOSCRIPT')) throw error
          return await methods[evaluate](scripts[script].body, keys.length, ...keys, ...args)
        })
      })
    } catch (error) {
      throw this.unreachable(error)
    }
  }

  /** Waits until the connection is back, at most so many milliseconds. */
  async #untilBack (leftMs: number): Promise<void> {
    // If the link seems to be up, Redis has turned the command away, or the client has not noticed the loss yet.
    await this.#link.reconnected(this.#link.isUp ? Math.min(leftMs, 100) : leftMs)
  }
}

/** Errors that are an answer of Redis, rather than the lack of one. */
const answers = new WeakSet<object>()
export const isAnswer = (error: unknown): boolean => answers.has(error as object)

/** Replies of a Redis that is no longer the master, or not yet. They answer nothing. */
const TURNS_AWAY = /: (?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) /

export const CLIENT_IS_CLOSED = 'its client was closed by its owner, or has given up connecting'
