import { Redis } from 'ioredis'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import taskqueue from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { encodeTurn, readTurn } from '../../lib/store/redis/commands/turn.js'
import { KEYS } from '../../lib/store/redis/keys.js'
import { scripts } from '../../lib/store/redis/scripts.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { News } from '../../lib/store/news.js'
import type { Lease, Settlement, Turn, TurnResult } from '../../lib/store/turn.js'
import { startRedis, type RedisServer } from '../support/redis-server.js'
import { until } from '../support/until.js'

// A consumer that waits is handed what comes. The commit takes its next turn, and news tell it the reply.

const LEASE_MS = 1000
/** So long that no consumer seems to have missed a heartbeat. */
const BEAT_MS = 60_000

async function open (t: Test, redis: RedisServer): Promise<RedisStore> {
  const store = new RedisStore({ path: redis.path }, 'p', 2000)
  t.teardown(() => store.close())
  await store.open()
  return store
}

async function start (t: Test) {
  const redis = await startRedis(t)
  const admin = new Redis({ path: redis.path })
  t.teardown(() => { admin.disconnect() })
  const [adder, consumer] = [await open(t, redis), await open(t, redis)]
  const turn = async ({ limit = 1, settlements = [], waits = true, store = consumer }: { limit?: number, settlements?: Settlement[], waits?: boolean, store?: RedisStore } = {}) => await store.turn('q', {
    settlements,
    heartbeatMs: BEAT_MS,
    claim: limit > 0 ? { limit, alone: false, leaseMs: LEASE_MS, waits } : undefined,
    keep: { count: 9, ms: 60_000 }
  })
  const add = async (...ids: string[]) => { await (await adder.prepare(ids.map(id => ({ queue: 'q', id, message: `message ${id}` })))).commit() }
  const beat = async () => (await consumer.extend([{ queue: 'q', consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: LEASE_MS / 5, leaseMs: LEASE_MS }]))[0]!
  const idle = async () => await admin.hkeys('p:{q}:idle')
  /** Listens in the place of the consumer, and tells it nothing. */
  const intercept = async () => {
    const subscriber = new Redis({ path: redis.path })
    t.teardown(() => { subscriber.disconnect() })
    const [name] = await idle()
    await subscriber.subscribe(name!)
    return subscriber
  }
  return { redis, admin, adder, consumer, turn, add, beat, idle, intercept, counts: async () => (await adder.counts(['q']))[0] }
}

const idsOf = (leases: readonly Lease[]) => leases.map(({ id }) => id)

t.test('a consumer that waits is handed what is added, up to its limit, and goes on with its next turn', async t => {
  const { consumer, turn, add, idle, counts } = await start(t)
  const news: News[] = []
  await consumer.watch('q', one => { news.push(one) })
  t.match(await turn({ limit: 2 }), { leases: [] })
  await add('a', 'b', 'c')
  await until(() => news.some(({ kind }) => kind === 'leases'))
  const { leases } = news.find(one => one.kind === 'leases')!
  t.match(leases, [{ id: 'a', message: 'message a', attempt: 1 }, { id: 'b', message: 'message b', attempt: 1 }])
  t.ok(news.some(({ kind }) => kind === 'work'), 'what is left is for others')
  t.match(await counts(), { waiting: 1, running: 2 })
  const settlements = leases.map(lease => ({ lease, verdict: { kind: 'done' } as const }))
  const result = await turn({ settlements })
  t.strictSame([result.settled, idsOf(result.leases)], [[true, true], ['c']])
  t.strictSame(await idle(), [])
})

t.test('what is handed over while the news are lost comes with the next turn, of which the heartbeat reminds', async t => {
  const { turn, add, beat, intercept, counts } = await start(t)
  await turn()
  t.match(await beat(), { outlook: { wakeInMs: Infinity } })
  await intercept()
  await add('a')
  t.match(await counts(), { waiting: 0, running: 1 })
  t.match(await beat(), { outlook: { wakeInMs: 0 } })
  const { leases } = await turn()
  t.match(leases, [{ id: 'a', message: 'message a', attempt: 1 }])
  t.strictSame((await turn({ settlements: [{ lease: leases[0]!, verdict: { kind: 'done' } }] })).settled, [true])
})

