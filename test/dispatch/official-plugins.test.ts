import { setTimeout as sleep } from 'node:timers/promises'
import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteShorthandOptions } from 'fastify'
import t from 'tap'
import { RecordingStore } from '../support/recording-store.js'
import { serve } from '../support/serve.js'

// Fastify's own plugins that have a say in a reply, before this one and after it.

type Options = Record<string, unknown>
type Send = (request: FastifyRequest, reply: any) => unknown

interface Reply {
  options?: Options
  /** What else is registered first. */
  needs?: Record<string, Options>
  route?: (app: any) => RouteShorthandOptions & Options
  headers?: Record<string, string>
  /** What the handler does once it has added its task. */
  send?: Send
  status: number
  /** A header that the plugin sets. */
  header?: string
}

const LONG = 'x'.repeat(3000)
const unsupported = { 'accept-encoding': 'hello' }
const refuse = (_encoding: string, _request: FastifyRequest, reply: FastifyReply) => { reply.code(406); return 'no' }
const throw406 = () => { throw Object.assign(new Error('no'), { statusCode: 406 }) }
const gzipped = { headers: { 'accept-encoding': 'gzip' }, status: 200, header: 'content-encoding' }
const broken = () => new Readable({ read () { this.destroy(new Error('broken')) } })
const files = { root: process.cwd(), serve: false }
const sessions = { secret: 'a secret of at least thirty-two characters', cookie: { secure: false } }
const failingStore = {
  set: (_id: string, _session: unknown, done: (error: Error) => void) => { done(new Error('full')) },
  get: (_id: string, done: (error: null, session: null) => void) => { done(null, null) },
  destroy: (_id: string, done: () => void) => { done() }
}
const failingCache = {
  get: (_key: unknown, done: (error: null, value: null) => void) => { done(null, null) },
  set: (_key: unknown, _value: unknown, _ttl: number, done: (error: Error) => void) => { done(new Error('full')) }
}
const answer = { type: 'object', required: ['answer'], properties: { answer: { type: 'number' } } }
const schema = { response: { 200: answer } }

