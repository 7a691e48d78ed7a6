import type { IncomingHttpHeaders } from 'node:http'
import { Server as TlsServer } from 'node:tls'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_PAYLOAD } from '../errors.js'
import { kindOf, show } from '../show.js'
import { isReserved } from '../task/headers.js'
import type { Inheritance, Payload } from '../task/options.js'
import { isAddress, LOCAL_IP } from '../task/origin.js'
import { jsonOf } from '../task/payload.js'
import { isUnchanged, type Snapshot, snapshotOf } from './snapshot.js'

/**
 * The headers of the current request that a task inherits: all that may be inherited (true), none (false), those named,
 * or whichever of these a function returns for a request. The host is inherited in any case.
 */
export type CopyHeaders = boolean | readonly string[] | ((request: FastifyRequest) => boolean | readonly string[])

/** Collects what a task inherits from the request that adds it. */
export function inheritFrom (request: FastifyRequest, copyHeaders: CopyHeaders): Inheritance {
  const which = typeof copyHeaders === 'function' ? copyHeaders(request) : copyHeaders
  if (typeof which !== 'boolean' && !(Array.isArray(which) && which.every(name => typeof name === 'string'))) {
    const expected = 'a function that returns true, false or a list of header names'
    throw new FST_TASKQUEUE_INVALID_OPTION('copyHeaders', expected, show(which))
  }
  return {
    ...originOf(request),
    headers: which === false ? {} : pick(request.headers, which === true ? undefined : which),
    payload: copierOf(request)
  }
}

/**
 * Makes the function that copies the body for a task. The handler may change the body between two tasks. As long as it
 * does not, they share one copy, which is made no more than twice.
 */
function copierOf (request: FastifyRequest): Inheritance['payload'] {
  let last: Payload | undefined
  let snapshot: Snapshot
  return () => {
    const { body, headers } = request
    if (isUnchanged({ body, headers }, snapshot)) return last
    const next = copyBody(request)
    if (isSame(last, next)) {
      // No snapshot is taken before the second task, since most requests add only one.
      snapshot = snapshotOf({ body, headers })
    } else {
      snapshot = undefined
      last = next
    }
    return last
  }
}

function isSame (one: Payload | undefined, other: Payload | undefined): boolean {
  if (one === undefined || other === undefined || one.contentType !== other.contentType) return false
  if (typeof one.content === 'string' || typeof other.content === 'string') return one.content === other.content
  return one.content.equals(other.content)
}

/**
 * Returns where a request comes from, as Fastify sees it, since Fastify knows which proxies are trusted. Its `ip` need
 * not be an address: a unix socket has none, and a proxy may send any text. Then the task has the empty address.
 */
function originOf ({ ip, host, protocol, server }: FastifyRequest): Omit<Inheritance, 'headers' | 'payload'> {
  // Over HTTP/2 there is no socket left to ask once the client has gone.
  const isKnown = ip !== undefined && /^https?$/i.test(protocol)
  return {
    ...host !== '' && { host },
    ...ip !== LOCAL_IP && { ip: isAddress(ip) ? ip : '' },
    ...(isKnown ? protocol.length === 5 : isSecure(server)) && { protocol: 'https' }
  }
}

/** Whether an app is served over TLS. */
export const isSecure = ({ server }: Pick<FastifyInstance, 'server'>): boolean => server instanceof TlsServer

/**
 * Whether a header may be inherited. Some headers describe one exchange and would be wrong of another: its connection,
 * its body, what its client has cached. Others are those in which proxies say where a request comes from and what it
 * was. A client can send them too, and in a task they would be believed as if a proxy had. A task has what Fastify made
 * of them instead.
 */
export function isInheritable (name: string): boolean {
  return !isReserved(name) && !name.startsWith('content-') && !name.startsWith('if-') && name !== 'range' &&
    !OF_PROXIES.test(name) && !OF_ROUTES.has(name)
}

/** Headers about the origin that Fastify and packages like request-ip read, or that proxies and clouds send. */
const OF_PROXIES = new RegExp([
  '(?:^|-)forwarded(?:-|$)',
  '(?:^|-)(?:client|socket)?ip(?:v[46])?$',
  '^x-original-',
  '^(?:x-host|x-http-host-override|x-(?:url-)?scheme|x-envoy-external-address|x-vercel-proxied-for)$',
  '^(?:x-remote-addr|front-end-https|x-arr-ssl|fastly-ssl|cf-visitor|cloudfront-viewer-address)$'
].join('|'))

/** Headers that tell an app to treat a request as another one. */
const OF_ROUTES: ReadonlySet<string> = new Set([
  'accept-version', 'x-http-method-override', 'x-http-method', 'x-method-override', 'x-rewrite-url'
])

function pick (headers: IncomingHttpHeaders, names?: readonly string[]): Record<string, string> {
  const ofConnection = new Set(headers.connection?.toLowerCase().split(/[\s,]+/))
  const wanted = names && new Set(names.map(name => name.toLowerCase()))
  const picked: Array<[name: string, value: string]> = []
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name === 'host' || !isInheritable(name) || ofConnection.has(name)) continue
    if (wanted === undefined || wanted.has(name)) picked.push([name, Array.isArray(value) ? value.join(', ') : value])
  }
  return Object.fromEntries(picked)
}

/**
 * Returns the body of the current request as it came, or encoded again by its content type, since Fastify parses a body
 * and does not keep its bytes.
 */
function copyBody ({ body, headers }: FastifyRequest): Payload | undefined {
  const contentType = headers['content-type'] ?? ''
  if (body === undefined || body === null) {
    // A body that was sent and not parsed is read by something else, as multipart is, or has not arrived yet.
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
    // A parser has left the body as it came: the JSON of a string is longer than the string.
    return { content: body, contentType }
  }
  if (type === 'application/json' || type.endsWith('+json')) {
    const { content } = typeof body === 'object' ? jsonOf(body) : { content: JSON.stringify(body) }
    return { content, contentType: type }
  }
  const form = type === 'application/x-www-form-urlencoded' ? formOf(body) : undefined
  if (form !== undefined) return { content: String(form), contentType: type }
  throw refuse(type === '' ? kindOf(body) : `a body of type ${type}`)
}

const refuse = (body: string) =>
  new FST_TASKQUEUE_INVALID_PAYLOAD('passed to add, since the body of this request cannot be copied faithfully', body)

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