t.test('a turn that claims nothing ends the waiting, and returns what was handed over before', async t => {
  const { turn, add, idle, intercept, counts } = await start(t)
  await turn()
  await intercept()
  await add('a')
  t.strictSame(idsOf((await turn({ limit: 0 })).leases), ['a'])
  t.strictSame(await idle(), [])
  await turn()
  t.equal((await idle()).length, 1)
  await turn({ limit: 0 })
  t.strictSame(await idle(), [])
  await add('b')
  t.match(await counts(), { waiting: 1 })
})

t.test('a turn that begins to wait, and is handed in again since its reply was lost, loses nothing that was handed over', async t => {
  const { admin, add, intercept } = await start(t)
  const keys = [...KEYS.map(key => `p:{q}:${key}`), 'p:{q}:turn:holder']
  const run = async (number: number) => {
    const args = encodeTurn({
      number, heartbeatMs: BEAT_MS, claim: { limit: 1, alone: false, leaseMs: LEASE_MS, waits: true }, keep: { count: 9, ms: 60_000 }, replyBytes: 1000
    }, [])
    return readTurn(await admin.eval(scripts.turn.body, keys.length, ...keys, ...args), async () => undefined)
  }
  t.match(await run(1), { leases: [] })
  await intercept()
  await add('a')
  t.match(await run(1), { leases: [] })
  for (let i = 0; i < 2; i++) t.match(await run(2), { leases: [{ id: 'a', attempt: 1 }] })
})

t.test('nothing is handed to a consumer that nobody hears, nor out of a queue that is paused or has suspects', async t => {
  const { adder, consumer, turn, add, idle, intercept, counts } = await start(t)
  await turn()
  t.equal((await idle()).length, 1)
  await add('a')
  t.match(await counts(), { waiting: 1, running: 0 })
  t.strictSame(await idle(), [], 'it is forgotten')
  const { leases } = await turn()
  await turn({ settlements: leases.map(lease => ({ lease, verdict: { kind: 'done' } })) })

  await intercept()
  await adder.operate('q', { kind: 'pause' })
  await add('b')
  t.match(await counts(), { waiting: 1, running: 0 })
  await adder.operate('q', { kind: 'resume' })
  const [lease] = (await turn({ waits: false })).leases
  await turn({ limit: 0 })
  await until(async () => {
    await consumer.extend([{ queue: 'q', consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: LEASE_MS / 5, leaseMs: LEASE_MS }])
    return (await turn()).outlook.suspects
  })
  await add('c')
  t.match(await counts(), { waiting: 2, running: 0 })
  t.equal(lease!.id, 'b')
})

t.test('nothing is handed to a consumer that has missed a heartbeat, until it is heard of again', async t => {
  const { admin, turn, add, beat, idle, intercept, counts } = await start(t)
  await turn()
  await intercept()
  const [name] = await idle()
  const age = "local turn = cmsgpack.unpack(redis.call('HGET', KEYS[1], ARGV[1])) turn.at = turn.at - ARGV[2] redis.call('HSET', KEYS[1], ARGV[1], cmsgpack.pack(turn))"
  await admin.eval(age, 1, 'p:{q}:idle', name!, BEAT_MS * 1.6)
  await add('a')
  t.match(await counts(), { waiting: 1, running: 0 })
  await admin.del('p:{q}:waiting', 'p:{q}:message')
  await beat()
  await add('b')
  t.match(await counts(), { waiting: 0, running: 1 })
})

t.test('of two consumers that wait one is handed a task, and the other one waits on', async t => {
  const { redis, turn, add, idle } = await start(t)
  const stores = await Promise.all(Array.from({ length: 2 }, () => open(t, redis)))
  const handed: string[] = []
  await Promise.all(stores.map(store => store.watch('q', news => { if (news.kind === 'leases') handed.push(...idsOf(news.leases)) })))
  for (const store of stores) await turn({ store })
  await add('a')
  await until(() => handed.length === 1)
  t.equal((await idle()).length, 2)
  await add('b')
  await until(() => handed.length === 2)
  t.strictSame(handed, ['a', 'b'])
})

