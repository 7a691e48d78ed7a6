import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import * as official from '@prometheus-io/client'
import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import * as promClient from 'prom-client'
import t, { type Test } from 'tap'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import metrics, { type PrometheusClient } from '../../lib/metrics/metrics.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

const clients = { 'prom-client': promClient, '@prometheus-io/client': official as unknown as typeof promClient }

async function open (t: Test, client: typeof promClient, register: promClient.Registry, options: TaskqueueOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: { maxRetries: 0, concurrency: 2 }, ...options })
  await app.register(metrics, { client, register })
  app.get('/users/:id', async () => ({}))
  app.get('/fails', async (_request, reply) => reply.code(500).send())
  await app.ready()
  return app
}

/** The samples of a scrape, by their names and labels. */
async function scrape (register: promClient.Registry): Promise<Map<string, number>> {
  const lines = (await register.metrics()).split('\n').filter(line => line !== '' && !line.startsWith('#'))
  return new Map(lines.map(line => {
    const [, name, value] = /^(.*) (\S+)$/.exec(line)!
    return [name!, Number(value)]
  }))
}

for (const [name, client] of Object.entries(clients)) {
  t.test(`a scrape of ${name} has what has happened, and how the queues fare`, async t => {
    const register = new client.Registry()
    const app = await open(t, client, register, { queues: { mail: {}, paused: { consumer: false } } })
    const ids = [await app.taskqueue.add('/users/1'), await app.taskqueue.add('/users/2'), await app.taskqueue.add('/fails')]
    for (const id of ids) await app.taskqueue.wait(id)
    await app.taskqueue.add('/users/1', { queue: 'paused', id: 'a' })
    await app.taskqueue.add('/users/1', { queue: 'paused', id: 'a' })
    await app.taskqueue.queue('paused').pause()
    const samples = await scrape(register)
    const expected: Record<string, number> = {
      'taskqueue_added_total{queue="mail"}': 3,
      'taskqueue_added_total{queue="paused"}': 1,
      taskqueue_commit_duration_seconds_count: 5,
      'taskqueue_attempts_total{queue="mail",route="/users/:id",outcome="done"}': 2,
      'taskqueue_attempts_total{queue="mail",route="/fails",outcome="dead"}': 1,
      'taskqueue_attempt_duration_seconds_count{queue="mail",route="/users/:id"}': 2,
      'taskqueue_wait_seconds_count{queue="mail"}': 3,
      'taskqueue_tasks{queue="mail",state="dead"}': 1,
      'taskqueue_tasks{queue="paused",state="waiting"}': 1,
      'taskqueue_oldest_waiting_seconds{queue="mail"}': 0,
      'taskqueue_paused{queue="mail"}': 0,
      'taskqueue_paused{queue="paused"}': 1,
      'taskqueue_rest_seconds{queue="mail"}': 0,
      'taskqueue_store_up{queue="mail"}': 1,
      'taskqueue_running{queue="mail"}': 0,
      'taskqueue_concurrency{queue="mail"}': 2
    }
    for (const [sample, value] of Object.entries(expected)) t.equal(samples.get(sample), value, sample)
    t.ok(samples.get('taskqueue_oldest_waiting_seconds{queue="paused"}')! > 0)
    t.ok(samples.get('taskqueue_wait_seconds_sum{queue="mail"}')! < 60)
    t.notOk(samples.has('taskqueue_running{queue="paused"}'), 'nothing runs here')
    t.notMatch(await register.metrics(), /users\/1/, 'no url is a label')
  })
}

t.test('a commit that fails, and a task that no route takes, are counted', async t => {
  const register = new promClient.Registry()
  const store = new LocalStore()
  const app = await open(t, promClient, register, { queues: { default: { type: () => store } }, consumer: { missingRouteMs: 0 } })
  const id = await app.taskqueue.add('/nowhere')
  await app.taskqueue.wait(id)
  store.prepare = () => { throw new Error('it is full') }
  await t.rejects(app.taskqueue.add('/users/1'))
  const samples = await scrape(register)
  t.equal(samples.get('taskqueue_commit_failures_total'), 1)
  t.equal(samples.get('taskqueue_attempts_total{queue="default",route="other",outcome="dead"}'), 1)
})

