import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { KEYS } from '../../lib/store/redis/keys.js'
import { loggedApp, type LogLine } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { adminOf } from './adder-and-consumer.js'

// Whoever can write to Redis can do harm there. They crash no process, keep none busy, run nothing of their own where there
// are secrets, and a queue works again as soon as what they wrote is gone.

const redis = await startRedis(t)
const keyOf = (key: string) => `taskqueue:{default}:${key}`
const HOUR_MS = 3_600_000

type Tamper = (admin: Redis) => Promise<unknown>

const OTHERS: Record<string, Tamper> = {}
for (const key of KEYS) {
  OTHERS[`${key} is a key of another type`] = async admin => {
    await admin.del(keyOf(key))
    if (['waiting', 'suspects', 'clock'].includes(key)) await admin.hset(keyOf(key), 'a', 'b')
    else await admin.set(keyOf(key), 'x')
  }
}
for (const [set, score] of [['delayed', '+inf'], ['delayed', '1e300'], ['delayed', '-inf'], ['running', '+inf'], ['running', '-inf'], ['expiring', '-inf'], ['ended', '+inf']]) {
  OTHERS[`${set} has a score of ${score}`] = admin => admin.zadd(keyOf(set!), score!, 'x')
}
Object.assign(OTHERS, {
  'the clock is huge': admin => admin.set(keyOf('clock'), '1 99999999999999999999999 0'),
  'the clock is text': admin => admin.set(keyOf('clock'), 'x y z'),
  'the last contact lies in the future': admin => admin.set(keyOf('clock'), '9999999999999 5 0'),
  async 'what is stale is no number' (admin) {
    await admin.hset(keyOf('stale'), 'a', 'nan', ' ', '-7')
    await admin.rpush(keyOf('waiting'), 'a')
  },
  async 'progress is nonsense' (admin) {
    await admin.hset(keyOf('attempts'), 'a', 'nan', 'b', '1e999 1 1 1 1 1 x', 'c', '9'.repeat(400), 'd', '1 1 0 0 0 1 0 0 ', 'd next', 'x', 'd log', '\xc1')
    await admin.rpush(keyOf('waiting'), 'a', 'b', 'c', 'd')
  },
  'what is prepared is nonsense': admin => admin.hset(keyOf('prepared'), 'a', 'x', 'b', Buffer.from('0 \xdd\xff\xff\xff\xff', 'latin1'), 'c', ''),
  async 'the keys of turns are no turns' (admin) {
    for (const key of await admin.keys(keyOf('turn:*'))) await admin.set(key, '\xc1\xc1')
  },
  async 'the line is full of ids that are none' (admin) {
    await admin.rpush(keyOf('waiting'), ...Array.from({ length: 5000 }, (_, index) => ['', 'a b', 'x\ny', 'error', '__proto__', `ok${index}`][index % 6]!))
  },
  async 'thousands of news are nonsense' (admin) {
    for (const news of ['work', 'change', 'ended', 'ended error', 'ended newListener', '', ' '.repeat(1000)]) {
      await Promise.all(Array.from({ length: 1000 }, () => admin.publish('taskqueue:{default}', news)))
    }
  }
} satisfies Record<string, Tamper>)

for (const [title, tamper] of Object.entries(OTHERS)) {
  t.test(`where ${title} nothing runs but what was added, nobody is kept busy, and the queue works again afterwards`, async t => {
    const { app, admin, runs, faults } = await start(t)
    const before = await callsOf(admin)
    await tamper(admin)
    // As many heartbeats as it takes to notice.
    await until(async () => await callsOf(admin) - before >= 8)
    // News wake a consumer once each; after them a loop that is hot stays so.
    await until(async () => {
      const since = performance.now()
      const first = await callsOf(admin)
      await until(async () => await callsOf(admin) - first >= 5)
      return performance.now() - since > 100
    }, 'five calls take some time')
    t.strictSame(runs, [])
    t.ok(new Set(faults()).size <= 10 && faults().length <= 30, `${faults().length} lines`)
    await admin.flushall()
    await app.taskqueue.add('/task', { id: 'after' })
    await until(() => runs.includes('after'))
    t.strictSame(runs, ['after'])
  })
}

