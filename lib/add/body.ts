import { IncomingMessage } from 'node:http'
import type { FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_INVALID_PAYLOAD } from '../errors.js'
import { kindOf } from '../show.js'
import type { Payload } from '../task/options.js'
import { jsonOf } from '../task/payload.js'
import { type Internals, parserOf } from './fastify-internals.js'
import { isJson, mediaTypeOf } from './media-type.js'
import { isUnchanged } from './unchanged.js'

/**
 * Makes the function that copies the body of a request for a task. The handler may change the body between two tasks.
 * As long as it does not, its tasks share one copy.
 */
export function copierOf (request: FastifyRequest, internals: Internals): () => Payload | undefined {
  let last: Copy | undefined
  return () => {
    const framing = framingOf(request)
    if (last?.framing === framing && isCopyOf(request.body, last)) return last.payload
    const payload = copyBody(request, internals)
    if (last === undefined || !isSame(last.payload, payload)) last = { payload, framing, body: request.body }
    return last.payload
  }
}

interface Copy {
  readonly payload: Payload | undefined
  readonly framing: string
  /** What was copied. The handler may have changed it since. */
  readonly body: unknown
  /** The body as it was when it was copied. Most requests add one task, and never need it. */
  original?: unknown
}

/** Whether a copy is certainly one of this body. */
function isCopyOf (body: unknown, copy: Copy): boolean {
  if (typeof copy.body !== 'object' || copy.body === null || copy.payload === undefined) return body === copy.body
  const { content, contentType } = copy.payload
  if (typeof content !== 'string') return isUnchanged(body, content)
  if (!isJson(mediaTypeOf(contentType))) return false
  copy.original ??= JSON.parse(content)
  return isUnchanged(body, copy.original)
}

function isSame (one: Payload | undefined, other: Payload | undefined): boolean {
  if (one === undefined || other === undefined || one.contentType !== other.contentType) return false
  if (typeof one.content === 'string' || typeof other.content === 'string') return one.content === other.content
  return one.content.equals(other.content)
}

/** The headers that say how a body came. */
function framingOf ({ headers }: FastifyRequest): string {
  const { 'content-type': type, 'content-encoding': encoding, 'content-length': length } = headers
  return `${type}\n${encoding}\n${length}\n${headers['transfer-encoding']}`
}

/**
 * Copies the body of a request as it came, or encodes it again by its content type, since Fastify parses a body and
 * does not keep its bytes. Throws if it cannot be known what came.
 */
function copyBody (request: FastifyRequest, internals: Internals): Payload | undefined {
  const { body, headers } = request
  const given = headers['content-type']
  const type = mediaTypeOf(given)
  if (body === undefined || (body === null && !isJson(type))) {
    // A body that was sent and not parsed is read by something else, as multipart is, or has not arrived yet.
    if (hasBody(request)) throw refuse(`a body of type ${type} that is not parsed`)
    return undefined
  }
  if (body instanceof Uint8Array) {
    if (headers['content-encoding'] !== undefined) throw refuse('an encoded body')
    return labelled(Buffer.from(body), given)
  }
  const label = given === undefined ? undefined : inUtf8(given)
  if (isJson(type)) {
    const isText = typeof body === 'string' && keepsText(request, body, internals)
    if (isText) return labelled(body, label)
    return labelled(typeof body === 'object' && body !== null ? jsonOf(body).content : JSON.stringify(body), label)
  }
  if (typeof body === 'string') return labelled(body, label)
  const form = type === 'application/x-www-form-urlencoded' ? formOf(body) : undefined
  if (form === undefined) throw refuse(type === '' ? kindOf(body) : `a body of type ${type}`)
  return labelled(String(form), label)
}

const labelled = (content: string | Buffer, contentType: string | undefined): Payload =>
  ({ content, ...contentType !== undefined && { contentType } })

const refuse = (body: string) =>
  new FST_TASKQUEUE_INVALID_PAYLOAD('passed to add, since the body of this request cannot be copied faithfully', body)

/** Whether a request came with a body. */
function hasBody ({ raw, headers }: FastifyRequest): boolean {
  if (headers['transfer-encoding'] !== undefined) return true
  const { 'content-length': length } = headers
  if (length !== undefined) return Number(length) > 0
  // RFC 9112 §6.3: a request of HTTP/1.1 has a body only if one of these headers says so.
  if (raw instanceof IncomingMessage) return false
  const { stream } = raw as { stream?: { endAfterHeaders?: boolean } }
  // Over HTTP/2 a body may follow unless the headers end the request. An injected stream is told by its type only.
  return stream?.endAfterHeaders !== true && headers['content-type'] !== undefined
}

/**
 * Whether a string is the text of a JSON body, which its parser has left as it came, and not a string that the body
 * was. By the string alone nobody can tell: `"1"` may have come, or `1`.
 */
function keepsText (request: FastifyRequest, body: string, internals: Internals): boolean {
  const kept = tryParser(request, internals)
  if (kept !== undefined) return kept
  // Fastify has checked that so many bytes came.
  const { 'content-length': length, 'content-encoding': encoding } = request.headers
  if (encoding === undefined && length === String(Buffer.byteLength(body))) return true
  if (encoding === undefined && length === String(Buffer.byteLength(JSON.stringify(body)))) return false
  throw refuse('a string, which may be a JSON text or have been one')
}

const tried = new WeakMap<object, boolean | undefined>()

/**
 * Finds out by an empty JSON string whether the parser of a request leaves a text as it is. Returns undefined if that
 * does not tell, as with a parser that is asynchronous.
 */
function tryParser (request: FastifyRequest, internals: Internals): boolean | undefined {
  const parser = parserOf(request, internals)
  if (parser === undefined || tried.has(parser)) return parser && tried.get(parser)
  let body: unknown
  try {
    if (parser.asString || parser.asBuffer) {
      // What the parser notes on its request is kept from this one.
      const text = parser.asString ? '""' : Buffer.from('""')
      const returned = parser.fn(Object.create(request), text, (error, parsed) => { body = error ?? parsed })
      if (returned instanceof Promise) returned.catch(() => {})
    }
  } catch {}
  const keeps = body === '""' ? true : body === '' ? false : undefined
  tried.set(parser, keeps)
  return keeps
}

/** A parameter of a content type (RFC 9110 §5.6.6). */
const PARAMETER = /;[ \t]*([^\s;="]*)(?:=("(?:[^"\\]|\\.)*"|[^;]*))?/g

/** Returns a content type with UTF-8 as its charset, if it names another one: a string is sent in UTF-8. */
function inUtf8 (contentType: string): string {
  return contentType.replace(PARAMETER, (parameter, name: string, value?: string) => {
    const isOther = name.toLowerCase() === 'charset' && !/^"?(?:utf-?8|us-ascii)"?[ \t]*$/i.test(value ?? '')
    return isOther ? '; charset=utf-8' : parameter
  })
}

/** Returns the form that was parsed into this object; undefined if a parser nested its fields. */
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
