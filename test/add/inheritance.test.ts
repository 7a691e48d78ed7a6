import { once } from 'node:events'
import { request as get } from 'node:http'
import { connect } from 'node:http2'
import { json } from 'node:stream/consumers'
import Fastify, { type FastifyInstance, type FastifyRequest, type InjectOptions } from 'fastify'
import t from 'tap'
import taskqueue, { type AddOptions, type CopyHeaders, type UserOptions } from '../../lib/index.js'
import { startEcho } from '../support/echo-app.js'
import { until } from '../support/until.js'

const COPIED = {
  cookie: 'session=1; theme=dark',
  authorization: 'Bearer abc',
  host: 'shop.example',
  'accept-language': 'de, en;q=0.5',
  accept: '*/*',
  'x-request-id': 'r1',
  'x-task': 'not one of ours',
  ranges: 'not range',
  'x-latin': 'é'
}

const LEFT_OUT = {
  'user-agent': 'browser',
  'x-task-id': 'forged',
  'x-task-user-id': 'root',
  'x-task-anything': '1',
  'keep-alive': 'timeout=5',
  'proxy-connection': 'keep-alive',
  'proxy-authenticate': 'Basic',
  'proxy-authorization': 'Basic abc',
  te: 'trailers',
  trailer: 'x-checksum',
  upgrade: 'h2c',
  'http2-settings': 'AAMAAABk',
  expect: '100-continue',
  'content-type': 'application/json',
  'content-length': '7',
  'content-encoding': 'identity',
  'content-language': 'de',
  'content-md5': 'abc',
  'if-match': '"1"',
  'if-none-match': '"1"',
  'if-modified-since': 'Thu, 01 Jan 1970 00:00:00 GMT',
  'if-unmodified-since': 'Thu, 01 Jan 2099 00:00:00 GMT',
  'if-range': '"1"',
  range: 'bytes=0-1',
  prefer: 'respond-async',
  'idempotency-key': '"8e03978e"',
  'last-event-id': '7',
  'sec-websocket-key': 'dGhlIHNhbXBsZSBub25jZQ==',
  'sec-websocket-protocol': 'chat',
  forwarded: 'for=10.0.0.1;proto=https;host=evil.example',
  'forwarded-for': '10.0.0.1',
  'x-forwarded': '10.0.0.1',
  'x-forwarded-for': '10.0.0.1',
  'x-forwarded-host': 'evil.example',
  'x-forwarded-proto': 'https',
  'x-forwarded-port': '443',
  'x-forwarded-ssl': 'on',
  'x-forwarded-prefix': '/evil',
  'x-original-forwarded-for': '10.0.0.1',
  'cloudfront-forwarded-proto': 'https',
  'x-real-ip': '10.0.0.1',
  'client-ip': '10.0.0.1',
  'x-client-ip': '10.0.0.1',
  'x-cluster-client-ip': '10.0.0.1',
  'true-client-ip': '10.0.0.1',
  'cf-connecting-ip': '10.0.0.1',
  'cf-connecting-ipv6': '::1',
  'cf-pseudo-ipv4': '10.0.0.1',
  'fastly-client-ip': '10.0.0.1',
  'fly-client-ip': '10.0.0.1',
  'do-connecting-ip': '10.0.0.1',
  'x-appengine-user-ip': '10.0.0.1',
  'x-azure-clientip': '10.0.0.1',
  'x-azure-socketip': '10.0.0.1',
  'x-envoy-external-address': '10.0.0.1',
  'x-remote-addr': '10.0.0.1',
  'cloudfront-viewer-address': '10.0.0.1:80',
  'cf-visitor': '{"scheme":"https"}',
  'x-url-scheme': 'https',
  'x-scheme': 'https',
  'front-end-https': 'on',
  'x-host': 'evil.example',
  'x-original-host': 'evil.example',
  'x-original-url': '/evil',
  'x-original-uri': '/evil',
  'x-rewrite-url': '/evil',
  'x-http-method-override': 'DELETE',
  'x-http-method': 'DELETE',
  'x-method-override': 'DELETE',
  'accept-version': '2.x'
}

/** What every task has of itself. */
const OWN = { 'user-agent': 'fastify-taskqueue', 'x-task-id': String }

