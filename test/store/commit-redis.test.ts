import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
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
