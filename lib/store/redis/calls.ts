import { createHash, randomUUID } from 'node:crypto'
import type { Redis } from 'ioredis'
import { FST_TASKQUEUE_UNREACHABLE } from '../../errors.js'
import { encodePart } from './commands/part.js'
import { encodeSlice } from './commands/slice.js'
import type { Link } from './link.js'
import { PART_MISSING } from './lua/prelude.js'
import { scripts, type ScriptName } from './scripts.js'
import { pack, SliceSize } from './slices.js'

export type Arguments = ReadonlyArray<string | number>

/** A script with what it is passed. Of arguments that are too much for one message parts are sent ahead, of which `at` bytes have arrived. */
export interface Call {
  readonly script: ScriptName
  readonly keys: readonly string[]
  readonly args: Arguments
  readonly upload?: { readonly key: string, readonly bytes: Buffer, at: number, parts: number }
}

/** How many arguments one message has at most. */
export const MAX_ARGS = 10_000

const digests = Object.fromEntries(
  Object.entries(scripts).map(([name, { body }]) => [name, createHash('sha1').update(body).digest('hex')])
) as Record<ScriptName, string>

/**
 * Calls scripts of Redis over a link. The answers to all calls come one behind the other: so that none has to wait long
 * for the bytes of another, what is large travels in slices, in either direction, with room for other calls between them.
 */
export class Calls {
  readonly #link: Link
  readonly #isOurs: boolean
  readonly #timeoutMs: number
  readonly #address: string
  readonly #upSize = new SliceSize()
  readonly #downSize = new SliceSize()
  /** What is sent and fetched in slices, of which one is on its way at a time. */
  #sending: Promise<unknown> = Promise.resolve()
  #fetching: Promise<unknown> = Promise.resolve()

  /** @param isOurs whether a client sends a command now or never */
  constructor (link: Link, isOurs: boolean, timeoutMs: number, address: string) {
    this.#link = link
    this.#isOurs = isOurs
    this.#timeoutMs = timeoutMs
    this.#address = address
  }

  /** How many bytes of messages one reply should hold. */
  get replyBytes (): number { return this.#downSize.bytes }

  /** Learns how long a reply with so many bytes of messages took, or that one has not come. */
  noteReply (bytes: number, ms: number): void {
    if (bytes > 0) this.#downSize.note(bytes, ms)
  }

  noteNoReply (): void { this.#downSize.shrink() }

  /** Runs a script, and fails when there is no answer in time. */
  async run (script: ScriptName, keys: readonly string[], args: Arguments): Promise<unknown> {
    return await this.inTime(this.#call(script, keys, args))
  }

  /** Whether arguments with so many bytes travel in one message. */
  fits (args: Arguments, bytes: number): boolean {
    return bytes <= this.#upSize.bytes && args.length <= MAX_ARGS
  }

  /** Decides how arguments with so many bytes travel. What has to arrive in parts is kept for a while under a key of that name. */
  callOf (script: ScriptName, keys: readonly string[], args: Arguments, bytes: number, name: string): Call {
    if (this.fits(args, bytes)) return { script, keys, args }
    return { script, keys, args: [], upload: { key: `${name}:call:${randomUUID()}`, bytes: pack(args), at: 0, parts: 0 } }
  }

  /**
   * Makes a call, however long the answer takes: until the connection is lost, which the client notices. Calls `sent` if
   * Redis may get it, whatever its answer; and makes none when that is not wanted any more once the parts have arrived.
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

  /** Makes a call again after each loss of the connection while there is time. */
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
   * Fetches a message of so many bytes that somebody holds, slice by slice, and behind those that are fetched already,
   * so that these can be run. A connection that is lost lets it go on from where it was. Undefined when the lease is lost, or
   * nobody wants it any more.
   */
  async fetch (keys: readonly string[], id: string, fence: number, length: number, signal: AbortSignal): Promise<string | undefined> {
    const message = this.#fetching.then(() => this.#fetchSlices(keys, id, fence, length, signal))
    this.#fetching = message
    const aborted = new Promise<undefined>(resolve => { signal.addEventListener('abort', () => { resolve(undefined) }, { once: true }) })
    return await Promise.race([message, aborted])
  }

  async #fetchSlices (keys: readonly string[], id: string, fence: number, length: number, signal: AbortSignal): Promise<string | undefined> {
    const slices: Buffer[] = []
    let at = 0
    while (at < length && !signal.aborted && !this.#link.isOver) {
      const start = performance.now()
      try {
        const slice = await this.#call('slice', keys, encodeSlice({ id, fence }, at, this.replyBytes), undefined, true) as Buffer | null
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

  /** Waits for the answer to a command that is no script, but not for ever. */
  async answerTo<T> (command: Promise<T>): Promise<T> {
    return await this.inTime(command.catch(error => { throw this.unreachable(error) }))
  }

  /** Waits for an answer, but not for ever. */
  inTime<T> (answer: Promise<T>): Promise<T> {
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => { reject(this.#tooSlow()) }, this.#timeoutMs)
      answer.finally(() => { clearTimeout(timer) }).then(resolve, reject)
    })
  }

  /** Waits for an answer as long as anything is on its way from Redis. */
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

  cannot (why: string): Error {
    return new FST_TASKQUEUE_UNREACHABLE(this.#address, why)
  }

  /** An error of the client carries its command, and with it payloads and passwords that do not belong in a log: only its message is passed on. */
  unreachable (error: unknown): Error {
    // What cannot even be sent is refused as well.
    const isReply = (error as Error).name === 'ReplyError' || error instanceof RangeError || error instanceof TypeError
    if (!isReply && this.#link.isAbandoned) return this.cannot(CLIENT_IS_CLOSED)
    const { message, code } = (isReply ? error : this.#link.lastError ?? error) as NodeJS.ErrnoException
    // The error of a host with several addresses, none of which answers, has a code and no message.
    const unreachable = this.cannot(message || String(code))
    if (isReply && !TURNS_AWAY.test(unreachable.message)) answers.add(unreachable)
    return unreachable
  }

  #tooSlow (): Error {
    return this.unreachable(new Error(`no answer within ${this.#timeoutMs} ms`))
  }

  async #call (
    script: ScriptName, keys: readonly string[], args: ReadonlyArray<string | number | Buffer>, sent?: () => void, asBytes = false
  ): Promise<unknown> {
    const [evalsha, evaluate] = asBytes ? ['evalshaBuffer', 'evalBuffer'] as const : ['evalsha', 'eval'] as const
    try {
      return await this.#link.run(client => {
        // A client of the user's may keep it and send it later.
        if (client.status === 'ready' || !this.#isOurs) sent?.()
        // The types of the client leave some of its methods out.
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

  /** Waits for the connection to come back, but not longer. */
  async #untilBack (leftMs: number): Promise<void> {
    // Where it seems to be up it has turned us away, or its end has not been noticed yet.
    await this.#link.reconnected(this.#link.isUp ? Math.min(leftMs, 100) : leftMs)
  }
}

/** Errors with which Redis has answered, rather than not. */
const answers = new WeakSet<object>()
export const isAnswer = (error: unknown): boolean => answers.has(error as object)

/** Replies of a Redis that is not the master, any more, or not yet: they answer nothing. */
const TURNS_AWAY = /: (?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) /

export const CLIENT_IS_CLOSED = 'its client was closed by its owner, or has given up connecting'