t.test('a task inherits the headers of the current request but those of that one exchange', async t => {
  const { run } = await startEcho(t)
  const by: InjectOptions = { method: 'POST', headers: { ...COPIED, ...LEFT_OUT, connection: 'keep-alive, Authorization ,x-request-id' }, payload: '{"a":1}' }
  const { headers } = await run('/task', { method: 'GET' }, by)
  const { 'user-agent': agent, 'x-task-id': id, ...others } = headers
  t.strictSame(others, COPIED, 'all the others, and no more')
  t.match([agent, id], ['fastify-taskqueue', /^[0-9a-f-]{36}$/])
  const { headers: withBody } = await run('/task', { method: 'POST' }, by)
  t.match(withBody, { ...COPIED, 'content-type': 'application/json', 'content-length': '7' }, 'those of a copied body are its own')
  t.notOk('content-language' in withBody || 'content-encoding' in withBody)
})

t.test('headers that came through a socket are inherited the same way', async t => {
  const tasks: Array<FastifyRequest['headers']> = []
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.post('/', async request => ({ id: request.taskqueue.add('/task') }))
  app.get('/task', async ({ headers }) => { tasks.push(headers) })
  const { port } = new URL(await app.listen({ port: 0, host: '127.0.0.1' }))
  const request = get({ port, method: 'POST', headers: { connection: 'close, x-many', te: 'trailers', cookie: ['a=b', 'c=d'], 'x-many': ['1', '2'], 'transfer-encoding': 'chunked', 'content-type': 'text/plain' } })
  request.end('hello')
  await once(request, 'response')
  await until(() => tasks.length === 1)
  t.strictSame(Object.keys(tasks[0]!).sort(), ['cookie', 'host', 'user-agent', 'x-many', 'x-task-id'])
  t.match(tasks[0], { ...OWN, cookie: 'a=b; c=d', 'x-many': '1, 2', host: `localhost:${port}` })
})

t.test('the pseudo-headers of HTTP/2 are left out', async t => {
  const tasks: Array<FastifyRequest['headers']> = []
  const app = Fastify({ http2: true })
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.get('/', async request => ({ id: request.taskqueue.add('/task') }))
  app.get('/task', async ({ headers }) => { tasks.push(headers) })
  const client = connect(await app.listen({ port: 0, host: '127.0.0.1' }))
  t.teardown(() => { client.close() })
  await json(client.request({ ':path': '/', cookie: 'a=b', 'x-custom': '1' }))
  await until(() => tasks.length === 1)
  t.match(tasks[0], { ...OWN, cookie: 'a=b', 'x-custom': '1' })
  t.strictSame(Object.keys(tasks[0]!).filter(name => name.startsWith(':')), [])
})

t.test('copyHeaders says which headers are inherited', async t => {
  const names = async (copyHeaders: CopyHeaders, headers: InjectOptions['headers'] = {}) => {
    const { run } = await startEcho(t, { taskqueue: { copyHeaders } })
    const task = await run('/task', {}, { headers: { ...COPIED, ...LEFT_OUT, ...headers } })
    return Object.keys(task.headers).filter(name => !(name in OWN) && name !== 'host').sort()
  }
  const all = Object.keys(COPIED).filter(name => name !== 'host').sort()
  t.strictSame(await names(true), all)
  t.strictSame(await names(false), [])
  t.strictSame(await names([]), [])
  t.strictSame(await names(['Cookie', 'X-REQUEST-ID', 'x-absent']), ['cookie', 'x-request-id'])
  t.strictSame(await names(['cookie', 'authorization'], { connection: 'authorization' }), ['authorization', 'cookie'], 'although Connection names one')
  t.strictSame(await names(() => true), all)
  t.strictSame(await names(() => false), [])
  t.strictSame(await names(({ headers }) => headers.cookie === COPIED.cookie && ['AUTHORIZATION', 'user-agent', 'x-task-id', 'range']), ['authorization'], 'a function is given the request, and cannot name what is never copied')
})

t.test('the host is inherited whatever headers are copied, and can be set', async t => {
  for (const copyHeaders of [true, false, ['host'], [], ['cookie'], () => false]) {
    const { run } = await startEcho(t, { taskqueue: { copyHeaders } })
    t.equal((await run('/task', {}, { headers: COPIED })).headers.host, 'shop.example')
    for (const [headers, host] of [[{ Host: 'other.example' }, 'other.example'], [{ HOST: null }, 'localhost']] as const) {
      t.equal((await run('/task', { headers }, { headers: COPIED })).headers.host, host)
    }
  }
})

