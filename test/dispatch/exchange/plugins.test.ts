import { Readable } from 'node:stream'
import compress from '@fastify/compress'
import cookie, { Signer } from '@fastify/cookie'
import cors from '@fastify/cors'
import helmet from '@fastify/helmet'
import jwt from '@fastify/jwt'
import multipart from '@fastify/multipart'
import rateLimit from '@fastify/rate-limit'
import requestContext from '@fastify/request-context'
import session, { type FastifySessionObject } from '@fastify/session'
import serveStatic from '@fastify/static'
import swagger from '@fastify/swagger'
import underPressure from '@fastify/under-pressure'
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { compare, type Case, type See, type Sight } from './ways.js'

const SECRET = 'a secret of this test, which is long enough'
const text = 'a long text, '.repeat(10_000)
const root = t.testdir({ 'file.txt': text })
const signing = Fastify()
await signing.register(jwt, { secret: SECRET })
await signing.ready()
const token = signing.jwt.sign({ sub: 'ada', iat: 0 })

interface Plugin {
  register (app: FastifyInstance, see: See): unknown
  use (request: FastifyRequest, reply: FastifyReply, see: See): unknown
  headers?: Record<string, string>
  body?: string
}

const plugins: Record<string, Plugin> = {
  '@fastify/request-context': {
    register: (app, see) => {
      app.register(requestContext, { defaultStoreValues: () => ({ user: 'nobody' } as never) })
      app.addHook('onRequest', async request => { request.requestContext.set('user' as never, 'ada' as never) })
      app.addHook('onResponse', async request => { see('context', request.requestContext.get('user' as never)) })
    },
    use: async (request, _reply, see) => {
      await new Promise(setImmediate)
      see(request.requestContext.get('user' as never))
    }
  },
  '@fastify/cookie': {
    register: app => app.register(cookie, { secret: SECRET }),
    use: ({ cookies }, reply, see) => {
      see({ ...cookies })
      reply.setCookie('plain', 'x', { path: '/' }).setCookie('signed', 'y', { signed: true }).clearCookie('old')
    },
    headers: { cookie: `a=1; b=caf%C3%A9; sessionId=${encodeURIComponent(new Signer(SECRET).sign('session-1'))}` }
  },
  '@fastify/session': {
    register: (app, see) => {
      const stored: FastifySessionObject = { cookie: { originalMaxAge: null }, name: 'ada' } as never
      if (!app.hasPlugin('@fastify/cookie')) app.register(cookie)
      return app.register(session, {
        secret: SECRET,
        cookie: { secure: false },
        store: {
          get (id, done) { see('get session', id); done(null, id === 'session-1' ? stored as never : undefined as never) },
          set (_id, { count }: { count?: number } & object, done) { see('set session', count); done() },
          destroy (id, done) { see('destroy session', id); done() }
        }
      })
    },
    use: async (request, _reply, see) => {
      see((request.session as { name?: string }).name)
      request.session.set('count' as never, 1 as never)
      await request.session.save()
    },
    headers: { cookie: `sessionId=${encodeURIComponent(new Signer(SECRET).sign('session-1'))}` }
  },
  '@fastify/jwt': {
    register: app => app.register(jwt, { secret: SECRET }),
    use: async (request, _reply, see) => { see(await request.jwtVerify()) },
    headers: { authorization: `Bearer ${token}` }
  },
  '@fastify/multipart': {
    register: app => app.register(multipart, { attachFieldsToBody: true }),
    use: async ({ body }, _reply, see) => {
      const { file, name } = body as { file: { filename: string, toBuffer (): Promise<Buffer> }, name: { value: string } }
      see(file.filename, (await file.toBuffer()).length, name.value)
    },
    headers: { 'content-type': 'multipart/form-data; boundary=limit' },
    body: `--limit\r\ncontent-disposition: form-data; name="file"; filename="f.txt"\r\n\r\n${text}\r\n--limit\r\ncontent-disposition: form-data; name="name"\r\n\r\nada\r\n--limit--\r\n`
  },
  '@fastify/compress': {
    register: app => app.register(compress),
    use () {},
    headers: { 'accept-encoding': 'gzip' }
  },
  '@fastify/static': {
    register: app => app.register(serveStatic, { root, prefix: '/files/', lastModified: false }),
    use () {}
  },
  '@fastify/rate-limit': {
    register: (app, see) => app.register(rateLimit, { max: 2, keyGenerator: ({ ip }) => { see('limit', ip); return ip } }),
    use () {}
  },
  '@fastify/helmet': {
    register: app => app.register(helmet),
    use () {}
  },
  '@fastify/cors': {
    register: app => app.register(cors, { origin: ['https://shop.example'], credentials: true, exposedHeaders: ['x-a'] }),
    use () {},
    headers: { origin: 'https://shop.example' }
  },
  '@fastify/under-pressure': {
    register: app => app.register(underPressure, { maxHeapUsedBytes: 2 ** 40, exposeStatusRoute: true }),
    use: (request, _reply, see) => { see(request.server.isUnderPressure()) }
  },
  '@fastify/swagger': {
    register: app => app.register(swagger),
    use: (request, _reply, see) => { see(Object.keys(request.server.swagger().paths!)) }
  }
}

