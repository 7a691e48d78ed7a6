import { createHash } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { encodeNew } from '../../lib/store/redis/commands/prepare-new.js'
import { scripts } from '../../lib/store/redis/scripts.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { addTo } from '../support/add-to.js'
import { startRedis } from '../support/redis-server.js'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.js'
import { until } from '../support/until.js'

import { adminOf, balance, openLedger, type LedgerOptions } from './adder-and-consumer.js'
import { NOTHING } from '../support/nothing.js'

// What happens between a process and Redis. A proxy harms what passes.

t.setTimeout(300_000)

const SUBSCRIPTION = 'subscribe\r\n'
/** So long that nothing is found by a heartbeat, and nothing runs again because a lease has expired. */
const NEVER_MS = 600_000

// A reply that is lost leaves it open what Redis has done.

t.test('a commit whose reply is lost is sent again on the next connection, and queues its task once', async t => {
  const { proxy, admin, ledger } = await start(t, 'adder', { commitTimeoutMs: 5000, consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 100; round++) {
    loseRepliesTo(proxy, 'prepare')
    const answer = ledger.post()
    await until(() => proxy.deaf === round)
    heal(proxy)
    await answer
  }
  t.equal(ledger.accepted.length, 100)
  await balance(t, ledger, admin)
})

t.test('a commit of tasks with ids of their own making, whose replies are lost, is sent again, and runs once', async t => {
  const { proxy, admin, ledger } = await start(t, 'adder', { commitTimeoutMs: 5000, consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 40; round++) {
    loseRepliesTo(proxy, round % 2 === 0 ? 'prepareNew' : 'commitNew')
    const added = ledger.adder.taskqueue.add('/task')
    await until(() => proxy.deaf === round)
    heal(proxy)
    const id = await added
    await until(() => ledger.entries.get(id)?.ends === 1, `task ${round} has run`)
  }
  t.equal(ledger.entries.size, 40)
  await balance(t, ledger, admin)
})

t.test('a commit whose reply is lost until its time is over is a 503, and its task never runs', async t => {
  const { proxy, admin, ledger } = await start(t, 'adder', { commitTimeoutMs: 500, consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 10; round++) {
    loseRepliesTo(proxy, 'prepare')
    t.equal((await ledger.post()).status, 503)
    heal(proxy)
    await until(async () => (await ledger.post()).status === 200)
  }
  await balance(t, ledger, admin)
})

t.test('a claim whose reply is lost is answered when it is asked again: its task runs at once, and once', async t => {
  const { proxy, admin, ledger } = await start(t, 'consumer', { commitTimeoutMs: 5000, consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 40; round++) {
    loseRepliesTo(proxy, 'turn')
    await ledger.post()
    await until(() => proxy.deaf === round)
    heal(proxy)
    await until(() => ledger.lost.length === 0)
  }
  await balance(t, ledger, admin)
})

t.test('a settlement whose reply is lost is carried out once, and its task runs no second time', async t => {
  const { proxy, admin, ledger } = await start(t, 'consumer', { commitTimeoutMs: 5000, consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 40; round++) {
    ledger.onRun(() => { loseRepliesTo(proxy, 'turn') })
    await ledger.post()
    await until(() => proxy.deaf === round)
    heal(proxy)
    await until(async () => await admin.zcard('taskqueue:{default}:running') === 0)
  }
  await balance(t, ledger, admin)
  t.same(await ledger.adder.taskqueue.queue('default').counts(), NOTHING)
})

t.test('a prepare that arrives after its rollback, or once more after its commit, prepares nothing', async t => {
  const redis = await startRedis(t)
  const admin = adminOf(t, redis)
  const run = runnerOf(admin)
  const waiting = async () => await admin.lrange('p:{q}:waiting', '0', '-1')
  for (const [prepare, commit, how] of KINDS) {
    await run('rollback', `first ${prepare}`, 0)
    await run(prepare, ...argsOf(`first ${prepare}`, how, ['a', '']))
    await run(commit, `first ${prepare}`, 0)
    t.strictSame(await waiting(), [])

    await run(prepare, ...argsOf(`second ${prepare}`, how, ['b', '']))
    await run(prepare, ...argsOf(`second ${prepare}`, how, ['b', '']))
    await run(commit, `second ${prepare}`, 1)
    t.strictSame(await waiting(), ['b'], 'sent twice before its commit it is one')
    await admin.del('p:{q}:waiting', 'p:{q}:message')
    await run(prepare, ...argsOf(`second ${prepare}`, how, ['b', '']))
    await run(commit, `second ${prepare}`, 0)
    t.strictSame(await waiting(), [], 'and none after it')
  }

  for (const [conclusion, repeated] of [['rollback', 0], ['commit', 1]] as const) {
    const prepare = async () => await run('prepare', conclusion, 1, 0, 'own id', 'message', '  replace')
    await prepare()
    await run(conclusion, conclusion, repeated)
    await prepare()
    t.equal(await admin.exists('p:{q}:reserved'), 0, `nor, after a ${conclusion}, does it keep its id from others`)
  }
})

/** Of tasks whose ids nobody has chosen, and of others. */
const KINDS = [['prepareNew', 'commitNew', ''], ['prepare', 'commit', '  keep']] as const

/** The arguments of a commit: of tasks whose ids nobody has chosen if there are no terms. */
function argsOf (commit: string, terms: string, ...tasks: ReadonlyArray<readonly [id: string, due: string]>): Array<string | number> {
  if (terms !== '') return [commit, tasks.length, ...tasks.flatMap(([id, due]) => [0, id, 'message', `${due}${terms}`])]
  return encodeNew([{ id: commit, tasks: tasks.map(([id, due]) => ({ queue: 'q', id, message: 'message', ...due !== '' && { delayMs: Number(due) } })) }], ['q'])
}

/** Runs scripts on the queue q of the prefix p. */
function runnerOf (admin: Redis): (script: keyof typeof scripts, ...args: Array<string | number>) => Promise<unknown> {
  return async (script, ...args) => {
    const keys = scripts[script].keys.map(key => `p:{q}:${key}`)
    return await admin.eval(scripts[script].body, keys.length, ...keys, ...args)
  }
}

t.test('a commit that meets a key of another type stays prepared, wholly, until it can be carried out', async t => {
  const redis = await startRedis(t)
  const admin = adminOf(t, redis)
  const run = runnerOf(admin)
  for (const [prepare, commit, how] of KINDS) {
    await run(prepare, ...argsOf('c', how, ['a', ''], ['b', '60000']))
    await admin.set('p:{q}:waiting', 'no list')
    await t.rejects(run(commit, 'c', 0), /WRONGTYPE/)
    t.strictSame([await admin.hlen('p:{q}:prepared'), await admin.zcard('p:{q}:delayed')], [1, 0])
    await admin.del('p:{q}:waiting')
    await run(commit, 'c', 0)
    t.strictSame([await admin.lrange('p:{q}:waiting', '0', '-1'), await admin.zcard('p:{q}:delayed'), await admin.exists('p:{q}:prepared')], [['a'], 1, 0])
    await admin.flushall()
  }
})

t.test('a commit whose process died between its phases runs nothing, and is a dead letter after an hour', async t => {
  const redis = await startRedis(t)
  const admin = adminOf(t, redis)
  const store = new RedisStore({ path: redis.path }, 'p', 2000)
  t.teardown(() => store.close())
  await store.open()
  await store.prepare([{ queue: 'q', id: 'in doubt', message: 'message' }])
  const beat = async () => await store.extend([{ queue: 'q', consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: 200, leaseMs: 1000 }])
  const passHour = async () => {
    for (const [commit, text] of Object.entries(await admin.hgetallBuffer('p:{q}:prepared'))) {
      const since = Number(text.subarray(0, 13)) - 3_600_001
      await admin.hset('p:{q}:prepared', commit, Buffer.concat([Buffer.from(String(since)), text.subarray(13)]))
    }
  }
  await beat()
  t.match((await store.counts(['q']))[0], { waiting: 0, dead: 0 })
  await passHour()
  await beat()
  t.match((await store.counts(['q']))[0], { waiting: 0, dead: 1 })
  t.match(await admin.hget('p:{q}:attempts', 'in doubt'), /its process died while it committed/)
  t.equal(await admin.hlen('p:{q}:prepared'), 0)
  await addTo(store, [{ queue: 'q', id: 'in doubt', message: 'message' }])
  t.match((await store.counts(['q']))[0], { waiting: 0, dead: 1 }, 'which nothing replaces that does not say so')
  await addTo(store, [{ queue: 'q', id: 'in doubt', message: 'message', onDuplicate: 'replace' }])
  t.match((await store.counts(['q']))[0], { waiting: 1, dead: 0 })

  ;(await store.prepare([{ queue: 'q', id: 'rolled back', message: 'message' }])).rollback()
  await until(async () => (await admin.hvals('p:{q}:prepared'))[0]?.length === 14, 'a rollback')
  await passHour()
  await beat()
  t.equal(await admin.hlen('p:{q}:prepared'), 0, 'as long as that a rollback is remembered, which leaves nothing')
  t.match((await store.counts(['q']))[0], { waiting: 1, dead: 0 })
})

// A connection that is lost, or only seems to be there.

t.test('requests and replies that are cut in half lose no task, double none and harm none', async t => {
  const { proxy, admin, ledger } = await start(t, 'both', { commitTimeoutMs: 5000, consumer: { leaseMs: 1000, concurrency: 5 } })
  const release = await ledger.hold()
  const stop = ledger.load()
  for (let round = 0; round < 100; round++) {
    const before = ledger.accepted.length
    await until(() => ledger.accepted.length > before)
    await proxy.halve(round % 2 === 0 ? 'request' : 'reply')
  }
  await stop()
  release()
  await balance(t, ledger, admin)
  t.same(await ledger.adder.taskqueue.queue('default').counts(), NOTHING, 'none is dead')
})

t.test('commands that are late by up to a second cost no consumer its tasks', async t => {
  const { proxy, admin, ledger } = await start(t, 'both', { commitTimeoutMs: 10_000, consumer: { leaseMs: 500, concurrency: 5 } })
  const release = await ledger.hold()
  const stop = ledger.load()
  for (const delayMs of [20, 150, 50, 500, 100]) {
    const before = ledger.accepted.length
    proxy.delayMs = delayMs
    await sleep(1000)
    await until(() => ledger.accepted.length >= before + 3)
    t.comment(`${delayMs} ms in each direction: ${ledger.accepted.length - before} tasks accepted`)
  }
  proxy.delayMs = 0
  await stop()
  t.same(ledger.refused, [])
  release()
  await balance(t, ledger, admin)
})

t.test('a task is found within a heartbeat when the connection for notifications is half open, and that is noticed', async t => {
  const LEASE_MS = 5000
  const { proxy, admin, ledger } = await start(t, 'consumer', { commitTimeoutMs: 500, consumer: { leaseMs: LEASE_MS } })
  const subscribers = async () => (await admin.call('PUBSUB', 'NUMSUB', 'taskqueue:{default}') as [string, number])[1]
  for (let round = 1; round <= 5; round++) {
    const subscriptions = count(proxy, SUBSCRIPTION)
    proxy.silence(SUBSCRIPTION)
    const start = performance.now()
    await ledger.post()
    await until(() => ledger.lost.length === 0)
    const lateMs = performance.now() - start
    t.ok(lateMs < LEASE_MS / 5 + 2000, `${Math.round(lateMs)} ms`)
    await until(() => subscriptions() > 0, 'another connection')
    await until(async () => await subscribers() > 0)
    // Heartbeats alone would take one each.
    const again = performance.now()
    for (let i = 0; i < 10; i++) {
      await ledger.post()
      await until(() => ledger.lost.length === 0)
    }
    t.ok(performance.now() - again < 8 * LEASE_MS / 5, 'notifications are back')
  }
  await balance(t, ledger, admin)
})

t.test('a task that is added while the connection for notifications is cut is found when it is back', async t => {
  const { admin, ledger } = await start(t, 'neither', { consumer: { leaseMs: NEVER_MS } })
  for (let round = 1; round <= 20; round++) {
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await ledger.post()
    await until(() => ledger.lost.length === 0)
  }
  await balance(t, ledger, admin)
})

t.test('a connection for notifications that is lost as it subscribes is made again', async t => {
  const { proxy, admin, ledger } = await start(t, 'consumer', { consumer: { leaseMs: NEVER_MS } })
  let losses = 0
  proxy.onRequest = request => {
    if (!request.includes(SUBSCRIPTION) || ++losses > 20) return
    setImmediate(() => { proxy.cut() })
  }
  proxy.cut()
  await until(() => losses > 20)
  await ledger.post()
  await balance(t, ledger, admin)
})

t.test('where notifications are forbidden the next heartbeat finds a task', async t => {
  const LEASE_MS = 1000
  const { admin, ledger } = await start(t, 'neither', { consumer: { leaseMs: LEASE_MS } })
  await admin.call('ACL', 'SETUSER', 'default', '-publish')
  for (let i = 1; i <= 5; i++) {
    const start = performance.now()
    await ledger.post()
    await until(() => ledger.lost.length === 0)
    const lateMs = performance.now() - start
    t.ok(lateMs < LEASE_MS / 5 + 2000, `${Math.round(lateMs)} ms`)
  }
  await balance(t, ledger, admin)
})

t.test('connections that Redis closes twenty times under load lose no task and double none', async t => {
  const { admin, ledger } = await start(t, 'neither', { commitTimeoutMs: 5000, consumer: { leaseMs: 1000, concurrency: 5 } })
  const release = await ledger.hold()
  const stop = ledger.load()
  for (let round = 1; round <= 20; round++) {
    const before = ledger.accepted.length
    await until(() => ledger.accepted.length > before)
    await admin.call('CLIENT', 'KILL', 'TYPE', 'normal')
  }
  await stop()
  t.same(ledger.refused, [])
  release()
  await balance(t, ledger, admin)
})

function loseRepliesTo (proxy: TcpProxy, script: keyof typeof scripts): void {
  proxy.loseRepliesTo = createHash('sha1').update(scripts[script].body).digest('hex')
}

function heal (proxy: TcpProxy): void {
  proxy.loseRepliesTo = undefined
  proxy.cut()
}

/** Counts the requests with a text from now on. */
function count (proxy: TcpProxy, text: string): () => number {
  let requests = 0
  proxy.onRequest = request => { if (request.includes(text)) requests++ }
  return () => requests
}

/** An app that adds and one that consumes, and which of them do so through the proxy. */
async function start (t: Test, through: 'adder' | 'consumer' | 'both' | 'neither', options: LedgerOptions) {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const redisOf = (who: string) => ({ redis: [who, 'both'].includes(through) ? { host: '127.0.0.1', port: proxy.port } : { path: redis.path } })
  const ledger = await openLedger(t, { ...options, adder: redisOf('adder'), consuming: redisOf('consumer') })
  return { redis, proxy, admin: adminOf(t, redis), ledger }
}
