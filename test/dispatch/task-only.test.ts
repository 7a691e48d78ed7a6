import { once } from 'node:events'
import { connect as connectHttp2 } from 'node:http2'
import { connect, type AddressInfo } from 'node:net'
import { text } from 'node:stream/consumers'
import awsLambda from '@fastify/aws-lambda'
import swagger from '@fastify/swagger'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import t, { type Test } from 'tap'
import taskqueue from '../../lib/index.js'
import { until } from '../support/until.js'

// Each way of asking is tried on an ordinary route as well, so that one which reaches nothing proves nothing.

const METHODS = ['GET', 'HEAD', 'POST', 'PUT', 'PATCH', 'DELETE', 'OPTIONS']
/** What a client, a proxy or a router may take for the path `/name`. */
const SPELLINGS = [
  '/name', '/name/', '/NAME', '/n%61me', '/%6Eame', '/%6e%61%6d%65', '//name', '/name//', '/./name', '/x/../name', '/%2e/name', '/name%2f', '/name;x=1',
  '/name?x=1', '/name?', '/name#x', '/name%00', '/name%20', '\\name', 'http://localhost/name', 'http://user@other:1/name', 'name', '*', '/name/*', '/:name'
]
const ROUTERS: Record<string, object> = {
  'as it is': {},
  'as lenient as it can be': { routerOptions: { caseSensitive: false, ignoreTrailingSlash: true, ignoreDuplicateSlashes: true, useSemicolonDelimiter: true } }
}
const FORGED = {
  'x-task-id': '1',
  'X-Task-User-Id': 'root',
  'user-agent': 'fastify-taskqueue',
  'x-http-method-override': 'GET',
  'x-original-url': '/hidden',
  'x-rewrite-url': '/hidden',
  'x-forwarded-for': '127.0.0.1'
}

for (const [router, server] of Object.entries(ROUTERS)) {
  t.test(`with a router ${router}, a route for tasks only does not exist for requests from sockets`, async t => {
    const { app, hits } = await start(t, server)
    const { port } = app.server.address() as AddressInfo
    let reached = 0
    for (const method of METHODS) {
      for (const spelling of SPELLINGS) {
        const [open, unknown, hidden] = await Promise.all(['open', 'none', 'hidden'].map(name => ask(port, method, respell(spelling, name))))
        if (open!.status === 200) reached++
        t.strictSame(hidden, unknown, `${method} ${spelling}: as for a path that does not exist`)
      }
    }
    t.ok(reached > METHODS.length * 5, `${reached} of them reach an ordinary route`)
    t.strictSame(hits, [])
  })

  t.test(`with a router ${router}, it does not for what is injected, forged headers or not`, async t => {
    const { app, hits } = await start(t, server)
    for (const method of METHODS as ['GET']) {
      for (const headers of [{}, FORGED]) {
        t.equal((await app.inject({ method, url: '/open', headers })).statusCode, 200)
        const [unknown, hidden] = await Promise.all(['/none', '/hidden'].map(url => app.inject({ method, url, headers })))
        t.equal(hidden!.statusCode, 404)
        t.equal(hidden!.body, unknown!.body.replaceAll('/none', '/hidden'))
        t.strictSame(Object.keys(hidden!.headers), Object.keys(unknown!.headers))
      }
    }
    t.strictSame(hits, [])
  })
}

const LONG = ['a'.repeat(201), '1'.repeat(201), '%61'.repeat(201), 'ü'.repeat(101), `${'a'.repeat(201)}.json`, `${'1'.repeat(201)}-${'2'.repeat(201)}`, 'a'.repeat(5000)]
const TAILS = ['', 'a', '1', '1-2', 'a.json', '%zz', '%2f', '%', 'a/b', '/', '?a=b', ...LONG, ...LONG.slice(0, 2).flatMap(long => [
  `${long}/b`, `b/${long}`, `${long}/${long}`, `${long}?a=b`, `a?b=${long}`, `${long};a=b`, `${long}%zz`, `%zz/${long}`, `%2f${long}`
])]