t.test('an app runs what it is handed: as attempt 1, in order, and after it was away from Redis', async t => {
  const redis = await startRedis(t)
  const admin = new Redis({ path: redis.path })
  t.teardown(() => { admin.disconnect() })
  const begin = async (consumer: boolean) => {
    const app = Fastify()
    t.teardown(() => app.close())
    await app.register(taskqueue, { redis: { path: redis.path }, consumer: consumer && { leaseMs: 500 } })
    app.post('/', async request => { ran.push(`${(request.body as { n: number }).n} ${request.task!.attempt}`) })
    await app.ready()
    return app
  }
  const ran: string[] = []
  const [adder, consumer] = [await begin(false), await begin(true)]
  const isWaiting = async () => await admin.hlen('taskqueue:{default}:idle') === 1
  for (let n = 0; n < 20; n++) {
    await until(isWaiting)
    if (n % 5 === 4) await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')
    await adder.taskqueue.add('/', { payload: { n } })
    await until(() => ran.length === n + 1)
  }
  t.strictSame(ran, Array.from({ length: 20 }, (_, n) => `${n} 1`))

  await until(isWaiting)
  await consumer.close()
  t.equal(await admin.exists('taskqueue:{default}:idle'), 0, 'an app that closes waits no longer')
  await adder.taskqueue.add('/', { payload: { n: 20 } })
  t.match(await adder.taskqueue.queue('default').counts(), { waiting: 1, running: 0 })
})

t.test('what is no lease, and is published where a consumer hears of leases, runs nothing and harms nothing', async t => {
  const redis = await startRedis(t)
  const admin = new Redis({ path: redis.path })
  t.teardown(() => { admin.disconnect() })
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, { redis: { path: redis.path }, secrets: 's'.repeat(32), consumer: { leaseMs: 500 } })
  const ran: string[] = []
  app.post('/', async ({ task }) => { ran.push(task!.id) })
  await app.ready()
  const channel = (await until(async () => (await admin.hkeys('taskqueue:{default}:idle'))[0]))!
  const failed: unknown[] = []
  const note = (error: unknown) => { failed.push(error) }
  process.on('unhandledRejection', note).on('uncaughtException', note)
  t.teardown(() => { process.off('unhandledRejection', note).off('uncaughtException', note) })
  const leases = [
    [], {}, null, 7, 'text', [['a', 'message', '1']], ['a', {}, '1'], ['a', null, '1'], [{}, 'message', '1'], [5, 'message', '1'],
    ['a', 'message', 1], ['a', 'message'], ['a', 'message', 'x'], ['a', 'message', ''], ['', 'message', '1'], ['\n', 'message', '1'], ['a', false, 'x 1'],
    ['a', 'message', '1 1'], ['a', false, '9 1']
  ]
  for (const text of ['', '[]', '{', 'null', '[1]', '[1e999,[]]', '["1",[]]', '[null,null]']) await admin.publish(channel, text)
  // One of these is the number of the turn that waits.
  for (const one of leases) for (let number = 99; number >= 0; number--) await admin.publish(channel, JSON.stringify([number, one]))
  for (let i = 0; i < 3; i++) {
    const id = await app.taskqueue.add('/', { payload: {} })
    await until(() => ran.includes(id), 'a task is run all the same', 30_000)
  }
  t.equal(ran.length, 3)
  t.strictSame(failed, [])
})

/** Hands what there is to a consumer that waits, and tells it only when that takes its next turn. */
class HandingStore extends LocalStore {
  waits = false

  override async watch (): Promise<void> {}

  override async turn (queue: string, turn: Turn): Promise<TurnResult> {
    const isHanded = this.waits && turn.claim === undefined
    this.waits = turn.claim?.waits === true
    return await super.turn(queue, isHanded ? { ...turn, claim: { limit: 1, alone: false, leaseMs: LEASE_MS } } : turn)
  }

  override async close (): Promise<void> {}
}

t.test('an app that closes gives back what was handed to it and that it has not been told', async t => {
  const store = new HandingStore()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, { queues: { q: { type: () => store } }, consumer: { leaseMs: BEAT_MS } })
  app.post('/', async () => { t.fail('it runs') })
  await app.ready()
  await until(() => store.waits)
  const id = await app.taskqueue.add('/', { payload: {} })
  await app.close()
  t.match((await store.counts(['q']))[0], { waiting: 1, running: 0 })
  const { leases } = await store.turn('q', { settlements: [], heartbeatMs: BEAT_MS, claim: { limit: 1, alone: false, leaseMs: LEASE_MS }, keep: { count: 9, ms: 60_000 } })
  t.match(leases, [{ id, attempt: 2, retries: 0, deaths: 0 }], 'this claim is the second')
})