t.test('one prepared commit that is none is logged once, and what runs is told all the same that it is cancelled', async t => {
  const { app, admin, log } = await start(t)
  await admin.hset(keyOf('prepared'), 'x', 'no digits')
  const isMeant = ({ fault }: LogLine) => fault !== undefined
  await until(() => log.some(isMeant))
  await app.taskqueue.add('/slow', { id: 'slow' })
  await until(async () => (await app.taskqueue.get('slow'))?.state === 'running')
  t.equal(await app.taskqueue.cancel('slow'), true)
  await until(() => log.some(({ msg }) => msg === 'task is cancelled'))
  t.match(log.filter(isMeant), [{ level: 50, queue: 'default', fault: /the prepared commit x is unreadable/ }])
})

t.test('a turn whose number somebody has raised goes on under another key', async t => {
  const { app, admin, runs } = await start(t)
  for (const key of await admin.keys(keyOf('turn:*'))) {
    await admin.eval("redis.call('SET', KEYS[1], cmsgpack.pack({ number = 2 ^ 50, settled = {}, ids = {}, fences = {} }))", 1, key)
  }
  await app.taskqueue.add('/task', { id: 'during' })
  await until(() => runs.includes('during'))
})

t.test('what is told of a task that is not what it says is no more than it can be', async t => {
  const { app, admin } = await start(t)
  const records = ["{ 'done', 1, 1, 'x' }", "{ 'done' }", "'x'", '{ {}, {}, {}, {} }', "{ 'done', 1 / 0, 0 / 0, { false, 1, {} } }", "{ 'constructor', 1, 1, {} }"]
  for (const [index, record] of records.entries()) {
    await admin.zadd(keyOf('ended'), 9e15, `${index}`)
    await admin.eval(`redis.call('HSET', KEYS[1], '${index}', cmsgpack.pack(${record}))`, 1, keyOf('summary'))
  }
  const states = await Promise.all(records.map(async (_, index) => (await app.taskqueue.get(`${index}`))?.state))
  t.strictSame(states, ['done', 'done', undefined, undefined, 'done', undefined])
  t.match(await app.taskqueue.queue('default').list('done'), [{ state: 'done' }, { state: 'done' }, { state: 'done' }])
})

t.test('a message of a size that none has is not read, and no obstacle', async t => {
  const { app, admin, runs } = await start(t)
  await admin.eval("redis.call('HSET', KEYS[1], 'huge', string.rep('x', 100 * 1024 * 1024))", 1, keyOf('message'))
  await admin.rpush(keyOf('waiting'), 'huge')
  await app.taskqueue.add('/task', { id: 'small' })
  await until(() => runs.includes('small'))
  await until(async () => (await app.taskqueue.get('huge'))?.state === 'dead')
  t.match(await app.taskqueue.get('huge'), { reason: 'it is not a task' })
  await admin.flushall()
})

/** An app with secrets, and what has run in it. */
async function start (t: Test) {
  const admin = adminOf(t, redis)
  await admin.flushall()
  const { app, log } = await loggedApp(t, {
    redis: { path: redis.path }, secrets: 'k'.repeat(32), commitTimeoutMs: 10_000, consumer: { concurrency: 4, leaseMs: 500, maxRetries: 2, backoff: () => 50 }, keepMs: HOUR_MS
  })
  const runs: string[] = []
  app.get('/task', async ({ task }) => { runs.push(task!.id) })
  app.get('/slow', async ({ task }) => {
    await new Promise<void>(resolve => { task!.signal.addEventListener('abort', () => { resolve() }) })
  })
  await app.ready()
  await app.taskqueue.add('/task', { id: 'before' })
  await until(() => runs.splice(0).includes('before'))
  await until(async () => (await app.taskqueue.get('before'))?.state === 'done')
  return { app, admin, log, runs, faults: () => log.filter(({ level }) => level >= 50) }
}

async function callsOf (admin: Redis): Promise<number> {
  return Number(/cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))?.[1] ?? 0)
}
