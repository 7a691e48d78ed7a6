import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { TaskqueueOptions, TaskStatus } from '../../lib/index.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { startProxy } from '../support/tcp-proxy.js'
import { until } from '../support/until.js'

import { adminOf } from './adder-and-consumer.js'
import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

// Connections that carry little in a second, and messages that are large for them.

t.setTimeout(240_000)

const KB = 1000
/** Longer messages than this, in the ways in which they travel, are not allowed. */
const LIMIT = 1024 * KB

for (const [title, bytesPerS, sizes] of [
  ['256 kB', 256 * KB, [...Array<number>(10).fill(KB), ...Array<number>(5).fill(10 * KB), 100 * KB, 100 * KB, LIMIT]],
  ['2 MB', 2000 * KB, [...Array<number>(20).fill(KB), ...Array<number>(20).fill(10 * KB), ...Array<number>(5).fill(100 * KB), LIMIT, 64 * KB, LIMIT, LIMIT]],
  ['as much as there is', Infinity, [...Array<number>(20).fill(KB), ...Array<number>(50).fill(10 * KB), ...Array<number>(20).fill(100 * KB), ...Array<number>(10).fill(LIMIT)]]
] as const) {
  for (const concurrency of [1, 10]) {
    t.test(`over a connection that carries ${title} in a second, ${concurrency} at a time, each task arrives, once, and whoever adds meanwhile succeeds`, async t => {
      const { redis, proxy, app, runs } = await start(t, { consumer: { concurrency } })
      const bodies = sizes.map(size => Buffer.alloc(size - 200, randomBytes(100).toString('hex')).toString())
      await add(t, redis, bodies.map((_, index) => `/task/${index}`), bodies)
      proxy.bytesPerS = bytesPerS
      await app.taskqueue.queue('default').resume()
      const statuses = await addWhile(app, () => runs.size < sizes.length)
      t.ok(statuses.length > 0)
      t.strictSame(statuses.filter(status => status !== 200), [])
      await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
      t.strictSame([...runs].filter(([index, run]) => run.body !== bodies[index] || run.times !== 1 || run.attempt !== 1).map(([index]) => index), [])
      t.same(await app.taskqueue.queue('default').counts(), NOTHING)
    })
  }
}

t.test('a message whose connection is cut ten times on its way arrives whole, at its first attempt, and is not sent from the beginning again', async t => {
  const { redis, proxy, app, runs } = await start(t, { commitTimeoutMs: 10_000, consumer: {} })
  const body = 'ü€😀'.repeat(100 * KB)
  const bytes = Buffer.byteLength(body)
  await add(t, redis, ['/task/0'], [body])
  proxy.bytesPerS = 500 * KB
  const before = proxy.passed.replies
  await app.taskqueue.queue('default').resume()
  for (let part = 1; part <= 10; part++) {
    await until(() => proxy.passed.replies - before > bytes * part / 12)
    proxy.cut()
  }
  await until(() => runs.has(0))
  t.equal(runs.get(0)!.body, body)
  t.match(runs.get(0), { times: 1, attempt: 1 })
  t.ok(proxy.passed.replies - before < 2.5 * bytes, `${proxy.passed.replies - before} of ${bytes} bytes`)
})

t.test('a task that is cancelled while its message is on its way does not run, and does not hold up the next', async t => {
  const { redis, proxy, app, runs } = await start(t, { consumer: { leaseMs: 1000 } })
  const [large] = await add(t, redis, ['/task/0', '/task/1'], ['x'.repeat(LIMIT - KB), 'small'])
  proxy.bytesPerS = 100 * KB
  await app.taskqueue.queue('default').resume()
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 1)
  t.equal(await app.taskqueue.cancel(large!), true)
  const before = proxy.passed.replies
  await until(() => runs.has(1))
  t.ok(proxy.passed.replies - before < LIMIT / 2)
  t.notOk(runs.has(0))
})

