import dns from 'node:dns'
import { randomUUID } from 'node:crypto'
import { inspect } from 'node:util'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { storeConformance } from '../../lib/store/conformance/index.js'
import type { RedisLocation } from '../../lib/store/redis/location.js'
import { encodeTurn } from '../../lib/store/redis/commands/turn.js'
import { KEYS } from '../../lib/store/redis/keys.js'
import { scripts } from '../../lib/store/redis/scripts.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { NewTask } from '../../lib/store/tasks.js'
import type { Lease, Settlement } from '../../lib/store/turn.js'
import { addAclUser } from '../support/acl-user.js'
import { addTo } from '../support/add-to.js'
import { loggedApp } from '../support/logged-app.js'

import { freePort, startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

const PASSWORD = 'hush-hush-4711'

t.test('over a unix socket it', async t => {
  const { path } = await startRedis(t)
  for (const { title, run } of storeConformance(() => new RedisStore({ path }, 'prefix', 2000))) await t.test(title, run)
})

t.test('who waits for the end of a task gets its message and its holder only then', async t => {
  const { path } = await startRedis(t)
  const store = new RedisStore({ path }, 'prefix', 2000)
  t.teardown(() => store.close())
  await store.open()
  const message = `{"url":"/"}\n${'x'.repeat(30_000)}`
  await addTo(store, [task('a', 'q', { message })])
  const [lease] = await claim(store, 1)
  await store.extend([{ queue: 'q', consumer: 'one', startedAt: 1, concurrency: 1, leases: [lease!], heartbeatMs: 12000, leaseMs: 60_000 }])
  t.match(await store.find(['q'], 'a'), { message, isWhole: true, consumer: 'one' })
  t.match(await store.find(['q'], 'a', 1000), { state: 'running', message: '{"url":"/"}\n', isWhole: undefined, consumer: undefined })
  await settle(store, [{ lease: lease!, verdict: { kind: 'dead', reason: 'no' } }])
  t.match(await store.find(['q'], 'a', 1000), { state: 'dead', message, isWhole: true })
})

t.test('over TCP, with a password and another database, it', async t => {
  const { path, port } = await startRedis(t, { tcp: true, args: ['--requirepass', PASSWORD] })
  const location = `redis://:${PASSWORD}@127.0.0.1:${port}/3`
  for (const { title, run } of storeConformance(() => new RedisStore(location, 'prefix', 2000))) await t.test(title, run)

  await t.test('keeps its keys in that database and under its prefix', async t => {
    const admin = adminOf(t, { path, password: PASSWORD })
    t.equal(await admin.dbsize(), 0)
    await admin.select(3)
    const keys = await admin.keys('*')
    t.ok(keys.length > 0)
    t.strictSame(keys.filter(key => !key.startsWith('prefix:{')), [])
  })
})

t.test('as the user that SECURITY.md recommends, it', async t => {
  const { path } = await startRedis(t)
  const user = await addAclUser(adminOf(t, { path }), 'prefix')
  for (const { title, run } of storeConformance(() => new RedisStore({ path, ...user }, 'prefix', 2000))) await t.test(title, run)
})

t.test('an app that cannot reach Redis does not become ready, and says where it looked, but no password', async t => {
  const open = await startRedis(t, { tcp: true })
  const locked = await startRedis(t, { tcp: true, args: ['--requirepass', 'another'] })
  const replica = await startRedis(t, { tcp: true, args: ['--replicaof', '127.0.0.1', String(await freePort())] })
  await adminOf(t, open).call('ACL', 'SETUSER', 'reader', 'on', `>${PASSWORD}`, '~*', '+@all', '-@scripting')
  const refused = await freePort()
  const { lookup } = dns
  // A name like localhost on most machines: it has several addresses, and nobody answers at any.
  Object.assign(dns, {
    lookup (name: string, options: object, done: (error: null, addresses: object[]) => void) {
      if (name !== 'several.test') return (lookup as (...args: unknown[]) => void)(name, options, done)
      done(null, [{ address: '127.0.0.1', family: 4 }, { address: '127.0.0.2', family: 4 }])
    }
  })
  t.teardown(() => { Object.assign(dns, { lookup }) })

  const cases: Array<[title: string, location: RedisLocation, address: string, reason: RegExp]> = [
    ['a port that refuses', `redis://user:${PASSWORD}@127.0.0.1:${refused}`, `127.0.0.1:${refused}`, /ECONNREFUSED/],
    ['a socket that does not exist', { path: `${open.path}-not`, password: PASSWORD }, `${open.path}-not`, /ENOENT/],
    ['a wrong password', `redis://:${PASSWORD}@127.0.0.1:${locked.port}/2`, `127.0.0.1:${locked.port}, database 2`, /WRONGPASS/],
    ['a wrong user', `redis://user:${PASSWORD}@127.0.0.1:${locked.port}`, `127.0.0.1:${locked.port}`, /WRONGPASS/],
    ['no password', { port: locked.port, host: '127.0.0.1' }, `127.0.0.1:${locked.port}`, /NOAUTH/],
    ['a name with several addresses', `redis://:${PASSWORD}@several.test:${refused}`, `several.test:${refused}`, /ECONNREFUSED/],
    ['a name that does not exist', `redis://:${PASSWORD}@nowhere.invalid`, 'nowhere.invalid:6379', /ENOTFOUND|EAI_AGAIN/],
    ['a user who may not run scripts', `redis://reader:${PASSWORD}@127.0.0.1:${open.port}`, `127.0.0.1:${open.port}`, /NOPERM/],
    ['a database that does not exist', `redis://127.0.0.1:${open.port}/99`, `127.0.0.1:${open.port}, database 99`, /out of range/],
    ['a replica', { host: '127.0.0.1', port: replica.port }, `127.0.0.1:${replica.port}`, /READONLY/],
    ['a client that is passed in', clientOf(t, `redis://:${PASSWORD}@127.0.0.1:${refused}`), `127.0.0.1:${refused}`, /ECONNREFUSED/]
  ]
  for (const [title, redis, address, reason] of cases) {
    await t.test(title, async t => {
      const { app, log } = await loggedApp(t, { redis, secrets: 'a secret of at least 32 bytes, which is not logged' })
      const error: Error = await app.ready().then(() => t.fail('it is ready'), error => error)
      t.match(error, { code: 'FST_TASKQUEUE_UNREACHABLE', statusCode: 503, message: reason })
      t.match(error.message, `Redis at ${address} cannot be used as a task queue`)
      for (const text of [error.stack, inspect(error, { depth: 9, showHidden: true }), JSON.stringify(error), JSON.stringify(log)]) t.notMatch(text, PASSWORD)
    })
  }
})

t.test('an app whose Redis is frozen does not become ready, in bounded time', async t => {
  const redis = await startRedis(t)
  redis.freeze()
  const { app } = await loggedApp(t, { redis: { path: redis.path, password: PASSWORD } })
  const start = performance.now()
  const error: Error = await app.ready().then(() => t.fail('it is ready'), error => error)
  t.match(error, { code: 'FST_TASKQUEUE_UNREACHABLE', message: redis.path })
  t.ok(performance.now() - start < 9000)
})

t.test('a commit is prepared in calls of at most 1,000 tasks and 4 MiB, or an eighth if nobody chose its ids, and committed in one', async t => {
  const { admin, store } = await openStore(t)
  for (const [count, length, ofNew, ofChosen] of [[1, 10, 1, 1], [1000, 10, 9, 2], [10_000, 10, 81, 11], [15, 1024 * 1024, 15, 5]] as const) {
    for (const [rest, calls] of [[{}, ofNew], [{ onDuplicate: 'keep' }, ofChosen]] as const) {
      const commit = await store.prepare(Array.from({ length: count }, (_, index) => ({ ...task(String(index)), message: 'x'.repeat(length), ...rest })))
      t.equal(await admin.hlen('prefix:{q}:prepared'), calls, `${count} tasks`)
      t.match((await store.counts(['q']))[0], { waiting: 0 })
      await commit.commit()
      t.match((await store.counts(['q']))[0], { waiting: count })
      t.equal(await admin.exists('prefix:{q}:prepared', 'prefix:{q}:reserved'), 0)
      await admin.flushall()
    }
  }
})

t.test('Redis keeps one copy of each script, whatever it is passed', async t => {
  const { admin, store } = await openStore(t)
  for (let i = 0; i < 20; i++) {
    await addTo(store, [task(randomUUID()), task(randomUUID(), `queue${i}`)])
    await store.turn(`queue${i}`, { settlements: [], heartbeatMs: (1000 + i) / 5, claim: { limit: i, alone: false, leaseMs: 1000 + i }, keep: { count: 10, ms: 1000 } })
  }
  t.match(await admin.info('memory'), new RegExp(`number_of_cached_scripts:${Object.keys(scripts).length}\\r`))
})

t.test('a claim that is asked for again hands out its leases anew, however much of them was over', async t => {
  const { admin, store } = await openStore(t)
  const [leaseMs, heartbeatMs] = [1000, 200]
  const claimOnce = async () => {
    const keys = [...KEYS.map(key => `prefix:{q}:${key}`), 'prefix:{q}:turn:holder']
    const [, , [id]] = await admin.eval(scripts.turn.body, keys.length, ...keys, ...turnArgs(heartbeatMs, leaseMs)) as [unknown, unknown, string[]]
    return id
  }
  // Of a consumer that is in contact and holds nothing.
  const leftMs = async () => (await store.extend([{ queue: 'q', consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: leaseMs / 5, leaseMs }]))[0]!.outlook.wakeInMs
  await addTo(store, [task('a')])
  t.equal(await claimOnce(), 'a')
  await until(async () => await leftMs() < 300)
  t.equal(await claimOnce(), 'a', 'the answer was lost')
  t.ok(await leftMs() > 600)
})

t.test('a claim that is asked for again hands out the task that was claimed, and not the one that is to follow it', async t => {
  const { admin, store } = await openStore(t)
  const claimOnce = async () => {
    const keys = [...KEYS.map(key => `prefix:{q}:${key}`), 'prefix:{q}:turn:holder']
    const [, , [id, message]] = await admin.eval(scripts.turn.body, keys.length, ...keys, ...turnArgs(200, 1000)) as [unknown, unknown, string[]]
    return [id, message]
  }
  await addTo(store, [task('a')])
  t.same(await claimOnce(), ['a', 'message of a'])
  await addTo(store, [task('a', 'q', { message: 'again', onDuplicate: 'replace' })])
  t.same(await claimOnce(), ['a', 'message of a'], 'the answer was lost')
})

t.test('a Redis that would make room by dropping tasks is refused, and one that has room for all is not', async t => {
  const { admin, store } = await openStore(t)
  for (const policy of ['allkeys-lru', 'allkeys-lfu', 'allkeys-random']) {
    await admin.config('SET', 'maxmemory-policy', policy)
    await admin.config('SET', 'maxmemory', '100mb')
    await t.rejects(store.open(), { code: 'FST_TASKQUEUE_UNREACHABLE', message: new RegExp(`maxmemory-policy ${policy} .*noeviction`) })
    await admin.config('SET', 'maxmemory', '0')
    await store.open()
  }
  await admin.config('SET', 'maxmemory', '100mb')
  for (const policy of ['noeviction', 'volatile-lru', 'volatile-ttl']) {
    await admin.config('SET', 'maxmemory-policy', policy)
    await store.open()
  }
})

t.test('a dead letter that is dropped leaves nothing behind, and what one turn drops is counted', async t => {
  const { admin, store } = await openStore(t)
  await addTo(store, Array.from({ length: 1300 }, (_, index) => task(`${index}`)))
  const dropped: Array<number | undefined> = []
  for (let i = 0; i < 13; i++) {
    const leases = await claim(store, 100)
    await settle(store, leases.map(lease => ({ lease, verdict: { kind: 'dead', reason: 'status 404' } })))
  }
  t.match((await store.counts(['q']))[0], { waiting: 0, delayed: 0, running: 0, dead: 1300 })
  const keep = { count: 0, ms: 1000 }
  const keepDead = { count: 100, ms: Infinity }
  for (let i = 0; i < 3; i++) dropped.push((await store.turn('q', { settlements: [], heartbeatMs: 12000, keep, keepDead })).dropped)
  t.strictSame(dropped, [1000, 200, undefined])
  t.equal(await admin.hlen('prefix:{q}:message'), 100)
  t.equal(await admin.hlen('prefix:{q}:attempts'), 100)
  t.equal(await admin.zscore('prefix:{q}:dead', '1199'), null)
  t.not(await admin.zscore('prefix:{q}:dead', '1200'), null)
})

t.test('a turn whose answer is lost says once more how many dead letters it has dropped', async t => {
  const { admin, store } = await openStore(t)
  await addTo(store, ['a', 'b', 'c'].map(id => task(id)))
  await settle(store, (await claim(store, 3)).map(lease => ({ lease, verdict: { kind: 'dead', reason: 'status 404' } })))
  const keys = [...KEYS.map(key => `prefix:{q}:${key}`), 'prefix:{q}:turn:another']
  for (const round of ['at first', 'once more']) {
    const reply = await admin.eval(scripts.turn.body, keys.length, ...keys, 1, 200, 1000, 0, 0, 0, 10, 1000, 1, '', 65536) as unknown[]
    t.equal(reply[3], 2, round)
  }
  t.match((await store.counts(['q']))[0], { dead: 1 })
})

t.test('all dead letters, however many, are put back in line or removed by calls of a thousand', async t => {
  const { admin, store } = await openStore(t)
  const ids = Array.from({ length: 2500 }, (_, index) => `${index}`)
  const calls = async () => Number(/cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1])
  for (const kind of ['redrive', 'remove'] as const) {
    await admin.flushall()
    await admin.hset('prefix:{q}:message', Object.fromEntries(ids.map(id => [id, 'message'])))
    await admin.zadd('prefix:{q}:dead', ...ids.flatMap(id => [id, id]))
    const before = await calls()
    t.equal(await store.operate('q', { kind }), 2500)
    // One of them counts.
    t.equal(await calls() - before, 4)
    t.match((await store.counts(['q']))[0], { waiting: kind === 'redrive' ? 2500 : 0, dead: 0 })
  }
})