for (const [server, options] of Object.entries({
  'a server': {},
  'one that takes longer parameters': { maxParamLength: 150 },
  'one that takes short ones only': { routerOptions: { maxParamLength: 20 } },
  'one that compiles its router': { routerOptions: { compile: true } },
  'one as lenient as it can be': ROUTERS['as lenient as it can be']!
})) {
  t.test(`${server} answers as for a path that does not exist where a parameter of it is too long, and 414 where one of an ordinary route is`, async t => {
    const app = Fastify({ exposeHeadRoutes: true, ...options })
    t.teardown(() => app.close())
    await app.register(taskqueue)
    const hits: string[] = []
    const only = { constraints: { taskOnly: true } } as const
    const patterns = { id: ':id', rx: ':n(^\\d+$)', suffix: ':name.json', two: ':a-:b', deep: ':a/:b', optional: ':id?', wild: '*' }
    for (const [name, pattern] of Object.entries(patterns)) {
      const handler = async () => { hits.push(name); return name }
      app.all(`/${name}/${pattern}`, only, handler)
      app.get(`/beside/${name}/${pattern}`, only, handler)
      app.get(`/open-${name}/${pattern}`, async () => 'open')
    }
    app.get('/beside/*', async () => 'open')
    app.get('/version/:id', { constraints: { taskOnly: true, version: '1.0.0' } }, async () => { hits.push('version') })
    app.get('/host/:id', { constraints: { taskOnly: true, host: 'localhost' } }, async () => { hits.push('host') })
    app.get('/open-host/:id', { constraints: { host: 'localhost' } }, async () => 'open')
    await app.listen({ port: 0, host: '127.0.0.1' })
    const { port } = app.server.address() as AddressInfo

    const plain = Fastify({ exposeHeadRoutes: true, ...options })
    t.teardown(() => plain.close())
    for (const [name, pattern] of Object.entries(patterns)) plain.get(`/open-${name}/${pattern}`, async () => 'open')
    plain.get('/open-host/:id', { constraints: { host: 'localhost' } }, async () => 'open')
    plain.get('/beside/*', async () => 'open')
    await plain.listen({ port: 0, host: '127.0.0.1' })
    const { port: plainPort } = plain.server.address() as AddressInfo

    const differing: string[] = []
    const statuses = new Set<number>()
    type Answer = Awaited<ReturnType<typeof ask>>
    const compare = (what: string, { answer, status }: Answer, other: Answer, { not }: { not?: number } = {}) => {
      statuses.add(status)
      if (answer !== other.answer && status !== not) differing.push(`${what}: ${status}, and not ${other.status}`)
    }
    for (const tail of TAILS) {
      const shown = tail.length > 40 ? `${tail.slice(0, 10)}… (${tail.length})` : tail
      for (const name of [...Object.keys(patterns), 'version', 'host']) {
        for (const method of name === 'id' ? ['GET', 'HEAD', 'POST'] : ['GET']) {
          const unknown = name.replace(/^./, 'n')
          const [hidden, none] = await Promise.all([name, unknown].map(name => ask(port, method, `/${name}/${tail}`)))
          compare(`${method} /${name}/${shown}`, hidden!, none!)
        }
      }
      for (const name of [...Object.keys(patterns).flatMap(name => [`open-${name}`, `beside/${name}`]), 'open-host']) {
        const [here, there] = await Promise.all([port, plainPort].map(port => ask(port, 'GET', `/${name}/${tail}`)))
        // The router says of what no route would take either that it is too long. That may be not found as well.
        compare(`GET /${name}/${shown}`, here!, there!, { ...there!.status === 414 && { not: 404 } })
      }
    }
    t.strictSame(differing, [])
    t.strictSame(hits, [])
    for (const path of ['id/1', 'rx/1', 'suffix/1.json', 'two/1-2', 'deep/1/2', 'optional/1', 'host/1']) {
      const long = `/open-${path.replace('1', '1'.repeat(201))}`
      t.match(await ask(port, 'GET', long), { status: 414, answer: (await ask(plainPort, 'GET', long)).answer }, path)
    }
    t.ok([200, 400, 404, 414].every(status => statuses.has(status)), [...statuses].join())

    const long = '1'.repeat(15)
    const id = await app.taskqueue.add(`/id/${long}`)
    t.match(await app.taskqueue.wait(id), { state: 'done' }, 'and a task reaches it')
  })
}

