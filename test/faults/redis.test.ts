import { setTimeout as sleep } from 'node:timers/promises'
import type { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { TaskqueueOptions } from '../../lib/index.js'
import { KEYS } from '../../lib/store/redis/keys.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { TurnResult } from '../../lib/store/turn.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis, type RedisServer } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { adminOf, balance, openLedger, type Ledger } from './adder-and-consumer.js'
import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

// What happens to Redis itself: it dies, forgets, is full, is tampered with, or has a lot to keep.

t.setTimeout(300_000)

t.test('a Redis that is killed five times under load and keeps a log loses no task, doubles none and takes none from its consumer', async t => {
  const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const { admin, ledger } = await start(t, redis, { commitTimeoutMs: 1000, consumer: { leaseMs: 1000, concurrency: 5 } })
  const release = await ledger.hold()
  const stop = ledger.load()
  for (let round = 1; round <= 5; round++) {
    await more(ledger, 20)
    await redis.stop()
    await until(() => ledger.refused.length >= round)
    await redis.start()
  }
  await more(ledger, 20)
  await stop()
  release()
  await balance(t, ledger, admin)
  t.ok(ledger.log.filter(({ level }) => level >= 50).length <= 2 * 5, 'the consumer and the heartbeat say it once each time')
})

const losses: Record<string, (redis: RedisServer, admin: Redis) => Promise<unknown>> = {
  'that restarts with nothing': async redis => {
    await redis.stop()
    await redis.start()
  },
  'that is flushed': (_redis, admin) => admin.flushall()
}
for (const [title, lose] of Object.entries(losses)) {
  t.test(`with a Redis ${title} three times under load running tasks end, and what is added afterwards runs`, async t => {
    const redis = await startRedis(t)
    const { admin, ledger } = await start(t, redis, { commitTimeoutMs: 1000, consumer: { leaseMs: 1000, concurrency: 5 } })
    const { entries, log } = ledger
    for (let round = 1; round <= 3; round++) {
      const before = log.length
      const release = await ledger.hold()
      const held = [...entries.values()].at(-1)!
      const stop = ledger.load()
      await more(ledger, 20)
      await lose(redis, admin)
      const earlier = new Set(entries.keys())
      await more(ledger, 20)
      await stop()
      t.equal(held.ends, 0)
      release()
      await until(() => held.ends === 1, 'the end of the task that is held')
      await ledger.settled(({ id }) => !earlier.has(id))
      t.strictSame(ledger.lost.filter(id => !earlier.has(id)), [])
      const lines = log.slice(before).filter(({ level }) => level >= 40)
      const lost = lines.filter(({ msg }) => msg?.includes('lost its lease')).map(({ taskId }) => taskId)
      t.equal(new Set(lost).size, lost.length, `one line for each of the ${lost.length} tasks that were claimed`)
      t.ok(lines.length - lost.length <= 2, 'two of what does not answer')
    }
    t.strictSame([ledger.ghosts, ledger.doubled], [[], []])
    await admin.config('RESETSTAT')
    await sleep(2000)
    t.ok(await scripts(admin) <= 15, 'it is silent again')
  })
}

t.test('scripts that Redis forgets a hundred times fail no request and double no task', async t => {
  const redis = await startRedis(t)
  const { admin, ledger } = await start(t, redis, { consumer: { leaseMs: 500 } })
  const { consumer: { taskqueue } } = ledger
  for (let round = 1; round <= 100; round++) {
    await admin.script('FLUSH')
    t.equal((await ledger.post()).status, 200)
    await until(() => ledger.lost.length === 0)
    await taskqueue.add('/task', { delayMs: 60_000 })
    await admin.script('FLUSH')
    t.match(await taskqueue.queue('default').counts(), { delayed: 1 })
    await admin.script('FLUSH')
    t.equal(await taskqueue.queue('default').purge(), 1)
  }
  await balance(t, ledger, admin)
})