t.test('a lease is kept for as long as its message takes, and longer than it lasts', async t => {
  const { redis, proxy, app, log, runs } = await start(t, { consumer: { leaseMs: 500 } })
  await add(t, redis, ['/task/0'], ['x'.repeat(500 * KB)])
  proxy.bytesPerS = 256 * KB
  await app.taskqueue.queue('default').resume()
  await until(() => runs.has(0))
  t.match(runs.get(0), { times: 1, attempt: 1 })
  t.strictSame(log.filter(({ msg }) => msg.includes('lost its lease')), [])
})

t.test('a page of large tasks carries no payloads, and one of large answers does not stand in the way of commits', async t => {
  const { redis, proxy, app } = await start(t, { consumer: { concurrency: 10 }, secrets: 'a secret of at least 32 bytes, for what it holds' })
  await add(t, redis, Array.from({ length: 50 }, () => '/task/7'), Array.from({ length: 50 }, () => 'x'.repeat(200 * KB)), { secrets: 'a secret of at least 32 bytes, for what it holds' })
  proxy.bytesPerS = 2000 * KB
  const before = proxy.passed.replies
  const waiting = await app.taskqueue.queue('default').list('waiting', { limit: 1000 })
  t.equal(waiting.length, 50)
  t.ok(waiting.every(({ method, url }) => method === 'POST' && url === '/task/7'))
  t.ok(proxy.passed.replies - before < 100 * KB, `${proxy.passed.replies - before} bytes`)
  t.match(await app.taskqueue.get(waiting[0]!.id), { url: '/task/7', method: 'POST' })

  proxy.bytesPerS = Infinity
  const answers = await Promise.all(Array.from({ length: 100 }, () => app.taskqueue.add('/answer', { queue: 'replies' })))
  await until(async () => (await app.taskqueue.queue('replies').list('done', { limit: 1000 })).length === 100)
  proxy.bytesPerS = 2000 * KB
  let page: TaskStatus[] | undefined
  app.taskqueue.queue('replies').list('done', { limit: 100 }).then(tasks => { page = tasks })
  const statuses = await addWhile(app, () => page === undefined)
  t.strictSame(statuses.filter(status => status !== 200), [])
  t.strictSame(page!.map(({ state, answer }) => [state, answer!.status, answer!.body!.length]), answers.map(() => ['done', 200, 50 * KB]))
})

t.test('tasks that end together and have added much are settled one after the other, and all that they added is stored', async t => {
  const COUNT = 10
  const { app, admin, log } = await startFans(t, COUNT)
  await until(async () => await admin.llen('taskqueue:{sink}:waiting') === COUNT * PARTS, 'all is added', 60_000)
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
  t.same(await app.taskqueue.queue('default').counts(), NOTHING)
  t.strictSame(log.filter(({ level, taskId }) => level >= 40 && taskId !== undefined), [])
  t.strictSame(await admin.keys('*:call:*'), [])
})

t.test('what a task has added crosses a slow connection that is cut, while others add', async t => {
  const { app, admin, proxy } = await startFans(t, 1)
  proxy.bytesPerS = 2000 * KB
  let cuts = 0
  const statuses = await addWhile(app, async () => {
    if (cuts < 3 && await admin.exists(...await admin.keys('*:call:*'), 'none') > 0) {
      cuts++
      proxy.cut()
    }
    return await admin.llen('taskqueue:{sink}:waiting') < PARTS
  })
  t.ok(cuts > 0)
  t.strictSame(statuses.filter(status => status !== 200), [])
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
  t.equal(await admin.llen('taskqueue:{sink}:waiting'), PARTS)
  t.same(await app.taskqueue.queue('default').counts(), NOTHING)
})

