import { inspect } from 'node:util'
import type { FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { TaskqueueOptions } from '../../lib/index.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { startProxy } from '../support/tcp-proxy.js'
import { until } from '../support/until.js'

t.test('a client that is passed in is used, its prefix too, and stays open', async t => {
  const { path } = await startRedis(t)
  const client = clientOf(t, { path, keyPrefix: 'mine:' })
  // Its heartbeat is too slow to find a task in time: only notifications do.
  const { app: consumer, runs } = await countingApp(t, { redis: client, consumer: { leaseMs: 600_000 } })
  const { app: adder } = await loggedApp(t, { redis: clientOf(t, { path, keyPrefix: 'mine:', lazyConnect: true }), consumer: false })
  await adder.ready()
  for (let i = 1; i <= 3; i++) {
    await adder.taskqueue.add('/run')
    await until(() => runs.length === i, 'notification')
  }
  const admin = clientOf(t, { path })
  t.ok((await admin.keys('*')).every(key => key.startsWith('mine:taskqueue:{default}:')))

  await consumer.close()
  t.equal(client.status, 'ready')
  t.equal(await client.ping(), 'PONG')
  t.match(await admin.call('CLIENT', 'LIST', 'TYPE', 'pubsub'), /^$/, 'the subscription has ended')
})

t.test('a closed app leaves no listener on a client that is passed in', async t => {
  const { path } = await startRedis(t)
  const client = clientOf(t, { path })
  await client.ping()
  const listeners = () => client.eventNames().map(name => [name, client.listenerCount(name)])
  const before = listeners()
  const { app } = await countingApp(t, { redis: client })
  await app.close()
  t.strictSame(listeners(), before)
})

t.test('a process has two connections, and one if it only adds', async t => {
  const { path } = await startRedis(t)
  const admin = clientOf(t, { path })
  const connections = async () => {
    const list = await admin.call('CLIENT', 'LIST') as string
    return list.trim().split('\n').length - 1
  }
  t.equal(await connections(), 0)
  const { app } = await countingApp(t, { redis: { path }, queues: { a: {}, b: {}, c: { consumer: false } } })
  await app.taskqueue.add('/run')
  t.equal(await connections(), 2)
  await app.close()
  await until(async () => await connections() === 0)
  const adder = await countingApp(t, { redis: { path }, queues: { a: {}, b: {} }, consumer: false })
  await adder.app.taskqueue.add('/run')
  t.equal(await connections(), 1)
})

t.test('when all is done there are two keys for each queue, and two for each consumer while it lives', async t => {
  const { path } = await startRedis(t)
  const { app, runs } = await countingApp(t, {
    redis: { path }, queues: { a: {}, b: {}, c: { consumer: false } }, consumer: { backoff: () => 10 }, keep: 0
  })
  await app.taskqueue.transaction(tx => {
    for (const queue of ['a', 'b']) {
      for (const url of ['/run', '/run?fail=1', '/run?chain=1']) tx.add(url, { queue, delayMs: url.length })
    }
    tx.add('/run', { queue: 'c' })
    tx.add('/run', { queue: 'c', delayMs: 60_000 })
  })
  t.equal(await app.taskqueue.queue('c').purge(), 2)
  await until(() => runs.length === 10)
  const admin = clientOf(t, { path })
  const keys = async () => (await admin.keys('*')).map(key => key.replace(/[^:]{36}$/, '…')).sort().join()
  await until(async () => await keys() === 'taskqueue:{a}:clock,taskqueue:{a}:history,taskqueue:{a}:idle,taskqueue:{a}:turn:…,taskqueue:{b}:clock,taskqueue:{b}:history,taskqueue:{b}:idle,taskqueue:{b}:turn:…')
  await app.close()
  t.equal(await keys(), 'taskqueue:{a}:clock,taskqueue:{a}:history,taskqueue:{b}:clock,taskqueue:{b}:history')
  for (const queue of ['a', 'b']) t.ok(await admin.pttl(`taskqueue:{${queue}}:history`) > 0, 'which does not last')
  t.strictSame(runs.sort().join(), [
    ...['/run', '/run', '/run', '/run'], ...['/run?chain=1', '/run?chain=1'], ...['/run?fail=1', '/run?fail=1', '/run?fail=1', '/run?fail=1']
  ].join())
})

t.test('the warning of tasks in clear names what they copy, and nothing that they do not', async t => {
  const { path } = await startRedis(t)
  for (const [copyHeaders, copies] of [
    [true, true], [false, false], [() => false, true], [['traceparent'], false], [['Cookie'], true], [['authorization'], true]
  ] as Array<[TaskqueueOptions['copyHeaders'], boolean]>) {
    const { app, log } = await loggedApp(t, { redis: { path }, copyHeaders, consumer: false })
    await app.ready()
    const { msg } = log.find(({ msg }) => msg.includes('tasks are stored in clear'))!
    t.equal(msg.includes('cookies and authorization headers that they copy'), copies, inspect(copyHeaders))
    await app.close()
  }
})

t.test('neither the log nor an error holds what a task holds, nor a password', async t => {
  const PASSWORD = 'hush-hush-4711'
  const PAYLOAD = 'a body that is nobody\'s business'
  const redis = await startRedis(t, { tcp: true, args: ['--requirepass', PASSWORD] })
  const { app, log } = await loggedApp(t, {
    redis: `redis://:${PASSWORD}@127.0.0.1:${redis.port}/1`, commitTimeoutMs: 200, consumer: { leaseMs: 500, maxRetries: 0 }
  })
  app.post('/tasks', async (_request, reply) => reply.code(500).send({}))
  app.post('/add', async request => ({ id: request.taskqueue.add('/tasks', { method: 'POST' }) }))
  await app.ready()
  const admin = clientOf(t, { path: redis.path, password: PASSWORD, db: 1 })
  const add = async () => await app.inject({ method: 'POST', url: '/add', payload: { text: PAYLOAD }, headers: { authorization: PAYLOAD } })
  const texts: string[] = []
  const refused = async () => {
    const { statusCode, body } = await add()
    t.match({ statusCode, body }, { statusCode: 503, body: /FST_TASKQUEUE_COMMIT_FAILED/ })
    const error: unknown = await app.taskqueue.add('/tasks', { payload: PAYLOAD, headers: { cookie: PAYLOAD } }).catch((error: unknown) => error)
    t.match(error, { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
    texts.push(body, inspect(error, { depth: 9, showHidden: true }), JSON.stringify(error))
  }

  t.equal((await add()).statusCode, 200)
  await until(() => log.some(({ msg }) => msg === 'task failed for good'))
  await admin.config('SET', 'maxmemory', '1')
  await refused()
  await admin.config('SET', 'maxmemory', '0')
  await admin.del('taskqueue:{default}:prepared')
  await admin.lpush('taskqueue:{default}:prepared', 'of another type')
  await app.taskqueue.add('/tasks', { payload: PAYLOAD, delayMs: 10 }).then(() => t.fail('it is added'), error => { texts.push(inspect(error, { depth: 9 })) })
  await admin.del('taskqueue:{default}:prepared')
  redis.freeze()
  await refused()
  redis.thaw()
  await redis.stop()
  await refused()
  await app.close()

  texts.push(JSON.stringify(log))
  for (const text of texts) {
    t.notMatch(text, PASSWORD)
    t.notMatch(text, PAYLOAD)
  }
})

t.test('a subscription without an answer after the connection was lost does no harm, and is made again', async t => {
  const redis = await startRedis(t)
  const proxy = await startProxy(t, { path: redis.path })
  const location = { host: '127.0.0.1', port: proxy.port }
  const { app, runs } = await countingApp(t, { redis: location, commitTimeoutMs: 200, consumer: { leaseMs: 600_000 } })
  for (let i = 1; i <= 3; i++) {
    const deaf = proxy.deaf
    proxy.loseRepliesTo = 'subscribe'
    proxy.cut()
    await until(() => proxy.deaf >= deaf + 2, 'the second connection that is given no answer')
    proxy.loseRepliesTo = undefined
    await until(async () => await app.taskqueue.add('/run').catch(() => undefined) !== undefined)
    await until(() => runs.length >= i, 'notification')
  }
})

/** An app with a route that notes what is run, and fails or adds a task if it is told to. */
async function countingApp (t: Test, options: TaskqueueOptions): Promise<{ app: FastifyInstance, runs: string[] }> {
  const { app } = await loggedApp(t, options)
  const runs: string[] = []
  app.get<{ Querystring: { fail?: string, chain?: string } }>('/run', async ({ query, task, taskqueue, url }, reply) => {
    runs.push(url)
    if (query.chain !== undefined) taskqueue.add('/run', { queue: task!.queue })
    if (query.fail !== undefined && task!.attempt === 1) reply.code(500)
    return {}
  })
  await app.ready()
  return { app, runs }
}

function clientOf (t: Test, options: object): Redis {
  const client = new Redis(options)
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  return client
}