t.test('a Redis whose memory is full refuses tasks, wholly, and consumers go on and empty the queue', async t => {
  const redis = await startRedis(t)
  const { admin, ledger } = await start(t, redis, {
    queues: { default: {}, other: {} }, consumer: { leaseMs: 500, concurrency: 5, backoff: () => 0, closeGraceMs: 0 }
  })
  const { adder: { taskqueue }, consumer } = ledger
  for (let round = 1; round <= 3; round++) {
    const releases = await Promise.all([1, 2, 3, 4, 5].map(() => ledger.hold()))
    const [fails, dies, chains] = await Promise.all(['status=503', 'status=404', 'chain=1', ...Array(100).fill('')].map(query => ledger.post(query)))
    await admin.config('SET', 'maxmemory', '1')
    t.equal((await ledger.post()).status, 503)
    const code = 'FST_TASKQUEUE_COMMIT_FAILED'
    await t.rejects(taskqueue.transaction(tx => ['default', 'other'].map(queue => tx.add('/task', { queue }))), { code, cause: { message: /OOM/ } })
    await t.rejects(taskqueue.add('/task', { queue: 'other', delayMs: 1000 }), { code })
    t.same(await taskqueue.queue('other').counts(), NOTHING)
    // Longer than a lease.
    await sleep(1000)
    for (const release of releases) release()
    await ledger.settled()
    t.strictSame([fails!.attempts, dies!.attempts, chains!.attempts], [[1, 2], [1], [1]])
    t.strictSame(ledger.entries.get(`${chains!.id}-chained`)?.attempts, [1])
    t.match(await taskqueue.queue('default').counts(), { dead: round })
    await admin.config('SET', 'maxmemory', '0')
    t.equal((await ledger.post()).status, 200)
    await ledger.settled()
  }
  t.strictSame([ledger.lost, ledger.ghosts, ledger.doubled.length], [[], [], 3], 'only those that failed run twice')
  t.same(ledger.log.filter(({ msg }) => msg.includes('lost its lease')), [])

  const release = await ledger.hold()
  await admin.config('SET', 'maxmemory', '1')
  await consumer.close()
  t.match(await taskqueue.queue('default').counts(), { waiting: 1, running: 0 }, 'a closing consumer gives back what it runs')
  release()
})

t.test('keys of another type stop their queue and no other, without a hot loop, and it goes on when they are gone', async t => {
  const { path } = await startRedis(t)
  const admin = adminOf(t, { path })
  const names = ['intact', ...KEYS]
  const { app, log } = await loggedApp(t, {
    redis: { path }, queues: Object.fromEntries(names.map(name => [name, {}])), consumer: { leaseMs: 2000, concurrency: 2 }
  })
  const runs: string[] = []
  const { opened, open } = gate()
  app.get('/', async ({ task }) => { runs.push(task!.queue) })
  app.get('/held', async ({ task }) => {
    runs.push(`held ${task!.queue}`)
    await opened
  })
  await app.ready()
  const addToAll = async () => await Promise.allSettled(names.map(queue => app.taskqueue.add('/', { queue })))
  for (const queue of names) await app.taskqueue.add('/held', { queue })
  await until(() => runs.length === names.length)

  const before = log.length
  for (const name of KEYS) {
    const key = `taskqueue:{${name}}:${name}`
    await admin.del(key)
    if (name === 'clock') await admin.lpush(key, 'of another type')
    else await admin.set(key, 'of another type')
  }
  for (let i = 0; i < 20; i++) await addToAll()
  await Promise.all(Array.from({ length: 1000 }, () => app.taskqueue.add('/', { queue: 'waiting' })))
  await t.rejects(app.taskqueue.add('/', { queue: 'waiting' }), { cause: { message: /has not answered 1000 commits/ } }, 'no more than that is kept')
  await app.taskqueue.add('/', { queue: 'intact' })
  open()
  await until(() => runs.filter(queue => queue === 'intact').length === 21, 'the other queue')
  for (const name of KEYS) await admin.publish(`taskqueue:{${name}}`, '')
  await admin.config('RESETSTAT')
  await sleep(3000)
  const perSecond = Math.round(await scripts(admin) / 3)
  t.ok(perSecond <= 4 * KEYS.length, `${perSecond} commands a second for ${KEYS.length} queues`)
  for (const name of KEYS) {
    const lines = log.slice(before).filter(({ queue, level, taskId }) => queue === name && level >= 40 && taskId === undefined)
    // Where only telling of the end of a task fails, the store answers in between: it is said at most once for each.
    const most = Math.max(6, runs.filter(queue => queue.endsWith(name)).length)
    t.ok(lines.length <= most, `${lines.length} lines on ${name}, at most ${most}`)
  }

  for (const name of KEYS) await admin.del(`taskqueue:{${name}}:${name}`)
  const last = runs.length
  await until(async () => (await addToAll()).every(({ status }) => status === 'fulfilled'), 'adding')
  await until(() => names.every(name => runs.slice(last).includes(name)), 'all queues')
  for (const queue of app.taskqueue.queues) await until(async () => JSON.stringify({ ...await queue.counts(), dead: 0 }) === JSON.stringify(NOTHING), queue.name)
})

