import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { Redis, type RedisOptions } from 'ioredis'
import t, { type Test } from 'tap'
import type { ConsumerOptions } from '../../lib/index.js'
import { loggedApp, type LogLine } from '../support/logged-app.js'

import { startRedis, type RedisServer } from '../support/redis-server.js'
import { startProxy } from '../support/tcp-proxy.js'
import { until } from '../support/until.js'

import { gate, type Gate } from '../support/gate.js'

// A client that is passed in is its owner's, who closes it whenever they like.

t.setTimeout(120_000)
const redis = await startRedis(t)

/** How an owner closes a client, and with which options it was made. */
const ends: Record<string, { close: (client: Redis) => unknown, options?: RedisOptions }> = {
  quit: { close: client => client.quit() },
  disconnect: { close: client => { client.disconnect() } },
  'quit, and no offline queue': { close: client => client.quit(), options: { enableOfflineQueue: false, maxRetriesPerRequest: 0 } },
  'disconnect, and nothing is ever given up': { close: client => { client.disconnect() }, options: { maxRetriesPerRequest: null } },
  'disconnect, and nothing is sent again': { close: client => { client.disconnect() }, options: { autoResendUnfulfilledCommands: false, retryStrategy: null } }
}

/** When, while the app closes. */
const moments: Record<string, (app: FastifyInstance, close: () => unknown) => unknown> = {
  'before the app': async (app, close) => {
    await close()
    await app.close()
  },
  'at once with the app': async (app, close) => {
    await Promise.all([close(), app.close()])
  },
  'as the app begins to close': async app => { await app.close() },
  'after the app has begun to close': async (app, close) => {
    const closed = app.close()
    setImmediate(close)
    await closed
  }
}

for (const [title, { close, options }] of Object.entries(ends)) {
  for (const [moment, closeBoth] of Object.entries(moments)) {
    t.test(`${title}: what was told as a success is stored though the client is closed ${moment}, and nothing else is`, async t => {
      const client = clientOf(t, { path: redis.path, ...options })
      const prefix = randomUUID()
      const { app, log } = await loggedApp(t, { redis: client, prefix, consumer: false })
      if (moment.includes('begins')) app.addHook('preClose', async () => { await close(client) })
      await app.ready()
      const ids: string[] = []
      let refusals = 0
      const over = new AbortController()
      const adders = Array.from({ length: 20 }, async (_, adder) => {
        for (let i = 0; !over.signal.aborted; i++) {
          // Some have ids of their own, which are reserved meanwhile.
          const id = adder % 2 === 0 ? `${adder}.${i}` : undefined
          await app.taskqueue.add('/', { id, delayMs: 60_000 }).then(id => ids.push(id!), () => { refusals++ })
          await new Promise(setImmediate)
        }
      })
      await until(() => ids.length > 200)
      await closeBoth(app, () => close(client))
      over.abort()
      await Promise.all(adders)
      const admin = clientOf(t, { path: redis.path })
      const stored = await admin.zrange(`${prefix}:{default}:delayed`, '0', '-1')
      t.strictSame(stored.sort(), ids.sort(), `${ids.length} were told, ${refusals} refused`)
      t.equal(await admin.exists(`${prefix}:{default}:reserved`), 0)
      t.strictSame((await admin.hvals(`${prefix}:{default}:prepared`)).filter(value => !/^\d+ $/.test(value)), [])
      t.strictSame(log.filter(({ level, msg }) => level >= 40 && !/secrets/.test(msg)), [])
      client.disconnect()
      await until(async () => await connections(admin) === 1, 'no connection is left')
    })
  }
}

for (const how of ['quit', 'disconnect'] as const) {
  t.test(`${how}: while its client is closed an app adds and claims nothing, and goes on when its owner connects it again`, async t => {
    const redis = await startRedis(t)
    const client = clientOf(t, { path: redis.path })
    const { app, log } = await loggedApp(t, { redis: client, consumer: { leaseMs: 300 } })
    const { runs, hold } = holdTasks(app)
    await app.ready()
    await app.taskqueue.add('/', { id: 'first' })
    await until(() => runs.length === 1)
    await client[how]()
    await until(() => client.status === 'end')
    await t.rejects(app.taskqueue.add('/'), {
      code: 'FST_TASKQUEUE_COMMIT_FAILED', cause: { code: 'FST_TASKQUEUE_UNREACHABLE', message: /its client was closed by its owner/ }
    })
    const other = await otherApp(t, redis, { concurrency: 2, leaseMs: 300 })
    // Longer than a lease, which is prolonged all the same.
    await sleep(1000)
    hold.open()
    const admin = clientOf(t, { path: redis.path })
    await until(async () => await admin.zcard('taskqueue:{default}:running') === 0)
    t.strictSame(runs, ['first'], 'once, and here')
    t.strictSame(other.runs, [])
    t.match(await app.taskqueue.get('first'), { state: 'done', attempts: [{ status: 200 }] })
    await other.app.close()
    await admin.call('CLIENT', 'KILL', 'TYPE', 'pubsub')

    await until(async () => await connections(admin, 'normal') === 1, 'the connection that stood in is closed')
    await client.connect()
    await until(async () => await app.taskqueue.add('/', { id: 'second' }).then(() => true, () => false))
    await until(() => runs.includes('second'))
    await until(async () => await connections(admin, 'normal') === 2, 'the client is used again, and no other')
    t.strictSame(log.filter(({ msg }) => /lost its lease|run twice|run again/.test(msg)), [])
  })
}