t.test('a commit that the connection does not carry in time is a 503, runs nothing, and delays others by no more than a part of it', async t => {
  const { proxy, app, admin, runs } = await start(t, { commitTimeoutMs: 1000, consumer: {} })
  await app.taskqueue.queue('default').resume()
  proxy.bytesPerS = 256 * KB
  let large: { statusCode: number } | undefined
  app.inject({ method: 'POST', url: '/add/3', payload: { text: 'x'.repeat(900 * KB) } }).then(reply => { large = reply })
  const statuses = await addWhile(app, () => large === undefined)
  t.equal(large!.statusCode, 503)
  t.strictSame(statuses.filter(status => status !== 200), [])
  proxy.bytesPerS = Infinity
  t.equal((await app.inject({ method: 'POST', url: '/add/4', payload: {} })).statusCode, 200)
  await until(() => runs.has(4))
  await until(async () => await admin.hlen('taskqueue:{default}:message') === 0, 'no message is left')
  t.notOk(runs.has(3))
})

t.test('who waits for an id asks for it without the message, and it is sent twice at most, however many wait', async t => {
  const end = gate()
  const { proxy, app } = await start(t, { consumer: false, commitTimeoutMs: 10_000 }, app => {
    app.post<{ Headers: { slow?: string } }>('/pay', async ({ taskqueue, headers }) => {
      taskqueue.add('/task/0', { id: 'one', onDuplicate: 'keep', payload: 'x'.repeat(100 * KB) })
      if (headers.slow !== undefined) taskqueue.join({ prepare: () => end.opened, commit () {}, rollback () { throw new Error('never') } })
      return {}
    })
  })
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  const pay = (headers = {}) => fetch(`${url}/pay`, { method: 'POST', headers })
  const slow = pay({ slow: 'yes' })
  await until(() => proxy.passed.requests > 100 * KB)
  const before = proxy.passed.requests
  const others = Array.from({ length: 20 }, () => pay())
  await sleep(1000)
  end.open()
  t.strictSame([...new Set((await Promise.all([slow, ...others])).map(({ status }) => status))], [200])
  t.ok(proxy.passed.requests - before < 2.5 * 20 * 100 * KB, `${proxy.passed.requests - before} bytes`)
  t.same(await app.taskqueue.queue('default').counts(), { ...NOTHING, waiting: 1 })
})

t.test("with a client of the user's own, whose commands have a time of their own, large tasks arrive all the same", async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const client = new Redis({ port: proxy.port, host: '127.0.0.1', commandTimeout: 200, maxRetriesPerRequest: 0 })
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  const { app, runs } = await consumer(t, { redis: client, consumer: { concurrency: 5 } })
  const bodies = Array.from({ length: 5 }, (_, index) => `${index}`.repeat(300 * KB))
  await add(t, redis, bodies.map((_, index) => `/task/${index}`), bodies)
  proxy.bytesPerS = 256 * KB
  await until(async () => await app.taskqueue.queue('default').resume().then(() => true, () => false))
  await until(() => runs.size === 5, 'all run', 60_000)
  t.strictSame([...runs].filter(([index, { body, times }]) => body !== bodies[index] || times !== 1), [])
})

t.test("a client of the user's own that is frozen holds no reply and no call for ever, and a turn is asked for once", async t => {
  const redis = await startRedis(t)
  const admin = adminOf(t, redis)
  const client = new Redis({ path: redis.path })
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  const { app, runs } = await consumer(t, { redis: client, commitTimeoutMs: 500, consumer: { leaseMs: 1000 } })
  await app.taskqueue.queue('default').resume()
  redis.freeze()
  const status = app.inject({ method: 'POST', url: '/add/0', payload: {} }).then(({ statusCode }) => statusCode)
  t.equal(await status, 503)
  const looks: Array<() => Promise<unknown>> = [() => app.taskqueue.queue('default').counts(), () => app.taskqueue.get('x'), () => app.taskqueue.queue('default').list('dead')]
  for (const look of looks) {
    await t.rejects(look(), { code: 'FST_TASKQUEUE_UNREACHABLE' })
  }
  await sleep(4000)
  redis.thaw()
  await until(async () => await app.inject({ method: 'POST', url: '/add/1', payload: {} }).then(({ statusCode }) => statusCode === 200))
  await until(() => runs.has(1))
  t.notOk(runs.has(0))
  const [, calls] = /cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))!
  t.ok(Number(calls) < 60, `${calls} calls`)
})