const plugins: Record<string, Record<string, Reply>> = {
  '@fastify/accepts-serializer': {
    'finds a serializer': {
      options: { serializers: [{ regex: /^application\/yaml$/, serializer: () => 'a: 1' }] },
      headers: { accept: 'application/yaml' },
      status: 200
    },
    'finds no serializer': { options: { serializers: [] }, headers: { accept: 'image/png' }, status: 406 }
  },
  '@fastify/caching': {
    'sets cache-control': { options: { expiresIn: 10, privacy: 'private' }, status: 200, header: 'cache-control' },
    'cannot store an etag': {
      options: { cache: failingCache },
      send: (_request, reply) => reply.etag('a').send('ok'),
      status: 500
    }
  },
  '@fastify/circuit-breaker': {
    'is closed': { route: app => ({ preHandler: app.circuitBreaker() }), status: 200 },
    'finds that it took too long': {
      options: { timeout: 1 },
      route: app => ({ preHandler: app.circuitBreaker() }),
      send: async () => { await sleep(20); return 'ok' },
      status: 503
    }
  },
  '@fastify/compress': {
    'compresses text': { ...gzipped, send: () => LONG },
    'compresses a stream': {
      ...gzipped,
      send: (_request, reply) => reply.type('text/plain').send(Readable.from([LONG]))
    },
    'compresses a Response': {
      ...gzipped,
      send: () => new Response(LONG, { headers: { 'content-type': 'text/plain' } })
    },
    'compresses the replies of one route': {
      ...gzipped,
      options: { global: false },
      route: () => ({ compress: {} }),
      send: () => LONG
    },
    'answers that it cannot': { options: { onUnsupportedEncoding: refuse }, headers: unsupported, status: 406 },
    'throws that it cannot': { options: { onUnsupportedEncoding: throw406 }, headers: unsupported, status: 406 },
    'answers that it cannot, on one route': {
      options: { global: false },
      route: () => ({ compress: { onUnsupportedEncoding: refuse } }),
      headers: unsupported,
      status: 406
    },
    'throws that it cannot, on one route': {
      options: { global: false },
      route: () => ({ compress: { onUnsupportedEncoding: throw406 } }),
      headers: unsupported,
      status: 406
    },
    'compresses a stream that fails': {
      headers: gzipped.headers,
      send: (_request, reply) => reply.type('text/plain').send(broken()),
      status: 500
    }
  },
  '@fastify/cookie': {
    'sets a cookie': { send: (_request, reply) => { reply.setCookie('a', '1') }, status: 200, header: 'set-cookie' },
    'cannot set a cookie': {
      send: (_request, reply) => reply.setCookie('a', '1', { domain: 'not a domain;' }).send('ok'),
      status: 500
    }
  },
  '@fastify/cors': {
    'allows an origin': { headers: { origin: 'http://x' }, status: 200, header: 'access-control-allow-origin' }
  },
  '@fastify/etag': {
    'sets an etag': { status: 200, header: 'etag' },
    'answers that nothing has changed': {
      options: { hashFn: () => 'a' },
      headers: { 'if-none-match': 'W/"a"' },
      status: 304,
      header: 'etag'
    }
  },
  '@fastify/helmet': { 'sets headers': { status: 200, header: 'content-security-policy' } },
  '@fastify/rate-limit': {
    'lets a request pass': { options: { max: 1 }, status: 200, header: 'x-ratelimit-limit' },
    'limits a request': { options: { max: 0 }, status: 429 }
  },
  '@fastify/response-validation': {
    'finds a reply valid': { route: () => ({ schema }), send: () => ({ answer: 42 }), status: 200 },
    'finds a reply invalid': { route: () => ({ schema }), send: () => ({ answer: 'none' }), status: 500 }
  },
  '@fastify/session': {
    'stores a session': {
      needs: { '@fastify/cookie': {} },
      options: sessions,
      send: (request: any) => { request.session.a = 1 },
      status: 200,
      header: 'set-cookie'
    },
    'cannot store a session': {
      needs: { '@fastify/cookie': {} },
      options: { ...sessions, store: failingStore },
      send: (request: any) => { request.session.a = 1 },
      status: 500
    }
  },
  '@fastify/static': {
    'sends a file': {
      options: files,
      send: (_request, reply) => reply.sendFile('package.json'),
      status: 200,
      header: 'etag'
    },
    'finds no file': { options: files, send: (_request, reply) => reply.sendFile('none.json'), status: 404 }
  },
  '@fastify/throttle': {
    'throttles a stream': { options: { bytesPerSecond: 1e6 }, send: () => Readable.from(['a', 'b']), status: 200 },
    'cannot tell the speed': {
      options: { bytesPerSecond: () => { throw new Error('no') } },
      send: () => Readable.from(['a', 'b']),
      status: 500
    }
  }
}

for (const [name, replies] of Object.entries(plugins)) {
  const { default: plugin } = await import(name)
  t.test(`a task is queued if its request succeeds beside ${name}`, async t => {
    for (const [what, reply] of Object.entries(replies)) {
      const { options = {}, needs = {}, route, headers = {}, send = () => 'ok', status, header } = reply
      for (const order of ['before', 'declare'] as const) {
        const register = async (app: FastifyInstance) => {
          for (const [needed, options] of Object.entries(needs)) await app.register((await import(needed)).default, options)
          await app.register(plugin, options)
        }
        const store = new RecordingStore()
        let ids = 0
        const { url } = await serve(t, {
          ...order === 'before' && { before: register },
          declare: async app => {
            if (order === 'declare') await register(app)
            app.get('/', route?.(app) ?? {}, async (request, reply) => {
              request.taskqueue.add('/task', { id: `${++ids}` })
              return await send(request, reply) ?? 'ok'
            })
          },
          taskqueue: { queues: { default: { type: () => store } }, consumer: false }
        })
        const response = await fetch(url, { headers })
        const title = `${what}, ${order === 'before' ? 'registered before' : 'registered after'}`
        t.equal(response.status, status, title)
        await response.text()
        if (header !== undefined) t.ok(response.headers.has(header), `${title}: with its header`)
        t.same(store.ids, status < 400 ? ['1'] : [], `${title}: queued or not`)
      }
    }
  })
}
