import { isUtf8 } from 'node:buffer'
import { checkWhole, isPlain, LONGEST_TIMER_MS } from '../check.js'
import { FST_TASKQUEUE_PAYLOAD_TOO_LARGE, FST_TASKQUEUE_UNREADABLE } from '../errors.js'
import { checkBackoffList } from './backoff.js'
import { areSame, checkHeader } from './headers.js'
import { checkUserId } from './id.js'
import { checkMethod } from './method.js'
import { isAddress, LOCAL_IP } from './origin.js'
import { makeKey, open, seal, sign } from './sealing.js'
import { MAX_REQ_ID_LENGTH, type Task } from './task.js'
import { LATEST_TIME_MS, MAX_DELAY_MS } from './time.js'
import { canonicalUrl } from './url.js'

export interface CodecSettings {
  /** The prefix of the app's keys. Every seal is bound to it. */
  readonly prefix: string
  readonly secrets: readonly Buffer[]
  readonly encrypt: boolean
  readonly maxPayloadBytes: number
}

/** Turns tasks into the messages that stores keep, and back. */
export interface Codec {
  /** Throws `FST_TASKQUEUE_PAYLOAD_TOO_LARGE` if the message is longer than `maxPayloadBytes`. */
  encode (queue: string, task: Task): string
  /** Throws `FST_TASKQUEUE_UNREADABLE` unless `encode` could have made the message for this id in this queue. */
  decode (queue: string, id: string, message: string): Task
  /**
   * Does the same and returns no payload. It needs no more than the first line of the message, with the line break
   * behind it if there is one.
   */
  decodeHead (queue: string, id: string, message: string): Task
  /**
   * Turns a record of a task, or what is kept of a schedule, into a text that is protected as a message is, and back;
   * undefined if unreadable.
   */
  encodeRecord (queue: string, id: string, record: object, of?: RecordKind): string
  decodeRecord (queue: string, id: string, text: string, of?: RecordKind): object | undefined
  /** Whether a text was made as this codec makes one: with the first of the secrets, or in clear if there are none. */
  isCurrent (text: string): boolean
  /** Does the same for the reason of a verdict. Stores also give reasons of their own, which are plain text. */
  encodeReason (queue: string, id: string, reason: string): string
  decodeReason (queue: string, id: string, text: string): string | undefined
}

/** What a record tells of. A record of one kind is none of another. */
type RecordKind = 'record' | 'schedule'

/**
 * Makes the codec of an app.
 *
 * A message is a head, which is one line. If the task has a payload, a line break and the payload follow. So a store
 * can hand out the head alone to a caller that only asks what a task is.
 *
 * Without secrets both are text that an operator can read. With secrets each is that text encrypted with AES-256-GCM,
 * or, with `encrypt: false`, the text with an HMAC-SHA-256. Both ways bind the head to the prefix, to the queue and the
 * id under which the message is kept, and to whether a payload follows. They bind the payload to its head. So a
 * message that was made up, changed, cut, put together from two or moved elsewhere is unreadable.
 */
export function makeCodec ({ prefix, secrets, encrypt, maxPayloadBytes: maxBytes }: CodecSettings): Codec {
  const keys = secrets.map(makeKey)
  const context = (...names: string[]) => Buffer.from(JSON.stringify([prefix, ...names]))
  const close = (clear: string, ...names: string[]) =>
    keys.length === 0 ? clear : (encrypt ? seal : sign)(keys[0]!, Buffer.from(clear), context(...names))
  const unwrap = (text: string, ...names: string[]) => keys.length === 0 ? text : open(keys, text, context(...names))
  const headNames = (queue: string, id: string, payload: string | undefined) =>
    payload === undefined ? [queue, id] : [queue, id, 'head']
  type ReadPayload = (payload: string, head: string) => string
  const decode = (queue: string, id: string, message: string, readPayload: ReadPayload) => {
    try {
      const [head, payload] = halvesOf(message)
      const text = unwrap(head, ...headNames(queue, id, payload))
      return read(id, text, payload === undefined ? undefined : readPayload(payload, head))
    } catch (error) {
      throw new FST_TASKQUEUE_UNREADABLE((error as Error).message)
    }
  }
  return {
    encode (queue, task) {
      const { head, payload } = write(task)
      const bytes = Buffer.byteLength(head) + (payload === undefined ? 0 : 1 + Buffer.byteLength(payload))
      if (bytes > maxBytes) throw new FST_TASKQUEUE_PAYLOAD_TOO_LARGE(maxBytes, bytes)
      const closed = close(head, ...headNames(queue, task.id, payload))
      return payload === undefined ? closed : `${closed}\n${close(payload, queue, task.id, 'payload', closed)}`
    },
    decode: (queue, id, message) =>
      decode(queue, id, message, (payload, head) => unwrap(payload, queue, id, 'payload', head)),
    decodeHead: (queue, id, message) => ({ ...decode(queue, id, message, () => ''), payload: undefined }),
    encodeRecord: (queue, id, record, of = 'record') => close(JSON.stringify(record), queue, id, of),
    decodeRecord (queue, id, text, of = 'record') {
      try {
        const record: unknown = JSON.parse(unwrap(text, queue, id, of))
        return isPlain(record) ? record as object : undefined
      } catch {
        return undefined
      }
    },
    isCurrent: text => text.startsWith(keys.length === 0 ? '' : `${encrypt ? 's1' : 'm1'}.${keys[0]!.id}.`),
    encodeReason: (queue, id, reason) => close(reason, queue, id, 'reason'),
    decodeReason (queue, id, text) {
      if (!CLOSED.test(text)) return text
      try {
        return unwrap(text, queue, id, 'reason')
      } catch {
        return undefined
      }
    }
  }
}

