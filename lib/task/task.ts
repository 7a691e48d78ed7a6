import { randomUUID } from 'node:crypto'
import { validateHeaderName, validateHeaderValue } from 'node:http'
import { isIP } from 'node:net'
import { isDate, isUint8Array } from 'node:util/types'
import {
  FST_TASKQUEUE_INVALID_DELAY, FST_TASKQUEUE_INVALID_HEADER, FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_METHOD,
  FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_PAYLOAD, FST_TASKQUEUE_INVALID_URL
} from '../errors.js'
import { cut, kindOf, show } from '../show.js'
import type { NewTask, OnDuplicate } from '../store/store.js'

/** A request to be made later. */
export interface Task {
  readonly id: string
  readonly method: TaskMethod
  /** A path of this app, in canonical form. */
  readonly url: string
  /** By name in lower case, those first that were inherited. */
  readonly headers: Readonly<Record<string, string>>
  /** How many of the headers were inherited: they do not choose the task's route. @default 0 */
  readonly inherited?: number
  /** The address that the task comes from; empty if it comes from none. @default 127.0.0.1 */
  readonly ip?: string
  /** @default http */
  readonly protocol?: Protocol
  /** Text, or bytes that may be none. */
  readonly payload?: string | Buffer
  /** Who queued it. */
  readonly userId?: string
  /** Its place in a chain of tasks in which each one was added by the one before, from 1. */
  readonly depth: number
  /** Instead of the consumer's. */
  readonly maxRetries?: number
  readonly timeoutMs?: number
  /** For how long after it is done its id keeps others out. */
  readonly dedupeMs?: number
}

export type TaskMethod = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'
export type Protocol = 'http' | 'https'

/** Where a task comes from that no request adds. */
export const LOCAL_HOST = 'localhost'
export const LOCAL_IP = '127.0.0.1'

type QueryValue = string | number | boolean

export interface AddOptions {
  /** @default 'POST' when a payload is given, else 'GET' */
  method?: TaskMethod
  /** Appended to the url's own query string; an array repeats its name, undefined leaves it out. */
  query?: Readonly<Record<string, QueryValue | readonly QueryValue[] | undefined>>
  /** Added to the copied headers and replacing them, without regard to case; null removes one. */
  headers?: Readonly<Record<string, string | null>>
  /**
   * An object is sent as JSON, a string as plain text, a URLSearchParams as a form
   * and a Buffer as it is, unless `headers` names another content type; null sends none.
   * @default the body of the current request, where the method is POST, PUT or PATCH
   */
  payload?: object | string | Uint8Array | URLSearchParams | null
  /** @default the alphabetically first queue */
  queue?: string
  /** 1 to 255 printable ASCII characters without spaces. @default a UUID v7 */
  id?: string
  /**
   * What becomes of this task when one of the same `id` waits, is delayed, runs or is dead in the queue:
   * `'keep'` adds nothing, `'reject'` fails the commit with `FST_TASKQUEUE_DUPLICATE`, and `'replace'`
   * puts this one in its place, or behind it if it runs. @default 'keep'
   */
  onDuplicate?: OnDuplicate
  /** For how many milliseconds after this task is done its `id` still keeps others out, at most 30 days. @default 0 */
  dedupeMs?: number
  /** Milliseconds from the commit after which the task is not begun any more, at most 30 days. @default never */
  expiresMs?: number
  /** Milliseconds from the commit until the task may run, at most 30 days. @default 0 */
  delayMs?: number
  /** The time at which the task may run, at most 30 days ahead: a Date, an ISO 8601 string or milliseconds since the epoch. */
  runAt?: Date | string | number
  /** How often to try again. @default the consumer's */
  maxRetries?: number
  /** How long one attempt may take, in milliseconds. @default the consumer's */
  timeoutMs?: number
}