t.test('what is not inherited can be given on purpose', async t => {
  const { run } = await startEcho(t)
  const headers = { 'x-forwarded-for': '10.0.0.9', 'X-Real-IP': '10.0.0.9', 'accept-version': '1.x' }
  t.match((await run('/task', { headers }, { headers: LEFT_OUT })).headers, {
    'x-forwarded-for': '10.0.0.9', 'x-real-ip': '10.0.0.9', 'accept-version': '1.x'
  })
})

t.test('a list that names a header that is never copied is refused at registration', async t => {
  for (const name of [...Object.keys(LEFT_OUT), 'connection', 'transfer-encoding', ':authority', 'X-Task-Id', 'User-Agent', 'Content-Type', 'IF-NONE-MATCH']) {
    const app = Fastify()
    await t.rejects(Promise.resolve(app.register(taskqueue, { copyHeaders: ['cookie', name] })), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: `Option 'copyHeaders' must be a list of headers that can be inherited, got "${name}"` }, name)
    await app.close().catch(() => {})
  }
})

t.test('a function for copyHeaders that returns nothing of use copies nothing', async t => {
  for (const returned of [undefined, null, 'cookie', 1, {}, [1], Promise.resolve(true)]) {
    const { refusal, queued } = await startEcho(t, { taskqueue: { consumer: false, copyHeaders: () => returned as unknown as boolean } })
    t.match(await refusal('/task', {}, { headers: COPIED }), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: 'copyHeaders' }, String(returned))
    t.equal(await queued(), 0)
  }
})

t.test('a header that no task can carry is refused when it would be copied', async t => {
  const { refusal, run } = await startEcho(t)
  const by = { headers: { 'x-name': '€' } }
  t.match(await refusal('/task', {}, by), { code: 'FST_TASKQUEUE_INVALID_HEADER', message: '"x-name"' })
  t.match((await run('/task', { headers: { 'x-name': null } }, by)).headers, OWN)
})

t.test('the user of a task is the user of the request that adds it', async t => {
  for (const [user, expected] of [
    [{ id: 'ada' }, 'ada'],
    [{ id: 'ada', sub: 'bob' }, 'ada'],
    [{ sub: 'bob' }, 'bob'],
    [{ id: 42 }, '42'],
    [{ id: 0 }, '0'],
    [{ id: null, sub: 'bob' }, 'bob'],
    [{ name: 'ada' }, undefined],
    [null, undefined],
    [undefined, undefined]
  ] as Array<[unknown, string | undefined]>) {
    const { run } = await startEcho(t, { setUp: app => as(app, user) })
    const { task, headers } = await run('/task')
    t.equal(task.userId, expected)
    t.equal(headers['x-task-user-id'], expected)
    t.equal('x-task-user-id' in headers, expected !== undefined)
  }
})

t.test('user.id says who that is, at once or later', async t => {
  const asked: unknown[] = []
  for (const [id, expected] of [
    [() => 'ada', 'ada'],
    [() => 7, '7'],
    [() => 'Ada Lovelace <ada@example.org>', 'Ada Lovelace <ada@example.org>'],
    [() => 'x'.repeat(255), 'x'.repeat(255)],
    [async () => 'ada', 'ada'],
    [async () => 7, '7'],
    [async () => undefined, undefined],
    [() => null, undefined],
    [({ headers }: FastifyRequest) => headers['x-user'] as string, 'eve']
  ] as Array<[NonNullable<UserOptions['id']>, string | undefined]>) {
    const { run } = await startEcho(t, { taskqueue: { user: { id: request => { asked.push(request.url); return id(request) } } } })
    t.equal((await run('/task', {}, { headers: { 'x-user': 'eve' } })).task.userId, expected)
  }
  t.strictSame(asked, Array(9).fill('/handler'))
})

t.test('the commit waits for who it is', async t => {
  let tell = (_id: string) => {}
  const { request, waitFor, queued } = await startEcho(t, { taskqueue: { user: { id: () => new Promise<string>(resolve => { tell = resolve }) } } })
  let id = ''
  let isAnswered = false
  const response = request(({ taskqueue }) => { id = taskqueue.add('/task') }).finally(() => { isAnswered = true })
  await until(() => id !== '')
  await new Promise(resolve => { setImmediate(resolve) })
  t.notOk(isAnswered)
  t.equal(await queued(), 0)
  tell('ada')
  t.equal((await response).statusCode, 200)
  t.equal((await waitFor(id)).task.userId, 'ada')
})

