import { randomUUID } from 'node:crypto'
import { Redis } from 'ioredis'
import t from 'tap'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

const { path } = await startRedis(t)
const types = { local: {}, redis: { redis: { path } } }
const SECRET = 'a secret of thirty-two bytes or more'

for (const [type, options] of Object.entries(types)) {
  t.test(`${type} queue: dead letters are kept, and what a bound drops is logged and counted`, async t => {
    const { app, log } = await loggedApp(t, { ...options, prefix: randomUUID(), keepDead: 3, consumer: { concurrency: 5 } })
    app.get('/', (_request, reply) => reply.code(410).send())
    await app.ready()
    await app.taskqueue.addAll(Array.from({ length: 10 }, () => ({ url: '/' })))
    const dropped = () => log.filter(({ msg }) => msg.startsWith('dead letters are dropped')).reduce((sum, line) => sum + (line.level === 40 ? line.dropped : NaN), 0)
    await until(() => dropped() === 7)
    t.match(await app.taskqueue.queue('default').counts(), { dead: 3, waiting: 0, running: 0 })
  })

  t.test(`${type} queue: dead letters that are too old are dropped although nothing else happens`, async t => {
    const { app, log } = await loggedApp(t, { ...options, prefix: randomUUID(), keepDeadMs: 300 })
    app.get('/', (_request, reply) => reply.code(410).send())
    await app.ready()
    await app.taskqueue.add('/', { id: 'a' })
    t.match(await app.taskqueue.wait('a'), { state: 'dead' })
    await until(async () => (await app.taskqueue.queue('default').counts()).dead === 0)
    await until(() => log.some(({ msg, dropped }) => msg.startsWith('dead letters are dropped') && dropped === 1))
  })

  t.test(`${type} queue: a task does not silently take the place of a dead letter`, async t => {
    const { app } = await loggedApp(t, { ...options, prefix: randomUUID(), consumer: { autoStart: false } })
    app.post('/', (_request, reply) => reply.code(410).send())
    app.post('/add', async ({ taskqueue }) => {
      taskqueue.add('/', { id: 'a', payload: { n: 3 }, onDuplicate: 'reject' })
      return {}
    })
    await app.ready()
    const { taskqueue } = app
    t.equal(await taskqueue.add('/', { id: 'a', payload: { n: 1 } }), 'a')
    await taskqueue.drain()
    t.equal(await taskqueue.add('/', { id: 'a', payload: { n: 2 } }), null)
    t.match((await app.inject({ method: 'POST', url: '/add' })).json(), { statusCode: 409, code: 'FST_TASKQUEUE_DUPLICATE', message: /dead/ })
    t.match(await taskqueue.get('a'), { state: 'dead' })
    t.equal(await taskqueue.queue('default').redrive(['a']), 1)
    await taskqueue.drain()
    t.equal(await taskqueue.add('/', { id: 'a', payload: { n: 4 }, onDuplicate: 'replace' }), 'a')
    t.match(await taskqueue.get('a'), { state: 'waiting', attempts: [] })
    t.match(await taskqueue.queue('default').counts(), { dead: 0, waiting: 1 })
  })

  for (const secrets of [undefined, SECRET]) {
    t.test(`${type} queue, ${secrets === undefined ? 'without' : 'with'} secrets: the reason of a dead letter, and of a retry, says what the error said`, async t => {
      const prefix = randomUUID()
      const { app, log } = await loggedApp(t, { ...options, prefix, secrets, consumer: { maxRetries: 1, backoff: () => 60_000, missingRouteMs: 0, concurrency: 9 } })
      const fail = (message: string, statusCode?: number) => Object.assign(new Error(message), statusCode !== undefined && { statusCode })
      app.get('/500', () => { throw fail('boom 4111111111111111') })
      app.get('/422', async () => { throw fail('card 4222222222222222', 422) })
      app.get('/long', async () => { throw fail(`${'x'.repeat(498)}🚨 and more`, 400) })
      app.get('/401', (_request, reply) => reply.code(401).send({ error: 'said by nobody' }))
      app.get('/destroyed', (_request, reply) => { reply.hijack(); reply.raw.destroy(fail('sql 4333333333333333')) })
      app.get('/recovered', { errorHandler: (_error, _request, reply) => { reply.code(200).send() } }, async () => { throw fail('no matter') })
      app.get('/endless', async ({ taskqueue }) => { taskqueue.add('/endless'); return {} })
      await app.ready()
      const reasons: Record<string, [state: string, reason: string | undefined]> = {
        500: ['delayed', 'status 500: boom 4111111111111111'],
        422: ['dead', 'status 422: card 4222222222222222'],
        long: ['dead', `status 400: ${'x'.repeat(498)}…`],
        401: ['dead', 'status 401'],
        destroyed: ['delayed', 'sql 4333333333333333'],
        recovered: ['done', undefined],
        missing: ['dead', 'no route of this app takes GET /missing']
      }
      for (const id of Object.keys(reasons)) await app.taskqueue.add(`/${id}`, { id })
      for (const [id, [state, reason]] of Object.entries(reasons)) {
        await until(async () => (await app.taskqueue.get(id))?.state === state, id)
        const status = (await app.taskqueue.get(id))!
        t.equal(status.reason, reason)
        if (reason !== undefined) t.match(log.filter(({ taskId }) => taskId === id), [{ reason }])
      }
      await app.taskqueue.add('/endless')
      await until(() => log.some(({ url, status, reason }) => url === '/endless' && status === 422 && /chains of 16 \(maxDepth\)/.test(reason)))
      if (type === 'local') return
      const admin = new Redis({ path })
      t.teardown(() => { admin.disconnect() })
      const kept: string[] = []
      for (const key of await admin.keys(`${prefix}:*`)) {
        if (await admin.type(key) === 'hash') kept.push(...Object.values(await admin.hgetall(key)))
      }
      const isLegible = (text: string) => kept.some(value => value.includes(text))
      for (const text of ['4111111111111111', '4222222222222222', '4333333333333333']) t.equal(isLegible(text), secrets === undefined, text)
    })
  }
}

t.test('a reason that a store has written itself is shown, and one that cannot be opened is not', async t => {
  const prefix = randomUUID()
  const { app } = await loggedApp(t, { redis: { path }, prefix, secrets: SECRET, consumer: false })
  await app.ready()
  const admin = new Redis({ path })
  t.teardown(() => { admin.disconnect() })
  for (const [index, [reason, shown]] of ([
    ['its process died while it committed', 'its process died while it committed'], ['s1.abcdefgh.AAAA', undefined], ['m1.abcdefgh.AAAA.forged', undefined]
  ] as const).entries()) {
    const id = `${index}`
    await admin.hset(`${prefix}:{default}:message`, id, 'unreadable')
    await admin.hset(`${prefix}:{default}:attempts`, id, `1 1 0 0 0 0 0 0 ${reason}`)
    await admin.zadd(`${prefix}:{default}:dead`, index + 1, id)
    t.equal((await app.taskqueue.get(id))!.reason, shown)
  }
})
