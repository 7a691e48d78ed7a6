import Fastify from 'fastify'
import t, { type Test } from 'tap'
import { LocalStore } from '../../lib/store/local/store.js'
import taskqueue from '../../lib/index.js'
import { addTo } from '../support/add-to.js'
import { until } from '../support/until.js'

import { gate, type Gate } from '../support/gate.js'

// A store from which a consumer has died leaves suspects: here the test has claimed for it, and never came back.

t.test('a suspect runs alone: after what runs, before what waits, and beside no task of any queue', async t => {
  const store = new LocalStore()
  const { app, runs, open } = await start(t, store)
  await addTo(store, [message('b', 'running'), message('b', 'waiting')])
  await app.ready()
  await until(() => runs.length === 2)
  t.strictSame(runs, ['running', 'waiting'], 'until it is known that there are suspects')
  await abandon(store, 'a', ['suspect 1', 'suspect 2'])
  await until(async () => (await store.extend([{ queue: 'a', consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: 20, leaseMs: 100 }]))[0]!.outlook.suspects)
  await addTo(store, [message('a', 'ordinary')])
  open('running')
  await until(async () => (await store.counts(['b']))[0]!.running === 1)
  t.equal(runs.length, 2, 'one task still runs')

  open('waiting')
  await until(() => runs.length === 3)
  t.equal(runs[2], 'suspect 1')
  await addTo(store, [message('b', 'other queue')])
  await until(async () => (await store.counts(['b']))[0]!.waiting === 1)
  t.match((await store.counts(['a']))[0], { waiting: 2, running: 1 })
  t.equal(runs.length, 3)

  open('suspect 1')
  await until(() => runs.length > 3 && runs.includes('suspect 2'))
  for (const id of ['suspect 2', 'ordinary', 'other queue']) open(id)
  await until(() => runs.length === 6)
  await until(async () => (await store.counts(['a']))[0]!.running + (await store.counts(['b']))[0]!.running === 0)
  t.match((await store.counts(['a']))[0], { waiting: 0, delayed: 0, running: 0, dead: 0 })
})

t.test('a suspect that somebody else has claimed leaves the consumer to the rest', async t => {
  const store = new LocalStore()
  const { app, runs, open } = await start(t, store)
  await abandon(store, 'a', ['suspect'])
  await until(async () => (await store.turn('a', { settlements: [], heartbeatMs: 12000, claim: { limit: 1, alone: true, leaseMs: 60_000 }, keep: { count: 0, ms: 1000 } })).leases.length === 1)
  // As a pulse would say that is late.
  const { extend } = store
  store.extend = async holdings => (await extend.call(store, holdings)).map(pulse => ({ ...pulse, outlook: { wakeInMs: 0, suspects: true } }))
  await addTo(store, [message('a', 'ordinary')])
  await app.ready()
  await until(() => runs.length === 1)
  open('ordinary')
  await until(async () => (await store.counts(['a']))[0]!.waiting === 0)
  for (let i = 0; i < 3; i++) {
    await addTo(store, [message('a', `later ${i}`)])
    await until(() => runs.includes(`later ${i}`))
    open(`later ${i}`)
  }
  t.strictSame(runs, ['ordinary', 'later 0', 'later 1', 'later 2'])
})

t.test('a suspect is given back by an app that closes, and is one still', async t => {
  const store = new LocalStore()
  store.close = async () => {}
  const { app, runs } = await start(t, store, 50)
  await abandon(store, 'a', ['suspect'])
  await app.ready()
  await until(() => runs.length === 1)
  await app.close()
  const { leases } = await store.turn('a', { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: true, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })
  t.match(leases, [{ id: 'suspect', attempt: 3, retries: 0, deaths: 0, suspect: true }])
})

