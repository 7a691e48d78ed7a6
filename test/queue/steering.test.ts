import { randomBytes } from 'node:crypto'
import { setImmediate } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { TaskqueueOptions, TaskStatus } from '../../lib/index.js'
import { loggedApp, type LogLine } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

// What users learn of tasks, and do to them: in the process that runs them, and on Redis from another one.

t.setTimeout(300_000)

interface Site {
  /** The app that runs tasks, and one from which they are looked at and steered. */
  readonly app: FastifyInstance
  readonly desk: FastifyInstance
  readonly log: LogLine[]
  readonly path: string | undefined
}

async function open (t: Test, type: string, options: TaskqueueOptions = {}, routes: (app: FastifyInstance) => void = () => {}): Promise<Site> {
  const path = type === 'redis' ? (await startRedis(t)).path : undefined
  const both = { ...options, ...path !== undefined && { redis: { path } } }
  const { app, log } = await loggedApp(t, both)
  app.addHook('onRequest', async request => { Object.assign(request, { user: { id: 'ada' } }) })
  routes(app)
  await app.ready()
  if (type === 'local') return { app, desk: app, log, path }
  const { app: desk } = await loggedApp(t, { ...both, consumer: false })
  await desk.ready()
  return { app, desk, log, path }
}

const ended = async ({ taskqueue }: FastifyInstance, id: string | null): Promise<TaskStatus> => (await taskqueue.wait(id!))!

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: a task is known from its adding to its end`, async t => {
    const { opened, open: release } = gate()
    const { opened: noted, open: note } = gate()
    const { app, desk } = await open(t, type, {}, app => {
      app.post('/add', async ({ taskqueue }) => taskqueue.add('/tasks/report', { payload: { month: 11 }, query: { draft: true }, delayMs: 60_000 }))
      app.post('/tasks/report', async ({ task }, reply) => {
        await task!.progress({ percent: 50 })
        note()
        await opened
        reply.code(201).header('location', '/reports/1').header('set-cookie', 'secret=1')
        return { made: 'ü' }
      })
    })
    const before = Date.now()
    const id = (await app.inject({ method: 'POST', url: '/add', payload: {} })).body
    const delayed = (await desk.taskqueue.get(id))!
    t.match(delayed, { id, queue: 'default', state: 'delayed', method: 'POST', url: '/tasks/report?draft=true', userId: 'ada', attempts: [] })
    t.ok(Math.abs(delayed.dueAt!.getTime() - before - 60_000) < 10_000)
    t.equal(await desk.taskqueue.runNow(id), true)
    await noted
    const running = (await desk.taskqueue.get(id))!
    t.match(running, { state: 'running', progress: { percent: 50 }, attempts: [] })
    t.notOk('dueAt' in running || 'endedAt' in running || 'answer' in running)
    release()
    const done = await ended(desk, id)
    t.match(done, { state: 'done', method: 'POST', url: '/tasks/report?draft=true', userId: 'ada', attempts: [{ status: 201 }], answer: { status: 201, whole: true } })
    t.strictSame(done.answer!.headers, { 'content-type': 'application/json; charset=utf-8', location: '/reports/1' })
    t.equal(done.answer!.body.toString(), '{"made":"ü"}')
    t.ok(done.endedAt! >= done.attempts[0]!.startedAt! && done.attempts[0]!.durationMs! >= 0)
    t.notOk('progress' in done)
    t.same(await desk.taskqueue.get(id), done)
    t.equal(await desk.taskqueue.get('nobody'), undefined)
    t.equal(await desk.taskqueue.wait('nobody'), undefined)
  })

  t.test(`${type} queue: what has failed says why, and of each attempt how it ended`, async t => {
    const { app, desk } = await open(t, type, { consumer: { maxRetries: 2, backoff: () => 5, timeoutMs: 50 } }, app => {
      const statuses = [500, 429, 410]
      app.get('/failing', async (_request, reply) => reply.code(statuses.shift()!).send({ reason: 'gone' }))
      app.get('/hanging', async () => await new Promise(() => {}))
    })
    const failing = await ended(desk, await app.taskqueue.add('/failing'))
    t.match(failing, { state: 'dead', reason: 'status 410', attempts: [{ status: 500 }, { status: 429 }, { status: 410 }], answer: { status: 410 } })
    t.equal(failing.answer!.body.toString(), '{"reason":"gone"}')
    const hanging = await ended(desk, await app.taskqueue.add('/hanging', { maxRetries: 1 }))
    t.match(hanging, { state: 'dead', reason: 'no answer within 50 ms, after 1 retries', attempts: [{ reason: 'no answer within 50 ms' }, { reason: 'no answer within 50 ms' }] })
    t.notOk('answer' in hanging)
  })

  t.test(`${type} queue: of an answer the first 64 KiB are kept, byte for byte`, async t => {
    const bytes = randomBytes(200_000)
    const { app, desk } = await open(t, type, {}, app => {
      app.get('/bytes', async () => bytes)
      app.get('/text', async (_request, reply) => reply.type('text/plain').send('é'.repeat(50_000)))
      app.get('/nothing', async (_request, reply) => reply.code(204).send())
    })
    const answerOf = async (url: string) => (await ended(desk, await app.taskqueue.add(url))).answer!
    const long = await answerOf('/bytes')
    t.ok(long.body.equals(bytes.subarray(0, 65_536)))
    t.equal(long.whole, false)
    const text = await answerOf('/text')
    t.ok(text.body.equals(Buffer.from('é'.repeat(50_000)).subarray(0, 65_536)))
    t.equal(text.whole, false)
    t.match(await answerOf('/nothing'), { status: 204, body: Buffer.of(), whole: true })
  })

  t.test(`${type} queue: who waits for a task hears of its end, however it comes, and not too late`, async t => {
    const { opened, open: release } = gate()
    const { app, desk } = await open(t, type, {}, app => { app.get('/held', async () => await opened) })
    const held = await app.taskqueue.add('/held')
    const waits = Promise.all([desk.taskqueue.wait(held), desk.taskqueue.wait(held), app.taskqueue.wait(held)])
    await t.rejects(desk.taskqueue.wait(held, { timeoutMs: 20 }), { code: 'FST_TASKQUEUE_TIMEOUT', statusCode: 504, message: `Task ${held} has not ended within 20 ms` })
    await t.rejects(desk.taskqueue.wait(held, { timeoutMs: 0 }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
    release()
    t.match(await waits, [{ state: 'done' }, { state: 'done' }, { state: 'done' }])
    const cancelled = await app.taskqueue.add('/held', { delayMs: 60_000 })
    const wait = desk.taskqueue.wait(cancelled)
    await until(async () => await app.taskqueue.cancel(cancelled))
    t.match(await wait, { state: 'cancelled', url: '/held' })
  })

  t.test(`${type} queue: a task is cancelled wherever it is, and one that runs is told`, async t => {
    const reasons: string[] = []
    const { app, desk, log } = await open(t, type, { consumer: { leaseMs: 600_000 } }, app => {
      app.get('/hanging', async ({ task }) => {
        const { signal } = task!
        await new Promise(resolve => { signal.addEventListener('abort', resolve) })
        reasons.push(signal.reason.message)
        return {}
      })
      app.get('/next', async () => ({}))
    })
    const [running, waiting, next] = await app.taskqueue.addAll([{ url: '/hanging' }, { url: '/hanging' }, { url: '/next' }]) as [string, string, string]
    const delayed = await app.taskqueue.add('/hanging', { delayMs: 60_000 })
    await until(async () => (await desk.taskqueue.get(running))!.state === 'running')
    for (const id of [waiting, delayed, running]) t.equal(await desk.taskqueue.cancel(id), true)
    for (const id of [waiting, delayed, running, 'nobody']) t.equal(await desk.taskqueue.cancel(id), false)
    t.match(await ended(desk, next), { state: 'done' })
    t.strictSame(reasons, ['the task is cancelled'])
    for (const id of [running, waiting, delayed]) t.match(await desk.taskqueue.get(id), { state: 'cancelled', method: 'GET', url: '/hanging' })
    t.same(await desk.taskqueue.queue('default').counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
    t.strictSame(log.filter(({ taskId }) => taskId === running).map(({ level, msg }) => [level, msg]), [[30, 'task is cancelled']])
  })

  t.test(`${type} queue: a task is run at another time`, async t => {
    const { app, desk } = await open(t, type, {}, app => { app.get('/task', async () => ({})) })
    const { taskqueue } = desk
    const id = await app.taskqueue.add('/task', { delayMs: 60_000 })
    const dueMs = async () => (await taskqueue.get(id))!.dueAt!.getTime()
    t.equal(await taskqueue.reschedule(id, { runAt: new Date(Date.now() + 3_600_000) }), true)
    t.ok(await dueMs() > Date.now() + 3_000_000)
    t.equal(await taskqueue.reschedule(id, { delayMs: 1000 }), true)
    t.ok(await dueMs() < Date.now() + 10_000)
    await t.rejects(taskqueue.reschedule(id, { delayMs: -1 }), { code: 'FST_TASKQUEUE_INVALID_DELAY' })
    t.equal(await taskqueue.runNow(id), true)
    t.match(await ended(desk, id), { state: 'done' })
    for (const over of [id, 'nobody']) t.equal(await taskqueue.reschedule(over, { delayMs: 1 }), false)
    t.equal(await taskqueue.runNow(id), false)
  })

  t.test(`${type} queue: while it is paused tasks are added and none begins`, async t => {
    const runs: string[] = []
    const { app, desk } = await open(t, type, { consumer: { leaseMs: 600_000 } }, app => { app.get('/:task', async ({ url }) => { runs.push(url) }) })
    const queue = desk.taskqueue.queue('default')
    await queue.pause()
    t.equal(await app.taskqueue.queue('default').isPaused(), true)
    const ids = await app.taskqueue.addAll(['/a', '/b'].map(url => ({ url }))) as string[]
    const delayed = await app.taskqueue.add('/c', { delayMs: 1 })
    await until(async () => (await queue.counts()).waiting === 3)
    for (let i = 0; i < 20; i++) await setImmediate()
    t.strictSame(runs, [])
    t.match(await queue.list('waiting'), [...ids, delayed].map(id => ({ id, state: 'waiting' })))
    await queue.resume()
    for (const id of [...ids, delayed]) t.match(await ended(desk, id), { state: 'done' })
    t.strictSame(runs, ['/a', '/b', '/c'])
    t.equal(await queue.isPaused(), false)
  })

  t.test(`${type} queue: tasks are listed by state, and dead letters put back or forgotten`, async t => {
    let fails = true
    const { app, desk } = await open(t, type, { consumer: { maxRetries: 0 } }, app => {
      app.get('/task/:n', async (_request, reply) => reply.code(fails ? 400 : 200).send({}))
    })
    const queue = desk.taskqueue.queue('default')
    const ids = await app.taskqueue.addAll(Array.from({ length: 5 }, (_, n) => ({ url: `/task/${n}` }))) as string[]
    await until(async () => (await queue.counts()).dead === 5)
    const newestFirst = ids.toReversed()
    t.strictSame((await queue.list('dead')).map(({ id }) => id), newestFirst)
    t.strictSame((await queue.list('dead', { offset: 1, limit: 2 })).map(({ url }) => url), ['/task/3', '/task/2'])
    t.equal(await queue.remove([ids[0]!, 'nobody']), 1)
    t.equal(await desk.taskqueue.get(ids[0]!), undefined)
    fails = false
    t.equal(await queue.redrive([ids[1]!, ids[0]!]), 1)
    t.match(await ended(desk, ids[1]!), { state: 'done', attempts: [{ status: 400 }, { status: 200 }] })
    t.equal(await queue.redrive(), 3)
    for (const id of ids.slice(2)) t.match(await ended(desk, id), { state: 'done' })
    t.equal((await queue.list('done')).length, 4)
    fails = true
    t.match(await ended(desk, await app.taskqueue.add('/task/5')), { state: 'dead' })
    t.equal(await queue.remove(), 1)
    t.same(await queue.counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
    for (const [state, page] of [['lost', {}], ['dead', { offset: -1 }], ['dead', { limit: 1001 }]] as const) {
      await t.rejects(queue.list(state as 'dead', page), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
    }
  })

  t.test(`${type} queue: an id keeps another task of its own out, refuses it, or makes way, and the answer says so`, async t => {
    const runs: unknown[] = []
    const { app } = await open(t, type, {}, app => {
      app.post('/task', async ({ body }) => { runs.push(body) })
      app.post<{ Body: { onDuplicate: 'reject' } }>('/add', async ({ taskqueue, body: { onDuplicate } }) => {
        taskqueue.add('/task', { payload: { other: true }, delayMs: 60_000 })
        return { id: taskqueue.add('/task', { id: 'one', payload: { late: true }, onDuplicate }) }
      })
      app.post('/commit', async ({ taskqueue }) => {
        taskqueue.add('/task', { id: 'one', payload: { late: true } })
        return await taskqueue.commit()
      })
    })
    const { taskqueue } = app
    const add = (options: object) => taskqueue.add('/task', { id: 'one', delayMs: 60_000, ...options })
    t.equal(await add({ payload: { first: true } }), 'one')
    t.equal(await add({ payload: { kept: 'out' } }), null)
    t.strictSame(await taskqueue.addAll([{ url: '/task', id: 'one', payload: {} }, { url: '/task', id: 'two', payload: {}, delayMs: 60_000 }]), [null, 'two'])
    t.strictSame(await taskqueue.addAll(['three', 'three'].map(id => ({ url: '/task', id, payload: {}, delayMs: 60_000 }))), ['three', null])
    t.equal(await taskqueue.cancel('three'), true)
    await t.rejects(add({ payload: {}, onDuplicate: 'reject' }), { code: 'FST_TASKQUEUE_DUPLICATE', statusCode: 409 })
    const refused = await app.inject({ method: 'POST', url: '/add', payload: { onDuplicate: 'reject' } })
    t.match([refused.statusCode, refused.json().code], [409, 'FST_TASKQUEUE_DUPLICATE'])
    t.same(await taskqueue.queue('default').counts(), { waiting: 0, delayed: 2, running: 0, dead: 0 }, 'and nothing was added')
    t.same((await app.inject({ method: 'POST', url: '/commit' })).json(), { keptOut: ['one'] })
    t.equal(await add({ payload: { second: true }, onDuplicate: 'replace', delayMs: 5, dedupeMs: 60_000 }), 'one')
    t.match(await ended(app, 'one'), { state: 'done' })
    t.strictSame(runs, [{ second: true }])
    t.equal(await add({ payload: {} }), null, 'for a while after it is done')
    t.equal((await app.inject({ method: 'POST', url: '/add', payload: { onDuplicate: 'reject' } })).statusCode, 409)
    t.equal(await add({ payload: {}, onDuplicate: 'replace' }), 'one')
  })

  t.test(`${type} queue: of one id in two queues it is said in which it was kept out`, async t => {
    const { app } = await open(t, type, { queues: { a: {}, b: {} }, consumer: { autoStart: false }, noteAdded: true })
    const { taskqueue } = app
    const tasks = (...queues: string[]) => queues.map(queue => ({ url: '/task', id: 'one', queue }))
    t.strictSame(await taskqueue.addAll(tasks('b')), ['one'])
    t.strictSame(await taskqueue.addAll(tasks('b', 'a', 'a')), [null, 'one', null])
    t.strictSame(taskqueue.added.map(({ queue }) => queue), ['b', 'a'])
  })

  t.test(`${type} queue: of twenty requests that add one id at the same time one succeeds`, async t => {
    const { app, desk } = await open(t, type, {}, app => { app.get('/task', async () => ({})) })
    const adds = Array.from({ length: 20 }, (_, n) =>
      (n % 2 === 0 ? app : desk).taskqueue.add('/task', { id: 'one', delayMs: 60_000, onDuplicate: 'reject' }).then(() => 'added', ({ code }) => code))
    const results = (await Promise.all(adds)).sort()
    t.strictSame(results, [...Array.from({ length: 19 }, () => 'FST_TASKQUEUE_DUPLICATE'), 'added'])
    t.match(await desk.taskqueue.queue('default').counts(), { delayed: 1 })
  })

  t.test(`${type} queue: what waits too long expires, and is recorded`, async t => {
    const { opened, open: release } = gate()
    const runs: string[] = []
    const { app, desk } = await open(t, type, {}, app => {
      app.get('/held', async () => await opened)
      app.get('/late', async ({ url }) => { runs.push(url) })
    })
    const held = await app.taskqueue.add('/held')
    const [late, last] = [await app.taskqueue.add('/late', { expiresMs: 30 }), await app.taskqueue.add('/late', { expiresMs: 60_000 })]
    const since = performance.now()
    await until(() => performance.now() - since > 40)
    release()
    t.match(await ended(desk, held), { state: 'done' })
    t.match(await ended(desk, last), { state: 'done' })
    t.match(await ended(desk, late), { state: 'expired', url: '/late', attempts: [] })
    t.strictSame(runs, ['/late'])
    t.match(await desk.taskqueue.queue('default').list('expired'), [{ id: late }])
  })

  t.test(`${type} queue: ten thousand tasks are added at once, or none`, async t => {
    const { app } = await open(t, type, { consumer: false })
    const { taskqueue } = app
    const many = (length: number) => Array.from({ length }, (_, n) => ({ url: `/task/${n}` }))
    const ids = await taskqueue.addAll(many(10_000)) as string[]
    t.match(await taskqueue.queue('default').counts(), { waiting: 10_000 })
    t.strictSame((await taskqueue.queue('default').list('waiting', { offset: 9998 })).map(({ id }) => id), ids.slice(9998))
    await t.rejects(taskqueue.addAll(many(10_001)), { code: 'FST_TASKQUEUE_TOO_MANY' })
    await t.rejects(taskqueue.addAll([...many(10), { url: '//evil' }]), { code: 'FST_TASKQUEUE_INVALID_URL' })
    await t.rejects(taskqueue.addAll([...many(10), { url: '/x', id: ids[0]!, onDuplicate: 'reject' }]), { code: 'FST_TASKQUEUE_DUPLICATE' })
    t.match(await taskqueue.queue('default').counts(), { waiting: 10_000 })
    t.equal(await taskqueue.queue('default').purge(), 10_000)
  })

  t.test(`${type} queue: of what is done no more is kept than was asked for`, async t => {
    const { app, desk } = await open(t, type, { keep: 2 }, app => { app.get('/task', async () => ({})) })
    const ids = await app.taskqueue.addAll(Array.from({ length: 4 }, () => ({ url: '/task' }))) as string[]
    await until(async () => (await desk.taskqueue.get(ids[3]!))?.state === 'done')
    t.strictSame((await desk.taskqueue.queue('default').list('done')).map(({ id }) => id), [ids[3], ids[2]])
    t.equal(await desk.taskqueue.get(ids[0]!), undefined)

    const { app: forgetful, desk: other } = await open(t, type, { keep: 0 }, app => { app.get('/task', async () => ({})) })
    const id = await forgetful.taskqueue.add('/task', { delayMs: 50 })
    t.equal(await other.taskqueue.wait(id), undefined, 'who waits hears of the end all the same')
    t.same(await other.taskqueue.queue('default').counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
  })

  t.test(`${type} queue: it is drained by hand, as a whole or task by task, and what was added is noted`, async t => {
    const runs: string[] = []
    const { app } = await open(t, type, { queues: { default: {}, mail: {} }, consumer: { autoStart: false }, noteAdded: true }, app => {
      app.post('/add', async ({ taskqueue }) => { taskqueue.add('/a?chain=1', { payload: { n: 1 } }) })
      app.post('/fail', async ({ taskqueue }) => {
        taskqueue.add('/a', { payload: null, method: 'POST' })
        throw new Error('it fails')
      })
      app.route<{ Querystring: { chain?: string } }>({
        method: ['GET', 'POST'],
        url: '/a',
        handler: async ({ url, method, taskqueue, query: { chain } }) => {
          runs.push(`${method} ${url}`)
          if (chain !== undefined) taskqueue.add('/a', { queue: 'mail' })
        }
      })
    })
    const { taskqueue } = app
    await app.inject({ method: 'POST', url: '/fail' })
    t.strictSame(taskqueue.added, [])
    t.strictSame(await taskqueue.addAll(['one', 'one'].map(id => ({ url: '/a', id, delayMs: 60_000 }))), ['one', null])
    t.match(taskqueue.added.splice(0), [{ id: 'one' }], 'once, of two with one id')
    t.equal(await taskqueue.cancel('one'), true)
    await app.inject({ method: 'POST', url: '/add' })
    t.match(taskqueue.added, [{ id: String, queue: 'default', method: 'POST', url: '/a?chain=1', payload: { n: 1 } }])
    for (let i = 0; i < 20; i++) await setImmediate()
    t.strictSame(runs, [], 'nothing starts by itself')
    await taskqueue.drain()
    t.strictSame(runs, ['POST /a?chain=1', 'GET /a'], 'nor does drain end before what tasks have added')
    t.equal(await taskqueue.runOne(), false)
    await taskqueue.addAll([{ url: '/a?1' }, { url: '/a?2' }, { url: '/a?3', delayMs: 60_000 }])
    t.equal(await taskqueue.runOne(), true)
    t.strictSame(runs.slice(2), ['GET /a?1'])
    t.equal(await taskqueue.runOne('mail'), false)
    await taskqueue.drain()
    t.strictSame(runs.slice(3), ['GET /a?2'])
    t.match(await taskqueue.queue('default').counts(), { waiting: 0, delayed: 1, running: 0 })
    t.throws(() => taskqueue.queue('other'), { code: 'FST_TASKQUEUE_UNKNOWN_QUEUE' })
    await t.rejects(taskqueue.runOne('other'), { code: 'FST_TASKQUEUE_UNKNOWN_QUEUE' })
  })

  t.test(`${type} queue: a consumer that has started can be drained as well`, async t => {
    const runs: string[] = []
    const { app } = await open(t, type, { consumer: { concurrency: 3 } }, app => { app.get('/a', async ({ url }) => { runs.push(url) }) })
    await app.taskqueue.drain()
    await app.taskqueue.addAll(Array.from({ length: 100 }, () => ({ url: '/a' })))
    await app.taskqueue.drain()
    t.equal(runs.length, 100)
  })
}

t.test('where nothing is consumed nothing can be drained', async t => {
  const { app } = await loggedApp(t, { consumer: false })
  await t.rejects(app.taskqueue.drain(), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
  await t.rejects(app.taskqueue.runOne(), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
})

t.test('options for ids without an id, and wrong ones, are refused', async t => {
  const { app } = await loggedApp(t, {})
  for (const options of [
    { onDuplicate: 'keep' as const }, { dedupeMs: 1 }, { id: 'a', onDuplicate: 'drop' as 'keep' }, { id: 'a', dedupeMs: -1 }, { expiresMs: 0 }, { expiresMs: 2 ** 40 }
  ]) await t.rejects(app.taskqueue.add('/', options), { code: 'FST_TASKQUEUE_INVALID_OPTION' }, JSON.stringify(options))
})

t.test('with secrets nothing of a task or its answer can be read in Redis, and a record that was tampered with says nothing', async t => {
  const { app, path } = await open(t, 'redis', { secrets: 'x'.repeat(32) }, app => {
    app.post('/task', async ({ task }) => {
      await task!.progress('hunter2')
      return 'hunter2'
    })
  })
  const id = await app.taskqueue.add('/task', { payload: { text: 'hunter2' } })
  t.equal((await ended(app, id)).answer!.body.toString(), 'hunter2')
  const admin = new Redis({ path: path! })
  t.teardown(() => { admin.disconnect() })
  const texts = [await admin.hvalsBuffer('taskqueue:{default}:summary'), await admin.hvalsBuffer('taskqueue:{default}:message')].flat()
  t.equal(texts.length, 1)
  t.notOk(texts.some(text => text.includes('hunter2')))
  const record = (await admin.hgetBuffer('taskqueue:{default}:summary', id))!.toString('latin1')
  await admin.hset('taskqueue:{default}:summary', id, Buffer.from(record.replace(/(s1\.[^.]+\.)..../, '$1AAAA'), 'latin1'))
  const tampered = (await app.taskqueue.get(id))!
  t.match(tampered, { id, state: 'done', attempts: [{}] })
  t.notOk('answer' in tampered || 'url' in tampered)
  const delayed = await app.taskqueue.add('/task', { delayMs: 60_000 })
  await admin.hset('taskqueue:{default}:message', delayed, 'not a message')
  const unreadable = (await app.taskqueue.get(delayed))!
  t.match(unreadable, { id: delayed, state: 'delayed', dueAt: Date })
  t.notOk('url' in unreadable || 'userId' in unreadable)
})
