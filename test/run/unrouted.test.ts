import { randomUUID } from 'node:crypto'
import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

const { path } = await startRedis(t)

async function ready (t: Test, prefix: string, declare: (app: FastifyInstance) => unknown, options: TaskqueueOptions = {}) {
  const made = await loggedApp(t, { redis: { path }, prefix, ...options })
  await declare(made.app)
  await made.app.ready()
  return made
}

const taking = (url: string, ran: string[] = []) => (app: FastifyInstance) => {
  app.post(url, { constraints: { taskOnly: true } }, async ({ task }) => { ran.push(task!.id); return task!.attempt })
}

for (const isClosed of [true, false]) {
  t.test(`a rolling deploy loses no task of a new route, whether the old process is ${isClosed ? 'closed' : 'still there'}`, async t => {
    const prefix = randomUUID()
    const old = await ready(t, prefix, taking('/tasks/v1'), { consumer: { concurrency: 5 } })
    const web = await ready(t, prefix, () => {}, { consumer: false })
    const ids = await web.app.taskqueue.addAll(Array.from({ length: 20 }, () => ({ url: '/tasks/v2', payload: {} })))
    await until(async () => (await web.app.taskqueue.queue('default').counts()).delayed === 20)
    const young = await ready(t, prefix, taking('/tasks/v2'), { consumer: { concurrency: 5 } })
    if (isClosed) await old.app.close()
    for (const id of ids) t.match(await web.app.taskqueue.wait(id!), { state: 'done', attempts: [{ status: 200 }] })
    t.equal(String((await web.app.taskqueue.get(ids[0]!))!.answer!.body), '1', 'what nobody took was no attempt')
    t.match(old.log.filter(({ level }) => level >= 40 && level < 50).filter(({ msg }) => msg.includes('no route')), [{ level: 40, queue: 'default', route: 'POST /tasks/v2' }])
    t.strictSame(young.log.filter(({ msg }) => msg.includes('no route')), [])
    t.strictSame(old.log.filter(({ level }) => level >= 50), [])
  })
}

t.test('a task that no route takes is dead after a bounded time, and its reason says so', async t => {
  for (const [options, declare] of [
    [{}, () => {}],
    [{}, (app: FastifyInstance) => app.setNotFoundHandler((_request, reply) => reply.code(200).send('<html>'))],
    [{}, (app: FastifyInstance) => app.get('/x', { constraints: { taskOnly: true } }, async () => 'for another method')],
    [{}, (app: FastifyInstance) => app.addHook('onRequest', async (_request, reply) => reply.code(401).send())]
  ] as const) {
    const { app } = await ready(t, randomUUID(), declare as () => unknown, { ...options, consumer: { missingRouteMs: 200 }, copyHeaders: false })
    await app.taskqueue.add('/x?secret=1', { id: 'a', payload: {} })
    t.match(await app.taskqueue.wait('a'), { state: 'dead', reason: 'no route of this app takes POST /x', attempts: [] })
  }
})

t.test('0 lets no time to a route that is missing', async t => {
  const { app } = await ready(t, randomUUID(), () => {}, { consumer: { missingRouteMs: 0 } })
  await app.taskqueue.add('/x', { id: 'a' })
  t.match(await app.taskqueue.wait('a'), { state: 'dead', reason: 'no route of this app takes GET /x' })
})

t.test('a 404 of a handler is its verdict, although it calls for the one of what is not found', async t => {
  const { app } = await ready(t, randomUUID(), app => {
    app.get('/answers', (_request, reply) => reply.code(404).send())
    app.get('/calls', (_request, reply) => { reply.callNotFound() })
  })
  for (const id of ['answers', 'calls']) {
    await app.taskqueue.add(`/${id}`, { id })
    t.match(await app.taskqueue.wait(id), { state: 'dead', reason: /^status 404/, attempts: [{ status: 404 }] })
  }
})

t.test('what a hook answers that was there before the plugin is no verdict where there is no route', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  app.addHook('onRequest', async (_request, reply) => reply.code(401).send())
  await app.register(taskqueue, { consumer: { missingRouteMs: 100 } })
  app.get('/there/:id', async () => '')
  await app.ready()
  for (const [id, url, reason] of [['there', '/there/1?a=b', 'status 401'], ['not there', '/not-there', 'no route of this app takes GET /not-there']] as const) {
    await app.taskqueue.add(url, { id: id.replace(' ', '-') })
    t.match(await app.taskqueue.wait(id.replace(' ', '-')), { state: 'dead', reason })
  }
})

t.test('a task for which there is no route expires in time, as it has not begun', async t => {
  const { app } = await ready(t, randomUUID(), () => {})
  await app.taskqueue.add('/x', { id: 'a', expiresMs: 200 })
  t.match(await app.taskqueue.wait('a'), { state: 'expired' })
})

t.test('whoever adds a task that no route takes is warned, once for each method and path, where its queue is consumed', async t => {
  const declare = (app: FastifyInstance) => {
    app.post('/there/:id', { constraints: { taskOnly: true } }, async () => '')
    app.get('/plain', async () => '')
    app.post('/add', async ({ taskqueue }) => { taskqueue.add('/by-request', { payload: {} }); return {} })
  }
  const { app, log } = await ready(t, randomUUID(), declare, { queues: { a: {}, b: { consumer: false } } })
  for (let round = 0; round < 2; round++) {
    await app.taskqueue.addAll([
      { url: '/not-there?secret=1', payload: {} }, { url: '/not-there' }, { url: '/there/7', payload: {} }, { url: '/there/8' }, { url: '/plain?x=1' },
      { url: '/elsewhere', queue: 'b' }
    ])
    await app.inject({ method: 'POST', url: '/add' })
  }
  t.strictSame(log.filter(({ msg }) => msg === 'no route of this app takes a task that was added').map(({ level, queue, route }) => [level, queue, route]), [
    [40, 'a', 'POST /not-there'], [40, 'a', 'GET /not-there'], [40, 'a', 'GET /there/8'], [40, 'a', 'POST /by-request']
  ])
})

t.test('what is remembered of paths is bounded, and so are the warnings', async t => {
  const { app, log } = await ready(t, randomUUID(), () => {}, { queues: { a: { type: 'local', consumer: { autoStart: false } } } })
  for (let part = 0; part < 3; part++) {
    await app.taskqueue.addAll(Array.from({ length: 800 }, (_, index) => ({ url: `/${part * 800 + index}/${'x'.repeat(1000)}` })))
  }
  const warnings = log.filter(({ msg }) => msg.startsWith('no route'))
  t.equal(warnings.length, 1000)
  t.ok(warnings.every(({ route }) => route.length < 600))
})