t.test('a suspect is not kept waiting by a queue that is always busy', async t => {
  const store = new LocalStore()
  const { app, runs } = await start(t, store)
  let over = false
  app.get('/busy', async ({ taskqueue, task }) => {
    await new Promise(resolve => setTimeout(resolve, 2))
    if (!over) taskqueue.add('/busy', { queue: task!.queue })
    return 'more'
  })
  await abandon(store, 'a', ['suspect'])
  await app.taskqueue.transaction(tx => { for (let i = 0; i < 4; i++) tx.add('/busy', { queue: 'b' }) })
  await app.ready()
  await until(() => runs.includes('suspect'))
  over = true
})

t.test('a store that fails while there are suspects leaves the event loop alone', async t => {
  const store = new LocalStore()
  const { app, runs, open } = await start(t, store)
  await abandon(store, 'a', ['suspect'])
  const { turn } = store
  let ticks = 0
  const timer = setInterval(() => { ticks++ }, 1)
  t.teardown(() => { clearInterval(timer) })
  const failures: number[] = []
  store.turn = async (queue, given) => {
    if (given.claim?.alone !== true || failures.length === 3) return await turn.call(store, queue, given)
    failures.push(ticks)
    throw new Error('gone')
  }
  await app.ready()
  await until(() => runs.length === 1)
  open('suspect')
  // Two of the tries may fall into one tick, where the heartbeat wakes the consumer as well.
  t.ok(failures.length === 3 && new Set(failures).size > 1, 'timers have run between them')
})

t.test('a store that fails while a task runs and a suspect waits leaves the event loop alone', async t => {
  const store = new LocalStore()
  const { app, runs, open } = await start(t, store)
  const { turn, extend } = store
  let isGone = false
  let looks = 0
  let failures = 0
  store.extend = async holdings => {
    const pulses = await extend.call(store, holdings)
    looks++
    return pulses.map((pulse, index) =>
      holdings[index]!.queue === 'a' ? { ...pulse, outlook: { wakeInMs: 0, suspects: true } } : pulse)
  }
  store.turn = async (queue, given) => {
    if (!isGone) return await turn.call(store, queue, given)
    // Turns without an end would leave no room for the test to fail.
    if (failures++ > 1000) await new Promise(() => {})
    throw new Error('gone')
  }
  await addTo(store, [message('a', 'short'), message('a', 'long')])
  await app.ready()
  await until(() => runs.length === 2 && looks > 0)
  isGone = true
  open('short')
  await until(() => failures > 1)
  t.ok(failures < 10, `${failures} turns`)
  isGone = false
  open('long')
  await until(async () => (await store.counts(['a']))[0]!.running === 0)
})

const message = (queue: string, id: string) => ({ queue, id, message: JSON.stringify({ v: 1, method: 'GET', url: '/', headers: {} }) })

/** Claims tasks and lets their leases expire. */
async function abandon (store: LocalStore, queue: string, ids: string[]): Promise<void> {
  await addTo(store, ids.map(id => message(queue, id)))
  await store.turn(queue, { settlements: [], heartbeatMs: 20, claim: { limit: ids.length, alone: false, leaseMs: 100 }, keep: { count: 0, ms: 1000 } })
  await until(async () => (await store.extend([{ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: 20, leaseMs: 100 }]))[0]!.outlook.wakeInMs === 0)
}

/** An app whose tasks note that they run, and end when the test says so. */
async function start (t: Test, store: LocalStore, closeGraceMs = 1000) {
  const runs: string[] = []
  const gates = new Map<string, Gate>()
  const gateOf = (id: string) => {
    const existing = gates.get(id) ?? gate()
    gates.set(id, existing)
    return existing
  }
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, {
    queues: { a: { type: () => store }, b: { type: () => store } },
    consumer: { concurrency: 4, leaseMs: 500, closeGraceMs }
  })
  app.get('/', async ({ task }) => {
    runs.push(task!.id)
    await gateOf(task!.id).opened
    return 'done'
  })
  return { app, runs, open: (id: string) => { gateOf(id).open(undefined) } }
}