t.test('a task that ends after its client was closed is settled, with what it adds, before the app closes', async t => {
  const redis = await startRedis(t)
  for (const how of ['quit', 'disconnect'] as const) {
    const client = clientOf(t, { path: redis.path })
    const { app, closing, log } = await loggedApp(t, { redis: client, prefix: how, consumer: { concurrency: 5 } })
    const begun: string[] = []
    const { opened, open } = gate()
    app.get('/', async request => {
      begun.push(request.task!.id)
      await opened
      request.taskqueue.add('/next', { delayMs: 60_000 })
      return 'ok'
    })
    app.get('/next', async () => 'ok')
    await app.ready()
    for (let i = 0; i < 5; i++) await app.taskqueue.add('/')
    await until(() => begun.length === 5)
    const closed = app.close()
    await closing
    await client[how]()
    open()
    await closed
    const admin = clientOf(t, { path: redis.path })
    t.equal(await admin.zcard(`${how}:{default}:running`), 0)
    t.equal(await admin.zcard(`${how}:{default}:delayed`), 5)
    t.strictSame(log.filter(({ level, msg }) => level >= 40 && !/secrets/.test(msg)), [])
    t.strictSame(await admin.keys(`${how}:*:turn:*`), [], 'the consumer has taken leave')
  }
})

t.test('a client that is disconnected while it waits before it connects again says nothing, and is closed all the same', async t => {
  const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const client = clientOf(t, { path: redis.path, retryStrategy: () => 60_000, maxRetriesPerRequest: null })
  const { app } = await loggedApp(t, { redis: client, consumer: false, commitTimeoutMs: 10_000 })
  await app.ready()
  const adding = app.taskqueue.transaction(tx => {
    tx.add('/', { delayMs: 60_000 })
    tx.join({
      async commit () {
        await redis.stop()
        await until(() => client.status === 'reconnecting')
        client.disconnect()
      },
      rollback () {}
    })
  })
  await adding
  t.equal(client.status, 'reconnecting')
  await t.rejects(app.taskqueue.add('/'), { cause: { message: /its client was closed by its owner/ } })
  await redis.start()
  const admin = clientOf(t, { path: redis.path })
  await until(async () => await admin.zcard('taskqueue:{default}:delayed') === 1)
  await app.close()
})

t.test('while a client waits before it connects again another connection stands in for it', async t => {
  const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
  const client = clientOf(t, { path: redis.path, retryStrategy: () => 60_000, db: 3 })
  const { app, log } = await loggedApp(t, { redis: client, consumer: { leaseMs: 500 } })
  const { runs, hold } = holdTasks(app)
  await app.ready()
  await app.taskqueue.add('/', { id: 'first' })
  await until(() => runs.length === 1)
  await redis.stop()
  await redis.start()
  await until(async () => await app.taskqueue.add('/', { id: 'second' }).then(() => true, () => false))
  t.equal(client.status, 'reconnecting')
  const other = await otherApp(t, redis, { leaseMs: 500 }, 3)
  hold.open()
  await until(() => runs.length + other.runs.length === 2)
  t.strictSame([...runs, ...other.runs], ['first', 'second'])
  t.strictSame(log.filter(({ msg }) => /lost its lease/.test(msg)), [])
})

t.test('what is not heard over a client that is connected in name only is told over another connection at the end', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const client = clientOf(t, { host: '127.0.0.1', port: proxy.port })
  const { app } = await loggedApp(t, { redis: client, consumer: false, commitTimeoutMs: 500 })
  await app.ready()
  await app.taskqueue.transaction(tx => {
    tx.add('/', { delayMs: 60_000 })
    // Other connections are not concerned.
    tx.join({ commit () { proxy.silence('evalsha') }, rollback () {} })
  })
  t.equal(client.status, 'ready')
  await app.close()
  const admin = clientOf(t, { path: redis.path })
  t.equal(await admin.zcard('taskqueue:{default}:delayed'), 1)
})

t.test('an app whose client is closed already does not become ready, and says why', async t => {
  const redis = await startRedis(t)
  const client = clientOf(t, { path: redis.path })
  await client.quit()
  const { app } = await loggedApp(t, { redis: client })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_TASKQUEUE_UNREACHABLE', message: /its client was closed by its owner/ })
  const late = clientOf(t, { path: `${redis.path}-not`, lazyConnect: true, retryStrategy: null })
  const { app: another } = await loggedApp(t, { redis: late })
  await t.rejects(async () => { await another.ready() }, { code: 'FST_TASKQUEUE_UNREACHABLE' })
})

/** An app in whose tasks' route it is written down which were begun, and which are held until the test says so. */
function holdTasks (app: FastifyInstance): { runs: string[], hold: Gate } {
  const runs: string[] = []
  const hold = gate()
  app.get('/', async request => {
    runs.push(request.task!.id)
    await hold.opened
    return 'ok'
  })
  return { runs, hold }
}

async function otherApp (t: Test, redis: RedisServer, consumer: ConsumerOptions, db = 0): Promise<{ app: FastifyInstance, log: LogLine[], runs: string[] }> {
  const { app, log } = await loggedApp(t, { redis: { path: redis.path, db }, consumer })
  const { runs, hold } = holdTasks(app)
  hold.open()
  await app.ready()
  return { app, log, runs }
}

function clientOf (t: Test, options: RedisOptions): Redis {
  const client = new Redis(options)
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  return client
}

async function connections (admin: Redis, type?: string): Promise<number> {
  const list = await admin.call('CLIENT', 'LIST', ...type === undefined ? [] : ['TYPE', type]) as string
  return list.trim().split('\n').length
}