/** What a task takes over from the request that adds it, where `add` does not say otherwise. */
export interface Inheritance {
  /** Without the host. */
  readonly headers: Readonly<Record<string, string>>
  readonly host?: string
  readonly ip?: string
  readonly protocol?: Protocol
  /** Copies the body; throws when that cannot be done faithfully. */
  payload (): Payload | undefined
}

/** What is sent, and the media type under which it is. */
export interface Payload { readonly content: string | Buffer, readonly contentType?: string }

const METHODS: ReadonlySet<unknown> = new Set<TaskMethod>(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])
const BODY_IS_COPIED: ReadonlySet<string> = new Set<TaskMethod>(['POST', 'PUT', 'PATCH'])
const OPTIONS: readonly string[] = [
  'method', 'query', 'headers', 'payload', 'queue', 'id', 'onDuplicate', 'dedupeMs', 'delayMs', 'runAt', 'expiresMs', 'maxRetries', 'timeoutMs'
] satisfies Array<keyof AddOptions>
const ON_DUPLICATE: ReadonlySet<unknown> = new Set<OnDuplicate>(['keep', 'reject', 'replace'])
/** A longer one would fire at once. */
export const LONGEST_TIMER_MS = 0x7fffffff
/** 30 days. */
export const MAX_DELAY_MS = 30 * 24 * 60 * 60 * 1000

/** Makes a task of what `add` was given. Checks everything, so that what is refused is refused before anything has happened. */
export function makeTask (
  url: string, options: AddOptions, inheritance?: Inheritance
): Omit<Task, 'depth' | 'ip' | 'protocol'> {
  checkOptions('options', options, OPTIONS, 'add')
  const method = options.method ?? (options.payload == null ? 'GET' : 'POST')
  checkMethod(method)
  const payload = payloadOf(method, options.payload, inheritance)
  const { maxRetries, timeoutMs, dedupeMs } = options
  checkWhole('maxRetries', maxRetries, 0)
  checkWhole('timeoutMs', timeoutMs, 1, LONGEST_TIMER_MS)
  checkWhole('dedupeMs', dedupeMs, 0, MAX_DELAY_MS)
  return {
    id: idOf(options.id),
    method,
    url: canonicalUrl(url, options.query),
    ...headersOf(options.headers, payload, inheritance),
    payload: payload?.content,
    maxRetries,
    timeoutMs,
    dedupeMs
  }
}

/** How a task is to be added, in the words of a store. */
export function placeOf (options: AddOptions): Pick<NewTask, 'delayMs' | 'runAt' | 'expiresMs' | 'onDuplicate'> {
  const { id, dedupeMs, expiresMs, onDuplicate = id === undefined ? undefined : 'keep' } = options
  if (id === undefined && (onDuplicate !== undefined || dedupeMs !== undefined)) {
    const [name, value] = onDuplicate === undefined ? ['dedupeMs', dedupeMs] : ['onDuplicate', onDuplicate]
    throw new FST_TASKQUEUE_INVALID_OPTION(name, 'left out where the task is given no id', show(value))
  }
  if (onDuplicate !== undefined && !ON_DUPLICATE.has(onDuplicate)) {
    throw new FST_TASKQUEUE_INVALID_OPTION('onDuplicate', "'keep', 'reject' or 'replace'", show(onDuplicate))
  }
  checkWhole('expiresMs', expiresMs, 1, MAX_DELAY_MS)
  return { ...dueOf(options), ...expiresMs !== undefined && { expiresMs }, ...onDuplicate !== undefined && { onDuplicate } }
}

/** An ISO 8601 string is a third of this long. */
const MAX_TIME_LENGTH = 100

