import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_PAYLOAD, FST_TASKQUEUE_INVALID_USER_ID } from './errors.js'
import { kindOf, show } from './show.js'
import { isReserved, jsonOf, type Inheritance, type Payload } from './task.js'

/** Which headers of the current request a task inherits: all that may be, none, those named, or what a function says of a request. */
export type CopyHeaders = boolean | readonly string[] | ((request: FastifyRequest) => boolean | readonly string[])

/** What a task inherits from the request that adds it. */
export function inheritFrom (request: FastifyRequest, copyHeaders: CopyHeaders): Inheritance {
  const which = typeof copyHeaders === 'function' ? copyHeaders(request) : copyHeaders
  if (typeof which !== 'boolean' && !(Array.isArray(which) && which.every(name => typeof name === 'string'))) {
    throw new FST_TASKQUEUE_INVALID_OPTION('copyHeaders', 'a function that returns true, false or a list of header names', show(which))
  }
  return {
    headers: which === false ? {} : pick(request.headers, which === true ? undefined : which),
    payload: () => copyBody(request)
  }
}

/**
 * Headers that say something of one exchange and would be wrong of another: of its
 * connection, of its body, of what its client has cached.
 */
export function isInheritable (name: string): boolean {
  return !isReserved(name) && !name.startsWith('content-') && !name.startsWith('if-') && name !== 'range'
}

function pick (headers: IncomingHttpHeaders, names?: readonly string[]): Record<string, string> {
  const ofConnection = new Set(headers.connection?.toLowerCase().split(/[\s,]+/))
  const wanted = names && new Set(names.map(name => name.toLowerCase()))
  const picked: Record<string, string> = {}
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || !isInheritable(name) || ofConnection.has(name)) continue
    if (wanted === undefined || wanted.has(name)) picked[name] = Array.isArray(value) ? value.join(', ') : value
  }
  return picked
}

/**
 * Returns the body of the current request as it came, or encoded again by its content
 * type: Fastify parses a body and does not keep the bytes.
 */
function copyBody ({ body, headers }: FastifyRequest): Payload | undefined {
  const contentType = headers['content-type'] ?? ''
  if (body === undefined || body === null) {
    // One that came and was not parsed is consumed by something else, like a multipart one, or not here yet.
    const isThere = headers['transfer-encoding'] !== undefined || Number(headers['content-length'] ?? 0) > 0
    if (body === undefined && isThere) throw refuse(`a body of type ${contentType.split(';', 1)[0]} that is not parsed`)
    return undefined
  }
  if (body instanceof Uint8Array && headers['content-encoding'] !== undefined) throw refuse('an encoded body')
  if (body instanceof Uint8Array) return { content: Buffer.from(body), ...contentType !== '' && { contentType } }
  const type = contentType.split(';', 1)[0]!.trim().toLowerCase()
  if (typeof body === 'string' && type !== 'application/json') {
    return { content: body, contentType: `${type === '' ? 'text/plain' : type}; charset=utf-8` }
  }
  if (typeof body === 'string' && Buffer.byteLength(body) === Number(headers['content-length'])) {
    // A parser has left it as it came: JSON of a text is longer than the text.
    return { content: body, contentType }
  }
  if (type === 'application/json' || type.endsWith('+json')) {
    return typeof body === 'object' ? { ...jsonOf(body), contentType: type } : { content: JSON.stringify(body), contentType: type }
  }
  const form = type === 'application/x-www-form-urlencoded' ? formOf(body) : undefined
  if (form !== undefined) return { content: String(form), contentType: type }
  throw refuse(type === '' ? kindOf(body) : `a body of type ${type}`)
}

const refuse = (given: string) => new FST_TASKQUEUE_INVALID_PAYLOAD('given with this request, whose body cannot be copied faithfully', given)

/** The form that was parsed into this object, unless a parser nested its fields. */
function formOf (body: unknown): URLSearchParams | undefined {
  const form = new URLSearchParams()
  for (const [name, values] of Object.entries(body as object)) {
    for (const value of Array.isArray(values) ? values : [values]) {
      if (typeof value !== 'string') return undefined
      form.append(name, value)
    }
  }
  return form
}

/** Reads the id that `user.id` returned; a number becomes a string. */
export function checkUserId (id: unknown): string | undefined {
  if (id === undefined || id === null) return undefined
  const text = Number.isFinite(id) || typeof id === 'bigint' ? String(id) : id
  if (typeof text === 'string' && /^[\x20-\x7e]{1,255}$/.test(text) && text === text.trim()) return text
  throw new FST_TASKQUEUE_INVALID_USER_ID(show(id))
}
