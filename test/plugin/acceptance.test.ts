import { join } from 'node:path'
import auth from '@fastify/auth'
import jwt from '@fastify/jwt'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import { Redis } from 'ioredis'
import sqlite from 'node-sqlite3-wasm'
import t, { type Test } from 'tap'
import { SqliteStore } from '../../example/sqlite-store.js'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import { addAclUser } from '../support/acl-user.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

// Thousands of requests take their time on a busy machine.
t.setTimeout(110_000)

const types: Record<string, (t: Test) => Promise<TaskqueueOptions>> = {
  local: async () => ({}),
  'local, dispatched as app.inject does,': async () => ({ dispatch: 'inject' }),
  redis: async t => ({ redis: { path: (await startRedis(t)).path } }),
  'redis, as the user that SECURITY.md recommends,': async t => {
    const { path } = await startRedis(t)
    const admin = new Redis(path)
    t.teardown(() => { admin.disconnect() })
    return { redis: { path, ...await addAclUser(admin) }, secrets: 'x'.repeat(32) }
  },
  custom: async t => {
    const database = new sqlite.Database(join(t.testdir(), 'tasks.db'))
    t.teardown(() => { database.close() })
    // Nobody pulls the plug here, and the disk may be slow.
    database.exec('PRAGMA synchronous = OFF')
    const store = new SqliteStore(database)
    return { queues: { default: { type: () => store } } }
  }
}

for (const [type, makeOptions] of Object.entries(types)) {
  t.test(`${type} queue: a request is answered at once, and its task runs as the user who made it`, async t => {
    const { url, token, runs, app } = await start(t, await makeOptions(t))
    const response = await post(`${url}/orders`, { item: 'tea' }, token('ada'))
    t.equal(response.status, 202)
    const { id } = await response.json() as { id: string }
    await until(() => runs.length === 1)
    t.strictSame(runs, [{ id, user: 'ada', item: 'tea', attempt: 1, header: id, userHeader: 'ada' }])
    await isDone(app)
  })

  t.test(`${type} queue: 1,000 requests add 1,000 tasks, each of which runs once, as its user`, async t => {
    const { url, token, runs, app } = await start(t, await makeOptions(t))
    const expected = new Map<string, string>()
    const orders = Array.from({ length: 1000 }, (_, index) => ({ item: `item ${index}`, user: `user${index % 7}` }))
    const order = async () => {
      for (let next = orders.pop(); next !== undefined; next = orders.pop()) {
        const response = await post(`${url}/orders`, { item: next.item }, token(next.user))
        const { id } = await response.json() as { id: string }
        expected.set(id, `${next.item} of ${next.user}`)
      }
    }
    await Promise.all(Array.from({ length: 20 }, order))
    t.equal(expected.size, 1000)
    await until(() => runs.length >= 1000)
    await isDone(app)
    t.equal(runs.length, 1000)
    t.strictSame(runs.map(({ id, item, user }) => `${id}: ${item} of ${user}`).sort(), [...expected].map(([id, order]) => `${id}: ${order}`).sort())
  })

  t.test(`${type} queue: nothing is queued by a request that fails, and no outsider reaches what a task does`, async t => {
    const { url, token, runs, app } = await start(t, await makeOptions(t))
    t.equal((await post(`${url}/orders?fail=1`, { item: 'tea' }, token('ada'))).status, 500)
    t.equal((await post(`${url}/orders`, { item: 7 }, token('ada'))).status, 400)
    t.equal((await post(`${url}/orders`, { item: 'tea' })).status, 401)
    t.equal((await post(`${url}/tasks/pack`, { item: 'tea' }, token('ada'))).status, 404)
    await isDone(app)
    t.strictSame(runs, [])
  })
}

interface Run { id: string, user: string, item: string, attempt: number, header: unknown, userHeader: unknown }

async function start (t: Test, options: TaskqueueOptions) {
  const runs: Run[] = []
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(jwt, { secret: 'a secret of this test' })
  await app.register(auth)
  await app.register(taskqueue, { consumer: { concurrency: 10 }, copyHeaders: false, ...options })
  const verifyJwt = async (request: FastifyRequest) => { await request.jwtVerify() }
  const body = { type: 'object', properties: { item: { type: 'string', pattern: '^[a-z]' } } }

  app.post<{ Body: { item: string }, Querystring: { fail?: string } }>('/orders', {
    schema: { body }, preHandler: app.auth([verifyJwt])
  }, async (request, reply) => {
    const id = request.taskqueue.add('/tasks/pack', { payload: request.body })
    if (request.query.fail !== undefined) throw new Error('out of stock')
    reply.code(202)
    return { id }
  })
  app.post<{ Body: { item: string } }>('/tasks/pack', {
    schema: { body }, constraints: { taskOnly: true }, preHandler: app.auth([app.verifyTask])
  }, async ({ task, user, body: { item }, headers }) => {
    const { id } = user as { id: string }
    runs.push({ id: task!.id, user: id, item, attempt: task!.attempt, header: headers['x-task-id'], userHeader: headers['x-task-user-id'] })
    return 'packed'
  })

  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return { app, url, runs, token: (sub: string) => app.jwt.sign({ sub }) }
}

async function post (url: string, body: object, token?: string): Promise<Response> {
  return await fetch(url, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...token !== undefined && { authorization: `Bearer ${token}` } },
    body: JSON.stringify(body)
  })
}

async function isDone (app: FastifyInstance): Promise<void> {
  const nothing = JSON.stringify({ waiting: 0, delayed: 0, running: 0, dead: 0 })
  await until(async () => JSON.stringify(await app.taskqueue.queue('default').counts()) === nothing, 'empty queue')
}
