import { isUtf8 } from 'node:buffer'
import { createCipheriv, createDecipheriv, createHash, createHmac, hkdfSync, randomBytes, timingSafeEqual } from 'node:crypto'
import { FST_TASKQUEUE_PAYLOAD_TOO_LARGE, FST_TASKQUEUE_UNREADABLE } from '../errors.js'
import { checkUserId } from '../add/inheritance.js'
import type { Settings } from '../plugin/options.js'
import {
  canonicalUrl, checkHeader, checkMethod, checkWhole, isAddress, isPlain, LOCAL_IP, LONGEST_TIMER_MS, MAX_DELAY_MS,
  type Task
} from './task.js'

type CodecSettings = Pick<Settings, 'prefix' | 'secrets' | 'encrypt' | 'maxPayloadBytes'>

/** Turns tasks into the messages that stores keep, and back. */
export interface Codec {
  /** Throws when the message is longer than `maxPayloadBytes`. */
  encode (queue: string, task: Task): string
  /** Throws `FST_TASKQUEUE_UNREADABLE` unless `encode` could have made the message for this id in this queue. */
  decode (queue: string, id: string, message: string): Task
  /** Does the same with no more than the first line of a message, and the line break behind it, if there is one. Returns no payload. */
  decodeHead (queue: string, id: string, message: string): Task
  /** Turns what is to be known of a task into a text that is kept as its message is, and back; what cannot be read is undefined. */
  encodeRecord (queue: string, id: string, record: object): string
  decodeRecord (queue: string, id: string, text: string): object | undefined
  /** Does the same for why something became of a task. A store gives reasons of its own as well, which are legible. */
  encodeReason (queue: string, id: string, reason: string): string
  decodeReason (queue: string, id: string, text: string): string | undefined
}

/**
 * A message is a head, which is one line, and behind a line break the payload, if there is one. A store
 * can tell them apart, and hand out the head alone to who only wants to know what a task is.
 *
 * Without secrets both are text that an operator can read. With secrets each is that
 * text under AES-256-GCM, or if it need not be encrypted with an HMAC of SHA-256. Either
 * binds the head to the prefix, the queue and the id under which the message is kept, and to
 * whether a payload follows; and the payload to its head. So a message that was made up, changed,
 * cut, put together from two or moved elsewhere is unreadable.
 */