t.test('nor does a parameter that is too long tell of it where it is injected or comes over HTTP/2, and the request is what it was', async t => {
  const app = Fastify({ http2: true }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.get('/hidden/:id', { constraints: { taskOnly: true } }, async () => 'hidden')
  app.get('/open/:id', async () => 'open')
  const seen: string[] = []
  app.setNotFoundHandler(async ({ method, raw, url }, reply) => {
    seen.push(`${method} ${raw.method} ${url.slice(0, 10)}`)
    return await reply.code(404).send('nowhere')
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const session = connectHttp2(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  t.teardown(() => { session.close() })
  for (const [path, expected] of [[`/hidden/${'a'.repeat(101)}`, 404], [`/nowhere/${'a'.repeat(101)}`, 404], [`/open/${'a'.repeat(101)}`, 414]] as const) {
    const stream = session.request({ ':path': path })
    const [head] = await once(stream, 'response')
    t.equal(head[':status'], expected)
    t.equal((await text(stream)) === 'nowhere', expected === 404)
    t.equal((await app.inject(path)).statusCode, expected)
  }
  t.strictSame(seen, ['GET GET /hidden/aa', 'GET GET /hidden/aa', 'GET GET /nowhere/a', 'GET GET /nowhere/a'])
})

t.test('it does not for a serverless adapter, which injects what comes from outside', async t => {
  const { app, hits } = await start(t)
  const handle = awsLambda(app as never, { decorateRequest: false })
  const call = async (path: string) => await handle(
    { httpMethod: 'GET', path, headers: FORGED, multiValueHeaders: {}, queryStringParameters: {}, body: '' }, {} as never
  ) as { statusCode: number, body: string }
  t.match(await call('/open'), { statusCode: 200, body: 'open' })
  t.strictSame((await call('/hidden')).body, (await call('/none')).body.replaceAll('/none', '/hidden'))
  t.match(await call('/hidden'), { statusCode: 404 })
  t.strictSame(hits, [])
})

t.test('it does not for what a task injects, be it with the headers of the task', async t => {
  const { app, hits } = await start(t)
  for (const inject of ['/nested', '/nested-in-child']) {
    await app.taskqueue.add(inject)
    await until(() => hits.length === 1)
    t.strictSame(hits.splice(0), ['404 200'])
  }
})

t.test('it does not over HTTP/2, where a task runs all the same', async t => {
  const { app, hits } = await start(t, { http2: true } as FastifyServerOptions)
  const session = connectHttp2(`http://127.0.0.1:${(app.server.address() as AddressInfo).port}`)
  t.teardown(() => { session.close() })
  const ask = async (path: string) => {
    const stream = session.request({ ...FORGED, ':path': path })
    const [head] = await once(stream, 'response')
    return { status: head[':status'], body: await text(stream) }
  }
  t.match(await ask('/open'), { status: 200, body: 'open' })
  t.match(await ask('/hidden'), { status: 404 })
  t.match(await ask('/headers'), { status: 200, body: '[]' })
  await app.taskqueue.add('/hidden')
  await until(() => hits.length === 1)
  t.strictSame(hits, ['hidden'])
})

t.test('it is named in no document', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(swagger)
  await app.register(taskqueue)
  const schema = { querystring: { type: 'object', properties: { n: { type: 'number' } } } }
  app.get('/open', { schema }, async () => 'open')
  app.get('/hidden', { constraints: { taskOnly: true }, schema }, async () => 'hidden')
  app.get('/hidden-too', { constraints: { taskOnly: true } }, async () => 'hidden')
  await app.ready()
  t.strictSame(Object.keys(app.swagger().paths!), ['/open'])
})

t.test('it can share its path with an ordinary route, and a task may request either', async t => {
  const { app, hits } = await start(t)
  t.equal((await app.inject('/both')).body, 'for all')
  for (const url of ['/both', '/open']) {
    await app.taskqueue.add(url)
    await until(() => hits.length === 1)
    t.strictSame(hits.splice(0), [url === '/both' ? 'for tasks' : 'open, as a task'])
  }
})

t.test('taskOnly takes no other value than true, and not later than the plugin', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  for (const taskOnly of [false, 'yes', 1, null]) {
    t.throws(() => app.get('/x', { constraints: { taskOnly: taskOnly as true } }, async () => ''), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: /constraints\.taskOnly/ }, String(taskOnly))
  }
})

t.test('a handler may trust x-task-* headers: outside requests have none, before any hook', async t => {
  const seen: unknown[] = []
  const app = Fastify()
  t.teardown(() => app.close())
  app.addHook('onRequest', async ({ headers }) => { seen.push(Object.keys(headers).filter(name => name.startsWith('x-task'))) })
  await app.register(taskqueue)
  await app.register(async child => {
    child.setGenReqId(() => 'mine')
    child.get('/child', async ({ headers, task }) => ({ task, headers: Object.keys(headers).filter(name => name.startsWith('x-task')) }))
  })
  app.get('/x', async ({ headers, task }) => ({ task, headers: Object.keys(headers).filter(name => name.startsWith('x-task')) }))
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const forged = { 'X-Task-Id': '1', 'x-task-user-id': 'root', 'X-TASK-ANYTHING': 'x' }
  t.strictSame(await (await fetch(`${url}/x`, { headers: forged })).json(), { task: null, headers: [] })
  t.strictSame((await app.inject({ url: '/x', headers: forged })).json(), { task: null, headers: [] })
  t.equal((await app.inject({ url: '/unknown', headers: forged })).statusCode, 404)
  t.strictSame(seen, [[], [], []])
  t.strictSame((await app.inject({ url: '/child', headers: forged })).json(), { task: null, headers: [] }, 'with another generator of request ids, before the handler')
})

t.test('a request that brings its own id along is guarded as well', async t => {
  const seen: unknown[] = []
  const app = Fastify({ requestIdHeader: 'x-request-id' })
  t.teardown(() => app.close())
  app.addHook('onRequest', async ({ headers }) => { seen.push(headers['x-task-user-id']) })
  await app.register(taskqueue)
  app.get('/secret', { constraints: { taskOnly: true } }, async () => 'secret')
  app.get('/x', async () => 'x')
  t.equal((await app.inject({ url: '/x', headers: { 'x-request-id': '1', 'x-task-user-id': 'root' } })).body, 'x')
  t.strictSame(seen, [undefined])
})

/** An app that listens, with a route for all, one for tasks only, and others that tell what they are asked by. */
async function start (t: Test, server: FastifyServerOptions = {}): Promise<{ app: FastifyInstance, hits: string[] }> {
  const hits: string[] = []
  const app = Fastify({ exposeHeadRoutes: false, ...server }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await app.register(taskqueue)
  const only = { constraints: { taskOnly: true } } as const
  const nested = (instance: FastifyInstance) => async ({ headers }: { headers: object }) => {
    const [hidden, open] = await Promise.all(['/hidden', '/open'].map(url => instance.inject({ url, headers: { ...headers } })))
    hits.push(`${hidden!.statusCode} ${open!.statusCode}`)
    return {}
  }
  app.all('/open', async request => {
    if (request.task !== null) hits.push('open, as a task')
    return 'open'
  })
  app.all('/hidden', only, async () => { hits.push('hidden'); return 'hidden' })
  app.get('/both', async () => 'for all')
  app.get('/both', only, async () => { hits.push('for tasks'); return {} })
  app.get('/headers', async ({ headers }) => Object.keys(headers).filter(name => name.startsWith('x-task')))
  app.get('/nested', only, nested(app))
  await app.register(async child => { child.get('/nested-in-child', only, nested(child)) })
  await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, hits }
}

const respell = (spelling: string, name: string) => spelling.replace('name', name).replace('NAME', name.toUpperCase())
  .replace('n%61me', `${name[0]}%${name.charCodeAt(1).toString(16)}${name.slice(2)}`)
  .replace('%6Eame', `%${name.charCodeAt(0).toString(16).toUpperCase()}${name.slice(1)}`)
  .replace('%6e%61%6d%65', [...name].map(char => `%${char.charCodeAt(0).toString(16)}`).join(''))

/** Asks in bytes, since clients tidy up what they are given; the path and what depends on its length are taken out of the answer. */
async function ask (port: number, method: string, target: string): Promise<{ status: number, answer: string }> {
  const socket = connect(port, '127.0.0.1')
  const forged = Object.entries(FORGED).map(([name, value]) => `${name}: ${value}\r\n`).join('')
  socket.end(`${method} ${target} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n${forged}\r\n`)
  const answer = await text(socket)
  return {
    status: Number(/^HTTP\/1\.1 (\d+)/.exec(answer)?.[1]),
    answer: answer.replaceAll(/^(?:date|content-length):.*$/gmi, '').replaceAll(/Route .* not found|'.*' is not a valid url/g, '')
  }
}