const PARTS = 20

/** An app whose tasks each add 20 others with 300 kB, and end together. */
async function startFans (t: Test, count: number) {
  const all = gate()
  let begun = 0
  const options: TaskqueueOptions = { queues: { default: {}, sink: { consumer: false } }, consumer: { concurrency: count }, commitTimeoutMs: 5000 }
  const { app, proxy, admin, log } = await start(t, options, app => {
    app.get('/fan', async ({ taskqueue }) => {
      for (let i = 0; i < PARTS; i++) taskqueue.add('/task/9', { queue: 'sink', payload: 'x'.repeat(300 * KB) })
      if (++begun === count) all.open()
      await all.opened
      return {}
    })
  })
  await app.taskqueue.queue('default').resume()
  await app.taskqueue.transaction(tx => { for (let i = 0; i < count; i++) tx.add('/fan') })
  return { app, proxy, admin, log }
}

/** An app behind a proxy whose default queue is paused, and what has run in it. */
async function start (t: Test, options: TaskqueueOptions, addRoutes?: (app: FastifyInstance) => void) {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const { app, log, runs } = await consumer(t, { redis: { host: '127.0.0.1', port: proxy.port }, ...options }, addRoutes)
  return { redis, proxy, admin: adminOf(t, redis), app, log, runs }
}

async function consumer (t: Test, options: TaskqueueOptions, addRoutes?: (app: FastifyInstance) => void) {
  const queues = { default: {}, small: {}, replies: {}, ...options.queues }
  const { app, log } = await loggedApp(t, { ...options, queues }, { bodyLimit: 2 ** 21 })
  const runs = new Map<number, { body: string, times: number, attempt: number }>()
  app.addContentTypeParser('text/plain', { parseAs: 'string' }, (_request, body, done) => { done(null, body) })
  app.post<{ Params: { index: string }, Body: string }>('/task/:index', async ({ params: { index }, body, task }) => {
    const { times } = runs.get(Number(index)) ?? { times: 0 }
    runs.set(Number(index), { body, times: times + 1, attempt: task!.attempt })
    return {}
  })
  app.get('/answer', async () => 'x'.repeat(50 * KB))
  app.post('/small', async () => ({}))
  app.post<{ Params: { index: string } }>('/add/:index', async ({ taskqueue, params: { index }, body }) => {
    taskqueue.add(`/task/${index}`, { payload: body as object })
    return {}
  })
  app.post('/add', async ({ taskqueue }) => {
    taskqueue.add('/small', { queue: 'small', payload: {} })
    return {}
  })
  addRoutes?.(app)
  await app.ready()
  await app.taskqueue.queue('default').pause()
  return { app, log, runs }
}

/** Adds tasks with texts over a connection that carries all of it at once. */
async function add (t: Test, redis: { path: string }, urls: string[], texts: string[], options: TaskqueueOptions = {}): Promise<string[]> {
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false, commitTimeoutMs: 30_000, maxPayloadBytes: 2 ** 21, ...options })
  await app.ready()
  return await app.taskqueue.transaction(tx => urls.map((url, index) => tx.add(url, { payload: texts[index]!, headers: { 'content-type': 'text/plain' } })))
}

/** Makes requests that add a small task, one after the other, and returns their statuses. */
async function addWhile (app: FastifyInstance, isOn: () => boolean | Promise<boolean>): Promise<number[]> {
  const statuses: number[] = []
  const deadline = performance.now() + 60_000
  while (await isOn() && performance.now() < deadline) {
    statuses.push((await app.inject({ method: 'POST', url: '/add', payload: {} })).statusCode)
    await sleep(20)
  }
  return statuses
}
