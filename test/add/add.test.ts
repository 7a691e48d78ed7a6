import { inspect } from 'node:util'
import t from 'tap'
import type { AddOptions, TaskMethod } from '../../lib/index.js'
import { uuidv7 } from '../../lib/task/id.js'
import { canonicalUrl } from '../../lib/task/url.js'
import { startEcho } from '../support/echo-app.js'
import { until } from '../support/until.js'

const DAY_MS = 24 * 60 * 60 * 1000

t.test('the method is GET, or POST where there is a payload, or the one given', async t => {
  const { run } = await startEcho(t)
  for (const [options, method] of [
    [{}, 'GET'],
    [{ payload: null }, 'GET'],
    [{ payload: {} }, 'POST'],
    [{ payload: '' }, 'POST'],
    ...(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as TaskMethod[]).map(method => [{ method }, method] as const)
  ] as Array<[AddOptions, string]>) {
    t.equal((await run('/task', options)).method, method, inspect(options))
    t.equal((await run('/task', options, { method: 'POST', payload: { a: 1 } })).method, method, 'whatever the current method')
  }
})

t.test('another method is refused', async t => {
  const { refuses } = await startRefusing(t)
  for (const method of ['HEAD', 'OPTIONS', 'TRACE', 'CONNECT', 'QUERY', 'get', 'Post', ' GET', 'GET\r\n', '', 1, {}, ['GET']]) {
    await refuses('/task', { method }, 'FST_TASKQUEUE_INVALID_METHOD', 'GET, POST, PUT, PATCH or DELETE, got ')
  }
})

t.test('a url that is no path of this app, or could be taken for another one, is refused', async t => {
  const { refuses } = await startRefusing(t)
  for (const url of [
    '//host', '//host/task', '///host', 'http://host/task', 'HTTPS://host', 'file:///etc/passwd', 'javascript:alert(1)', 'localhost:80/task',
    '', ' ', ' /task', 'task', 'host/task', './task', '../task', '?a=b', '#top', '%2ftask', '*',
    '\\\\host', '/\\host', '\\/host', '/task\\..\\x', '/task?a=\\',
    '/task\t', '/task\n', '/\t/host', '/\n/host', '/task\r\nX-Admin: 1', '/task?a=\r\n', '/task\0', '/task\x1f', '/task\x7f',
    '/.', '/..', '/./task', '/../task', '/task/.', '/task/..', '/task/../x', '/task/./x', '/task/../../x', '/task/..?a=b',
    '/%2e', '/%2e%2e', '/%2E%2E/task', '/task/%2e%2E/x', '/task/.%2e/x', '/task/%2e./x', '/task/%2e/x',
    '/%2f..%2ftask', '/task%2F..%2Fx', '/task/..%2fx', '/task/x%2f..', '/task/..%5cx', '/task%5C%2e%2e%5Cx',
    '/task#', '/task#top', '/task?a=b#top',
    '/task/%', '/task/%2', '/task/%zz', '/task/%u0041', '/task/%ff', '/task/%c3%28', '/task/%ed%a0%80',
    undefined, null, 1, true, {}, [], ['/task'], new URL('http://localhost/task'), () => '/task', Symbol('/task'), 1n
  ]) {
    await refuses(url, undefined, 'FST_TASKQUEUE_INVALID_URL', 'The url of a task must be ')
  }
})

