import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import t from 'tap'
import taskqueue, { type TaskqueueOptions } from '../lib/index.js'
import { startRedis } from './redis-server.js'

for (const type of ['local', 'redis']) {
  t.test(type, async t => {
    const options: TaskqueueOptions = type === 'redis' ? { redis: { path: (await startRedis(t)).path } } : {}
    const app = Fastify({ logger: { level: process.env.LOG ?? 'silent' } })
    t.teardown(() => app.close())
    await app.register(taskqueue, { ...options, consumer: { concurrency: 10, backoff: () => 10 } })
    const seen: unknown[] = []
    let fail = 2
    app.post('/mail', { constraints: { taskOnly: true } }, async (request, reply) => {
      if (fail-- > 0) return reply.code(503).send()
      seen.push([request.task?.attempt, request.headers['x-task-id'], request.body])
      request.taskqueue.add('/child')
      return {}
    })
    app.get('/child', async (request) => { seen.push(request.task?.queue); return {} })
    app.post('/signup', async (request) => ({ id: request.taskqueue.add('/mail', { payload: request.body as object }) }))
    app.post('/bad', async (request) => { request.taskqueue.add('/mail'); throw new Error('no') })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    t.equal((await fetch(address + '/mail', { method: 'POST' })).status, 404)
    t.equal((await fetch(address + '/bad', { method: 'POST' })).status, 500)
    const r = await fetch(address + '/signup', { method: 'POST', body: '{"a":1}', headers: { 'content-type': 'application/json' } })
    const { id } = await r.json() as { id: string }
    for (let i = 0; i < 100 && seen.length < 2; i++) await sleep(20)
    t.strictSame(seen, [[3, id, { a: 1 }], 'default'])
    await sleep(20)
    t.same(await app.taskqueue.queue('default').counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
    const n = 5000
    let ran = 0
    const start = Date.now()
    app.taskqueue.queues.map(q => q.name)
    await app.taskqueue.transaction(tx => { for (let i = 0; i < n; i++) tx.add('/child') })
    for (let i = 0; i < 1000 && seen.length < n + 2; i++) await sleep(5)
    ran = seen.length
    t.equal(ran, n + 2)
    t.comment(`${Math.round(n / (Date.now() - start) * 1000)} tasks/s`)
  })
}
