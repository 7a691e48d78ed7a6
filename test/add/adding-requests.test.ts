import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import http from 'node:http'
import http2 from 'node:http2'
import https from 'node:https'
import { isIP, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { text } from 'node:stream/consumers'
import cookie from '@fastify/cookie'
import formbody from '@fastify/formbody'
import session from '@fastify/session'
import Fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import t from 'tap'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import { cert, key } from '../support/tls.js'
import { until } from '../support/until.js'

/** What is sent to an app. */
interface Sent {
  readonly method?: string
  readonly path?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body?: string | Buffer
  /** From this address, where the way has any. */
  readonly from?: string
}

interface Answered { readonly status: number, readonly text: string, readonly cookie?: string | undefined }

interface Way {
  readonly server: object
  /** Whether its requests come from an address. */
  readonly hasAddress: boolean
  readonly listen?: (app: FastifyInstance, host: string, t: Test) => Promise<unknown>
  readonly send: (app: FastifyInstance, sent: Sent) => Promise<Answered>
}

type Test = { teardown (run: () => unknown): void }

const portOf = (app: FastifyInstance) => (app.server.address() as AddressInfo).port
const clientHost = (app: FastifyInstance) =>
  (app.server.address() as AddressInfo).address === '::1' ? '::1' : '127.0.0.1'

async function sendBy (module: typeof http | typeof https, options: https.RequestOptions, sent: Sent) {
  const { method = 'POST', path = '/add', headers, body, from } = sent
  const request = module.request({
    method,
    path,
    headers: { ...headers, ...body !== undefined && { 'content-length': Buffer.byteLength(body) } },
    ...from !== undefined && { localAddress: from },
    rejectUnauthorized: false,
    agent: false,
    ...options
  })
  request.end(body)
  const [response] = await once(request, 'response') as [http.IncomingMessage]
  const [pair] = response.headers['set-cookie'] ?? []
  return { status: response.statusCode!, text: await text(response), cookie: pair?.split(';')[0] }
}

async function sendBy2 (app: FastifyInstance, scheme: string, sent: Sent) {
  const { method = 'POST', path = '/add', headers = {}, body, from } = sent
  const { host, ...others } = headers
  const address = clientHost(app)
  const authority = `${scheme}://${address.includes(':') ? `[${address}]` : address}:${portOf(app)}`
  const options = { rejectUnauthorized: false, ...from !== undefined && { localAddress: from } }
  const client = http2.connect(authority, options)
  const named = host !== undefined && { ':authority': host }
  const stream = client.request({ ':method': method, ':path': path, ...named, ...others })
  stream.end(body)
  const [head] = await once(stream, 'response') as [http2.IncomingHttpHeaders]
  const answer = await text(stream)
  client.close()
  return { status: Number(head[':status']), text: answer, cookie: head['set-cookie']?.[0]?.split(';')[0] }
}

const http1 = (module: typeof http | typeof https): Way['send'] =>
  (app, sent) => sendBy(module, { host: clientHost(app), port: portOf(app) }, sent)

const WAYS: Readonly<Record<string, Way>> = {
  'HTTP/1': { server: {}, hasAddress: true, send: http1(http) },
  HTTPS: { server: { https: { key, cert } }, hasAddress: true, send: http1(https) },
  'HTTP/2': { server: { http2: true }, hasAddress: true, send: (app, sent) => sendBy2(app, 'http', sent) },
  'HTTP/2 over TLS': {
    server: { http2: true, https: { key, cert } },
    hasAddress: true,
    send: (app, sent) => sendBy2(app, 'https', sent)
  },
  'HTTPS to a server of HTTP/2': {
    server: { http2: true, https: { key, cert, allowHTTP1: true } },
    hasAddress: true,
    send: http1(https)
  },
  'a unix socket': {
    server: {},
    hasAddress: false,
    async listen (app, _host, t) {
      const directory = mkdtempSync(join(tmpdir(), 'adding-'))
      t.teardown(() => { rmSync(directory, { recursive: true }) })
      await app.listen({ path: join(directory, 's') })
    },
    send: (app, { from: _, ...sent }) => sendBy(http, { socketPath: app.server.address() as string }, sent)
  },
  inject: {
    server: {},
    hasAddress: true,
    listen: app => app.ready() as unknown as Promise<unknown>,
    async send (app, { method = 'POST', path = '/add', headers = {}, body, from }) {
      const response = await app.inject({
        method: method as 'POST', url: path, headers, payload: body, ...from !== undefined && { remoteAddress: from }
      })
      const [given] = response.cookies
      const pair = given && `${given.name}=${encodeURIComponent(given.value)}`
      return { status: response.statusCode, text: response.body, cookie: pair }
    }
  }
}

const DISPATCHES = ['direct', 'inject'] as const

/** What an app sees of a request. */
function look (request: FastifyRequest) {
  const { ip, ips, host, hostname, port, protocol, url, body, headers, socket } = request
  return {
    ip,
    ips,
    host,
    hostname,
    port,
    protocol,
    url,
    body,
    type: headers['content-type'],
    peer: socket.remoteAddress,
    isEncrypted: (socket as { encrypted?: boolean }).encrypted === true
  }
}

type View = ReturnType<typeof look>

/** What is to be seen of a task that a request adds. */
function taskOf (request: View, { trustProxy }: FastifyServerOptions, isSecure: boolean): View {
  const ip = isIP(request.ip) === 0 ? undefined! : request.ip
  const protocol = /^https?$/.test(request.protocol) ? request.protocol : isSecure ? 'https' : 'http'
  return {
    ...request,
    ip,
    ips: trustProxy ? [ip] : undefined!,
    ...request.host === '' && { host: 'localhost', hostname: 'localhost' },
    protocol,
    url: '/task?x=%C3%A9&y=1&y=2',
    peer: ip,
    isEncrypted: protocol === 'https'
  }
}

interface Case extends Omit<Sent, 'path'> {
  readonly title: string
  readonly server?: FastifyServerOptions
  readonly taskqueue?: TaskqueueOptions
  readonly listen?: string
  /** By these only. */
  readonly ways?: readonly string[]
  /** What the request is seen to have, where that has to be sure. */
  readonly request?: Partial<View>
}

const FORGED = {
  forwarded: 'for=10.1.1.1;host=evil.example;proto=https',
  'x-forwarded-for': '10.1.1.1',
  'x-forwarded-host': 'evil.example',
  'x-forwarded-proto': 'https',
  'x-real-ip': '10.1.1.1',
  'cf-connecting-ip': '10.1.1.1',
  'true-client-ip': '10.1.1.1'
}
const forged = { headers: FORGED, from: '127.0.0.2' }
const SOCKETS = ['HTTP/1', 'HTTPS', 'HTTP/2', 'HTTP/2 over TLS', 'HTTPS to a server of HTTP/2']
const json = { 'content-type': 'application/json' }
/** A number is an option of JavaScript only: a peer cannot be told by it. */
const trusting = (trustProxy: FastifyServerOptions['trustProxy'] | number) => ({ trustProxy }) as FastifyServerOptions

const CASES: readonly Case[] = [
  { title: 'as it comes' },
  { title: 'of a host', headers: { host: 'shop.example' }, request: { host: 'shop.example' } },
  { title: 'of a host with a port', headers: { host: 'shop.example:8443' }, request: { port: 8443 } },
  {
    title: 'of a host that is an IPv6 address',
    headers: { host: '[2001:db8::1]:80' },
    request: { hostname: '[2001:db8::1]' }
  },
  { title: 'from another address', from: '127.0.0.2', ways: [...SOCKETS, 'inject'], request: { ip: '127.0.0.2' } },
  { title: 'over IPv6', listen: '::1', ways: SOCKETS, request: { ip: '::1' } },
  {
    title: 'over IPv4 to a server of IPv6',
    listen: '::',
    from: '127.0.0.2',
    ways: SOCKETS,
    request: { ip: '::ffff:127.0.0.2' }
  },
  { title: 'that is forged, with no proxy', ...forged },
  { title: 'that is forged, and comes from no proxy', ...forged, server: trusting('127.0.0.1') },
  { title: 'that is forged, and a number of proxies is trusted', ...forged, server: trusting(1) },
  { title: 'that is forged, and nothing is copied', ...forged, taskqueue: { copyHeaders: false } },
  {
    title: 'that comes through a proxy',
    headers: { ...FORGED, host: 'inner' },
    server: trusting(true),
    request: { ip: '10.1.1.1', host: 'evil.example', protocol: 'https' }
  },
  {
    title: 'that comes through a proxy from far away',
    headers: { 'x-forwarded-for': '2001:db8::7', 'x-forwarded-proto': 'http' },
    server: trusting('loopback'),
    ways: [...SOCKETS, 'inject'],
    request: { ip: '2001:db8::7', protocol: 'http' }
  },
  {
    title: 'that comes through two proxies, of which one is trusted',
    headers: { 'x-forwarded-for': '10.1.1.1, 203.0.113.7', 'x-forwarded-proto': 'http, https' },
    server: trusting((_address, hop) => hop === 0),
    request: { ip: '203.0.113.7', protocol: 'https' }
  },
  {
    title: 'that comes through all proxies of a list',
    headers: { 'x-forwarded-for': '203.0.113.7, 10.1.1.1', 'x-forwarded-host': 'a.example, b.example' },
    server: trusting(['127.0.0.0/8', '10.0.0.0/8']),
    ways: [...SOCKETS, 'inject'],
    request: { ip: '203.0.113.7', host: 'b.example' }
  },
  {
    title: 'whose proxy says no address',
    headers: { 'x-forwarded-for': 'unknown' },
    server: trusting(true),
    request: { ip: 'unknown' }
  },
  {
    title: 'whose proxy says an address with a port',
    headers: { 'x-forwarded-for': '10.1.1.1:99' },
    server: trusting(true)
  },
  {
    title: 'whose proxy says another protocol',
    headers: { 'x-forwarded-proto': 'wss' },
    server: trusting(true),
    request: { protocol: 'wss' as 'https' }
  },
  {
    title: 'with a list of headers',
    headers: { host: 'shop.example', cookie: 'a=b' },
    taskqueue: { copyHeaders: ['accept-language'] }
  },
  { title: 'with JSON', headers: json, body: '{"a":[1,"é"]}', request: { body: { a: [1, 'é'] } } },
  {
    title: 'with text',
    headers: { 'content-type': 'text/plain; charset=utf-8' },
    body: 'café',
    request: { body: 'café' }
  },
  { title: 'with a form', headers: { 'content-type': 'application/x-www-form-urlencoded' }, body: 'a=1&b=2' },
  { title: 'with bytes', headers: { 'content-type': 'application/octet-stream' }, body: Buffer.from([0, 255, 1]) }
]

for (const [name, way] of Object.entries(WAYS)) {
  for (const dispatch of DISPATCHES) {
    t.test(`a task has what its request had, over ${name}, by the dispatch ${dispatch}`, async t => {
      for (const each of CASES.filter(({ ways }) => ways === undefined || ways.includes(name))) {
        const { title, server = {}, listen = '127.0.0.1', request } = each
        const { app, seen } = await start(t, way, { server, listen, taskqueue: { dispatch, ...each.taskqueue } })
        const { status } = await way.send(app, each)
        t.equal(status, 200, title)
        await until(() => 'grandchild' in seen, title)
        const isSecure = 'https' in way.server
        if (request !== undefined && way.hasAddress) t.match(seen.request, request, `${title}: the request`)
        if (!way.hasAddress && !server.trustProxy) t.equal(seen.request!.ip, undefined)
        const expected = taskOf(seen.request!, server, isSecure)
        t.strictSame(seen.task, expected, `${title}: the task`)
        t.strictSame(seen.grandchild, { ...expected, url: '/grandchild' }, `${title}: what the task adds`)
        const { ip, ips, peer, ...rest } = seen.outside!
        t.strictSame([ip, ips, peer], ['127.0.0.1', server.trustProxy ? ['127.0.0.1'] : undefined, '127.0.0.1'])
        const protocol = isSecure ? 'https' : 'http'
        t.match(rest, { host: 'localhost', hostname: 'localhost', port: null, protocol, isEncrypted: isSecure })
        await app.close()
      }
    })

    t.test(`a task takes the route that its host leads to, over ${name}, by the dispatch ${dispatch}`, async t => {
      const { app } = await start(t, way, { taskqueue: { dispatch } })
      const { text } = await way.send(app, { path: '/hosted', headers: { host: 'a.example', ...json }, body: '{}' })
      t.match(await app.taskqueue.wait(text), { state: 'done', answer: { body: Buffer.from('a') } })
    })
  }
}

t.test('an app that insists on https runs the tasks of its requests, and those of nobody', async t => {
  for (const dispatch of DISPATCHES) {
    for (const name of ['HTTPS', 'HTTP/2 over TLS']) {
      const way = WAYS[name]!
      const { app, seen } = await start(t, way, {
        taskqueue: { dispatch },
        setUp: app => {
          app.addHook('onRequest', async (request, reply) => {
            if (request.protocol !== 'https') return reply.redirect(`https://${request.host}${request.url}`, 308)
          })
        }
      })
      await way.send(app, {})
      await until(() => 'grandchild' in seen && 'outside' in seen, name)
      t.match(seen.task, { protocol: 'https' })
      await app.close()
    }
  }
})

t.test('a task has the session of its request, whose cookie is secure', async t => {
  for (const dispatch of DISPATCHES) {
    for (const name of ['HTTPS', 'HTTP/2 over TLS']) {
      const way = WAYS[name]!
      const users: unknown[] = []
      const { app } = await start(t, way, {
        taskqueue: { dispatch },
        async setUp (app) {
          await app.register(cookie)
          await app.register(session, { secret: 'x'.repeat(32), cookie: { secure: true } })
          app.post('/login', async ({ session }) => { Object.assign(session, { name: 'ada' }) })
          app.post('/with-session', async request => { request.taskqueue.add('/in-session', { payload: {} }) })
          app.post('/in-session', async ({ session }) => { users.push((session as { name?: string }).name) })
        }
      })
      const { cookie: pair } = await way.send(app, { path: '/login' })
      await way.send(app, { path: '/with-session', headers: { cookie: pair! } })
      await until(() => users.length > 0, name)
      t.strictSame(users, ['ada'])
      await app.close()
    }
  }
})

t.test('a request whose client has gone before it adds has the address that it had', async t => {
  for (const name of ['HTTP/1', 'HTTPS', 'HTTP/2', 'HTTP/2 over TLS']) {
    const way = WAYS[name]!
    const isNew = name.startsWith('HTTP/2')
    let leave = () => {}
    const { app, seen } = await start(t, way, {
      setUp: app => {
        app.post('/slow', async (request, { raw }) => {
          const closed = once(raw, 'close')
          leave()
          await closed
          if (isNew) await until(() => request.ip === undefined, 'the end of the session')
          request.taskqueue.add('/task', { payload: {} })
          await request.taskqueue.commit()
        })
      }
    })
    const port = portOf(app)
    const options = { localAddress: '127.0.0.2', rejectUnauthorized: false }
    if (isNew) {
      const client = http2.connect(`http${'https' in way.server ? 's' : ''}://127.0.0.1:${port}`, options)
      client.on('error', () => {})
      client.request({ ':method': 'POST', ':path': '/slow' }).on('error', () => {}).end()
      leave = () => { client.destroy() }
    } else {
      const where = { host: '127.0.0.1', port, method: 'POST', path: '/slow', agent: false as const }
      const request = (name === 'HTTPS' ? https : http).request({ ...options, ...where }).on('error', () => {})
      request.end()
      leave = () => { request.destroy() }
    }
    await until(() => 'task' in seen, name)
    const ip = isNew ? undefined : '127.0.0.2'
    // HTTP/2 has forgotten it.
    t.match(seen.task, { ip, peer: ip, protocol: 'https' in way.server ? 'https' : 'http' }, name)
    await app.close()
  }
})

/** An app that notes what it sees of requests that add tasks, and of the tasks. */
async function start (t: Test, way: Way, {
  server = {}, listen = '127.0.0.1', taskqueue: options, setUp
}: Pick<Case, 'server' | 'listen' | 'taskqueue'> & { setUp?: (app: FastifyInstance) => unknown }) {
  const seen: { request?: View, task?: View, grandchild?: View, outside?: View } = {}
  const app = Fastify({ ...way.server, ...server } as FastifyServerOptions) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: { maxRetries: 0 }, ...options })
  await app.register(formbody)
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => {
    done(null, body)
  })
  await setUp?.(app)
  app.post('/add', async request => {
    seen.request = look(request)
    request.taskqueue.add('/task', { method: 'POST', query: { x: 'é', y: [1, 2] } })
    await app.taskqueue.add('/outside')
  })
  app.post('/task', async request => {
    seen.task = look(request)
    request.taskqueue.add('/grandchild', { method: 'POST' })
  })
  app.post('/grandchild', async request => { seen.grandchild = look(request) })
  app.get('/outside', { constraints: { taskOnly: true } }, async request => { seen.outside = look(request) })
  for (const host of ['a', 'b']) {
    app.post('/hosted', { constraints: { host: `${host}.example` } }, async ({ taskqueue }) => {
      return taskqueue.add('/hosted-task', { payload: {} })
    })
    app.post('/hosted-task', { constraints: { host: `${host}.example`, taskOnly: true } }, async () => host)
  }
  if (way.listen === undefined) await app.listen({ port: 0, host: listen })
  else await way.listen(app, listen, t)
  return { app, seen }
}
