import { isUint8Array } from 'node:util/types'
import { FST_TASKQUEUE_INVALID_PAYLOAD } from '../errors.js'
import { kindOf, show } from '../show.js'
import type { TaskMethod } from './method.js'
import type { AddOptions, Inheritance, Payload } from './options.js'

const BODY_IS_COPIED: ReadonlySet<string> = new Set<TaskMethod>(['POST', 'PUT', 'PATCH'])

/** Makes the payload of a task from what `add` was given, or from the body of the current request. */
export function payloadOf (
  method: TaskMethod, given: AddOptions['payload'], inheritance?: Inheritance
): Payload | undefined {
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

export function jsonOf (value: unknown): Payload {
  const expected = 'an object that has JSON, a string, a Buffer, a URLSearchParams or null'
  const refuse = (cause?: unknown) =>
    Object.assign(new FST_TASKQUEUE_INVALID_PAYLOAD(expected, kindOf(value)), cause !== undefined && { cause })
  let json: string | undefined
  let lost: unknown
  try {
    json = typeof value === 'object' ? JSON.stringify(value) : undefined
    lost = json === undefined ? undefined : lostIn(value)
  } catch (cause) {
    throw refuse(cause)
  }
  if (lost !== undefined && lost !== value) {
    throw new FST_TASKQUEUE_INVALID_PAYLOAD(expected, `one with ${show(lost)} in it`)
  }
  if (json === undefined || lost === value) throw refuse()
  return { content: json, contentType: 'application/json' }
}

/** Returns the value of a body: what its JSON says, a string if it is text, and otherwise its bytes. */
export function valueOf (content: string | Buffer, contentType = ''): unknown {
  if (/^application\/json\b/i.test(contentType)) {
    try {
      return JSON.parse(String(content))
    } catch {}
  }
  return typeof content === 'string' || /^text\//i.test(contentType) ? String(content) : content
}

/** Classes whose objects JSON.stringify silently turns into `{}`. */
const NO_JSON = [Map, Set, FormData, Blob, ArrayBuffer, ReadableStream, Promise, Request, Response]

/** Returns a part of a value that JSON.stringify silently turns into something else; undefined if there is none. */
export function lostIn (value: unknown): unknown {
  if (typeof value === 'number') return Number.isFinite(value) ? undefined : value
  if (typeof value !== 'object' || value === null) return undefined
  const { toJSON, pipe } = value as { toJSON?: unknown, pipe?: unknown }
  if (typeof toJSON === 'function') return undefined
  if (typeof pipe === 'function') return value
  const isPlain = Array.isArray(value) || Object.getPrototypeOf(value) === Object.prototype
  if (!isPlain && NO_JSON.some(type => value instanceof type)) return value
  for (const name in value) {
    const part = (value as Record<string, unknown>)[name]
    const lost = typeof part === 'string' ? undefined : lostIn(part)
    if (lost !== undefined && Object.hasOwn(value, name)) return lost
  }
  return undefined
}
