import Fastify from 'fastify'
import t from 'tap'
import taskqueue, { type Store } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { gate } from '../support/gate.js'
import { loggedApp } from '../support/logged-app.js'
import { idsOf, LEASE_MS, startAll } from '../support/processes.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

// Processes take their time to start.
t.setTimeout(300_000)

const redis = await startRedis(t)

for (const [type, options] of Object.entries({ local: {}, redis: { redis: { path: redis.path } } })) {
  t.test(`an app says how its queues fare, on ${type}`, async t => {
    const { app } = await loggedApp(t, { ...options, queues: { busy: {}, idle: {}, paused: { consumer: false } }, consumer: { name: 'ours', concurrency: 2, maxRetries: 1, backoff: [60_000] } })
    const { opened, open } = gate()
    app.get('/held', async () => await opened)
    app.get('/fails', async (_request, reply) => reply.code(500).send())
    await app.ready()
    await app.taskqueue.addAll(['/held', '/held', '/held'].map(url => ({ url, queue: 'busy' })))
    await app.taskqueue.add('/held', { queue: 'paused' })
    await app.taskqueue.add('/held', { queue: 'paused', delayMs: 60_000 })
    await app.taskqueue.queue('paused').pause()
    await app.taskqueue.queue('paused').rest(60_000)
    await until(async () => (await app.taskqueue.health()).queues[0]!.consumer!.running === 2)
    const { isReady, isLive, queues } = await app.taskqueue.health()
    t.strictSame([isReady, isLive], [true, true])
    t.match(queues, [
      { name: 'busy', isReachable: true, waiting: 1, delayed: 0, running: 2, dead: 0, isPaused: false, restMs: 0, consumer: { name: 'ours', state: 'consuming', concurrency: 2, running: 2, ahead: 0, leaseMs: 10_000 } },
      { name: 'idle', isReachable: true, waiting: 0, oldestMs: 0, consumer: { running: 0 } },
      { name: 'paused', isReachable: true, waiting: 1, delayed: 1, isPaused: true, restMs: Number, consumer: undefined }
    ])
    t.ok(queues[0]!.oldestMs! > 0 && queues[0]!.oldestMs! < 60_000)
    t.ok(queues[0]!.consumer!.silentMs < 10_000)
    open()
    await app.taskqueue.queue('paused').purge()
  })
}

t.test('the age of the first task in line counts from when it was due, or due again', async t => {
  const { app } = await loggedApp(t, { consumer: { autoStart: false, maxRetries: 1, backoff: [50] } })
  app.get('/fails', async (_request, reply) => reply.code(500).send())
  await app.ready()
  const oldestMs = async () => (await app.taskqueue.health()).queues[0]!.oldestMs!
  const ago = Date.now() - 3_600_000
  await app.taskqueue.add('/fails', { runAt: ago })
  t.ok(await oldestMs() < 60_000, 'a time that is over is now')
  await app.taskqueue.queue('default').purge()
  const addedAt = Date.now()
  await app.taskqueue.add('/fails', { delayMs: 200 })
  t.equal(await oldestMs(), 0, 'it is delayed')
  await until(async () => (await app.taskqueue.queue('default').length()) === 1)
  const oldest = await oldestMs()
  t.ok(oldest <= Date.now() - addedAt - 200, 'the delay does not count')
  const beganAt = Date.now()
  await app.taskqueue.runOne()
  await until(async () => (await app.taskqueue.queue('default').length()) === 1)
  const next = await oldestMs()
  t.ok(next <= Date.now() - beganAt - 50, 'neither does that of a retry')
})

t.test('an app whose store is away is not ready, and need not be restarted', async t => {
  const server = await startRedis(t)
  const { app } = await loggedApp(t, { redis: { path: server.path }, queues: { remote: {}, local: { type: 'local' } } })
  await app.ready()
  await server.stop()
  await until(async () => !(await app.taskqueue.health()).isReady)
  const { isLive, queues } = await app.taskqueue.health()
  t.equal(isLive, true)
  t.match(queues, [{ name: 'local', isReachable: true, waiting: 0 }, { name: 'remote', isReachable: false, error: /Redis/, waiting: undefined, consumer: { state: 'consuming' } }])
  await server.start()
  await until(async () => (await app.taskqueue.health()).isReady)
})

t.test('a store that does not answer holds nobody up for more than two seconds', async t => {
  const store = new LocalStore()
  store.counts = () => new Promise(() => {})
  const { app } = await loggedApp(t, { queues: { default: { type: () => store } } })
  await app.ready()
  const { isReady, queues } = await app.taskqueue.health()
  t.equal(isReady, false)
  t.match(queues, [{ isReachable: false, error: 'no answer within 2000 ms' }])
  // eslint-disable-next-line no-throw-literal
  store.counts = async () => { throw 'a text' }
  t.match((await app.taskqueue.health()).queues, [{ isReachable: false, error: 'a text' }])
})

t.test('an app needs a restart if its consumer hears nothing from a store that answers', async t => {
  const store: Store = new LocalStore()
  const { app } = await loggedApp(t, { queues: { default: { type: () => store } }, consumer: { leaseMs: 100 } })
  await app.ready()
  t.equal((await app.taskqueue.health()).isLive, true)
  const never = new Promise<never>(() => {})
  store.extend = () => never
  store.turn = () => never
  await until(async () => !(await app.taskqueue.health()).isLive)
  t.equal((await app.taskqueue.health()).isReady, true)
})

t.test('an app that closes is not ready any longer', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  const { opened, open } = gate()
  const begun = gate()
  app.get('/held', async () => {
    begun.open()
    await opened
  })
  await app.ready()
  await app.taskqueue.add('/held')
  await begun.opened
  t.equal((await app.taskqueue.health()).isReady, true)
  const closed = app.close()
  await until(async () => !(await app.taskqueue.health()).isReady)
  open()
  await closed
})

t.test('any process sees which others consume, what they hold, and which of them are gone', async t => {
  const { start, taskqueue, add, kill, pass } = await startAll(t)
  const [one, other] = await Promise.all([start({ name: 'one', concurrency: 3 }), start({ name: 'other' })])
  const before = Date.now()
  await until(async () => (await taskqueue.processes()).length === 2)
  await add(['/task?hold=1', '/task?hold=1', '/task?hold=1', '/task?hold=1'])
  await until(() => one.begun.length === 3 && other.begun.length === 1)
  const processes = async () => await taskqueue.processes()
  const held = async () => (await processes()).map(({ queues }) => queues[0]!.held)
  await until(async () => String(await held()) === '3,1', 'the heartbeats have told')
  const seen = await processes()
  t.match(seen, [
    { name: 'one', isAlive: true, queues: [{ queue: 'default', concurrency: 3, held: 3 }] },
    { name: 'other', isAlive: true, queues: [{ queue: 'default', concurrency: 1, held: 1 }] }
  ])
  t.strictSame([...seen[0]!.queues[0]!.taskIds].sort(), idsOf(one.begun))
  t.ok(Math.abs(seen[0]!.startedAt.getTime() - before) < 60_000)
  t.ok(Math.abs(seen[0]!.heardAt.getTime() - Date.now()) < 60_000)
  await kill(one)
  await pass(LEASE_MS)
  await until(async () => (await processes())[0]?.isAlive === false, 'its heartbeat stays away')
  t.match(await processes(), [{ name: 'one', isAlive: false }, { name: 'other', isAlive: true }])
  other.send({ open: true })
  await other.end('SIGTERM')
  t.match((await processes()).map(({ name }) => name), ['one'], 'a process that closes is forgotten')
})
