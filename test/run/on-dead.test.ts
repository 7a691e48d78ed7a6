import { randomUUID } from 'node:crypto'
import t from 'tap'
import type { DeadTask, OnDead } from '../../lib/index.js'
import { loggedApp } from '../support/logged-app.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

const { path } = await startRedis(t)
const types = { local: {}, redis: { redis: { path } } }

for (const [type, options] of Object.entries(types)) {
  const on = () => ({ ...options, prefix: randomUUID() })

  t.test(`${type} queue: onDead of the route is told of a dead letter, and what it adds runs as the user of the dead task`, async t => {
    const told: DeadTask[] = []
    const { app } = await loggedApp(t, { ...on(), queues: { default: {}, mail: {} }, onDead: () => { throw new Error('the route has its own') } })
    const onDead: OnDead = async (task, taskqueue) => {
      told.push(task)
      taskqueue.add('/mail', { payload: { declined: task.id }, queue: 'mail', id: 'mail' })
    }
    app.addHook('onRequest', async request => { Object.assign(request, { user: { id: request.headers['x-user'] } }) })
    app.post('/charge/:n', { constraints: { taskOnly: true }, config: { task: { onDead } } }, async () => { throw Object.assign(new Error('no money'), { statusCode: 422 }) })
    app.post('/mail', { preHandler: app.verifyTask }, async ({ user, body, task }: any) => [user, body, task.userId])
    app.post('/order', async ({ taskqueue }) => taskqueue.add('/charge/7', { payload: { cents: 100 }, id: 'charge' }))
    await app.ready()
    await app.inject({ method: 'POST', url: '/order', headers: { 'x-user': 'ada' } })
    await app.taskqueue.wait('charge')
    t.match(told, [{
      id: 'charge',
      queue: 'default',
      method: 'POST',
      url: '/charge/7',
      payload: { cents: 100 },
      userId: 'ada',
      attempt: 1,
      reason: 'status 422: no money',
      status: 422,
      headers: { 'content-type': 'application/json' }
    }])
    const mail = (await app.taskqueue.wait('mail'))!
    t.strictSame(mail.answer!.json(), [{ id: 'ada' }, { declined: 'charge' }, 'ada'])
  })

  t.test(`${type} queue: onDead of the plugin is told of every other dead letter, with or without a handler`, async t => {
    const reasons: string[] = []
    const { app } = await loggedApp(t, {
      ...on(),
      consumer: { maxRetries: 1, backoff: [0], missingRouteMs: 0 },
      onDead: ({ id, attempt, reason }, taskqueue) => {
        reasons.push(`${id} ${attempt} ${reason}`)
        taskqueue.addAll([{ url: '/note', id: `after ${id}`.replace(' ', '-') }])
      }
    })
    app.get('/fails', async () => { throw new Error('again') })
    app.get('/note', async () => 'noted')
    await app.ready()
    await app.taskqueue.addAll([{ url: '/fails', id: 'a' }, { url: '/nowhere', id: 'b' }])
    for (const id of ['after-a', 'after-b']) await until(async () => (await app.taskqueue.get(id))?.state === 'done')
    t.strictSame(reasons.sort(), ['a 2 status 500: again, after 1 retries', 'b 1 no route of this app takes GET /nowhere'])
  })

  t.test(`${type} queue: what onDead adds belongs to the chain of the dead task, whoever added that`, async t => {
    const { app, log } = await loggedApp(t, { ...on(), onDead: ({ id }, taskqueue) => { taskqueue.add('/next', { id: `${id}-next` }) } })
    app.get('/', (_request, reply) => reply.code(410).send())
    app.get('/next', async () => '')
    app.get('/add', async ({ taskqueue }) => taskqueue.add('/', { id: 'in' }))
    await app.ready()
    await app.inject('/add')
    await app.taskqueue.add('/', { id: 'out' })
    for (const id of ['in', 'out']) {
      await until(async () => (await app.taskqueue.get(`${id}-next`))?.state === 'done')
      const { reqId, originReqId = reqId } = log.find(line => line.taskId === id && line.verdict === 'dead')!
      t.match(await app.taskqueue.get(`${id}-next`), { originReqId })
    }
  })

  t.test(`${type} queue: a dead letter and what onDead adds are stored in one step`, async t => {
    const { app } = await loggedApp(t, { ...on(), consumer: { autoStart: false }, onDead: (_task, taskqueue) => { taskqueue.add('/next') } })
    app.get('/', (_request, reply) => reply.code(410).send())
    await app.ready()
    await app.taskqueue.add('/')
    await app.taskqueue.runOne()
    t.match(await app.taskqueue.queue('default').counts(), { dead: 1, waiting: 1 })
  })

  t.test(`${type} queue: if onDead fails, adds what cannot be added or does not end, the task is dead all the same, and nothing is added`, async t => {
    const { app, log } = await loggedApp(t, {
      ...on(),
      consumer: { timeoutMs: 200 },
      onDead: async ({ id }, taskqueue) => {
        taskqueue.add('/next')
        if (id === 'throws') throw new Error('onDead is broken')
        if (id === 'wrong') taskqueue.add('no url')
        await new Promise(() => {})
      }
    })
    app.get('/', (_request, reply) => reply.code(410).send())
    await app.ready()
    for (const id of ['throws', 'wrong', 'hangs']) {
      await app.taskqueue.add('/', { id })
      t.match(await app.taskqueue.wait(id), { state: 'dead' })
    }
    t.match(await app.taskqueue.queue('default').counts(), { dead: 3, waiting: 0, delayed: 0 })
    const lines = log.filter(({ msg }) => msg.startsWith('onDead failed'))
    t.match(lines, [
      { level: 50, taskId: 'throws', err: { message: 'onDead is broken' } },
      { level: 50, taskId: 'wrong', err: { code: 'FST_TASKQUEUE_INVALID_URL' } },
      { level: 50, taskId: 'hangs', err: { message: 'onDead took more than 200 ms' } }
    ])
  })

  t.test(`${type} queue: dead letters that add tasks that die end at maxDepth`, async t => {
    let deaths = 0
    const { app, log } = await loggedApp(t, { ...on(), maxDepth: 3, onDead: (_task, taskqueue) => { deaths++; taskqueue.add('/') } })
    app.get('/', (_request, reply) => reply.code(410).send())
    await app.ready()
    await app.taskqueue.add('/')
    await until(() => log.some(({ err }) => err?.code === 'FST_TASKQUEUE_TOO_DEEP'))
    t.equal(deaths, 3)
  })
}

t.test('config.task of any route is checked when the route is declared', async t => {
  const { app } = await loggedApp(t, {})
  const declare = (task: object) => () => { app.get('/x', { config: { task } }, async () => '') }
  t.throws(declare({ onDead: 'x' }), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: "Option 'config.task.onDead' must be a function, got \"x\"" })
  t.throws(declare({ backoff: [] }), { message: /^Option 'config\.task\.backoff' must be a function, or a list of 1 to 100 delays/ })
  t.throws(declare({ retries: 1 }), { message: "Option 'config.task.retries' must be one of queue, priority, key, maxRetries, timeoutMs, backoff, onDead, got an option that it does not have" })
  t.throws(declare({ queue: 'nope' }), { code: 'FST_TASKQUEUE_UNKNOWN_QUEUE' })
})