/** The beginning of a text that was sealed or signed. */
const CLOSED = /^[sm]1\.[\w-]{8}\./

function halvesOf (message: string): [head: string, payload: string | undefined] {
  const end = message.indexOf('\n')
  return end === -1 ? [message, undefined] : [message.slice(0, end), message.slice(end + 1)]
}

const VERSION = 1
const PROTOCOLS: ReadonlySet<unknown> = new Set([undefined, 'http', 'https'])

/**
 * Writes a task as a head, in JSON, and its payload. The head leaves out what most tasks have in common: the first
 * version, and either a JSON payload sent by POST or no payload and GET.
 */
function write (task: Task): { readonly head: string, readonly payload: string | undefined } {
  const {
    payload, method, url, headers, inherited, ip, protocol, userId, depth, addedAt, dueAt, originReqId, maxRetries,
    backoff, timeoutMs, dedupeMs, schedule
  } = task
  const usual = usualWith(payload)
  const isText = payload === undefined || typeof payload === 'string'
  const text = isText ? payload : isUtf8(payload) ? payload.toString() : undefined
  const head: { -readonly [Name in keyof Task]?: Task[Name] } & { base64?: true } = { url }
  if (method !== usual.method) head.method = method
  if (!areSame(headers, usual.headers)) head.headers = headers
  if (inherited !== undefined) head.inherited = inherited
  if (ip !== undefined && ip !== LOCAL_IP) head.ip = ip
  if (protocol !== undefined && protocol !== 'http') head.protocol = protocol
  if (userId !== undefined) head.userId = userId
  if (depth !== 1) head.depth = depth
  if (addedAt !== undefined) head.addedAt = addedAt
  if (dueAt !== undefined) head.dueAt = dueAt
  if (originReqId !== undefined) head.originReqId = originReqId
  if (maxRetries !== undefined) head.maxRetries = maxRetries
  if (backoff !== undefined) head.backoff = backoff
  if (timeoutMs !== undefined) head.timeoutMs = timeoutMs
  if (dedupeMs !== undefined) head.dedupeMs = dedupeMs
  if (schedule !== undefined) head.schedule = schedule
  if (payload !== undefined && text === undefined) head.base64 = true
  return { head: JSON.stringify(head), payload: payload === undefined ? undefined : text ?? payload.toString('base64') }
}

function read (id: string, head: string, text: string | undefined): Task {
  const usual = usualWith(text)
  const {
    v = VERSION, method = usual.method, url, headers = usual.headers, inherited, ip, protocol, base64, userId,
    depth = 1, addedAt, dueAt, originReqId, maxRetries, backoff, timeoutMs, dedupeMs, schedule
  } = parse(head) ?? {}
  if (v !== VERSION) throw new Error(`its version is ${Number(v)}, and this release reads ${VERSION}`)
  if (userId !== undefined && typeof userId !== 'string') throw new Error('its user is not a string')
  if (base64 !== undefined && base64 !== true) throw new Error('its payload is neither text nor base64')
  if (!isPlain(headers)) throw new Error('its headers are not an object')
  if (ip !== undefined && ip !== '' && !isAddress(ip)) throw new Error('its address is not an IP address')
  if (!PROTOCOLS.has(protocol)) throw new Error('its protocol is unknown')
  const hasOrigin = typeof originReqId === 'string' && originReqId.length <= MAX_REQ_ID_LENGTH
  if (schedule !== undefined && !isScheduled(schedule)) throw new Error('its schedule is not one')
  if (originReqId !== undefined && !hasOrigin) throw new Error('its origin is not the id of a request')
  try {
    checkMethod(method)
    checkWhole('inherited', inherited, 1)
    checkWhole('depth', depth, 1)
    checkWhole('addedAt', addedAt, 0)
    checkWhole('dueAt', dueAt, 0)
    checkWhole('maxRetries', maxRetries, 0)
    checkBackoffList('backoff', backoff)
    checkWhole('timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
    checkWhole('dedupeMs', dedupeMs, 0, MAX_DELAY_MS)
    return {
      id,
      method,
      url: canonicalUrl(url),
      headers: headers === usual.headers ? headers : checked(headers),
      inherited,
      ip,
      protocol,
      payload: base64 === true ? Buffer.from(text ?? '', 'base64') : text,
      userId: checkUserId(userId),
      depth,
      addedAt,
      dueAt,
      originReqId,
      maxRetries,
      backoff,
      timeoutMs,
      dedupeMs,
      schedule
    }
  } catch (error) {
    // The code alone: the error's message would quote the content.
    throw new Error(`it does not describe a valid task (${(error as { code?: string }).code})`)
  }
}

function checked (headers: object): Task['headers'] {
  const entries = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const)
  for (const [name, value] of entries) checkHeader(name, value)
  return Object.fromEntries(entries)
}

function isScheduled (value: Partial<Task['schedule']>): boolean {
  const { id, slot, missed } = Object(value) as Record<string, unknown>
  return typeof id === 'string' && Number.isSafeInteger(missed) && Math.abs(Number(slot)) <= LATEST_TIME_MS
}

type Usual = Pick<Task, 'method' | 'headers'>
const WITH_PAYLOAD: Usual = { method: 'POST', headers: { 'content-type': 'application/json' } }
const WITHOUT: Usual = { method: 'GET', headers: {} }
const usualWith = (payload: unknown): Usual => payload === undefined ? WITHOUT : WITH_PAYLOAD

/** Parses JSON. The parser's own message is dropped: it would quote the text, and so put a cookie in a log. */
function parse (json: string) {
  try {
    return JSON.parse(json)
  } catch {
    throw new Error('it is not JSON')
  }
}
