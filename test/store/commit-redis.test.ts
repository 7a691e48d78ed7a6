import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { NewTask, OnDuplicate } from '../../lib/store/tasks.js'
import { startRedis, type RedisServer } from '../support/redis-server.js'
import { serve } from '../support/serve.js'
import { until } from '../support/until.js'

const commitTimeoutMs = 300

t.test('tasks for two queues on one Redis are prepared by one command, and committed by another', async t => {
  const redis = await startRedis(t)
  const { url, app } = await start(t, redis)
  t.equal((await post(url)).status, 200)
  const client = new Redis(redis.path)
  t.teardown(() => client.disconnect())
  await client.config('RESETSTAT')
  t.equal((await post(url)).status, 200)
  t.match(await client.info('commandstats'), /cmdstat_evalsha:calls=2,/)
  t.notMatch(await client.info('commandstats'), /cmdstat_(?:eval|multi):/)
  t.same(await Promise.all(app.taskqueue.queues.map(queue => queue.length())), [2, 2])
})

const losses: Record<string, { lose: (redis: RedisServer) => unknown, regain: (redis: RedisServer) => unknown, keeps: boolean }> = {
  stopped: { lose: redis => redis.stop(), regain: redis => redis.start(), keeps: false },
  frozen: { lose: redis => redis.freeze(), regain: redis => redis.thaw(), keeps: true }
}

for (const [state, { lose, regain, keeps }] of Object.entries(losses)) {
  t.test(`while Redis is ${state} a reply waits for commitTimeoutMs at most, and none of its tasks is queued`, async t => {
    const redis = await startRedis(t)
    const { url, app, events } = await start(t, redis)
    const waiting = async () => (await Promise.all(app.taskqueue.queues.map(queue => queue.length())))
    t.equal((await post(url)).status, 200)

    await lose(redis)
    for (const path of ['/', '/joined']) {
      const started = performance.now()
      const response = await post(url + path)
      t.ok(performance.now() - started < commitTimeoutMs + 2000, 'in time')
      t.equal(response.status, 503)
      t.match(await response.json(), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
    }
    t.same(events, ['rolled back'])
    await t.rejects(app.taskqueue.add('/task'), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
    await t.rejects(app.taskqueue.queue('mail').length(), { code: 'FST_TASKQUEUE_UNREACHABLE' })

    await regain(redis)
    await until(async () => (await post(url)).status === 200)
    t.same(await waiting(), keeps ? [2, 2] : [1, 1])
  })
}

async function start (t: Test, { path }: RedisServer) {
  const events: string[] = []
  const served = await serve(t, {
    declare: app => {
      app.post('/', async request => {
        for (const queue of ['mail', 'reports']) request.taskqueue.add('/task', { queue })
        return 'ok'
      })
      app.post('/joined', async request => {
        request.taskqueue.add('/task')
        request.taskqueue.join({ commit () { events.push('committed') }, rollback () { events.push('rolled back') } })
        return 'ok'
      })
    },
    taskqueue: { redis: { path }, queues: { mail: {}, reports: {} }, consumer: false, commitTimeoutMs }
  })
  return { ...served, events }
}

const post = async (url: string) => await fetch(url, { method: 'POST' })

const task = (id: string, message: string, onDuplicate?: OnDuplicate) => ({ queue: 'q', id, message, ...onDuplicate !== undefined && { onDuplicate } })

/** Opens a store in a Redis of its own. */
async function openStore (t: Test): Promise<RedisStore> {
  const { path } = await startRedis(t)
  const store = new RedisStore({ path }, 'p', 2000)
  t.teardown(() => store.close())
  await store.open()
  return store
}

t.test('a task whose id nobody chose makes way, while it is only prepared, for one whose adder chose that id', async t => {
  const store = await openStore(t)
  const chosen = await store.prepare([task('a', 'chosen', 'keep'), task('b', 'chosen', 'replace')])
  const made = await store.prepare([task('a', 'made'), task('b', 'made'), task('c', 'made')])
  await chosen.commit()
  await made.commit()
  await until(async () => (await store.counts(['q']))[0]!.waiting === 3, 'Redis has heard of it by another script')
  t.strictSame((await store.list('q', 'waiting', 0, 9)).map(({ id, message }) => `${id} ${message}`), ['a chosen', 'b chosen', 'c made'])

  for (const isFirst of [true, false]) {
    const id = isFirst ? 'd' : 'e'
    const both = [await store.prepare([task(id, 'made')]), await store.prepare([task(id, 'chosen', 'keep')])]
    t.strictSame(both[1]!.keptOut, [])
    for (const commit of isFirst ? both : both.reverse()) await commit.commit()
    t.match(await store.find(['q'], id), { message: isFirst ? 'made' : 'chosen' }, 'whoever commits first is added')
  }
  t.match((await store.counts(['q']))[0], { waiting: 5 })
})

t.test('a task that made way is added after all if the id is free again by its commit, with all others of it', async t => {
  const store = await openStore(t)
  const [made, dropped] = [await store.prepare([task('a', 'made'), { ...task('b', 'made'), delayMs: 60_000 }]), await store.prepare([task('c', 'made'), task('d', 'made')])]
  await (await store.prepare([task('a', 'chosen', 'keep'), task('d', 'chosen', 'keep')])).commit()
  t.equal(await store.find(['q'], 'b'), undefined)
  t.equal(await store.operate('q', { kind: 'cancel', ids: ['a', 'b', 'c'], keep: { count: 0, ms: 0 } }), 1)
  dropped.rollback()
  await made.commit()
  await until(async () => (await store.counts(['q']))[0]!.waiting === 2, 'Redis has heard of it by another script')
  t.match((await store.counts(['q']))[0], { waiting: 2, delayed: 1 })
  t.strictSame((await store.list('q', 'waiting', 0, 9)).map(({ id, message }) => `${id} ${message}`), ['d chosen', 'a made'])
  t.equal(await store.find(['q'], 'c'), undefined)
})

t.test('a piece of which an id is known leaves the other pieces of its call alone', async t => {
  const store = await openStore(t)
  const add = async (...tasks: NewTask[]) => { await (await store.prepare(tasks)).commit() }
  const task = (id: string, message: string, queue = 'q') => ({ queue, id, message })
  await add(task('known', 'first'))
  await Promise.all([
    add(task('a', 'a')), add(task('b', 'b'), task('known', 'second'), task('c', 'c')), add(task('known', 'third')),
    add(task('d', 'd'), task('e', 'e', 'other')), add(task('f', 'f'), task('known', 'fourth', 'other'))
  ])
  const waiting = async (queue: string) => (await store.list(queue, 'waiting', 0, 99)).map(({ id, message }) => `${id} ${message}`).sort()
  t.strictSame(await waiting('q'), ['a a', 'b b', 'c c', 'd d', 'f f', 'known first'])
  t.strictSame(await waiting('other'), ['e e', 'known fourth'])
})
