import { createHash } from 'node:crypto'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { scripts } from '../lib/redis-scripts.js'
import { RedisStore } from '../lib/redis-store.js'
import { addTo } from './add-to.js'
import { loggedApp } from './logged-app.js'
import { startRedis, type RedisServer } from './redis-server.js'
import { startProxy, type TcpProxy } from './tcp-proxy.js'
import { until } from './until.js'

// A reply that is lost leaves it open what Redis has done. A proxy loses the replies to one script.

const digestOf = (script: keyof typeof scripts) => createHash('sha1').update(scripts[script]).digest('hex')
const ROUNDS = 20

t.test('a commit whose reply is lost is sent again on the next connection, and queues its task once', async t => {
  const { proxy, adder, runs, post } = await start(t, { commitTimeoutMs: 5000 })
  for (let round = 1; round <= ROUNDS; round++) {
    const answer = lose(proxy, 'prepare', () => post())
    await until(() => proxy.deaf === round)
    heal(proxy)
    t.equal((await answer).statusCode, 200)
    await until(() => runs.length === round)
  }
  t.equal(new Set(runs.map(({ id }) => id)).size, ROUNDS)
  t.same(await adder.taskqueue.queue('default').counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
})

t.test('a commit whose reply is lost until its time is over is a 503, and its task never runs', async t => {
  const { redis, proxy, runs, post } = await start(t, { commitTimeoutMs: 100 })
  for (let round = 1; round <= ROUNDS; round++) {
    t.equal((await lose(proxy, 'prepare', () => post())).statusCode, 503)
    heal(proxy)
    await until(async () => (await post()).statusCode === 200)
    await until(() => runs.length >= round)
  }
  const admin = clientOf(t, redis)
  await until(async () => await admin.hlen('taskqueue:{default}:prepared') === 0, 'the rollbacks')
  await until(async () => await admin.zcard('taskqueue:{default}:running') === 0)
  t.equal(runs.length, ROUNDS, 'those that were answered with 200')
})

t.test('a claim whose reply is lost is answered when it is asked again: its task runs at once, and once', async t => {
  const { proxy, adder, consumer, runs } = await start(t, { through: 'consumer', commitTimeoutMs: 200 })
  for (let round = 1; round <= ROUNDS; round++) {
    await lose(proxy, 'turn', () => adder.taskqueue.add('/task'))
    await until(() => proxy.deaf === round)
    heal(proxy)
    await until(() => runs.length === round)
  }
  t.strictSame(runs.map(({ attempt }) => attempt), Array(ROUNDS).fill(1))
  await until(async () => (await consumer.taskqueue.queue('default').counts()).running === 0)
})

t.test('a settlement whose reply is lost is carried out once, and its task runs no second time', async t => {
  const { proxy, consumer, runs, log, onRun } = await start(t, { through: 'consumer', commitTimeoutMs: 200 })
  for (let round = 1; round <= ROUNDS; round++) {
    onRun(() => { proxy.loseRepliesTo = digestOf('turn') })
    await consumer.taskqueue.add('/task')
    await until(() => proxy.deaf === round)
    heal(proxy)
    await until(async () => (await consumer.taskqueue.queue('default').counts().catch(() => ({ running: 1 }))).running === 0)
  }
  t.strictSame(runs.map(({ attempt }) => attempt), Array(ROUNDS).fill(1))
  t.same(await consumer.taskqueue.queue('default').counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
  t.same(log.filter(({ msg }) => msg.includes('lost its lease')), [])
})

t.test('a prepare that arrives after its rollback, or once more after its commit, prepares nothing', async t => {
  const redis = await startRedis(t)
  const admin = clientOf(t, redis)
  const keys = ['waiting', 'suspects', 'delayed', 'running', 'dead', 'message', 'progress', 'clock', 'commits', 'prepared'].map(key => `p:{q}:${key}`)
  const prepare = async (commit: string, id: string) => await admin.eval(scripts.prepare, keys.length, ...keys, commit, 0, id, 'message', '', 0)
  await admin.eval(scripts.rollback, keys.length, ...keys, 'first', 0)
  t.equal(await prepare('first', 'a'), 0)
  await admin.eval(scripts.commit, keys.length, ...keys, 'first', 0)

  t.equal(await prepare('second', 'b'), 1)
  t.equal(await prepare('second', 'b'), 1, 'again, before its commit')
  await admin.eval(scripts.commit, keys.length, ...keys, 'second', 1)
  t.equal(await prepare('second', 'b'), 0)
  t.strictSame(await admin.lrange('p:{q}:waiting', '0', '-1'), ['b'])
  t.equal(await admin.hlen('p:{q}:prepared'), 0)
})

t.test('a commit whose process died between its phases runs nothing, and is a dead letter after an hour', async t => {
  const redis = await startRedis(t)
  const admin = clientOf(t, redis)
  const store = new RedisStore({ path: redis.path }, 'p', 2000)
  t.teardown(() => store.close())
  await store.open()
  await store.prepare([{ queue: 'q', id: 'in doubt', message: 'message' }])
  const beat = async () => await store.extend([{ queue: 'q', leases: [], leaseMs: 1000 }])
  await beat()
  t.match(await store.counts('q'), { waiting: 0, dead: 0 })
  const [commit] = await admin.zrange('p:{q}:commits', '0', '-1')
  await admin.zadd('p:{q}:commits', String(Date.now() - 3_600_001), commit!)
  await beat()
  t.match(await store.counts('q'), { waiting: 0, dead: 1 })
  t.match(await admin.hget('p:{q}:progress', 'in doubt'), /its process died while it committed/)
  t.strictSame([await admin.zcard('p:{q}:commits'), await admin.hlen('p:{q}:prepared')], [0, 0])
  await addTo(store, [{ queue: 'q', id: 'in doubt', message: 'message' }])
  t.match(await store.counts('q'), { waiting: 1, dead: 0 }, 'and makes way')
})

async function lose<T> (proxy: TcpProxy, script: keyof typeof scripts, run: () => Promise<T>): Promise<T> {
  proxy.loseRepliesTo = digestOf(script)
  return await run()
}

function heal (proxy: TcpProxy): void {
  proxy.loseRepliesTo = undefined
  proxy.cut()
}

function clientOf (t: Test, { path }: RedisServer): Redis {
  const client = new Redis(path)
  t.teardown(() => { client.disconnect() })
  return client
}

/** An app that adds and one that consumes, one of them through the proxy. */
async function start (t: Test, { through = 'adder', commitTimeoutMs }: { through?: 'adder' | 'consumer', commitTimeoutMs: number }) {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const redisOf = (who: string) => who === through ? { host: '127.0.0.1', port: proxy.port } : { path: redis.path }
  const { app: adder } = await loggedApp(t, { redis: redisOf('adder'), consumer: false, commitTimeoutMs })
  adder.post('/', async request => ({ id: request.taskqueue.add('/task', { method: 'GET' }) }))
  // A lease so long that nothing runs again because one has expired.
  const { app: consumer, log } = await loggedApp(t, { redis: redisOf('consumer'), consumer: { leaseMs: 600_000 }, commitTimeoutMs })
  const runs: Array<{ id: string, attempt: number }> = []
  let act = () => {}
  consumer.get('/task', async ({ task }) => {
    runs.push({ id: task!.id, attempt: task!.attempt })
    act()
    return 'done'
  })
  await adder.ready()
  await consumer.ready()
  return { redis, proxy, adder, consumer, log, runs, post: async () => await adder.inject({ method: 'POST', url: '/' }), onRun (run: () => void) { act = run } }
}
