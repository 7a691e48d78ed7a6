import auth from '@fastify/auth'
import jwt from '@fastify/jwt'
import Fastify, { type FastifyRequest } from 'fastify'
import t from 'tap'
import taskqueue, { errorCodes, type AddOptions, type UserOptions } from '../../lib/index.js'
import { until } from '../support/until.js'

t.test('a task is authenticated as its user, with or without a loader', async t => {
  const users = new Map([['ada', { id: 'ada', name: 'Ada' }]])
  for (const [load, expected] of [
    [undefined, { id: 'ada' }],
    [(id: string) => users.get(id), { id: 'ada', name: 'Ada' }],
    [async (id: string) => users.get(id), { id: 'ada', name: 'Ada' }]
  ] as Array<[UserOptions['load'], object]>) {
    const { run } = await start(t, { load })
    t.match(await run('/verified', 'ada'), { status: 200, user: expected })
  }
})

t.test('verifyTask refuses ordinary requests, tasks of nobody, and users who are gone', async t => {
  const { app, run } = await start(t, { load: () => null })
  t.match(await app.inject('/verified'), { statusCode: 401 })
  t.equal((await app.inject('/verified')).json().code, 'FST_TASKQUEUE_NOT_A_TASK')
  t.match(await run('/verified', undefined), { status: 401, code: 'FST_TASKQUEUE_NO_USER' })
  t.match(await run('/verified', 'ada'), { status: 401, code: 'FST_TASKQUEUE_USER_GONE' })
  t.equal((await app.taskqueue.queue('default').counts()).dead, 2, 'which is final')
  for (const nobody of [undefined, false]) {
    const { run } = await start(t, { load: () => nobody })
    t.match(await run('/verified', 'ada'), { status: 401, code: 'FST_TASKQUEUE_USER_GONE' })
  }
})

t.test('verifyTask is a strategy of @fastify/auth, alone, with others, and within others', async t => {
  const { app, run } = await start(t, {})
  const token = app.jwt.sign({ sub: 'eve' })
  const admin = app.jwt.sign({ sub: 'root', admin: true })
  const ask = async (url: string, token?: string) =>
    (await app.inject({ url, headers: token === undefined ? {} : { authorization: `Bearer ${token}` } })).statusCode
  //                        a task of ada,  of the admin,  a token,  an admin's token,  an outsider
  for (const [url, ...expected] of [
    ['/or', 200, 200, 200, 200, 401],
    ['/and', 401, 200, 401, 401, 401],
    ['/nested', 401, 200, 200, 200, 401],
    ['/all', 200, 200, 200, 200, 401]
  ] as Array<[string, ...number[]]>) {
    t.strictSame([
      (await run(url, 'ada')).status,
      (await run(url, 'root')).status,
      await ask(url, token),
      await ask(url, admin),
      await ask(url)
    ], expected, url)
  }
})

t.test('what a task adds is queued by its user, unless it runs as somebody else', async t => {
  const { app, results } = await start(t, {})
  await app.inject({ method: 'POST', url: '/add', payload: { url: '/chain', user: 'ada' } })
  await until(() => results.size === 4)
  t.strictSame([...results.values()].map(({ url, userId }) => `${url} ${userId}`).sort(), ['/as-root ada', '/chain ada', '/inner ada', '/inner root'])
})

t.test('examples do what they say', async t => {
  const { build } = await import('../../example/auth.js')
  const app = await build()
  t.teardown(() => app.close())
  t.equal((await app.inject({ method: 'POST', url: '/reports' })).statusCode, 401)
  t.equal((await app.inject({ method: 'POST', url: '/reports/build' })).statusCode, 401)
  const { token } = (await app.inject({ method: 'POST', url: '/login', payload: { id: 'ada' } })).json()
  const headers = { authorization: `Bearer ${token}` }
  t.equal((await app.inject({ method: 'POST', url: '/reports', headers })).statusCode, 202)
  await until(async () => (await app.inject({ url: '/reports', headers })).body === '["built for Ada Lovelace"]')

  const signup = await import('../../example/signup.js')
  const form = await signup.build({ outbox: t.testdir() })
  t.teardown(() => form.close())
  t.match((await form.inject('/')).body, '<form>')
  t.equal((await form.inject({ method: 'POST', url: '/signup', payload: { email: 'nobody' } })).statusCode, 400)
  const { id } = (await form.inject({ method: 'POST', url: '/signup', payload: { email: 'bob@example.com' } })).json()
  t.equal((await form.inject(`/mails/${id}`)).statusCode, 202, 'not yet')
  await until(async () => (await form.inject(`/mails/${id}`)).statusCode === 200)
  t.match((await form.inject(`/mails/${id}`)).json(), { to: 'bob@example.com', attempt: 1 })
})

interface Result { url: string, status: number, code?: string, body?: unknown, user?: unknown, userId?: string }

async function start (t: { teardown (run: () => unknown): void }, user: UserOptions) {
  const results = new Map<string, Result>()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(jwt, { secret: 'a secret of this test' })
  await app.register(auth)
  await app.register(taskqueue, { user, consumer: { concurrency: 10, maxRetries: 0 } })
  const verifyJwt = async (request: FastifyRequest) => { await request.jwtVerify() }
  const verifyAdmin = async ({ user }: FastifyRequest) => {
    const { id, admin } = user as { id?: string, admin?: boolean }
    if (id !== 'root' && admin !== true) throw new Error('no admin')
  }
  app.addHook('onSend', async (request, reply, payload) => {
    const { task, url, user } = request
    if (task === null) return payload
    let body: any
    try { body = JSON.parse(payload as string) } catch { body = payload }
    results.set(task.id, { url, status: reply.statusCode, code: body?.code, body, user, userId: task.userId })
    return payload
  })

  app.post<{ Body: { url: string, user?: string } }>('/add', async request => {
    const { url, user } = request.body
    if (user !== undefined) Object.assign(request, { user: { id: user } })
    return { id: request.taskqueue.add(url) }
  })
  app.get('/verified', { preHandler: app.verifyTask }, async () => 'verified')
  app.get('/or', { preHandler: app.auth([app.verifyTask, verifyJwt]) }, async () => 'or')
  app.get('/and', { preHandler: app.auth([app.verifyTask, verifyAdmin], { relation: 'and' }) }, async () => 'and')
  app.get('/nested', { preHandler: app.auth([[app.verifyTask, verifyAdmin], verifyJwt]) }, async () => 'nested')
  app.get('/all', { preHandler: app.auth([app.verifyTask, verifyJwt], { run: 'all' }) }, async () => 'all')
  app.get('/chain', async request => request.taskqueue.add('/inner') && request.taskqueue.add('/as-root'))
  app.get('/as-root', async request => {
    Object.assign(request, { user: { id: 'root' } })
    return request.taskqueue.add('/inner')
  })
  app.get('/inner', async () => 'inner')
  await app.ready()

  return {
    app,
    results,
    async run (url: string, user: string | undefined, options: AddOptions = {}): Promise<Result> {
      const { id } = (await app.inject({ method: 'POST', url: '/add', payload: { url, user, ...options } })).json()
      await until(() => results.has(id), `task ${url} of ${user}`)
      return results.get(id)!
    }
  }
}

t.test('error codes are exported under their names', async t => {
  for (const [name, ErrorClass] of Object.entries(errorCodes)) t.equal(new (ErrorClass as any)('a', 'b', 'c').code, name)
})
