import { validateHeaderName, validateHeaderValue } from 'node:http'
import { isPlain } from '../check.js'
import { FST_TASKQUEUE_INVALID_HEADER, FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { kindOf, show } from '../show.js'
import type { AddOptions, Inheritance, Payload } from './options.js'

/**
 * Whether a header is one that the adder of a task cannot choose: it concerns the two ends of one connection
 * (RFC 9110 §7.6.1), the bytes of the payload decide it, or the queue sets it itself.
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
    // Only the valid beginning is shown: the rest may be a value, if the caller has mixed up name and value.
    throw new FST_TASKQUEUE_INVALID_HEADER(show(/^:?[\w!#$%&'*+.^`|~-]{0,100}/.exec(name)![0]), 'has no valid name')
  }
  if (isReserved(name)) throw new FST_TASKQUEUE_INVALID_HEADER(show(name), 'cannot be set')
  if (typeof value !== 'string') {
    throw new FST_TASKQUEUE_INVALID_HEADER(show(name), `must be a string or null, got a value of type ${typeof value}`)
  }
  try {
    validateHeaderValue(name, value)
  } catch {
    throw new FST_TASKQUEUE_INVALID_HEADER(show(name), 'has characters in its value that a header cannot carry')
  }
}

/** Whether headers are the same, in whatever order. */
export function areSame (headers: Readonly<Record<string, string>>, others: Readonly<Record<string, string>>): boolean {
  const names = Object.keys(headers)
  return names.length === Object.keys(others).length && names.every(name => headers[name] === others[name])
}

/** Makes the headers of a task from those given to `add`, its content type and those it inherits. */
export function headersOf (
  given: AddOptions['headers'], payload?: Payload, inheritance?: Inheritance
): { headers: Record<string, string>, inherited?: number } {
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
