import { isUint8Array } from 'node:util/types'
import { FST_TASKQUEUE_INVALID_PAYLOAD } from '../errors.js'
import { kindOf } from '../show.js'
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

/** Classes whose objects JSON.stringify silently turns into `{}`. */
const NO_JSON = [Map, Set, FormData, Blob, ArrayBuffer, ReadableStream, Promise, Request, Response]

export function jsonOf (value: unknown): Payload {
  const expected = 'an object that has JSON, a string, a Buffer, a URLSearchParams or null'
  const refuse = (cause?: unknown) =>
    Object.assign(new FST_TASKQUEUE_INVALID_PAYLOAD(expected, kindOf(value)), cause !== undefined && { cause })
  let json: string | undefined
  try {
    const hasNoJson = typeof value !== 'object' || NO_JSON.some(type => value instanceof type) ||
      typeof (value as { pipe?: unknown }).pipe === 'function'
    json = hasNoJson ? undefined : JSON.stringify(value)
  } catch (cause) {
    throw refuse(cause)
  }
  if (json === undefined) throw refuse()
  return { content: json, contentType: 'application/json' }
}
