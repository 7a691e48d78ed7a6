import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import type { Store } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { Lease } from '../../lib/store/turn.js'
import { addTo } from '../support/add-to.js'
import { appOn, loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

const redis = await startRedis(t)
const stores: Record<string, () => Store> = {
  local: () => new LocalStore(),
  redis: () => new RedisStore({ path: redis.path }, randomUUID(), 2000)
}

for (const [type, makeStore] of Object.entries(stores)) {
  t.test(`${type} queue: as many tasks run at once as the concurrency says, and no more`, async t => {
    const { app, add } = await appOn(t, makeStore(), { concurrency: 5 })
    let running = 0
    let most = 0
    let ended = 0
    const gates = Array.from({ length: 40 }, gate)
    app.get('/:index', async request => {
      most = Math.max(most, ++running)
      await gates[Number((request.params as { index: string }).index)]!.opened
      running--
      ended++
      return {}
    })
    await app.ready()
    await Promise.all(gates.map((_, index) => add(`/${index}`)))
    for (const { open } of gates) {
      await until(() => running === Math.min(5, 40 - ended))
      open()
    }
    await until(() => ended === 40)
    t.equal(most, 5)
  })

  t.test(`${type} queue: what ends within a tick runs one after the other, beside what waits for something else`, async t => {
    const { app } = await appOn(t, makeStore(), { concurrency: 5 })
    const runs: string[] = []
    const { opened, open } = gate()
    app.get('/wait', async () => {
      runs.push('waits')
      await opened
    })
    app.get('/compute/:index', async ({ params }) => {
      runs.push(`begins ${(params as { index: string }).index}`)
      for (let step = 0; step < 20; step++) await null
      runs.push(`ends ${(params as { index: string }).index}`)
    })
    await app.ready()
    await app.taskqueue.transaction(tx => { for (let i = 0; i < 20; i++) tx.add(`/compute/${i}`) })
    await until(() => runs.length === 40)
    t.strictSame(runs.splice(0), Array.from({ length: 20 }, (_, index) => [`begins ${index}`, `ends ${index}`]).flat())
    await app.taskqueue.transaction(tx => { for (const url of ['/wait', '/wait', '/wait', '/wait', '/compute/0', '/wait']) tx.add(url) })
    await until(() => runs.length === 7)
    t.strictSame(runs, ['waits', 'waits', 'waits', 'waits', 'begins 0', 'ends 0', 'waits'])
    open()
  })

  t.test(`${type} queue: tasks run in the order they were added in, at concurrency 1`, async t => {
    const { app, add } = await appOn(t, makeStore())
    const order: number[] = []
    app.get('/:index', async request => {
      order.push(Number((request.params as { index: string }).index))
      return {}
    })
    await app.ready()
    for (let i = 0; i < 50; i++) await add(`/${i}`)
    await app.taskqueue.transaction(tx => { for (let i = 50; i < 100; i++) tx.add(`/${i}`) })
    await until(() => order.length === 100)
    t.strictSame(order, order.map((_, index) => index))
  })

  t.test(`${type} queue: no task runs before every plugin is ready`, async t => {
    const store = makeStore()
    await store.open()
    const { app } = await appOn(t, store)
    await addTo(store, [{ queue: 'default', id: 'early', message: '{"v":1,"method":"GET","url":"/","headers":{}}' }])
    const events: string[] = []
    app.register(async app => {
      app.addHook('onReady', async () => {
        await sleep(200)
        events.push('plugin is ready')
      })
    })
    app.get('/', async () => {
      events.push('task runs')
      return {}
    })
    await app.ready()
    await until(() => events.length === 2)
    t.strictSame(events, ['plugin is ready', 'task runs'])
  })

  t.test(`${type} queue: a handler finds its task on the request`, async t => {
    const { app, add, lines } = await appOn(t, makeStore(), {}, 'mail')
    const seen: unknown[] = []
    app.get('/', async ({ task, headers }) => {
      const { signal, progress: _, ...rest } = task!
      seen.push({ ...rest, aborted: signal.aborted, header: headers['x-task-id'], agent: headers['user-agent'] })
      return {}
    })
    app.post('/', async request => [request.task])
    await app.ready()
    t.strictSame((await app.inject({ method: 'POST', url: '/' })).json(), [null])
    const id = await add('/')
    await lines(id, 1)
    const agent = 'fastify-taskqueue'
    t.strictSame(seen, [{ id, queue: 'mail', attempt: 1, userId: undefined, schedule: undefined, aborted: false, header: id, agent }])
  })

  t.test(`${type} queue: a delayed task and a retry run when they are due, and nobody looks in between`, async t => {
    const store = makeStore()
    let turns = 0
    const { app, add, lines } = await appOn(t, counted(store, () => { turns++ }), { leaseMs: 600_000, backoff: () => 300 })
    const times: number[] = []
    app.get('/', async ({ task }, reply) => {
      times.push(performance.now())
      if (task!.attempt === 1) reply.code(500)
      return {}
    })
    await app.ready()
    const start = performance.now()
    await lines(await add('/', { delayMs: 300 }), 2)
    for (const [index, before] of [start, times[0]!].entries()) {
      const tookMs = times[index]! - before
      t.ok(tookMs > 297, `not after ${tookMs} ms`)
    }
    // A timer may go off a little early, and then goes on for the rest.
    t.ok(turns <= 15, `${turns} turns`)
  })

  t.test(`${type} queue: length, counts and purge tell what is there and drop what has not begun`, async t => {
    const { app, add, lines } = await appOn(t, makeStore())
    const { opened, open } = gate()
    let running = false
    app.get('/', async () => {
      running = true
      await opened
      return {}
    })
    // Not so short that the next ones would be claimed ahead.
    app.get('/dead', async (_request, reply) => { await sleep(50); return reply.code(410).send() })
    await app.ready()
    await lines(await add('/dead'), 1)
    const id = await add('/')
    await until(() => running)
    await Promise.all([add('/'), add('/'), add('/', { delayMs: 60_000 })])
    const queue = app.taskqueue.queue('default')
    t.equal(await queue.length(), 2)
    t.same(await queue.counts(), { waiting: 2, delayed: 1, running: 1, dead: 1 })
    t.equal(await queue.purge(), 3)
    t.same(await queue.counts(), { waiting: 0, delayed: 0, running: 1, dead: 1 })
    open()
    t.match(await lines(id, 1), [{ msg: 'task done' }])
    await until(async () => (await queue.counts()).running === 0)
    t.same(await queue.counts(), { ...NOTHING, dead: 1 })
    t.strictSame(app.taskqueue.queues.map(({ name }) => name), ['default'])
  })

  t.test(`${type} queue: unreadable messages become dead letters, and the line goes on`, async t => {
    const store = makeStore()
    const { app, add, lines } = await appOn(t, store)
    app.get('/', async () => ({}))
    await app.ready()
    const url = '"method":"GET","url":"/","headers":{}'
    const messages = ['', 'no JSON', 'null', '[]', '{}', `{"v":2,${url}}`, '{"v":1,"method":"GET","url":"//evil.test/","headers":{}}', `{"v":1,${url},"base64":7}`]
    await addTo(store, messages.map((message, index) => ({ queue: 'default', id: `bad ${index}`, message })))
    t.match(await lines(await add('/'), 1), [{ msg: 'task done' }])
    for (const index of messages.keys()) {
      t.match(await lines(`bad ${index}`, 1), [{ level: 50, msg: 'task is dead before it was attempted', queue: 'default', attempt: 1, reason: /unreadable/ }])
    }
    await until(async () => (await store.counts(['default']))[0]!.running === 0)
    t.match((await store.counts(['default']))[0], { ...NOTHING, dead: messages.length })
  })

  t.test(`${type} queue: a lost lease aborts the signal, and how its attempt ends changes nothing`, async t => {
    const store = makeStore()
    const { app, add, log } = await appOn(t, store, { leaseMs: 500 })
    const reasons: string[] = []
    app.get('/', async request => {
      const { signal } = request.task!
      // It would be tried again, and its child stored, if the lease were still held.
      request.taskqueue.add('/child')
      await new Promise(resolve => { signal.addEventListener('abort', resolve) })
      reasons.push(signal.reason.message)
      return {}
    })
    const claimed: Lease[] = []
    const { turn, watch } = store
    store.turn = async (...args) => {
      const result = await turn.apply(store, args)
      claimed.push(...result.leases)
      return result
    }
    store.watch = async (queue, listener) => {
      await watch.call(store, queue, news => {
        if (news.kind === 'leases') claimed.push(...news.leases)
        listener(news)
      })
    }
    await app.ready()
    const id = await add('/')
    await until(() => claimed.length === 1)
    // As if it had expired and been taken over.
    const { leases } = await turn.call(store, 'default', { settlements: [{ lease: claimed[0]!, verdict: { kind: 'release' } }], heartbeatMs: 12000, claim: { limit: 1, alone: false, leaseMs: 60_000 }, keep: { count: 0, ms: 1000 } })
    t.match(leases, [{ id, attempt: 2 }])
    await until(() => reasons.length === 1)
    t.match(reasons, ['lease is lost'])
    t.match(log.filter(({ msg }) => msg.includes('lost its lease')), [{ level: 40, taskId: id, queue: 'default' }])
    t.match((await store.counts(['default']))[0], { ...NOTHING, running: 1 })
    // The store settles nothing in the answer to a turn of the consumer that is under way. It is to be handed in again.
    const settled = await until(async () => {
      const { settled } = await store.turn('default', { settlements: [{ lease: leases[0]!, verdict: { kind: 'done' } }], heartbeatMs: 100, keep: { count: 0, ms: 1000 } })
      return settled.length > 0 && settled
    })
    t.strictSame(settled, [true])
    t.match((await store.counts(['default']))[0], NOTHING)
  })

  t.test(`${type} queue: the end of a task that the store fails to hear is told again until it hears`, async t => {
    const store = makeStore()
    let failures = 0
    const failing = counted(store, ({ settlements }) => {
      if (settlements.length > 0 && failures++ < 4) throw new Error('not now')
    })
    // The heartbeat, which succeeds, comes five times while the consumer waits for its next chance.
    const { app, add, log } = await appOn(t, failing, { leaseMs: 100 })
    app.get('/', async () => ({}))
    await app.ready()
    await add('/')
    await until(async () => failures > 4 && (await store.counts(['default']))[0]!.running === 0)
    t.match((await store.counts(['default']))[0], NOTHING)
    t.equal(log.filter(({ msg }) => msg === 'task done').length, 1)
    t.match(log.filter(({ msg }) => msg === 'store does not answer the consumer'), [{ level: 50, err: { message: 'not now' } }])
    t.equal(log.filter(({ msg }) => msg === 'store answers the consumer again').length, 1)
  })
}

t.test('what cannot be asked because Redis is down is an error, and not an empty queue', async t => {
  const redis = await startRedis(t)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false })
  await app.ready()
  await app.taskqueue.add('/')
  const queue = app.taskqueue.queue('default')
  t.equal(await queue.length(), 1)
  await redis.stop()
  for (const ask of ['length', 'counts', 'purge'] as const) {
    await t.rejects(async () => { await queue[ask]() }, { code: 'FST_TASKQUEUE_UNREACHABLE', cause: { message: redis.path } })
  }
  t.throws(() => app.taskqueue.queue('another'), { code: 'FST_TASKQUEUE_UNKNOWN_QUEUE', message: /another.*default/ })
})

