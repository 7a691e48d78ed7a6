import { AsyncLocalStorage } from 'node:async_hooks'
import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { ConsumerOptions, Store, TaskqueueOptions } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

const redis = await startRedis(t)
const stores: Record<string, () => Store> = {
  local: () => new LocalStore(),
  redis: () => new RedisStore({ path: redis.path }, randomUUID(), 2000)
}

type How = 'enterWith' | 'run'
type User = { readonly name: string }

interface Scene {
  readonly app: FastifyInstance
  readonly store: Store
  /** Makes a request as somebody. */
  as (name: string, url: string, payload?: object): Promise<unknown>
  /** Waits until a task has run so many times. */
  ran (id: string, times?: number): Promise<void>
}

/** Every way to have an attempt begin: each is left to an app in whose requests, tasks, timers and store other people's contexts are. */
const paths: Array<{ title: string, consumer?: ConsumerOptions, isDeaf?: boolean, act: (scene: Scene) => Promise<void> }> = [
  {
    title: 'by a commit, or the notification of one',
    async act ({ as, ran }) {
      await as('ada', '/add', { id: 'a' })
      await ran('a')
      await Promise.all(['b', 'c', 'd'].map(id => as(`adder of ${id}`, '/add', { id })))
      for (const id of ['b', 'c', 'd']) await ran(id)
    }
  },
  {
    title: 'by the timer of a delayed task that others have set',
    async act ({ as, ran }) {
      await as('ada', '/add', { id: 'later', delayMs: 60 })
      await as('bob', '/add', { id: 'sooner', delayMs: 40 })
      await as('mallory', '/add', { id: 'now' })
      for (const id of ['now', 'sooner', 'later']) await ran(id)
    }
  },
  {
    title: 'by a retry, and one that was deferred',
    async act ({ as, ran }) {
      await as('ada', '/add', { id: 'fails', statuses: [500, 429] })
      await as('bob', '/add', { id: 'other' })
      await ran('fails', 3)
    }
  },
  {
    title: 'by the heartbeat, when all news are lost',
    consumer: { leaseMs: 100 },
    isDeaf: true,
    async act ({ as, ran }) {
      await as('ada', '/add', { id: 'a' })
      await as('bob', '/add', { id: 'b' })
      for (const id of ['a', 'b']) await ran(id)
    }
  },
  {
    title: 'by the end of another task, claimed ahead or not, and of one that adds it',
    consumer: { concurrency: 2 },
    async act ({ as, ran }) {
      const ids = Array.from({ length: 60 }, (_, index) => `${index}`)
      await as('ada', '/add-all', { ids })
      for (const id of ids) await ran(id)
      await as('bob', '/add', { id: 'parent', adds: 'child' })
      await ran('child')
    }
  },
  {
    title: 'by taking over what a consumer left behind when it died',
    consumer: { leaseMs: 500 },
    async act ({ app, as, store, ran }) {
      const queue = app.taskqueue.queue('default')
      await queue.pause()
      await as('ada', '/add', { id: 'abandoned' })
      await queue.resume()
      await ran('abandoned')
      await queue.pause()
      await as('ada', '/add', { id: 'taken' })
      await queue.resume()
      // Whoever is first has it: this one lets its lease run out, or the app has run it.
      await store.turn('default', { settlements: [], heartbeatMs: 20, claim: { limit: 1, alone: false, leaseMs: 100 }, keep: { count: 0, ms: 1 } })
      await as('bob', '/add', { id: 'beside' })
      await ran('taken')
    }
  },
  {
    title: 'by runNow, reschedule, redrive and resume',
    async act ({ as, ran, app }) {
      await as('ada', '/add', { id: 'a', delayMs: 60_000 })
      await as('mallory', '/run-now', { id: 'a' })
      await ran('a')
      await as('ada', '/add', { id: 'b', delayMs: 60_000 })
      await as('mallory', '/reschedule', { id: 'b' })
      await ran('b')
      await as('ada', '/add', { id: 'dead', statuses: [410] })
      await until(async () => (await app.taskqueue.get('dead'))?.state === 'dead')
      await as('mallory', '/redrive')
      await ran('dead', 2)
      await as('bob', '/pause')
      await as('ada', '/add', { id: 'c' })
      await as('mallory', '/resume')
      await ran('c')
    }
  },
  {
    title: 'by drain and runOne',
    consumer: { autoStart: false },
    async act ({ as, ran }) {
      await as('ada', '/add-all', { ids: ['a', 'b', 'c'] })
      await as('mallory', '/run-one')
      await ran('a')
      await as('mallory', '/drain')
      for (const id of ['b', 'c']) await ran(id)
    }
  }
]

