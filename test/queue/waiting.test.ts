import { once } from 'node:events'
import { get } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setImmediate as tick } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Found, News } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { appOn, loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

// Many may wait for tasks at the same time, on a Redis that comes and goes: that costs little, and ends.

t.setTimeout(120_000)

/** A store that counts the looks at its tasks, each of which takes a while. */
class WatchedStore extends LocalStore {
  readonly looks: string[] = []
  readonly listeners: Array<(news: News) => void> = []
  underWay = 0
  mostUnderWay = 0
  /** What a look waits for before it begins, and after it has found something. */
  before = async (): Promise<void> => { await tick() }
  after = async (): Promise<void> => {}

  override async find (queues: readonly string[], id: string, awaitMs?: number): Promise<Found | undefined> {
    this.looks.push(id)
    this.mostUnderWay = Math.max(this.mostUnderWay, ++this.underWay)
    await this.before()
    const found = await super.find(queues, id, awaitMs)
    await this.after()
    this.underWay--
    return found
  }

  override async watch (queue: string, listener: (news: News) => void): Promise<void> {
    this.listeners.push(listener)
    await super.watch(queue, listener)
  }

  tell (news: News): void {
    for (const listener of this.listeners) listener(news)
  }
}

async function start (t: Test) {
  const store = new WatchedStore()
  const { app, add } = await appOn(t, store)
  const { opened, open } = gate()
  app.get('/held', async () => await opened)
  await app.ready()
  return { app, store, add, open, ids: async (count: number) => await Promise.all(Array.from({ length: count }, () => app.taskqueue.add('/held', { delayMs: 600_000 }))) }
}

t.test('all who wait for one task share the looks at it', async t => {
  const { app, store, add, open } = await start(t)
  const id = await add('/held')
  const waits = Array.from({ length: 10_000 }, async () => await app.taskqueue.wait(id))
  await until(() => store.looks.length > 0 && store.underWay === 0)
  t.ok(store.looks.length <= 2, `${store.looks.length} looks at the beginning`)
  store.looks.length = 0
  store.tell({ kind: 'change' })
  await until(() => store.looks.length > 0 && store.underWay === 0)
  t.equal(store.looks.length, 1, 'one when news may have been lost')
  store.tell({ kind: 'ended', id: 'another' })
  await tick()
  t.equal(store.looks.length, 1, 'none when another task ends')
  open()
  const states = new Set((await Promise.all(waits)).map(status => status?.state))
  t.strictSame([...states], ['done'])
  t.ok(store.looks.length <= 4, `${store.looks.length} looks at the end`)
})

t.test('who waits for many tasks has few looks under way at the same time', async t => {
  const { app, store, ids } = await start(t)
  const waits = (await ids(500)).map(async id => await app.taskqueue.wait(id))
  await until(() => store.looks.length === 500 && store.underWay === 0)
  t.equal(new Set(store.looks).size, 500)
  for (let round = 0; round < 10; round++) store.tell({ kind: 'change' })
  await until(() => new Set(store.looks.slice(500)).size === 500 && store.underWay === 0)
  // The first ones are looked at once more: the later news came after their looks had begun.
  t.ok(store.looks.length <= 1000 + 16, `${store.looks.length} looks`)
  t.ok(store.mostUnderWay <= 16, `${store.mostUnderWay} at the most`)
  await app.close()
  t.strictSame(new Set((await Promise.allSettled(waits)).map(wait => wait.status)), new Set(['rejected']))
})

t.test('too many waits are refused, and the others go on', async t => {
  const { app, store, add, open } = await start(t)
  const id = await add('/held')
  const waits = Array.from({ length: 20_000 }, async () => await app.taskqueue.wait(id))
  await t.rejects(app.taskqueue.wait(id), {
    code: 'FST_TASKQUEUE_TOO_MANY_WAITS', statusCode: 503, message: 'At most 20000 calls can wait for the ends of tasks at the same time'
  })
  open()
  for (const status of await Promise.all(waits)) if (status?.state !== 'done') t.fail(String(status?.state))
  t.match(await app.taskqueue.wait(id), { state: 'done' }, 'there is room again')
  t.ok(store.looks.length < 10)
})

t.test('who waits while somebody looks is not told what was there before', async t => {
  const { app, store, add } = await start(t)
  app.taskqueue.queue('default')
  await add('/held', { id: 'a', delayMs: 600_000 })
  await app.taskqueue.cancel('a')
  store.looks.length = 0
  const { opened, open } = gate()
  store.after = async () => await opened
  const first = app.taskqueue.wait('a')
  await until(() => store.looks.length === 1)
  await add('/held', { id: 'a', delayMs: 600_000 })
  const over = new AbortController()
  const second = app.taskqueue.wait('a', { signal: over.signal })
  open()
  t.match(await first, { state: 'cancelled' })
  await until(() => store.looks.length === 2 && store.underWay === 0)
  over.abort(new Error('it waits on'))
  await t.rejects(second, { message: 'it waits on' })
})

t.test('who goes away waits no longer', async t => {
  const { app, store, ids } = await start(t)
  const [id] = await ids(1) as [string]
  const reason = new Error('gone')
  await t.rejects(app.taskqueue.wait(id, { signal: AbortSignal.abort(reason) }), reason)
  t.strictSame(store.looks, [])
  const over = new AbortController()
  const wait = app.taskqueue.wait(id, { signal: over.signal })
  await until(() => store.looks.length === 1 && store.underWay === 0)
  over.abort(reason)
  await t.rejects(wait, reason)
  store.tell({ kind: 'change' })
  await tick()
  t.equal(store.looks.length, 1, 'nobody looks for who has gone')
  for (const signal of [null, {}, 'abort', new AbortController()]) {
    await t.rejects(app.taskqueue.wait(id, { signal: signal as AbortSignal }), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: "Option 'signal' must be an AbortSignal" })
  }
})