t.test('a url is requested in its canonical form', async t => {
  const { run } = await startEcho(t)
  for (const [url, canonical = url] of [
    ['/task'], ['/task/'], ['/task?a=b'], ['/task?', '/task'], ['/task?a=1&a=2&b'], ['/task//a'], ['/task/...'], ['/task/..a'], ['/task/a..'],
    ['/task/a b', '/task/a%20b'], ['/task/a ', '/task/a%20'], ['/task?q=a b', '/task?q=a%20b'], ['/task?q=a ', '/task?q=a%20'],
    ['/task/grüße', '/task/gr%C3%BC%C3%9Fe'], ['/task/😀', '/task/%F0%9F%98%80'], ['/task?q=ü', '/task?q=%C3%BC'], ['/task/／host', '/task/%EF%BC%8Fhost'],
    ['/task/%41'], ['/task/%c3%bc'], ['/task/a%2Fb'], ['/task/%252e%252e'], ['/task/a;b=c'], ['/task/@host:80'], ['/task/<">', '/task/%3C%22%3E'],
    ['/task?next=//host/../x'], ['/task?next=http://host'], ["/task?q='+%", '/task?q=%27+%']
  ] as Array<[string, string?]>) {
    const { url: requested } = await run(url)
    t.equal(requested, canonical, url)
    t.equal(canonicalUrl(requested), requested, 'which stays the same from then on')
  }
})

t.test("query is appended to the url's own", async t => {
  const { run } = await startEcho(t)
  for (const [url, query, expected] of [
    ['/task', {}, '/task'],
    ['/task', { a: undefined, b: [] }, '/task'],
    ['/task?a=b', {}, '/task?a=b'],
    ['/task', { a: 'x y', b: 1.5, c: true, d: '' }, '/task?a=x+y&b=1.5&c=true&d='],
    ['/task', { a: ['1', 2, false], b: 3 }, '/task?a=1&a=2&a=false&b=3'],
    ['/task?a=0', { a: 1, b: undefined }, '/task?a=0&a=1'],
    ['/task?', { a: 1 }, '/task?a=1'],
    ['/task?flag', { a: 1 }, '/task?flag&a=1'],
    ['/task', { '&=#': '?&=#+%ü\r\n' }, '/task?%26%3D%23=%3F%26%3D%23%2B%25%C3%BC%0D%0A'],
    ['/task?a=%20', { b: '../..' }, '/task?a=%20&b=..%2F..']
  ] as Array<[string, AddOptions['query'], string]>) {
    t.equal((await run(url, { query })).url, expected, inspect([url, query]))
  }
})