for (const [type, makeStore] of Object.entries(stores)) {
  for (const dispatch of ['direct', 'inject'] as const) {
    for (const how of ['enterWith', 'run'] as const) {
      t.test(`${type} queue, ${dispatch}: an attempt sees the context of nobody who calls ${how}, when it begins`, async t => {
        for (const { title, consumer = {}, isDeaf = false, act } of paths) {
          await t.test(title, async t => {
            const { seen, ...scene } = await stage(t, makeStore(), how, { dispatch, consumer }, isDeaf)
            await act(scene)
            t.ok(seen.length > 0)
            t.strictSame(seen.filter(([, user]) => user !== 'nobody'), [])
          })
        }
      })
    }
  }
}

t.test('tasks run in the context in which the plugin was registered', async t => {
  const als = new AsyncLocalStorage<string>()
  const { app } = await als.run('the app', () => loggedApp(t, { copyHeaders: false }))
  const seen: unknown[] = []
  app.get('/', async () => { seen.push(als.getStore()) })
  await als.run('somebody', async () => {
    await app.ready()
    await app.taskqueue.add('/')
    await app.taskqueue.add('/', { delayMs: 20 })
  })
  await until(() => seen.length === 2)
  t.strictSame(seen, ['the app', 'the app'])
})

t.test('who waits, joins or is asked about a request goes on in the context of that one', async t => {
  const als = new AsyncLocalStorage<User>()
  const seen: Record<string, unknown[]> = {}
  const see = (what: string) => { (seen[what] ??= []).push(als.getStore()?.name) }
  const { app } = await loggedApp(t, {
    copyHeaders () { see('copyHeaders'); return false },
    user: {
      async id () { see('user.id'); await null; return als.getStore()?.name },
      load (id) { see('user.load'); return { id } }
    }
  })
  app.addHook('onRequest', (request, _reply, done) => {
    const name = request.headers['x-user'] as string | undefined
    if (name === undefined) return done()
    als.run({ name }, done)
  })
  app.get('/task', { constraints: { taskOnly: true }, preHandler: app.verifyTask }, async () => { see('task'); await sleep(20) })
  app.get<{ Querystring: { id: string } }>('/', async ({ query, taskqueue }) => {
    const participant = (name: string) => async () => { see(name); await null; see(name) }
    taskqueue.join({ prepare: participant('prepare'), commit: participant('commit'), rollback () {} })
    taskqueue.add('/task', { id: query.id })
    await taskqueue.commit()
    see('commit() resolves')
    await app.taskqueue.wait(query.id)
    see('wait() resolves')
    return {}
  })
  await app.ready()
  await Promise.all(['ada', 'bob'].map(name => app.inject({ url: `/?id=${name}`, headers: { 'x-user': name } })))
  for (const what of ['copyHeaders', 'user.id', 'commit() resolves', 'wait() resolves']) t.strictSame(seen[what]!.sort(), ['ada', 'bob'], what)
  for (const what of ['prepare', 'commit']) t.strictSame(seen[what]!.sort(), ['ada', 'ada', 'bob', 'bob'], what)
  for (const what of ['user.load', 'task']) t.strictSame(seen[what], [undefined, undefined], what)
})