t.test('a heartbeat that comes back late takes no lease from the next attempt at its task', async t => {
  const store = new LocalStore()
  const { app, add, log } = await appOn(t, store, { leaseMs: 500, backoff: () => 0 })
  const aborted: number[] = []
  const runs: number[] = []
  app.get('/', async ({ task }, reply) => {
    runs.push(task!.attempt)
    task!.signal.addEventListener('abort', () => { aborted.push(task!.attempt) })
    // The first attempt lasts until a heartbeat is under way, the second until that has come back.
    await until(() => task!.attempt === 1 ? beats === 1 : isBack)
    return reply.code(task!.attempt === 1 ? 500 : 200).send()
  })
  let beats = 0
  let isBack = false
  const { extend } = store
  store.extend = async holdings => {
    if (holdings[0]!.leases.length === 0 || beats > 0) return await extend.call(store, holdings)
    beats = 1
    await until(() => runs.length === 2)
    const pulses = await extend.call(store, holdings)
    setTimeout(() => { isBack = true }, 20)
    return pulses
  }
  await app.ready()
  await add('/')
  await until(async () => (await store.counts(['default']))[0]!.running === 0 && isBack)
  t.strictSame([runs, aborted], [[1, 2], []])
  t.same(log.filter(({ msg }) => msg.includes('lost its lease')), [])
})