t.test('a query of another kind is refused', async t => {
  const { refuses } = await startRefusing(t)
  for (const query of ['a=b', 1, true, null, ['a'], new URLSearchParams('a=b'), new Map([['a', 'b']])]) {
    await refuses('/task', { query }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'query' must be an object")
  }
  for (const value of [null, {}, [[1]], [null], 1n, () => 1, Symbol('a'), new Date()]) {
    await refuses('/task', { query: { a: value } }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'query.a' must be a string, number or boolean")
  }
})

t.test('headers add to the copied ones and replace them, without regard to case, and null removes one', async t => {
  const { run } = await startEcho(t)
  const { headers } = await run('/task', {
    payload: { a: 1 },
    headers: { 'X-KEPT': '2', Cookie: null, 'X-New': 'é', 'CONTENT-TYPE': 'application/vnd.api+json', 'If-Match': '"1"', 'never-there': null, 'x-task': 'not one of ours' }
  }, { headers: { cookie: 'a=b', 'x-kept': '1', 'x-other': '1' } })
  t.match(headers, { 'x-kept': '2', 'x-other': '1', 'x-new': 'é', 'content-type': 'application/vnd.api+json', 'if-match': '"1"', 'x-task': 'not one of ours' })
  t.notOk('cookie' in headers || 'never-there' in headers)
  t.equal((await run('/task', { payload: 'a', headers: { 'content-type': null } })).headers['content-type'], undefined)
})

t.test('a header that cannot be sent, or is not the caller\'s to set, is refused', async t => {
  const { refuses, refusal } = await startRefusing(t)
  for (const name of ['', ' ', 'a b', 'a:b', 'a\r\nb', 'a\0', 'ü', '"a"']) {
    await refuses('/task', { headers: { [name]: 'x' } }, 'FST_TASKQUEUE_INVALID_HEADER', 'has no valid name')
  }
  for (const name of [
    'X-Task-Id', 'x-task-user-id', 'X-TASK-ANYTHING', 'Connection', 'Keep-Alive', 'Proxy-Connection', 'Proxy-Authenticate', 'Proxy-Authorization',
    'TE', 'Trailer', 'Transfer-Encoding', 'Upgrade', 'HTTP2-Settings', 'Expect', 'Content-Length', 'User-Agent'
  ]) {
    await refuses('/task', { headers: { [name]: 'x' } }, 'FST_TASKQUEUE_INVALID_HEADER', `Header "${name.toLowerCase()}" of a task cannot be set`)
  }
  for (const name of [':path', ':authority']) await refuses('/task', { headers: { [name]: 'x' } }, 'FST_TASKQUEUE_INVALID_HEADER', `Header "${name}" of a task`)
  for (const value of [1, true, undefined, {}, ['x'], Buffer.from('x'), 1n]) {
    await refuses('/task', { headers: { 'x-a': value } }, 'FST_TASKQUEUE_INVALID_HEADER', `Header "x-a" of a task must be a string or null, got a value of type ${typeof value}`)
  }
  for (const value of ['a\r\nx-admin: 1', 'a\n', '\r', '\0', '\x7f', '€']) {
    await refuses('/task', { headers: { 'x-a': value } }, 'FST_TASKQUEUE_INVALID_HEADER', 'Header "x-a" of a task has characters in its value')
  }
  for (const headers of ['x-a: b', 1, null, ['x-a'], [['x-a', 'b']], new Headers({ 'x-a': 'b' }), new Map([['x-a', 'b']])]) {
    await refuses('/task', { headers }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'headers' must be an object")
  }
  t.notMatch((await refusal('/task', { headers: { authorization: 'hunter2\n' } }))?.message, 'hunter2', 'the error keeps the value for itself')
})

t.test('an id is the given one, or a UUID v7', async t => {
  const { run } = await startEcho(t)
  for (const id of ['1', 'order:42/mail', '!', '~'.repeat(255)]) t.match(await run('/task', { id }), { task: { id }, headers: { 'x-task-id': id } })
  t.match((await run('/task')).task.id, UUID_V7)
})

t.test('an id that cannot travel in a header is refused', async t => {
  const { refuses } = await startRefusing(t)
  for (const id of ['', ' ', 'a b', 'a\n', 'a\r\nb', '\0', '\x7f', 'ü', '€', 'x'.repeat(256), null, 1, true, {}, ['a'], 1n]) {
    await refuses('/task', { id }, 'FST_TASKQUEUE_INVALID_ID', 'must be 1 to 255 printable ASCII characters without spaces, got ')
  }
})

t.test('generated ids sort in the order in which they were made', async t => {
  const now = Date.now()
  const ids = [
    uuidv7(),
    ...Array.from({ length: 10_000 }, () => uuidv7(now)),
    ...Array.from({ length: 10 }, (_, index) => uuidv7(now - 1000 * index)),
    uuidv7(0),
    uuidv7(now + 1000),
    uuidv7(now + 1001),
    uuidv7(now)
  ]
  t.strictSame(ids.toSorted(), ids, 'in a burst, and with the clock set back')
  t.equal(new Set(ids).size, ids.length)
  t.strictSame(ids.filter(id => !UUID_V7.test(id)), [])
  const timeOf = (index: number) => parseInt(ids.at(index)!.replace('-', '').slice(0, 12), 16)
  t.equal(timeOf(-3), now + 1000, 'they begin with the time')
  t.ok(timeOf(10_000) - timeOf(0) <= 3, 'and do not run far ahead of it')
})

t.test('adding an id that waits, is delayed or runs adds nothing, and later it may be added again', async t => {
  const { app, request, received, waitFor } = await startEcho(t)
  await request(({ taskqueue }) => {
    for (const n of ['1', '2']) taskqueue.add('/task', { id: 'same', delayMs: 500, query: { n } })
  })
  await request(({ taskqueue }) => taskqueue.add('/task', { id: 'same', query: { n: '3' } }))
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 0, delayed: 1 })
  t.equal((await waitFor('same')).url, '/task?n=1', 'the first one counts')
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
  received.clear()
  await request(({ taskqueue }) => taskqueue.add('/task', { id: 'same', query: { n: '4' } }))
  t.equal((await waitFor('same')).url, '/task?n=4')
})

t.test('a delayed task runs when it is due, and one due in the past at once', async t => {
  const { run } = await startEcho(t)
  for (const [delay, leastMs] of [
    [() => ({ delayMs: 60 }), 60],
    [() => ({ delayMs: 0.5 }), 0],
    [() => ({ delayMs: 0 }), 0],
    [() => ({ runAt: new Date(Date.now() + 60) }), 58],
    [() => ({ runAt: new Date(Date.now() + 60).toISOString() }), 58],
    [() => ({ runAt: Date.now() + 60 }), 58],
    [() => ({ runAt: new Date(0) }), 0],
    [() => ({ runAt: '2020-01-01T00:00+01:00' }), 0],
    [() => ({ runAt: '2020-02-29 23:59:59.123456z' }), 0],
    [() => ({ runAt: -1 }), 0]
  ] as Array<[() => AddOptions, number]>) {
    const start = performance.now()
    const options = delay()
    await run('/task', options)
    t.ok(performance.now() - start >= leastMs, inspect(options))
  }
})

t.test('a delay of 30 days is the longest', async t => {
  const { app, request } = await startEcho(t)
  await request(({ taskqueue }) => {
    taskqueue.add('/task', { delayMs: 30 * DAY_MS })
    taskqueue.add('/task', { runAt: new Date(Date.now() + 30 * DAY_MS) })
  })
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 0, delayed: 2 })
  const { refuses } = await startRefusing(t)
  for (const delayMs of [30 * DAY_MS + 1, -1, NaN, Infinity, '60', null, true, {}, 1n]) {
    await refuses('/task', { delayMs }, 'FST_TASKQUEUE_INVALID_DELAY', '0 to 2592000000 milliseconds, which is 30 days, got ')
  }
  const far = Date.now() + 30 * DAY_MS + 60_000
  for (const runAt of [far, new Date(far), new Date(far).toISOString(), NaN, Infinity, new Date(NaN), '', 'soon', 'tomorrow', '1', '2026-13-45', '2020-01-01', '2020-01-01T00:00', '2020-01-01T00:00:00', '2020-11-31T00:00Z', '2021-02-29T00:00Z', '2020-01-01T24:00Z', '2020-01-01T00:00:60Z', '2020-01-01T00:00+0100', '2020-01-01T00:00Z ', null, true, {}, [], [2020], 1n, Symbol('now')]) {
    await refuses('/task', { runAt }, 'FST_TASKQUEUE_INVALID_DELAY', 'a time at most 30 days ahead, as a Date, milliseconds since the epoch, or text with a zone like 2030-01-31T18:00:00Z, got ')
  }
  await refuses('/task', { delayMs: 1, runAt: new Date() }, 'FST_TASKQUEUE_INVALID_DELAY', 'delayMs or runAt, not both')
})

