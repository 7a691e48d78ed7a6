import Fastify, { type FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import taskqueue, { type Limits, type TaskqueueOptions } from '../../lib/index.js'
import { gate } from '../support/gate.js'
import { startAll } from '../support/processes.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

// Levels, keys and limits as users set them: which task begins next, and when none does.

t.setTimeout(300_000)

type Routes = (app: FastifyInstance) => void

async function open (t: Test, type: string, options: TaskqueueOptions, routes: Routes = () => {}): Promise<FastifyInstance> {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, { ...options, ...type === 'redis' && { redis: { path: (await startRedis(t)).path } } })
  routes(app)
  await app.ready()
  return app
}

/** A route whose tasks note their names, and wait if they are told to. */
function noting (begun: string[], opened?: Promise<unknown>): Routes {
  return app => {
    app.get<{ Params: { name: string } }>('/tasks/:name', { constraints: { taskOnly: true } }, async ({ params: { name } }) => {
      begun.push(name)
      await opened
    })
  }
}

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: a task of a higher level runs first, and a request or its route says which it has`, async t => {
    const begun: string[] = []
    const app = await open(t, type, { consumer: { autoStart: false } }, app => {
      noting(begun)(app)
      app.get('/urgent', { constraints: { taskOnly: true }, config: { task: { priority: 'high' } } }, async () => { begun.push('urgent') })
      app.post('/add', async ({ taskqueue }) => {
        taskqueue.add('/tasks/bulk', { priority: 'low' })
        taskqueue.add('/tasks/plain')
        taskqueue.add('/urgent')
        taskqueue.add('/urgent', { priority: 'low', id: 'not-so-urgent' })
        return {}
      })
    })
    t.equal((await app.inject({ method: 'POST', url: '/add' })).statusCode, 200)
    const bulk = (await app.taskqueue.queue('default').list('waiting')).find(({ url }) => url === '/tasks/bulk')!
    t.equal(bulk.priority, 'low')
    t.equal((await app.taskqueue.get('not-so-urgent'))?.priority, 'low')
    t.equal(await app.taskqueue.prioritize('not-so-urgent', 'high'), true)
    t.equal((await app.taskqueue.get('not-so-urgent'))?.priority, 'high')
    t.equal(await app.taskqueue.prioritize('nobody', 'high'), false)
    await app.taskqueue.drain()
    t.strictSame(begun, ['urgent', 'urgent', 'plain', 'bulk'])
    t.match(await app.taskqueue.get(bulk.id), { state: 'done', priority: undefined })
    t.equal(await app.taskqueue.prioritize(bulk.id, 'high'), false)
  })

  t.test(`${type} queue: tenants that come late are served before one that floods`, async t => {
    const begun: string[] = []
    const app = await open(t, type, { consumer: { autoStart: false } }, app => {
      noting(begun)(app)
      app.addHook('onRequest', async request => { Object.assign(request, { tenant: request.headers['x-tenant'] }) })
      app.get('/mail/:name', {
        constraints: { taskOnly: true },
        config: { task: { key: ({ headers }) => headers['x-tenant'] as string } }
      }, async ({ params }) => { begun.push((params as { name: string }).name) })
      app.post<{ Querystring: { names: string } }>('/add', async ({ taskqueue, query: { names } }) => {
        for (const name of names.split(',')) taskqueue.add(`/mail/${name}`)
        return {}
      })
    })
    const add = (tenant: string, names: string[]) => app.inject({ method: 'POST', url: `/add?names=${names}`, headers: { 'x-tenant': tenant } })
    await add('flood', Array.from({ length: 50 }, (_, index) => `flood${index}`))
    t.equal(await app.taskqueue.runOne(), true)
    for (const tenant of ['a', 'b', 'c']) await add(tenant, [`${tenant}0`])
    t.match(await app.taskqueue.queue('default').keys(), [{ key: 'a', waiting: 1 }, { key: 'b' }, { key: 'c' }, { key: 'flood', waiting: 49, running: 0 }])
    t.strictSame((await app.taskqueue.queue('default').keys({ after: 'b', limit: 1 })).map(({ key }) => key), ['c'])
    await app.taskqueue.drain()
    t.strictSame(begun.slice(0, 6), ['flood0', 'flood1', 'a0', 'b0', 'c0', 'flood2'])
    t.equal(begun.length, 53)
  })

  t.test(`${type} queue: no more tasks run than the limits of the queue and of each key allow, and limits change while they run`, async t => {
    const { opened, open: release } = gate()
    const begun: string[] = []
    const options = { queues: { default: { limits: { running: 5, perKey: { running: 2 } }, consumer: { concurrency: 20 } } } }
    const app = await open(t, type, options, noting(begun, opened))
    const queue = app.taskqueue.queue('default')
    t.strictSame(await queue.limits(), options.queues.default.limits)
    for (const key of ['a', 'b', 3]) await app.taskqueue.addAll(Array.from({ length: 4 }, (_, index) => ({ url: `/tasks/${key}${index}`, key })))
    await until(() => begun.length === 5)
    t.strictSame((await queue.counts()), { waiting: 7, delayed: 0, running: 5, dead: 0 })
    await queue.setLimits({ perKey: { running: 2 } })
    await until(() => begun.length === 6)
    await queue.setKeyLimits('a', { running: 3 })
    await until(() => begun.length === 7)
    t.match(await queue.keys(), [{ key: '3', running: 2 }, { key: 'a', waiting: 1, running: 3, limits: { running: 3 } }, { key: 'b', running: 2 }])
    await queue.setKeyLimits('a', null)
    await queue.setLimits({})
    t.strictSame(await queue.limits(), {})
    await until(() => begun.length === 12)
    release()
    await until(async () => (await queue.counts()).running === 0)
    t.strictSame(await queue.keys(), [])
  })

  t.test(`${type} queue: attempts begin as far apart as the rate says`, async t => {
    const begun: number[] = []
    const options = { queues: { default: { limits: { rate: { max: 10, ms: 500 } }, consumer: { concurrency: 20 } } } }
    const app = await open(t, type, options, app => {
      app.get('/tasks/now', { constraints: { taskOnly: true } }, async () => { begun.push(performance.now()) })
    })
    const start = performance.now()
    await app.taskqueue.addAll(Array.from({ length: 12 }, () => ({ url: '/tasks/now' })))
    await until(() => begun.length === 12)
    t.ok(begun.at(-1)! - start >= 11 * 50 - 5, 'twelve take eleven intervals at least')
  })

  t.test(`${type} queue: 429 with Retry-After makes the key rest and others not, and costs the task no retry`, async t => {
    const calls: string[] = []
    const app = await open(t, type, { consumer: { concurrency: 5, maxRetries: 0 } }, app => {
      app.get<{ Params: { key: string } }>('/call/:key', { constraints: { taskOnly: true } }, async ({ params: { key }, task }, reply) => {
        calls.push(key)
        if (key === 'busy' && task!.attempt === 1) reply.code(429).header('retry-after', '1')
        return {}
      })
    })
    const queue = app.taskqueue.queue('default')
    await queue.setLimits({ perKey: { running: 1 } })
    const busy = await app.taskqueue.addAll([1, 2, 3].map(() => ({ url: '/call/busy', key: 'busy' })))
    await until(async () => (await queue.keys())[0]?.restingUntil !== undefined)
    const free = await app.taskqueue.add('/call/free', { key: 'free' })
    t.match(await app.taskqueue.wait(free!), { state: 'done' })
    t.strictSame(calls.toSorted(), ['busy', 'free'], 'the other tasks of the key have not been tried')
    t.equal((await queue.keys())[0]?.waiting, 3)
    await queue.rest(0, 'busy')
    for (const id of busy) t.match(await app.taskqueue.wait(id!), { state: 'done' })
    t.match(await app.taskqueue.get(busy[0]!), { attempts: [{ status: 429 }, { status: 200 }] }, 'the first was the first again')
  })

  t.test(`${type} queue: a queue or a key that an operator has rest begins nothing until then`, async t => {
    const begun: string[] = []
    const app = await open(t, type, {}, noting(begun))
    const queue = app.taskqueue.queue('default')
    await queue.rest(60_000, 7)
    await app.taskqueue.add('/tasks/seven', { key: 7 })
    await app.taskqueue.add('/tasks/other')
    await until(() => begun.length === 1)
    const [seven] = await queue.keys()
    t.ok(seven!.restingUntil!.getTime() > Date.now() + 30_000)
    t.equal(await queue.restingUntil(), undefined)
    await queue.rest(60_000)
    t.ok((await queue.restingUntil())!.getTime() > Date.now() + 30_000)
    await queue.rest(0, 7)
    await app.taskqueue.add('/tasks/third', { priority: 'high' })
    await queue.rest(0)
    await until(() => begun.length === 3)
    t.equal(begun[0], 'other')
    t.strictSame(begun.toSorted(), ['other', 'seven', 'third'])
  })
}

t.test('levels, keys, limits and rests that are none are refused by name', async t => {
  const app = await open(t, 'local', {})
  const queue = app.taskqueue.queue('default')
  const refused = async (call: () => Promise<unknown>, message: string) => {
    await t.rejects(call, { code: 'FST_TASKQUEUE_INVALID_OPTION', message })
  }
  const priorities = "Option 'priority' must be 'high', 'normal' or 'low', got "
  await refused(() => app.taskqueue.add('/', { priority: 'highest' as 'high' }), `${priorities}"highest"`)
  await refused(() => app.taskqueue.add('/', { priority: 1 as never }), `${priorities}1`)
  await refused(() => app.taskqueue.prioritize('id', undefined as never), `${priorities}null`)
  for (const key of ['', ' ', 'a\0b', 'ü', 'a\nb', 'k'.repeat(256), NaN, {}, true]) {
    await t.rejects(app.taskqueue.add('/', { key: key as string }), { code: 'FST_TASKQUEUE_INVALID_KEY', statusCode: 400 }, String(key))
    await t.rejects(queue.setKeyLimits(key as string, {}), { code: 'FST_TASKQUEUE_INVALID_KEY' }, String(key))
  }
  await t.rejects(queue.setKeyLimits(undefined as never, {}), { code: 'FST_TASKQUEUE_INVALID_KEY' })
  await refused(() => queue.setLimits(null as never), "Option 'limits' must be an object, got null")
  await refused(() => queue.setLimits({ runing: 1 } as Limits), "Option 'runing' must be one of running, rate, perKey, got an option that limits does not have")
  await refused(() => queue.setLimits({ running: 0 }), "Option 'limits.running' must be a whole number, 1 to 8191, got 0")
  await refused(() => queue.setLimits({ rate: { max: 1 } as never }), "Option 'limits.rate.ms' must be a whole number, 1 to 2592000000, got NaN")
  await refused(() => queue.setLimits({ perKey: { rate: { max: 1.5, ms: 1 } } }), "Option 'limits.perKey.rate.max' must be a whole number, 1 to 1000000, got 1.5")
  await refused(() => queue.setLimits({ perKey: { perKey: {} } as never }), "Option 'perKey' must be one of running, rate, got an option that limits.perKey does not have")
  await refused(() => queue.rest(-1), "Option 'ms' must be a whole number, 0 to 2592000000, got -1")
  await refused(() => queue.keys({ offset: 1 } as never), "Option 'offset' must be one of after, limit, got an option that keys does not have")
  const config = (task: object) => open(t, 'local', {}, app => { app.get('/x', { config: { task } }, async () => {}) })
  await refused(() => config({ priority: 'lowest' }), "Option 'config.task.priority' must be 'high', 'normal' or 'low', got \"lowest\"")
  await refused(() => config({ key: 'tenant' }), "Option 'config.task.key' must be a function, got \"tenant\"")
  await refused(() => open(t, 'local', { queues: { mail: { limits: { running: 0 } } } }), "Option 'queues.mail.limits.running' must be a whole number, 1 to 8191, got 0")
})

t.test('limits last longer than the process that has set them, until another one sets others', async t => {
  const { path } = await startRedis(t)
  const start = async (limits?: Limits) => {
    const app = Fastify()
    await app.register(taskqueue, { redis: { path }, queues: { default: { ...limits !== undefined && { limits } } } })
    await app.ready()
    const known = await app.taskqueue.queue('default').limits()
    await app.close()
    return known
  }
  t.strictSame(await start({ running: 3 }), { running: 3 })
  t.strictSame(await start(), { running: 3 })
  t.strictSame(await start({ rate: { max: 1, ms: 1000, burst: 2 } }), { rate: { max: 1, ms: 1000, burst: 2 } })
  t.strictSame(await start({}), {})
})

t.test('five processes run no more tasks of a queue and of a key than allowed, though two of them are killed', async t => {
  const processes = await startAll(t)
  const queue = processes.taskqueue.queue('default')
  await queue.setLimits({ running: 6, perKey: { running: 2 } })
  const workers = await Promise.all([1, 2, 3, 4, 5].map(() => processes.start({ concurrency: 8 })))
  const keys = ['a', 'b', 'c', 'd']
  for (const key of keys) await processes.add(Array.from({ length: 60 }, () => `/task?ms=20&of=${key}`), { key })
  const killed = new Map<unknown, number>()
  for (const [index, worker] of workers.slice(0, 2).entries()) {
    await until(() => workers.flatMap(({ ended }) => ended).length > 40 * (index + 1))
    killed.set(worker, Date.now())
    await processes.kill(worker)
  }
  await processes.drained()
  const attempts = workers.flatMap(worker => worker.begun.map(({ id, url, attempt, at }) => {
    const end = worker.ended.find(other => other.id === id && other.attempt === attempt)
    return { key: url.at(-1), from: at, to: end?.at ?? killed.get(worker)! }
  }))
  t.equal(new Set(workers.flatMap(({ ended }) => ended).map(({ id }) => id)).size, 240)
  const most = (of: typeof attempts) => Math.max(...of.map(({ from }) => of.filter(other => other.from <= from && other.to > from).length))
  t.equal(most(attempts), 6, 'as many ran as the queue may have, and no more')
  for (const key of keys) t.equal(most(attempts.filter(attempt => attempt.key === key)), 2, `as many of ${key}`)
  t.strictSame(await queue.keys(), [])
})