t.test('when the last task has ended nobody looks again when its lease would have', async t => {
  const LEASE_MS = 1000
  const store = new LocalStore()
  let turns = 0
  const { app, add } = await appOn(t, counted(store, () => { turns++ }), { leaseMs: LEASE_MS })
  app.get('/', async () => ({}))
  await app.ready()
  await add('/')
  await until(async () => turns > 1 && (await store.counts(['default']))[0]!.running === 0)
  await sleep(50)
  const before = turns
  await sleep(LEASE_MS + 200)
  t.equal(turns, before)
})

t.test('an app that cannot even route a task has failed it, and lives on', async t => {
  const store = new LocalStore()
  let isBroken = true
  const { app, add, lines } = await appOn(t, store, { backoff: () => 1 }, 'default', {
    genReqId () {
      if (isBroken) throw new Error('no id')
      return 'id'
    }
  })
  app.get('/', async () => 'done')
  await app.ready()
  const id = await add('/')
  t.match(await lines(id, 1), [{ msg: 'task failed and will be tried again', reason: 'no id' }])
  isBroken = false
  await until(async () => (await store.counts(['default']))[0]!.running + (await store.counts(['default']))[0]!.delayed === 0)
})

/** A store that tells of each turn before it is taken. */
function counted (store: Store, tell: (turn: Parameters<Store['turn']>[1]) => void): Store {
  return new Proxy(store, {
    get (store, name: keyof Store) {
      if (name !== 'turn') return store[name].bind(store)
      return async (...args: Parameters<Store['turn']>) => {
        tell(args[1])
        return await store.turn(...args)
      }
    }
  })
}
