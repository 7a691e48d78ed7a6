import type { IncomingMessage } from 'node:http'
import type { FastifyInstance } from 'fastify'

/**
 * Makes the function that has the router find nothing for a request if the parameter of a task-only route is too long.
 * The router would answer 414 before it looks at any constraint, and so tell any client that there is such a route.
 *
 * If the parameter of an ordinary route is too long as well, 414 is the right answer. A look-up of the same url with
 * shorter parameters tells.
 */
export function hideLongParams (app: FastifyInstance): (raw: IncomingMessage) => void {
  const { maxParamLength = 100, routerOptions = {} } = app.initialConfig as Limits & { routerOptions?: Limits }
  // One of the two options applies, and the other one has its default.
  const longest = Math.min(maxParamLength, routerOptions.maxParamLength ?? 100)
  const find = ({ method, headers }: IncomingMessage, url: string) => {
    const constraints = { host: headers.host ?? headers[':authority'], version: headers['accept-version'] }
    return app.findRoute({ method, url, constraints } as never) as { searchParams?: unknown } | null
  }
  return raw => {
    const { url = '' } = raw
    if (url.length <= longest) return
    const short = shorten(url, longest)
    if (short === url) return
    const found = find(raw, url)
    // Only an answer by the router itself, which is 414, has no search parameters.
    if (found !== null && found.searchParams === undefined && find(raw, short) === null) hide(raw)
  }
}

interface Limits { readonly maxParamLength?: number }

/** Takes the middle out of segments that are too long for a parameter, since a pattern may test beginning and end. */
function shorten (url: string, longest: number): string {
  const [path = '', ...query] = url.split('?')
  const segments = path.split('/').map(segment => {
    if (segment.length <= longest) return segment
    const text = segment.replace(/%[0-9a-f]{2}/gi, 'x')
    const half = longest >> 1
    return text.length <= longest ? text : text.slice(0, half) + text.slice(text.length - half)
  })
  return [segments.join('/'), ...query].join('?')
}

/** Gives a request a method that no route has, until the router has asked for it. */
function hide (raw: IncomingMessage): void {
  const own = Object.getOwnPropertyDescriptor(raw, 'method')
  Object.defineProperty(raw, 'method', {
    configurable: true,
    enumerable: true,
    get () {
      if (own === undefined) Reflect.deleteProperty(raw, 'method')
      else Object.defineProperty(raw, 'method', own)
      return ''
    }
  })
}