t.test('a turn with a million tasks sends Redis the same commands as one with ten thousand, and none that goes through them all', async t => {
  const { path } = await startRedis(t)
  const admin = adminOf(t, { path })
  const store = new RedisStore({ path }, 'taskqueue', 60_000)
  t.teardown(() => store.close())
  await store.open()
  const TURNS = 200
  const ANY = /^cmdstat_(\S+):calls=(\d+)/gm
  const used = []
  for (const count of [10_000, 1_000_000]) {
    const queue = `queue-${count}`
    await fill(admin, queue, count)
    // What is done in the first turn alone is done before.
    let leases = await claim([])
    // A minute that begins in between costs two more commands.
    await until(() => Date.now() % 60_000 < 55_000)
    await admin.config('RESETSTAT')
    for (let turn = 0; turn < TURNS; turn++) leases = await claim(leases)
    await store.extend([{ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases, heartbeatMs: 12000, leaseMs: 60_000 }])
    const prepared = await store.prepare([{ queue, id: 'new', message: 'message' }])
    await prepared.commit()
    const waiting = count - TURNS
    t.match((await store.counts([queue]))[0], { waiting, running: 1 })
    used.push(await calls(admin, ANY))
    t.equal(await store.operate(queue, { kind: 'purge' }), waiting)
    // Its LRANGE is that of `counts`, which looks for the first in line.
    const all = Object.keys(await calls(admin, ANY))
    t.strictSame(all.filter(name => /^(?:lrem|lindex|linsert|lset|lpos|hgetall|hkeys|hvals|h?scan|keys|[sz]scan|smembers|sort)$/.test(name)), [])

    async function claim (ended: TurnResult['leases']): Promise<TurnResult['leases']> {
      const settlements = ended.map(lease => ({ lease, verdict: { kind: 'done' } as const }))
      return (await store.turn(queue, { settlements, heartbeatMs: 12000, claim: { limit: 1, alone: false, leaseMs: 60_000 }, keep: { count: 0, ms: 1000 } })).leases
    }
  }
  t.strictSame(used[1], used[0])
})

/** Puts tasks into a queue, faster than by adding them. */
async function fill (admin: Redis, name: string, count: number): Promise<void> {
  const script = `for i = ARGV[1], ARGV[2] do
    redis.call('RPUSH', KEYS[1], 'task-' .. i)
    redis.call('HSET', KEYS[2], 'task-' .. i, ARGV[3])
  end`
  const message = JSON.stringify({ v: 1, method: 'GET', url: '/task', headers: {} })
  for (let i = 0; i < count; i += 10_000) {
    await admin.eval(script, 2, `taskqueue:{${name}}:waiting`, `taskqueue:{${name}}:message`, i, i + 9999, message)
  }
}

async function start (t: Test, redis: RedisServer, options: TaskqueueOptions): Promise<{ admin: Redis, ledger: Ledger }> {
  return { admin: adminOf(t, redis), ledger: await openLedger(t, { redis: { path: redis.path }, ...options }) }
}

/** Waits until as many more tasks are accepted. */
async function more (ledger: Ledger, count: number): Promise<void> {
  const before = ledger.accepted.length
  await until(() => ledger.accepted.length >= before + count, 'more tasks')
}

/** How many scripts Redis was sent since its statistics were reset. */
async function scripts (admin: Redis): Promise<number> {
  return Object.values(await calls(admin, /^cmdstat_(eval|evalsha):calls=(\d+)/gm)).reduce((sum, count) => sum + count, 0)
}

/** How often each command was run since then, be it by scripts. */
async function calls (admin: Redis, pattern: RegExp): Promise<Record<string, number>> {
  const stats = await admin.info('commandstats')
  return Object.fromEntries([...stats.matchAll(pattern)].map(([, name, count]) => [name!, Number(count)]))
}