/** When a task becomes due, in the words of a store. */
export function dueOf ({ delayMs, runAt }: Pick<AddOptions, 'delayMs' | 'runAt'>): { delayMs?: number, runAt?: number } {
  if (runAt === undefined) {
    if (delayMs === undefined) return {}
    if (typeof delayMs === 'number' && delayMs >= 0 && delayMs <= MAX_DELAY_MS) return { delayMs: Math.ceil(delayMs) }
    throw new FST_TASKQUEUE_INVALID_DELAY('0 to 2592000000 milliseconds, which is 30 days', show(delayMs))
  }
  if (delayMs !== undefined) throw new FST_TASKQUEUE_INVALID_DELAY('delayMs or runAt, not both', 'both')
  const isTime = typeof runAt === 'number' || isDate(runAt) ||
    (typeof runAt === 'string' && runAt.length <= MAX_TIME_LENGTH && /^\d{4}-\d\d-\d\d/.test(runAt))
  const time = isTime ? new Date(runAt).getTime() : NaN
  if (time - Date.now() <= MAX_DELAY_MS) return { runAt: time }
  throw new FST_TASKQUEUE_INVALID_DELAY('a time at most 30 days ahead, as a Date or an ISO 8601 string', show(runAt))
}

export function checkMethod (method: unknown): asserts method is TaskMethod {
  if (!METHODS.has(method)) throw new FST_TASKQUEUE_INVALID_METHOD(show(method))
}

/** As much as a server of Node takes in as the head of a request, its url included. */
export const MAX_URL_LENGTH = 16 * 1024

/**
 * Returns a url in the form in which it is routed, its query appended; throws unless it
 * is a path of this app. A path that a proxy, a router or a check by prefix could take
 * for another one (`//host`, `/a/../b`, `/a/%2e%2e/b`, `\`) is refused, not repaired.
 */