t.test('an id that cannot travel in a header fails the request, and nothing is queued', async t => {
  const invalid = ['', ' ', ' ada', 'ada ', 'a\r\nb', '\t', 'ü', '€', 'x'.repeat(256), true, {}, ['ada'], NaN, Infinity, Symbol('ada')]
  for (const value of invalid) {
    const expected = { code: 'FST_TASKQUEUE_INVALID_USER_ID', message: "Option 'user.id' must return 1 to 255 printable ASCII characters, or nothing, got " }
    const { refusal, queued } = await startEcho(t, { taskqueue: { consumer: false, user: { id: () => value as string } } })
    t.match(await refusal('/task'), expected, String(value))
    const { request, queued: queuedLater } = await startEcho(t, { taskqueue: { consumer: false, user: { id: async () => value as string } } })
    const response = await request(({ taskqueue }) => taskqueue.add('/task'))
    t.match([response.statusCode, response.json()], [500, expected], `${String(value)}, later`)
    t.equal(await queued() + await queuedLater(), 0)
  }
})

t.test('where user.id fails the request fails, and nothing is queued', async t => {
  for (const id of [() => { throw new Error('no directory') }, async () => { throw new Error('no directory') }]) {
    const { request, queued } = await startEcho(t, { taskqueue: { consumer: false, user: { id } } })
    for (const add of [
      ({ taskqueue }: FastifyRequest) => taskqueue.add('/task'),
      ({ taskqueue }: FastifyRequest) => { taskqueue.add('/task'); taskqueue.add('/task') }
    ]) {
      const { statusCode, json } = await request(add)
      t.match([statusCode, json().message], [500, 'no directory'])
    }
    t.equal((await request(() => 'no task')).statusCode, 200)
    t.equal(await queued(), 0)
  }
})

t.test('a user.id that takes longer than a commit may is a 503, and nothing is queued', async t => {
  const { request, queued } = await startEcho(t, { taskqueue: { consumer: false, commitTimeoutMs: 50, user: { id: () => new Promise<string>(() => {}) } } })
  const { statusCode, json } = await request(({ taskqueue }) => taskqueue.add('/task'))
  t.match([statusCode, json().code], [503, 'FST_TASKQUEUE_COMMIT_FAILED'])
  t.equal(await queued(), 0)
})

t.test('where user.id fails for a task that is refused or dropped, nobody is left to hear of it', async t => {
  const unhandled: unknown[] = []
  const listen = (reason: unknown) => { unhandled.push(reason) }
  process.on('unhandledRejection', listen)
  t.teardown(() => { process.off('unhandledRejection', listen) })
  const { request, refusal, queued } = await startEcho(t, { taskqueue: { consumer: false, user: { id: async () => { throw new Error('no directory') } } } })
  const wrong: Array<[string, AddOptions]> = [['//host', {}], ['/task', { queue: 'nope' }], ['/task', { delayMs: -1 }], ['/task', { payload: 1 as never }]]
  for (const [url, options] of wrong) t.match(await refusal(url, options), { code: /^FST_TASKQUEUE_/ })
  t.equal((await request(async ({ taskqueue }) => {
    const savepoint = taskqueue.savepoint()
    taskqueue.add('/task')
    savepoint.rollback()
    taskqueue.add('/task')
    await taskqueue.rollback()
  })).statusCode, 200)
  await new Promise(resolve => { setImmediate(resolve) })
  t.strictSame(unhandled, [])
  t.equal(await queued(), 0)
})

t.test("a task's children keep its user and inherit from the task", async t => {
  const { request, waitFor } = await startEcho(t, {
    taskqueue: { user: { id: ({ task, headers }) => task === null ? headers['x-user'] as string : undefined } },
    setUp: app => { app.get('/parent', async ({ taskqueue }) => { taskqueue.add('/task', { id: 'child' }) }) }
  })
  await request(({ taskqueue }) => taskqueue.add('/parent', { id: 'parent' }), { headers: { 'x-user': 'ada', cookie: 'a=b' } })
  const { headers, task } = await waitFor('child')
  t.equal(task.userId, 'ada')
  t.match(headers, { 'x-task-id': 'child', 'x-task-user-id': 'ada', cookie: 'a=b' })
})

/** Makes every request one of a user. */
function as (app: FastifyInstance, user: unknown): void {
  app.decorateRequest('user')
  app.addHook('onRequest', async request => { if (request.task === null) Object.assign(request, { user }) })
}