export function makeCodec ({ prefix, secrets, encrypt, maxPayloadBytes: maxBytes }: CodecSettings): Codec {
  const keys = secrets.map(makeKey)
  const context = (...names: string[]) => Buffer.from(JSON.stringify([prefix, ...names]))
  const close = (clear: string, ...names: string[]) =>
    keys.length === 0 ? clear : (encrypt ? seal : sign)(keys[0]!, Buffer.from(clear), context(...names))
  const unwrap = (text: string, ...names: string[]) => keys.length === 0 ? text : open(keys, text, context(...names))
  const headNames = (queue: string, id: string, payload: string | undefined) => payload === undefined ? [queue, id] : [queue, id, 'head']
  const decode = (queue: string, id: string, message: string, readPayload: (payload: string, head: string) => string) => {
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
    decode: (queue, id, message) => decode(queue, id, message, (payload, head) => unwrap(payload, queue, id, 'payload', head)),
    decodeHead: (queue, id, message) => ({ ...decode(queue, id, message, () => ''), payload: undefined }),
    encodeRecord: (queue, id, record) => close(JSON.stringify(record), queue, id, 'record'),
    decodeRecord (queue, id, text) {
      try {
        const record: unknown = JSON.parse(unwrap(text, queue, id, 'record'))
        return isPlain(record) ? record as object : undefined
      } catch {
        return undefined
      }
    },
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

/** How what was sealed or signed begins. */
const CLOSED = /^[sm]1\.[\w-]{8}\./

function halvesOf (message: string): [head: string, payload: string | undefined] {
  const end = message.indexOf('\n')
  return end === -1 ? [message, undefined] : [message.slice(0, end), message.slice(end + 1)]
}

const VERSION = 1
const PROTOCOLS: ReadonlySet<unknown> = new Set([undefined, 'http', 'https'])

/**
 * The head is JSON. What most tasks have in common is left out: the first version, a payload of
 * JSON that is sent by POST or none that is got by GET.
 */
function write (task: Task): { readonly head: string, readonly payload: string | undefined } {
  const { payload, method, url, headers, inherited, ip, protocol, userId, depth, maxRetries, timeoutMs, dedupeMs } = task
  const usual = usualWith(payload)
  const text = payload === undefined || typeof payload === 'string' ? payload : isUtf8(payload) ? payload.toString() : undefined
  const head = JSON.stringify({
    method: method === usual.method ? undefined : method,
    url,
    headers: isSame(headers, usual.headers) ? undefined : headers,
    inherited,
    ip: ip === LOCAL_IP ? undefined : ip,
    protocol: protocol === 'http' ? undefined : protocol,
    userId,
    depth: depth === 1 ? undefined : depth,
    maxRetries,
    timeoutMs,
    dedupeMs,
    base64: payload !== undefined && text === undefined ? true : undefined
  })
  return { head, payload: payload === undefined ? undefined : text ?? payload.toString('base64') }
}

function read (id: string, head: string, text: string | undefined): Task {
  const usual = usualWith(text)
  const {
    v = VERSION, method = usual.method, url, headers = usual.headers, inherited, ip, protocol, base64, userId,
    depth = 1, maxRetries, timeoutMs, dedupeMs
  } = parse(head) ?? {}
  if (v !== VERSION) throw new Error(`its version is ${Number(v)}, and this release reads ${VERSION}`)
  if (userId !== undefined && typeof userId !== 'string') throw new Error('its user is no text')
  if (base64 !== undefined && base64 !== true) throw new Error('its payload is neither text nor base64')
  if (!isPlain(headers)) throw new Error('its headers are no object')
  if (ip !== undefined && ip !== '' && !isAddress(ip)) throw new Error('its address is none')
  if (!PROTOCOLS.has(protocol)) throw new Error('its protocol is not known')
  try {
    checkMethod(method)
    checkWhole('inherited', inherited, 1)
    checkWhole('depth', depth, 1)
    checkWhole('maxRetries', maxRetries, 0)
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
      maxRetries,
      timeoutMs,
      dedupeMs
    }
  } catch (error) {
    // Its message would quote the content.
    throw new Error(`it is no task (${(error as { code?: string }).code})`)
  }
}

function checked (headers: object): Task['headers'] {
  const entries = Object.entries(headers).map(([name, value]) => [name.toLowerCase(), value] as const)
  for (const [name, value] of entries) checkHeader(name, value)
  return Object.fromEntries(entries)
}

type Usual = Pick<Task, 'method' | 'headers'>
const WITH_PAYLOAD: Usual = { method: 'POST', headers: { 'content-type': 'application/json' } }
const WITHOUT: Usual = { method: 'GET', headers: {} }
const usualWith = (payload: unknown): Usual => payload === undefined ? WITHOUT : WITH_PAYLOAD

function isSame (headers: Task['headers'], others: Task['headers']): boolean {
  const names = Object.keys(headers)
  return names.length === Object.keys(others).length && names.every(name => headers[name] === others[name])
}

/** The parser's own message would quote the text, and with it a cookie, in a log. */
function parse (json: string) {
  try {
    return JSON.parse(json)
  } catch {
    throw new Error('it is not JSON')
  }
}

/** `id` tells which of several secrets made a message, and nothing about the secret. */
interface Key { readonly id: string, readonly sealing: Buffer, readonly signing: Buffer }

function makeKey (secret: Buffer): Key {
  const derive = (use: string) => Buffer.from(hkdfSync('sha256', secret, '', `fastify-taskqueue ${use}`, 32))
  return {
    id: createHash('sha256').update(derive('key id')).digest('base64url').slice(0, 8),
    sealing: derive('aes-256-gcm'),
    signing: derive('hmac-sha256')
  }
}

/** Returns `s1.<key id>.<base64url of nonce, ciphertext, tag>`. */
function seal (key: Key, plain: Buffer, context: Buffer): string {
  const nonce = randomBytes(12)
  const cipher = createCipheriv('aes-256-gcm', key.sealing, nonce).setAAD(context)
  const sealed = Buffer.concat([nonce, cipher.update(plain), cipher.final(), cipher.getAuthTag()])
  return `s1.${key.id}.${sealed.toString('base64url')}`
}

/** Returns `m1.<key id>.<base64url of the signature>.<plain>`. */
function sign (key: Key, plain: Buffer, context: Buffer): string {
  return `m1.${key.id}.${signatureOf(key, plain, context).toString('base64url')}.${plain}`
}

function signatureOf (key: Key, plain: Buffer, context: Buffer): Buffer {
  // The context is JSON, which holds no line break of its own.
  return createHmac('sha256', key.signing).update(context).update('\n').update(plain).digest()
}

/** Undoes `seal` and `sign`: tasks may wait while one setting is changed for the other. */
function open (keys: readonly Key[], message: string, context: Buffer): string {
  const [, version, keyId, rest] = /^([sm]1)\.([\w-]{8})\.(.*)$/s.exec(message) ?? []
  if (rest === undefined) throw new Error('it is neither sealed nor signed')
  const key = keys.find(({ id }) => id === keyId)
  if (key === undefined) throw new Error('it was made with none of the secrets')
  return version === 's1' ? unseal(key, rest, context) : verify(key, rest, context)
}

function unseal (key: Key, text: string, context: Buffer): string {
  const sealed = Buffer.from(text, 'base64url')
  // The decoder passes over what it does not know.
  if (sealed.toString('base64url') !== text) throw new Error('its seal is broken')
  try {
    const decipher = createDecipheriv('aes-256-gcm', key.sealing, sealed.subarray(0, 12), { authTagLength: 16 })
      .setAAD(context).setAuthTag(sealed.subarray(-16))
    return Buffer.concat([decipher.update(sealed.subarray(12, -16)), decipher.final()]).toString()
  } catch {
    throw new Error('its seal is broken')
  }
}

function verify (key: Key, text: string, context: Buffer): string {
  const [, signature = '', plain = ''] = /^([\w-]*)\.(.*)$/s.exec(text) ?? []
  const given = Buffer.from(signature, 'base64url')
  const expected = signatureOf(key, Buffer.from(plain), context)
  // The decoder passes over what it does not know.
  const isExact = given.length === expected.length && given.toString('base64url') === signature
  if (!isExact || !timingSafeEqual(given, expected)) throw new Error('its signature is not right')
  return plain
}