export function canonicalUrl (url: unknown, query?: AddOptions['query']): string {
  // Without its query, which may hold what is nobody's business.
  const refuse = (expected: string) => new FST_TASKQUEUE_INVALID_URL(expected, show(typeof url === 'string' ? url.split('?', 1)[0] : url))
  const refuseLong = () => refuse(`at most ${MAX_URL_LENGTH} characters long with its query`)
  if (typeof url !== 'string' || !/^\/(?!\/)/.test(url)) throw refuse("a path of this app, starting with one '/'")
  if (url.length > MAX_URL_LENGTH) throw refuseLong()
  if (query === undefined && PLAIN_PATH.test(url)) return url
  // eslint-disable-next-line no-control-regex
  if (/[\\#\u0000-\u001f\u007f]/.test(url)) throw refuse('free of backslashes, fragments and control characters')
  const path = url.split('?', 1)[0]!
  for (const segment of path.split(/\/|%2f|%5c/i)) {
    if (/^(?:\.|%2e){1,2}$/i.test(segment)) throw refuse("free of '.' and '..' segments")
  }
  try {
    decodeURIComponent(path)
  } catch {
    throw refuse('free of malformed percent-encoding')
  }
  const { pathname, searchParams, search } = new URL(keepSpaces(url), 'http://localhost')
  const extra = queryOf(query, refuseLong)
  const separator = extra === '' ? '' : searchParams.size === 0 ? '?' : '&'
  const canonical = `${pathname}${separator === '?' ? '' : search}${separator}${extra}`
  if (canonical.length > MAX_URL_LENGTH) throw refuseLong()
  return canonical
}

/** Encodes the spaces at the end, which a URL's parser would cut off. */
function keepSpaces (url: string): string {
  let end = url.length
  while (url[end - 1] === ' ') end--
  return url.slice(0, end) + '%20'.repeat(url.length - end)
}

/** Encodes what is to be appended to a url, unless it is too long even before that. */
function queryOf (query: AddOptions['query'], refuseLong: () => Error): string {
  if (query === undefined) return ''
  if (!isPlain(query)) throw new FST_TASKQUEUE_INVALID_OPTION('query', 'an object', kindOf(query))
  const encoded = new URLSearchParams()
  let length = 0
  for (const [name, values] of Object.entries(query)) {
    for (const value of Array.isArray(values) ? values : [values]) {
      if (value === undefined) continue
      if (!['string', 'number', 'boolean'].includes(typeof value)) {
        throw new FST_TASKQUEUE_INVALID_OPTION(`query.${cut(name)}`, 'a string, number or boolean, or an array of these', kindOf(value))
      }
      const text = String(value)
      length += name.length + text.length + 2
      if (length > MAX_URL_LENGTH) throw refuseLong()
      encoded.append(name, text)
    }
  }
  return String(encoded)
}

/** A path that is in canonical form already, as most are. */
const PLAIN_PATH = /^(?:\/[\w~-][\w.~-]*)+\/?$/

/**
 * Headers that are between the two ends of one connection (RFC 9110 §7.6.1), that the
 * bytes of the payload decide, or that the queue sets itself. No task carries one that
 * its adder chose.
 */
export function isReserved (name: string): boolean {
  return name.startsWith('x-task-') || name.startsWith(':') || RESERVED.has(name)
}

const RESERVED: ReadonlySet<string> = new Set([
  'connection', 'keep-alive', 'proxy-connection', 'proxy-authenticate', 'proxy-authorization', 'te', 'trailer',
  'transfer-encoding', 'upgrade', 'http2-settings', 'expect', 'content-length', 'user-agent'
])

/** Throws unless a header may be sent with a task. */
export function checkHeader (name: string, value: unknown): asserts value is string {
  try {
    validateHeaderName(name)
  } catch {
    // Shown as far as it is a name: behind that may be a value, of whoever has taken one for the other.
    throw new FST_TASKQUEUE_INVALID_HEADER(show(/^:?[\w!#$%&'*+.^`|~-]{0,100}/.exec(name)![0]), 'has no valid name')
  }
  if (isReserved(name)) throw new FST_TASKQUEUE_INVALID_HEADER(show(name), 'cannot be set')
  if (typeof value !== 'string') throw new FST_TASKQUEUE_INVALID_HEADER(show(name), `must be a string or null, got a value of type ${typeof value}`)
  try {
    validateHeaderValue(name, value)
  } catch {
    throw new FST_TASKQUEUE_INVALID_HEADER(show(name), 'has characters in its value that a header cannot carry')
  }
}

function headersOf (
  given: AddOptions['headers'], payload?: Payload, inheritance?: Inheritance
): Pick<Task, 'headers' | 'inherited'> {
  if (given === undefined && inheritance === undefined) {
    return { headers: payload?.contentType === undefined ? {} : { 'content-type': payload.contentType } }
  }
  if (given !== undefined && !isPlain(given)) {
    throw new FST_TASKQUEUE_INVALID_OPTION('headers', 'an object', kindOf(given))
  }
  const own = new Map<string, string | null>()
  if (inheritance?.host !== undefined) own.set('host', inheritance.host)
  if (payload?.contentType !== undefined) own.set('content-type', payload.contentType)
  for (const [name, value] of Object.entries(given ?? {})) own.set(name.toLowerCase(), value)
  const inherited = Object.entries(inheritance?.headers ?? {}).filter(([name]) => !own.has(name))
  const headers = [...inherited, ...[...own].filter(([, value]) => value !== null)] as Array<[string, string]>
  for (const [name, value] of headers) checkHeader(name, value)
  return { headers: Object.fromEntries(headers), ...inherited.length > 0 && { inherited: inherited.length } }
}

/** No address is longer, with the zone of an IPv6 address. */
const LONGEST_IP = 64

export function isAddress (value: unknown): value is string {
  return typeof value === 'string' && value.length <= LONGEST_IP && isIP(value) !== 0
}

function payloadOf (method: TaskMethod, given: AddOptions['payload'], inheritance?: Inheritance): Payload | undefined {
  if (given === undefined) return BODY_IS_COPIED.has(method) ? inheritance?.payload() : undefined
  if (given === null) return undefined
  if (method === 'GET') throw new FST_TASKQUEUE_INVALID_PAYLOAD('left out or null with the method GET', kindOf(given))
  if (typeof given === 'string') return { content: given, contentType: 'text/plain; charset=utf-8' }
  if (isUint8Array(given)) return { content: Buffer.from(given), contentType: 'application/octet-stream' }
  if (given instanceof URLSearchParams) {
    return { content: String(given), contentType: 'application/x-www-form-urlencoded' }
  }
  return jsonOf(given)
}

/** An object whose entries are all there is to it: a Headers, a Map or a URLSearchParams has none. */
export function isPlain (value: unknown): boolean {
  try {
    return Object.prototype.toString.call(value) === '[object Object]'
  } catch {
    return false
  }
}

/** Throws unless what a function is given are options that it has. */
export function checkOptions (name: string, options: unknown, known: readonly string[], of: string): asserts options is object {
  if (!isPlain(options)) throw new FST_TASKQUEUE_INVALID_OPTION(name, 'an object', kindOf(options))
  for (const key of Object.keys(options as object)) {
    if (!known.includes(key)) throw new FST_TASKQUEUE_INVALID_OPTION(cut(key), `one of ${known.join(', ')}`, `an option that ${of} does not have`)
  }
}

/** Objects that JSON.stringify silently turns into `{}`. */
const NO_JSON = [Map, Set, FormData, Blob, ArrayBuffer, ReadableStream, Promise, Request, Response]

export function jsonOf (value: unknown): Payload {
  const refuse = (cause?: unknown) => Object.assign(
    new FST_TASKQUEUE_INVALID_PAYLOAD('an object that has JSON, a string, a Buffer, a URLSearchParams or null', kindOf(value)),
    cause !== undefined && { cause })
  let json: string | undefined
  try {
    const isOther = typeof value !== 'object' || NO_JSON.some(type => value instanceof type) || typeof (value as { pipe?: unknown }).pipe === 'function'
    json = isOther ? undefined : JSON.stringify(value)
  } catch (cause) {
    throw refuse(cause)
  }
  if (json === undefined) throw refuse()
  return { content: json, contentType: 'application/json' }
}

function idOf (id: unknown): string {
  if (id === undefined) return uuidv7()
  checkId(id)
  return id
}

/** Throws unless this can be the id of a task: whatever is given as one, anywhere, comes through here first. */
export function checkId (id: unknown): asserts id is string {
  if (typeof id !== 'string' || !/^[\x21-\x7e]{1,255}$/.test(id)) throw new FST_TASKQUEUE_INVALID_ID(show(id))
}

/** The same for several, as they are at the moment. */
export function checkIds (ids: unknown): string[] {
  if (!Array.isArray(ids)) throw new FST_TASKQUEUE_INVALID_OPTION('ids', 'an array of ids', show(ids))
  return Array.from(ids, id => {
    checkId(id)
    return id
  })
}

export function checkWhole (name: string, value: number | undefined, min: number, max = Number.MAX_SAFE_INTEGER): void {
  if (value === undefined || (Number.isSafeInteger(value) && value >= min && value <= max)) return
  const range = max === Number.MAX_SAFE_INTEGER ? `${min} or more` : `${min} to ${max}`
  throw new FST_TASKQUEUE_INVALID_OPTION(name, `a whole number, ${range}`, show(value))
}

let lastMs = 0
let sequence = 0
let prefix = ''

/**
 * Returns a UUID v7 (RFC 9562 §5.7) that sorts behind all those made before it in this
 * process: `rand_a` is a counter (§6.2, method 1) that carries over into the time, so
 * that neither a burst nor a clock set back breaks the order.
 */
export function uuidv7 (now = Date.now()): string {
  if (now > lastMs) {
    lastMs = now
    sequence = 0
  } else if (++sequence === 0x1000) {
    lastMs++
    sequence = 0
  }
  if (sequence === 0) {
    const hex = lastMs.toString(16).padStart(12, '0')
    prefix = `${hex.slice(0, 8)}-${hex.slice(8)}-7`
  }
  // The rest of one of version 4 is random as well.
  return `${prefix}${sequence.toString(16).padStart(3, '0')}${randomUUID().slice(18)}`
}