for (const [name, plugin] of Object.entries(plugins)) {
  t.test(`with ${name} a request and its answer are the same`, async t => { compareWith(t, [plugin]) })
}

t.test('with all plugins together a request and its answer are the same', async t => {
  const { '@fastify/session': { headers: _, ...bySession } = plugins['@fastify/session']!, ...others } = plugins
  compareWith(t, [...Object.values(others), bySession])
})

t.test('what plugins refuse is refused in the same way', async t => {
  const by = (name: string, register: (app: FastifyInstance, sight: Sight) => unknown, more: Partial<Case> = {}): Case => ({
    title: `by ${name}`,
    handler: async () => 'well',
    ...more,
    app: async (app, sight) => {
      await register(app, sight)
      app.addHook('onResponse', async (_request, reply) => { sight.see(reply.statusCode, headersOf(reply)) })
    }
  })
  compare(t, [
    by('@fastify/jwt', app => app.register(jwt, { secret: SECRET }), { handler: async request => await request.jwtVerify(), headers: { authorization: `Bearer ${token}x` } }),
    by('@fastify/rate-limit', app => app.register(rateLimit, { max: () => 0, timeWindow: 60_000 })),
    by('@fastify/under-pressure', app => app.register(underPressure, { maxHeapUsedBytes: 1, retryAfter: 7 })),
    by('@fastify/cors', app => app.register(cors, { origin: 'https://shop.example', strictPreflight: true }), { headers: { origin: 'https://other.example' } }),
    by('@fastify/multipart', app => app.register(multipart), { handler: async request => await request.file(), method: 'POST', payload: 'x' }),
    by('@fastify/static', app => app.register(serveStatic, { root, prefix: '/files/' }), { url: '/files/none.txt' }),
    by('@fastify/static, since it is known', app => app.register(serveStatic, { root, prefix: '/files/', lastModified: false }), { url: '/files/file.txt', headers: { 'if-none-match': '*' } })
  ])
})

/** Sends what all these plugins need at once, for answers of several kinds. */
function compareWith (t: Test, used: readonly Plugin[]): void {
  const headers = Object.assign({}, ...used.map(({ headers }) => headers))
  const payload = used.find(({ body }) => body !== undefined)?.body
  const each: Partial<Case> = {
    ...payload !== undefined && { payload, method: 'POST' },
    headers,
    app: async (app, { see }) => {
      app.addHook('onResponse', async (_request, reply) => { see(reply.statusCode, headersOf(reply)) })
      for (const { register } of used) await register(app, see)
      app.get('/none', async (_request, reply) => { reply.code(204) })
    }
  }
  const answers: Array<[string, (reply: FastifyReply) => unknown]> = [
    ['text', () => text],
    ['JSON', () => ({ text })],
    ['a Buffer', () => Buffer.from(text)],
    ['a stream', reply => reply.type('text/plain').send(Readable.from([text, text]))],
    ['a Response', () => new Response(text, { headers: { 'content-type': 'text/plain' } })],
    ['an error', () => { throw Object.assign(new Error('no'), { statusCode: 429 }) }],
    ['nothing', reply => reply.code(204).send()],
    ['a redirection', reply => reply.redirect('/there')]
  ]
  compare(t, answers.map(([title, answer]): Case => ({
    ...each,
    title,
    handler: async (request, reply, { see }) => {
      for (const { use } of used) await use(request, reply, see)
      return answer(reply)
    }
  })))
  compare(t, [
    { title: 'of no route', ...each, url: '/nowhere' },
    { title: 'of a file, where there are any', ...each, method: 'GET', payload: undefined, url: '/files/file.txt' }
  ])
}

/** The headers of an answer, without what differs each time. */
function headersOf (reply: FastifyReply): object {
  const { date: _, 'set-cookie': cookies, 'x-ratelimit-reset': __, ...headers } = reply.getHeaders()
  return { ...headers, cookies: [cookies ?? []].flat().map(each => String(each).replace(/^sessionId=[^;]*/, 'sessionId').replace(/Expires=[^;]*GMT/, 'Expires')) }
}