t.test('slots of schedules are counted, and those that were missed', async t => {
  const register = new promClient.Registry()
  const app = await open(t, promClient, register, { consumer: { autoStart: false } })
  await app.taskqueue.schedule('hourly', { everyMs: 3_600_000, url: '/users/1' })
  await app.taskqueue.drain({ advanceMs: 2 * 3_600_000 })
  const samples = await scrape(register)
  t.equal(samples.get('taskqueue_schedule_slots_total{queue="default",outcome="added"}'), 2)
  t.notOk(samples.has('taskqueue_schedule_missed_total{queue="default"}'))
  t.equal(samples.get('taskqueue_attempts_total{queue="default",route="/users/:id",outcome="done"}'), 2)
})

t.test('apps that share a registry count together, and what is closed is asked no longer', async t => {
  const register = new promClient.Registry()
  const one = await open(t, promClient, register, { queues: { one: {} } })
  const two = await open(t, promClient, register, { queues: { two: {} } })
  for (const app of [one, two]) await app.taskqueue.wait(await app.taskqueue.add('/users/1'))
  const both = await scrape(register)
  t.strictSame(['one', 'two'].map(queue => both.get(`taskqueue_attempts_total{queue="${queue}",route="/users/:id",outcome="done"}`)), [1, 1])
  t.strictSame(['one', 'two'].map(queue => both.get(`taskqueue_store_up{queue="${queue}"}`)), [1, 1])
  await one.close()
  await two.taskqueue.wait(await two.taskqueue.add('/users/1'))
  const left = await scrape(register)
  t.strictSame(['one', 'two'].map(queue => left.get(`taskqueue_store_up{queue="${queue}"}`)), [undefined, 1])
  t.equal(left.get('taskqueue_attempts_total{queue="two",route="/users/:id",outcome="done"}'), 2)
  await two.close()
  t.equal((await scrape(register)).get('taskqueue_attempts_total{queue="two",route="/users/:id",outcome="done"}'), 2, 'what was counted stays')
})

t.test('a scrape while Redis is away or frozen is bounded, and says so', async t => {
  const server = await startRedis(t)
  const register = new promClient.Registry()
  const app = await open(t, promClient, register, { redis: { path: server.path }, commitTimeoutMs: 60_000 })
  await app.taskqueue.wait(await app.taskqueue.add('/users/1'))
  server.freeze()
  const frozen = await scrape(register)
  t.equal(frozen.get('taskqueue_store_up{queue="default"}'), 0)
  t.notOk([...frozen.keys()].some(name => name.startsWith('taskqueue_tasks')), 'it says nothing that it does not know')
  t.equal(frozen.get('taskqueue_attempts_total{queue="default",route="/users/:id",outcome="done"}'), 1)
  server.thaw()
  await until(async () => (await scrape(register)).get('taskqueue_store_up{queue="default"}') === 1)
  await server.stop()
  await until(async () => (await scrape(register)).get('taskqueue_store_up{queue="default"}') === 0)
})

t.test('a scrape of 1,000 queues is one round trip', async t => {
  const { path } = await startRedis(t)
  const register = new promClient.Registry()
  const queues = Object.fromEntries(Array.from({ length: 1000 }, (_, index) => [`queue-${index}`, {}]))
  await open(t, promClient, register, { redis: { path }, queues, consumer: false })
  const admin = new Redis({ path })
  t.teardown(() => { admin.disconnect() })
  await admin.config('RESETSTAT')
  const samples = await scrape(register)
  t.equal([...samples.keys()].filter(name => name.startsWith('taskqueue_store_up')).length, 1000)
  const [, calls] = /cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))!
  t.equal(Number(calls), 10, 'calls of a hundred queues each, all sent at once')
})

t.test('a client that is none, and a prefix that no name can have, are refused', async t => {
  for (const options of [{}, { client: {} }, { client: promClient, prefix: 'a-b' }]) {
    const app = Fastify()
    await app.register(taskqueue, { consumer: false })
    await t.rejects(async () => await app.register(metrics, options as { client: PrometheusClient }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
    await app.close()
  }
})

t.test('the alerts and the dashboard of the example ask for metrics that exist', async t => {
  const register = new promClient.Registry()
  await open(t, promClient, register)
  const names = (await register.getMetricsAsJSON()).flatMap(({ name, type }) =>
    String(type) === 'histogram' ? [`${name}_bucket`, `${name}_sum`, `${name}_count`] : [name])
  const folder = join(import.meta.dirname, '../../../example/observing')
  for (const file of ['alerts.yml', 'dashboard.json']) {
    const asked = new Set(readFileSync(join(folder, file), 'utf8').match(/\btaskqueue_\w+/g))
    t.ok(asked.size > 5)
    t.strictSame([...asked].filter(name => !names.includes(name)), [], file)
  }
  JSON.parse(readFileSync(join(folder, 'dashboard.json'), 'utf8'))
})
