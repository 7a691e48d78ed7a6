import type { FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_CROSS_SITE, FST_TASKQUEUE_FORBIDDEN } from '../errors.js'

/** The right to look, or to act as well. */
export type Role = 'read' | 'operate'

/** Says what the user of a request may do; false for nothing. */
export type Authorize = (request: FastifyRequest) => Role | false | Promise<Role | false>

/** Returns what the user of a request may do. Throws if they may not even look. */
export async function roleOf (request: FastifyRequest, authorize: Authorize): Promise<Role> {
  const role = await authorize(request)
  if (role === 'read' || role === 'operate') return role
  throw new FST_TASKQUEUE_FORBIDDEN('look at the queues')
}

/** Throws unless the user of a request may act, and the request comes from a page of this app. */
export async function allowAction (request: FastifyRequest, authorize: Authorize): Promise<void> {
  refuseCrossSite(request)
  if (await roleOf(request, authorize) !== 'operate') throw new FST_TASKQUEUE_FORBIDDEN('change the queues')
}

/**
 * Refuses a request that another site has made the browser send. Browsers say where a request comes from by
 * `Sec-Fetch-Site` (https://w3c.github.io/webappsec-fetch-metadata), or over plain HTTP and before 2023 by `Origin`
 * alone.
 */
function refuseCrossSite ({ headers, host }: FastifyRequest): void {
  const site = headers['sec-fetch-site']
  const isSame = site === undefined ? isOf(headers.origin, host) : site === 'same-origin'
  if (!isSame) throw new FST_TASKQUEUE_CROSS_SITE()
}

function isOf (origin: string | undefined, host: string): boolean {
  if (origin === undefined || !URL.canParse(origin)) return false
  const { protocol, host: from } = new URL(origin)
  // The host may name a port that goes without saying.
  const own = `${protocol}//${host}`
  return URL.canParse(own) && new URL(own).host === from
}

/** The headers of every page. Nothing but the dashboard's own style and script can run or be loaded. */
export const PAGE_HEADERS: Readonly<Record<string, string>> = {
  'content-security-policy': "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; " +
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
  'x-content-type-options': 'nosniff',
  // With no referrer at all browsers would send no origin either.
  'referrer-policy': 'same-origin',
  'cache-control': 'no-store'
}
