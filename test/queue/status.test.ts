import { randomUUID } from 'node:crypto'
import t from 'tap'
import type { Store, TaskqueueOptions, TaskStatus } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { gate } from '../support/gate.js'
import { loggedApp } from '../support/logged-app.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

const { path } = await startRedis(t)
const secrets = 'a secret of thirty-two bytes or more'
const types: Record<string, TaskqueueOptions> = { local: {}, redis: { redis: { path } }, 'sealed redis': { redis: { path }, secrets } }

for (const [type, options] of Object.entries(types)) {
  t.test(`${type} queue: the status of a task has its payload until it is done, and when it was added`, async t => {
    const { app } = await loggedApp(t, { ...options, prefix: randomUUID(), consumer: { autoStart: false, backoff: [0] } })
    app.post('/', (_request, reply) => reply.code(200).send({ a: ['ü'] }))
    app.post('/dead', (_request, reply) => reply.code(410).send('gone'))
    await app.ready()
    const { taskqueue } = app
    const before = Date.now()
    const added = async (url: string, options: object) => (await taskqueue.get((await taskqueue.add(url, options))!))!
    const isRecent = ({ addedAt }: TaskStatus) => addedAt instanceof Date && addedAt.getTime() >= before - 1 && addedAt.getTime() <= Date.now() + 1
    const json = await added('/', { payload: { b: [1, null] } })
    t.strictSame(json.payload, { b: [1, null] })
    t.ok(isRecent(json), 'by the time in its id')
    const own = await added('/', { payload: 'a text', id: 'mine' })
    t.equal(own.payload, 'a text')
    t.ok(isRecent(own), 'by itself')
    t.strictSame((await added('/', { payload: Buffer.from([0, 255]) })).payload, Buffer.from([0, 255]))
    t.equal((await added('/', { payload: '{', headers: { 'content-type': 'application/json' }, id: 'no-json' })).payload, '{')
    t.notOk('payload' in await added('/', { method: 'POST', payload: null }))
    t.notOk('payload' in await added('/', { payload: 'x'.repeat(70_000) }))
    t.equal((await added('/', { payload: 'x'.repeat(30_000) })).payload, 'x'.repeat(30_000))
    t.match(await taskqueue.queue('default').list('waiting'), [{ id: json.id, addedAt: json.addedAt }])
    t.notOk((await taskqueue.queue('default').list('waiting')).some(status => 'payload' in status), 'a list would be too long')
    await taskqueue.queue('default').purge()

    await taskqueue.add('/', { payload: { b: 1 }, id: 'done' })
    await taskqueue.add('/dead', { payload: { b: 2 }, id: 'dead' })
    await taskqueue.drain()
    const done = (await taskqueue.get('done'))!
    t.notOk('payload' in done)
    t.ok(isRecent(done))
    t.strictSame([done.answer!.json(), done.answer!.text()], [{ a: ['ü'] }, '{"a":["ü"]}'])
    const dead = (await taskqueue.get('dead'))!
    t.strictSame(dead.payload, { b: 2 })
    t.ok(isRecent(dead))
    t.equal(dead.answer!.text(), 'gone')
    t.throws(() => dead.answer!.json(), SyntaxError)
  })

  t.test(`${type} queue: the status of a running task says which attempt it is, since when and where`, async t => {
    const { opened, open } = gate()
    t.teardown(() => { open() })
    const { app } = await loggedApp(t, { ...options, prefix: randomUUID(), consumer: { name: 'here', leaseMs: 500, backoff: [0], closeGraceMs: 0 } })
    app.get('/', async ({ task }) => {
      if (task!.attempt === 1) throw new Error('again')
      await opened
    })
    await app.ready()
    const before = Date.now()
    const id = (await app.taskqueue.add('/'))!
    const first = await until(async () => (await app.taskqueue.get(id))?.running)
    const { running, state } = (await until(async () => {
      const status = await app.taskqueue.get(id)
      return status?.running?.consumer !== undefined && status
    })) as TaskStatus
    t.match({ running, state }, { state: 'running', running: { attempt: 2, consumer: 'here' } })
    t.ok(first!.attempt <= 2)
    const at = running!.startedAt!.getTime()
    t.ok(at >= before - 1 && at <= Date.now() + 1)
    const [listed] = await app.taskqueue.queue('default').list('running')
    t.match(listed, { running: { attempt: 2, startedAt: running!.startedAt } })
    open()
    t.notOk('running' in (await app.taskqueue.wait(id))!)
  })
}

t.test('a handler goes on that says how far it is while the store is away', async t => {
  const store = new LocalStore()
  const away = new Proxy(store, {
    get: (store, name: keyof Store) => name === 'setProgress' ? async () => { throw new Error('away') } : store[name].bind(store)
  })
  const { app } = await loggedApp(t, { queues: { default: { type: () => away } } })
  app.get('/', async ({ task }) => { await task!.progress(1) })
  await app.ready()
  const id = (await app.taskqueue.add('/'))!
  t.match(await app.taskqueue.wait(id), { state: 'done', attempts: [{ status: 200 }] })
})