function task (id: string, queue = 'q', rest: Partial<NewTask> = {}): NewTask {
  return { queue, id, message: `message of ${id}`, ...rest }
}

async function claim (store: RedisStore, limit: number): Promise<readonly Lease[]> {
  return (await store.turn('q', { settlements: [], heartbeatMs: 12000, claim: { limit, alone: false, leaseMs: 60_000 }, keep: { count: 0, ms: 1000 } })).leases
}

async function settle (store: RedisStore, settlements: Settlement[]): Promise<void> {
  await store.turn('q', { settlements, heartbeatMs: 12000, keep: { count: 0, ms: 1000 } })
}

async function openStore (t: Test): Promise<{ admin: Redis, store: RedisStore }> {
  const { path } = await startRedis(t)
  const store = new RedisStore({ path }, 'prefix', 30_000)
  t.teardown(() => store.close())
  await store.open()
  return { admin: adminOf(t, { path }), store }
}

function adminOf (t: Test, { path, password }: { path: string, password?: string }): Redis {
  return clientOf(t, { path, ...password !== undefined && { password } })
}

function clientOf (t: Test, location: string | object): Redis {
  const client = new Redis(location as string)
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  return client
}

/** The arguments of the first turn of a consumer, which claims one task. */
const turnArgs = (heartbeatMs: number, leaseMs: number) => encodeTurn({
  number: 1, heartbeatMs, claim: { limit: 1, alone: false, leaseMs }, keep: { count: 10, ms: 1000 }, replyBytes: 65_536
}, [])
