import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { LocalStore } from '../../lib/store/local/store.js'
import { Pace } from '../../lib/run/pace.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { appOn, loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

t.test('tasks are claimed ahead for as long as they are short: some milliseconds of work, and at most 128', async t => {
  const pace = new Pace()
  t.equal(pace.ahead(1), 0, 'nothing is known')
  pace.note(1)
  t.equal(pace.ahead(1), 20)
  t.equal(pace.ahead(2), 40)
  t.equal(pace.ahead(10), 128)
  for (let i = 0; i < 50; i++) pace.note(10)
  t.equal(pace.ahead(1), 2)
  t.equal(pace.ahead(10), 20)
  pace.note(10_000)
  t.equal(pace.ahead(10), 0, 'a long one')
  for (let i = 0; i < 50; i++) pace.note(0.01)
  t.equal(pace.ahead(1), 128)
  pace.slow()
  t.equal(pace.ahead(100), 0)
})

t.test('over a slow link as much more is claimed ahead as the consumer does in a round trip', async t => {
  const pace = new Pace()
  pace.note(1)
  for (let i = 0; i < 100; i++) pace.noteTrip(3)
  t.equal(pace.ahead(1), 20, 'a short round trip makes no difference')
  pace.noteTrip(200)
  t.ok(pace.ahead(1) < 50, 'a single answer that comes late makes little')
  for (let i = 0; i < 100; i++) pace.noteTrip(200)
  t.equal(pace.ahead(1), 219)
  t.equal(pace.ahead(100), 1407, 'the most for that time')
  for (let i = 0; i < 100; i++) pace.noteTrip(60_000)
  t.equal(pace.ahead(1), 520)
  pace.noteTrip(1)
  t.equal(pace.ahead(1), 20)
})

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: what was claimed ahead runs in order, and when it has to wait it is given back to the front, as if it had not been claimed`, async t => {
    const store = type === 'local' ? new LocalStore() : new RedisStore({ path: (await startRedis(t)).path }, 'p', 2000)
    const { app, add } = await appOn(t, store)
    const { opened, open } = gate<object>()
    const runs: string[] = []
    app.get('/short', async request => { runs.push(`${request.task!.id} ${request.task!.attempt}`); return {} })
    app.get('/long', async () => await opened)
    await app.ready()
    const ids = Array.from({ length: 100 }, (_, index) => String(index))
    await app.taskqueue.transaction(tx => {
      for (const id of ids) tx.add('/short', { id })
      tx.add('/long')
      for (const id of ids) tx.add('/short', { id: `late-${id}` })
    })
    await until(() => runs.length === 100)
    const counts = () => app.taskqueue.queue('default').counts()
    await until(async () => (await counts()).waiting === 100)
    t.match(await counts(), { running: 1 })
    await add('/short', { id: 'last' })
    await sleep(50)
    t.match(await counts(), { waiting: 101, running: 1 }, 'nothing more is claimed ahead')
    open({})
    await until(() => runs.length === 201)
    t.strictSame(runs, [...ids, ...ids.map(id => `late-${id}`), 'last'].map(id => `${id} 1`))
    await until(async () => (await counts()).running === 0)
  })
}

t.test('a consumer that closes gives back at once what it has claimed ahead', async t => {
  const { path } = await startRedis(t)
  const { opened, open } = gate()
  const { app } = await loggedApp(t, { redis: { path }, consumer: { closeGraceMs: 60_000, leaseMs: 600_000 } })
  const { app: heir } = await loggedApp(t, { redis: { path }, consumer: { leaseMs: 600_000 } })
  let ended = 0
  app.get('/short', async () => { ended++; return {} })
  let holds = false
  app.get('/long', async () => { holds = true; await opened; return {} })
  const attempts: number[] = []
  heir.get('/short', async ({ task }) => { attempts.push(task!.attempt); return {} })
  await app.ready()
  await app.taskqueue.transaction(tx => { for (let i = 0; i < 50; i++) tx.add('/short') })
  await until(() => ended === 50)
  await app.taskqueue.transaction(tx => { for (const url of ['/long', '/short', '/short', '/short']) tx.add(url) })
  await until(() => holds)
  const closed = app.close()
  await heir.ready()
  await until(() => attempts.length === 3)
  t.strictSame(attempts, [1, 1, 1])
  open()
  await closed
})

t.test('two consumers share short tasks evenly', async t => {
  const { path } = await startRedis(t)
  const ran = [0, 0]
  const apps = await Promise.all(ran.map(async (_, index) => {
    const { app } = await loggedApp(t, { redis: { path } })
    app.get('/', async () => { ran[index]!++; return {} })
    await app.ready()
    return app
  }))
  for (let i = 0; i < 4; i++) await apps[0]!.taskqueue.transaction(tx => { for (let i = 0; i < 500; i++) tx.add('/') })
  await until(() => ran[0]! + ran[1]! === 2000)
  t.ok(Math.min(...ran) > 500, ran.join(' and '))
})