/** An app whose requests are made in the context of their user, and whose tasks enter one of their own when they have been looked at. */
async function stage (t: Test, store: Store, how: How, options: Pick<TaskqueueOptions, 'dispatch' | 'consumer'>, isDeaf: boolean) {
  const als = new AsyncLocalStorage<User>()
  const seen: Array<[what: string, user: string]> = []
  const see = (what: string) => { seen.push([what, als.getStore()?.name ?? 'nobody']) }
  const watched = new Proxy(store, {
    get (store, name: keyof Store) {
      if (!['open', 'turn', 'extend', 'watch'].includes(name)) return store[name].bind(store)
      return async (...args: unknown[]) => {
        see(name)
        return isDeaf && name === 'watch' ? undefined : await (store[name] as (...args: unknown[]) => unknown)(...args)
      }
    }
  })
  const { app } = await loggedApp(t, {
    queues: { default: { type: () => watched } },
    copyHeaders: false,
    ...options,
    consumer: { ...options.consumer as ConsumerOptions, backoff () { see('backoff'); return 10 } }
  }, { genReqId () { see('genReqId'); return '1' } })
  let requests = 0
  app.addHook('onRequest', (request, _reply, done) => {
    const name = request.task === null ? request.headers['x-user'] as string : `task ${++requests}`
    if (request.task !== null) see(`hook of ${request.task.id}`)
    if (how === 'run') return als.run({ name }, done)
    als.enterWith({ name })
    done()
  })
  const runs = new Map<string, number>()
  type Body = { id: string, ids?: string[], delayMs?: number, statuses?: number[], adds?: string }
  app.post<{ Body: Body }>('/task', { constraints: { taskOnly: true } }, async ({ body, task, taskqueue }, reply) => {
    const times = runs.get(task!.id) ?? 0
    await sleep(1)
    runs.set(task!.id, times + 1)
    if (body.adds !== undefined) taskqueue.add('/task', { id: body.adds, payload: {} })
    const status = body.statuses?.[times]
    if (status === 429) reply.header('retry-after', '1')
    return reply.code(status ?? 200).send({})
  })
  app.post<{ Body: Body }>('/add', async ({ body, taskqueue }) => {
    const { id, delayMs, ...payload } = body
    taskqueue.add('/task', { id, payload, ...delayMs !== undefined && { delayMs } })
    return {}
  })
  app.post<{ Body: Body }>('/add-all', async ({ body, taskqueue }) => {
    taskqueue.addAll(body.ids!.map(id => ({ url: '/task', id, payload: {} })))
    return {}
  })
  const { taskqueue } = app
  const queue = taskqueue.queue('default')
  const orders: Record<string, (id: string) => Promise<unknown>> = {
    '/run-now': id => taskqueue.runNow(id),
    '/reschedule': id => taskqueue.reschedule(id, { delayMs: 20 }),
    '/redrive': () => queue.redrive(),
    '/pause': () => queue.pause(),
    '/resume': () => queue.resume(),
    '/run-one': () => taskqueue.runOne(),
    '/drain': () => taskqueue.drain()
  }
  for (const [url, order] of Object.entries(orders)) {
    app.post<{ Body: Body }>(url, async ({ body }) => {
      const before = als.getStore()
      await order(body?.id)
      if (als.getStore() !== before) seen.push([`after ${url}`, 'somebody else'])
      return {}
    })
  }
  await als.run({ name: 'who starts the app' }, () => app.ready())
  return {
    app,
    store,
    seen,
    async as (name: string, url: string, payload: object = {}) {
      const { statusCode } = await app.inject({ method: 'POST', url, headers: { 'x-user': name }, payload })
      t.equal(statusCode, 200)
      // What a request is made in says nothing about those after it.
      seen.splice(0, seen.length, ...seen.filter(([what]) => what !== 'genReqId'))
    },
    async ran (id: string, times = 1) {
      await until(() => (runs.get(id) ?? 0) >= times, `${id} runs ${times} times`)
    }
  }
}
