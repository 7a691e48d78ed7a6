import type { IncomingHttpHeaders } from 'node:http'
import { Server as TlsServer } from 'node:tls'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import { isReserved } from '../task/headers.js'
import type { Inheritance } from '../task/options.js'
import { isAddress, LOCAL_IP } from '../task/origin.js'
import { copierOf } from './body.js'
import type { Internals } from './fastify-internals.js'

/**
 * The headers of the current request that a task inherits: all that may be inherited (true), none (false), those named,
 * or whichever of these a function returns for a request. The host is inherited in any case.
 */
export type CopyHeaders = boolean | readonly string[] | ((request: FastifyRequest) => boolean | readonly string[])

/** Collects what a task inherits from the request that adds it. */
export function inheritFrom (request: FastifyRequest, copyHeaders: CopyHeaders, internals: Internals): Inheritance {
  const which = typeof copyHeaders === 'function' ? copyHeaders(request) : copyHeaders
  if (typeof which !== 'boolean' && !(Array.isArray(which) && which.every(name => typeof name === 'string'))) {
    const expected = 'a function that returns true, false or a list of header names'
    throw new FST_TASKQUEUE_INVALID_OPTION('copyHeaders', expected, show(which))
  }
  return {
    ...originOf(request),
    headers: which === false ? {} : pick(request.headers, which === true ? undefined : which),
    payload: copierOf(request, internals)
  }
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

/** Returns what a task inherits that runs as somebody other than who makes the request. */
export function withoutCredentials (inheritance: Inheritance | undefined): Inheritance | undefined {
  if (inheritance === undefined) return undefined
  const { cookie, authorization, ...headers } = inheritance.headers
  return { ...inheritance, headers }
}

/** Whether an app is served over TLS. */
export const isSecure = ({ server }: Pick<FastifyInstance, 'server'>): boolean => server instanceof TlsServer

/**
 * Whether a header may be inherited. Some headers describe one exchange and would be wrong of another: its connection,
 * its body, what its client has cached. (Those that `connection` names are inherited, or a client could strip a task of
 * its `authorization`.) Others are those in which proxies say where a request comes from and what it
 * was. A client can send them too, and in a task they would be believed as if a proxy had. A task has what Fastify made
 * of them instead.
 */
export function isInheritable (name: string): boolean {
  return !isReserved(name) && !OF_EXCHANGE.test(name) && !OF_PROXIES.test(name) && !OF_ROUTES.has(name)
}

/** Headers about the body, the conditions and the preferences of one request, and about its place among others. */
const OF_EXCHANGE = /^(?:content-|if-|sec-websocket-|(?:range|prefer|idempotency-key|last-event-id)$)/

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
  const wanted = names && new Set(names.map(name => name.toLowerCase()))
  const picked: Array<[name: string, value: string]> = []
  for (const [name, value] of Object.entries(headers)) {
    if (value === undefined || name === 'host' || !isInheritable(name)) continue
    if (wanted === undefined || wanted.has(name)) picked.push([name, Array.isArray(value) ? value.join(', ') : value])
  }
  return Object.fromEntries(picked)
}