t.test('a time-out is told once somebody has looked, however short it is', async t => {
  const { app, store, add, ids } = await start(t)
  const [waiting] = await ids(1) as [string]
  const cancelled = await add('/held', { delayMs: 600_000 })
  await app.taskqueue.cancel(cancelled)
  const { opened, open } = gate()
  store.before = async () => await opened
  const waits = [app.taskqueue.wait(cancelled, { timeoutMs: 1 }), app.taskqueue.wait(waiting, { timeoutMs: 1 })]
  setTimeout(open, 20)
  t.match(await waits[0], { state: 'cancelled' })
  await t.rejects(waits[1]!, { code: 'FST_TASKQUEUE_TIMEOUT' })
})

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: a request that waits for a task does not hold up the end of the app`, async t => {
    const { app } = await loggedApp(t, type === 'local' ? {} : { redis: { path: (await startRedis(t)).path } })
    app.get('/wait', async ({ query }) => await app.taskqueue.wait((query as { id: string }).id, { timeoutMs: 600_000 }))
    app.get('/task', async () => {})
    await app.listen({ port: 0, host: '127.0.0.1' })
    const id = await app.taskqueue.add('/task', { delayMs: 600_000 })
    const request = get({ port: (app.server.address() as AddressInfo).port, path: `/wait?id=${id}`, agent: false })
    const answer = once(request, 'response')
    const [raw] = await once(app.server, 'request')
    t.equal(raw.url, `/wait?id=${id}`)
    await tick()
    const closed = app.close()
    const [response] = await answer
    t.equal(response.statusCode, 503)
    t.match(JSON.parse(String(Buffer.concat(await response.toArray()))), { code: 'FST_TASKQUEUE_CLOSING', message: 'The app is closing and no longer waits for tasks' })
    await closed
    await t.rejects(app.taskqueue.wait(id), { code: 'FST_TASKQUEUE_CLOSING' })
  })
}

t.test('a wait that is the first one while Redis is down fails, and the next one finds it back', async t => {
  const redis = await startRedis(t)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false })
  await app.ready()
  await redis.stop()
  for (let round = 0; round < 3; round++) {
    const error: Error & { cause?: Error } = await app.taskqueue.wait('a').then(() => { throw new Error('it is down') }, error => error)
    t.match(error, { code: 'FST_TASKQUEUE_UNREACHABLE', statusCode: 503, cause: { message: redis.path } })
    t.notMatch(error.message, redis.path, 'a client learns no address')
  }
  await redis.start()
  await until(async () => await app.taskqueue.get('a').then(() => true, () => false))
  t.equal(await app.taskqueue.wait('a'), undefined)
  const id = await app.taskqueue.add('/', { delayMs: 600_000 })
  const wait = app.taskqueue.wait(id)
  await until(async () => await app.taskqueue.cancel(id))
  t.match(await wait, { state: 'cancelled' }, 'and it hears of the end')
})

t.test('a wait outlasts a Redis that is down for a while', async t => {
  const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false })
  await app.ready()
  const id = await app.taskqueue.add('/', { delayMs: 600_000 })
  let isOver = false
  const wait = app.taskqueue.wait(id).finally(() => { isOver = true })
  const admin = new Redis({ path: redis.path })
  await until(async () => await admin.exists('taskqueue:{default}:awaited') === 1)
  admin.disconnect()
  await app.taskqueue.get(id)
  await redis.stop()
  await t.rejects(app.taskqueue.wait(id), { code: 'FST_TASKQUEUE_UNREACHABLE' }, 'one that comes meanwhile has nothing to wait for')
  await redis.start()
  await until(async () => await app.taskqueue.cancel(id).catch(() => false))
  t.match(await wait, { state: 'cancelled' })
  t.ok(isOver)
})