t.test("maxRetries and timeoutMs of a task come before the consumer's", async t => {
  let attempts = 0
  const { app, request } = await startEcho(t, {
    taskqueue: { consumer: { maxRetries: 7, backoff: () => 1 } },
    setUp: app => {
      app.get('/fail', async (_request, reply) => { reply.code(500).send(String(++attempts)) })
      app.get('/hang', () => { attempts++ })
    }
  })
  const dead = async () => (await app.taskqueue.queue('default').counts()).dead
  await request(({ taskqueue }) => taskqueue.add('/fail', { maxRetries: 2 }))
  await until(async () => await dead() === 1)
  t.equal(attempts, 3)
  await request(({ taskqueue }) => taskqueue.add('/hang', { maxRetries: 0, timeoutMs: 20 }))
  await until(async () => await dead() === 2, 'time-out')
  t.equal(attempts, 4)

  const { refuses } = await startRefusing(t)
  for (const value of [-1, 1.5, NaN, Infinity, '3', null, true, {}, 1n]) {
    await refuses('/task', { maxRetries: value }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'maxRetries' must be a whole number, 0 ")
    await refuses('/task', { timeoutMs: value }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'timeoutMs' must be a whole number, 1 ")
  }
  for (const timeoutMs of [0, 2 ** 31]) await refuses('/task', { timeoutMs }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'timeoutMs' must be a whole number, 1 ")
})

t.test('a task that is too large is refused, whatever makes it large', async t => {
  const { refuses } = await startRefusing(t, { maxPayloadBytes: 1000 })
  const long = 'x'.repeat(1000)
  for (const options of [{ payload: long }, { payload: { long } }, { query: { long } }, { headers: { long } }, { payload: Buffer.alloc(800, 255) }, { payload: '€'.repeat(400) }]) {
    await refuses('/task', options, 'FST_TASKQUEUE_PAYLOAD_TOO_LARGE', 'at most 1000 bytes (maxPayloadBytes), got 1')
  }
  const { run } = await startEcho(t, { taskqueue: { maxPayloadBytes: 1000 } })
  t.equal((await run('/task', { payload: 'x'.repeat(700) })).body?.length, 700)
})

t.test('an option that add does not have is refused', async t => {
  const { refuses } = await startRefusing(t)
  for (const name of ['delay', 'Payload', 'body', 'retries', 'url']) {
    await refuses('/task', { [name]: 1 }, 'FST_TASKQUEUE_INVALID_OPTION', `Option '${name}' must be one of method, query, headers, payload, queue, id, onDuplicate, dedupeMs, delayMs, runAt, expiresMs, priority, key, maxRetries, backoff, timeoutMs, user, got an option that add does not have`)
  }
  for (const options of [null, 'mail', 1, true]) await refuses('/task', options, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'options' must be an object, got ")
})

t.test('a refused task takes none of the others with it', async t => {
  const { request, received, waitFor, queued } = await startEcho(t)
  await request(({ taskqueue }) => {
    taskqueue.add('/task', { id: 'before' })
    for (const [url, options] of [['//host', {}], ['/task', { id: ' ' }], ['/task', { queue: 'nope' }], ['/task', { delayMs: -1 }]] as const) {
      t.throws(() => taskqueue.add(url, options), { code: /^FST_TASKQUEUE_/ })
    }
    taskqueue.add('/task', { id: 'after' })
  })
  await waitFor('before')
  await waitFor('after')
  await until(async () => await queued() === 0)
  t.equal(received.size, 2)
})

t.test('outside of a request the same is refused, and nothing is inherited', async t => {
  const { app, waitFor } = await startEcho(t)
  for (const [url, options, code] of [
    ['//host', {}, 'FST_TASKQUEUE_INVALID_URL'],
    ['/task', { headers: { 'user-agent': 'x' } }, 'FST_TASKQUEUE_INVALID_HEADER'],
    ['/task', { delayMs: -1 }, 'FST_TASKQUEUE_INVALID_DELAY']
  ] as const) {
    await t.rejects(app.taskqueue.add(url, options), { code })
  }
  const { method, headers, body, task } = await waitFor(await app.taskqueue.add('/task', { method: 'POST' }))
  t.match([method, body, task.userId], ['POST', undefined, undefined])
  t.strictSame(Object.keys(headers).filter(name => name !== 'content-length').sort(), ['host', 'user-agent', 'x-task-id'])
})

const UUID_V7 = /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/

/** An app that consumes nothing, to see that what was refused has not been queued either. */
async function startRefusing (t: Parameters<typeof startEcho>[0] & { ok: Function }, options = {}) {
  const { refusal, queued } = await startEcho(t, { taskqueue: { ...options, consumer: false } })
  return {
    refusal,
    async refuses (url: unknown, options: unknown, code: string, message: string): Promise<void> {
      const before = await queued()
      const failure = await refusal(url, options)
      const isRefused = failure?.code === code && failure.message.includes(message) && await queued() === before
      t.ok(isRefused, `${inspect([url, options], { breakLength: Infinity })}: ${failure?.message ?? 'not refused'}`)
    }
  }
}
