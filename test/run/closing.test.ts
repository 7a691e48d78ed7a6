import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { get, type IncomingMessage } from 'node:http'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t from 'tap'
import taskqueue, { type Store, type Turn } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { addTo } from '../support/add-to.js'
import { appOn, loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate, type Gate } from '../support/gate.js'

const redis = await startRedis(t)

/** Stores that the test can look into after the app has closed them. */
class OpenLocalStore extends LocalStore {
  override async close (): Promise<void> {}
}
class OpenRedisStore extends RedisStore {
  constructor (prefix: string = randomUUID()) {
    super({ path: redis.path }, prefix, 2000)
    t.teardown(() => super.close())
  }

  override async close (): Promise<void> {}
}
const stores: Record<string, () => Store> = { local: () => new OpenLocalStore(), redis: () => new OpenRedisStore() }

/** A store for the app, and one in which the same tasks can be seen once that is closed. */
const storesTwice: Record<string, () => [Store, Store]> = {
  local () {
    const store = new OpenLocalStore()
    return [store, store]
  },
  redis () {
    const prefix = randomUUID()
    return [new RedisStore({ path: redis.path }, prefix, 2000), new OpenRedisStore(prefix)]
  }
}

t.test('a task that a closing app turns away unseen is given back once, and costs nothing', async t => {
  const store = new OpenLocalStore()
  const app = Fastify()
  t.teardown(() => app.close())
  const { opened, open } = gate()
  const closing = gate()
  // Of a plugin that was registered earlier: while it takes its time the app answers nobody any more.
  app.addHook('preClose', () => {
    closing.open()
    return opened
  })
  await app.register(taskqueue, { queues: { default: { type: () => store } } })
  const runs: number[] = []
  app.get('/', async ({ task }) => runs.push(task!.attempt))
  await app.ready()
  const verdicts: string[] = []
  const { turn } = store
  store.turn = async (queue, given) => {
    verdicts.push(...given.settlements.map(({ verdict }) => verdict.kind))
    return await turn.call(store, queue, given)
  }
  const closed = app.close()
  await closing.opened
  const id = await app.taskqueue.add('/')
  await until(() => verdicts.length > 0)
  open()
  await closed
  t.strictSame(runs, [])
  t.strictSame(verdicts, ['release'])
  t.match((await turn.call(store, 'default', { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })).leases, [{ id, attempt: 1, retries: 0, deaths: 0 }])
})

t.test('a task that is given back is not said to have failed', async t => {
  const store = new OpenLocalStore()
  const { app, add, log } = await appOn(t, store, { closeGraceMs: 20 })
  let begun = false
  app.get('/', async ({ task }) => {
    begun = true
    await once(task!.signal, 'abort')
    throw new Error('aborted')
  })
  await app.ready()
  await add('/')
  await until(() => begun)
  await app.close()
  t.match((await store.counts(['default']))[0], { waiting: 1 })
  t.same(log.filter(({ msg }) => /failed/.test(msg)), [])
})

t.test('an app closes though a store never answers', async t => {
  const store = new OpenLocalStore()
  const { app, add, log } = await appOn(t, store, {}, 'default', { pluginTimeout: 3000 })
  app.get('/', async () => 'done')
  await app.ready()
  const { turn } = store
  store.turn = async (queue, given) => given.settlements.length > 0 ? await new Promise(() => {}) : await turn.call(store, queue, given)
  await add('/')
  await until(() => log.some(({ msg }) => msg === 'task done'))
  await app.close()
  t.match(log.find(({ msg }) => msg.includes('could not be settled')), { level: 40 })
})

t.test('what a closing app gives back reaches a store that fails at first, and costs nothing', async t => {
  const store = new OpenLocalStore()
  const { app, add, log } = await appOn(t, store, { closeGraceMs: 0 })
  const begun = gate()
  app.get('/', async () => {
    begun.open()
    await new Promise(() => {})
  })
  await app.ready()
  const { turn } = store
  let failures = 0
  store.turn = async (queue, given) => {
    if (given.settlements.length > 0 && failures++ < 3) throw new Error('not now')
    return await turn.call(store, queue, given)
  }
  const id = await add('/')
  await begun.opened
  await app.close()
  t.equal(failures, 4)
  t.match((await turn.call(store, 'default', { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })).leases, [{ id, retries: 0, deaths: 0 }])
  t.strictSame(log.filter(({ msg }) => msg.includes('could not be settled')), [])
})

t.test('consumers stop although the preClose hook of another plugin fails', async t => {
  const store = new OpenLocalStore()
  const app = Fastify()
  app.addHook('preClose', async () => { throw new Error('the other plugin fails') })
  await app.register(taskqueue, { queues: { default: { type: () => store, consumer: { closeGraceMs: 0 } } } })
  const begun = gate()
  app.get('/', async ({ task }) => {
    begun.open()
    await once(task!.signal, 'abort')
    throw task!.signal.reason
  })
  await app.ready()
  const id = await app.taskqueue.add('/')
  await begun.opened
  await t.rejects(app.close(), { message: 'the other plugin fails' })
  t.match((await store.turn('default', { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })).leases, [{ id, retries: 0, deaths: 0 }])
})

for (const [type, makeStore] of Object.entries(stores)) {
  t.test(`${type} queue: a closing app waits for the tasks that run, and claims no more`, async t => {
    const store = makeStore()
    const { app, add, log, closing } = await appOn(t, store, { concurrency: 2, leaseMs: 500 })
    const runs: string[] = []
    const gates = [gate(), gate()]
    app.get('/:index', async request => {
      const { index } = request.params as { index: string }
      runs.push(index)
      await gates[Number(index)]!.opened
      return {}
    })
    await app.ready()
    for (const url of ['/0', '/1', '/2', '/3']) await add(url)
    await until(() => runs.length === 2)

    let isClosed = false
    const closed = app.close().then(() => { isClosed = true })
    await closing
    gates[0]!.open()
    await until(() => log.some(({ msg, url }) => msg === 'task done' && url === '/0'))
    await addTo(store, [{ queue: 'default', id: 'late', message: '{"v":1,"method":"GET","url":"/4","headers":{}}' }])
    await until(async () => (await store.counts(['default']))[0]!.running === 1)
    t.equal(isClosed, false)
    gates[1]!.open()
    await closed
    t.strictSame(runs, ['0', '1'])
    t.strictSame(log.filter(({ msg }) => msg === 'task done').map(({ url }) => url), ['/0', '/1'])
    t.match((await store.counts(['default']))[0], { waiting: 3, delayed: 0, running: 0, dead: 0 })
  })

  t.test(`${type} queue: after the grace a closing app gives its tasks back, at once and first in line, at no cost`, async t => {
    const store = makeStore()
    const { app, add, log } = await appOn(t, store, { concurrency: 2, closeGraceMs: 200, leaseMs: 600_000 })
    const aborted: string[] = []
    let running = 0
    app.get('/hang', async request => {
      running++
      const { signal } = request.task!
      signal.addEventListener('abort', () => { aborted.push(signal.reason.message) })
      await new Promise(() => {})
    })
    await app.ready()
    const ids = [await add('/hang'), await add('/hang'), await add('/other')]
    await until(() => running === 2)
    const start = performance.now()
    await app.close()
    const tookMs = performance.now() - start
    t.ok(tookMs >= 198 && tookMs < 5000, `${tookMs} ms`)
    t.strictSame(aborted, ['the app closes', 'the app closes'])
    t.match((await store.counts(['default']))[0], { waiting: 3, delayed: 0, running: 0, dead: 0 })
    const { leases } = await store.turn('default', { settlements: [], heartbeatMs: 200, claim: { limit: 3, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })
    t.match(leases, [
      { id: ids[0], attempt: 2, retries: 0, deaths: 0 }, { id: ids[1], attempt: 2, retries: 0, deaths: 0 }, { id: ids[2], attempt: 1, retries: 0, deaths: 0 }
    ])
    t.match(log.filter(({ msg }) => msg.includes('given back')), ids.slice(0, 2).map(taskId => ({ taskId, queue: 'default' })))
  })

  t.test(`${type} queue: a closing app gives back what a claim on its way still brings`, async t => {
    const store = makeStore()
    const claimed = gate()
    const answer = gate()
    const slow = new Proxy(store, {
      get (store, name: keyof Store) {
        if (name !== 'turn') return store[name].bind(store)
        return async (queue: string, { claim, ...rest }: Turn) => {
          // It waits for nothing, so that it has to claim.
          const result = await store.turn(queue, { ...rest, claim: claim && { ...claim, waits: false } })
          if (result.leases.length > 0) {
            claimed.open()
            await answer.opened
          }
          return result
        }
      }
    })
    const { app, add, closing } = await appOn(t, slow)
    let runs = 0
    app.get('/', async () => { runs++ })
    await app.ready()
    const id = await add('/')
    await claimed.opened
    const closed = app.close()
    await closing
    answer.open()
    await closed
    t.equal(runs, 0)
    t.match((await store.turn('default', { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })).leases, [{ id, attempt: 2, retries: 0, deaths: 0 }])
  })

  t.test(`${type} queue: the grace is shorter than what Fastify allows a plugin to close`, async t => {
    const store = makeStore()
    const { app, add } = await appOn(t, store, { closeGraceMs: 60_000 }, 'default', { pluginTimeout: 1500 })
    let running = false
    app.get('/', async () => {
      running = true
      await new Promise(() => {})
    })
    await app.ready()
    await add('/')
    await until(() => running)
    await app.close()
    t.match((await store.counts(['default']))[0], { waiting: 1, running: 0 })
  })

  t.test(`${type} queue: a request that is under way while the app closes still adds its tasks`, async t => {
    const store = makeStore()
    const { app, closing } = await appOn(t, store, { leaseMs: 500 })
    const arrived = gate()
    const { opened, open } = gate()
    app.get('/', async request => {
      arrived.open()
      await opened
      return { id: request.taskqueue.add('/task') }
    })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    // On a connection of its own, which would otherwise be kept alive and the server open.
    const answer = once(get(address, { agent: false }), 'response')
    await arrived.opened
    const closed = app.close()
    await closing
    open()
    const [response] = await answer as [IncomingMessage]
    t.equal(response.statusCode, 200)
    const { id } = JSON.parse(String(await response.toArray()))
    await closed
    t.match((await store.turn('default', { settlements: [], heartbeatMs: 200, claim: { limit: 9, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })).leases, [{ id, attempt: 1 }])
  })
}

for (const [type, makeStores] of Object.entries(storesTwice)) {
  t.test(`${type} queue: a commit that is under way while the app closes is waited for, and what it tells is stored`, async t => {
    for (const id of [undefined, 'mine']) {
      for (const microtasks of [0, 1, 2, 3, 5, 10]) {
        const [store, seen] = makeStores()
        await seen.open()
        const { app, add } = await appOn(t, store)
        await app.ready()
        const adding = add('/', { id, delayMs: 60_000 })
        for (let i = 0; i < microtasks; i++) await null
        await app.close()
        await adding
        t.match((await seen.counts(['default']))[0], { delayed: 1 }, `after ${microtasks} microtasks`)
      }
    }
  })

  t.test(`${type} queue: a database transaction that commits while the app closes has its task stored`, async t => {
    const [store, seen] = makeStores()
    await seen.open()
    const { app, closing } = await appOn(t, store)
    await app.ready()
    const committing = gate()
    const committed = gate()
    const done = app.taskqueue.transaction(tx => {
      tx.add('/', { delayMs: 60_000 })
      tx.join({
        async commit () {
          committing.open()
          await committed.opened
        },
        rollback () {}
      })
    })
    await committing.opened
    let isClosed = false
    const closed = app.close().then(() => { isClosed = true })
    await closing
    await new Promise(setImmediate)
    t.equal(isClosed, false)
    committed.open()
    await done
    await closed
    t.match((await seen.counts(['default']))[0], { delayed: 1 })
  })

  t.test(`${type} queue: once the app has closed nothing is added, and its participants are rolled back`, async t => {
    const [store, seen] = makeStores()
    await seen.open()
    const { app, add } = await appOn(t, store)
    const requests: Array<Gate> = []
    app.get('/add', async request => {
      const { opened, open } = gate()
      requests.push({ opened, open })
      await opened
      request.taskqueue.add('/')
      return 'ok'
    })
    await app.ready()
    const injected = app.inject('/add')
    await until(() => requests.length === 1)
    const transacting = gate()
    const events: string[] = []
    const transaction = app.taskqueue.transaction(async tx => {
      tx.add('/')
      tx.join({ prepare () { events.push('prepared') }, commit () { events.push('committed') }, rollback () { events.push('rolled back') } })
      await transacting.opened
    })
    await app.close()
    const refusal = { code: 'FST_TASKQUEUE_COMMIT_FAILED', statusCode: 503, cause: { message: 'the app has closed' } }
    await t.rejects(add('/'), refusal)
    await t.rejects(app.taskqueue.addAll([{ url: '/' }]), refusal)
    transacting.open()
    await t.rejects(transaction, refusal)
    t.strictSame(events, ['rolled back'])
    requests[0]!.open()
    t.match(await injected, { statusCode: 503 })
    t.match((await seen.counts(['default']))[0], { waiting: 0, delayed: 0 })
  })

  t.test(`${type} queue: what other plugins add as the app closes is stored, up to the end of the plugin itself`, async t => {
    const [store, seen] = makeStores()
    await seen.open()
    const app = Fastify()
    const said: Record<string, string> = {}
    const add = async (hook: string) => {
      said[hook] = await app.taskqueue.add('/', { delayMs: 60_000 }).then(() => 'stored', error => error.cause.message)
    }
    // Hooks of plugins that were registered earlier are called later.
    app.addHook('onClose', () => add('onClose, registered before'))
    app.addHook('preClose', () => add('preClose, registered before'))
    await app.register(taskqueue, { queues: { default: { type: () => store } } })
    app.addHook('preClose', () => add('preClose, registered after'))
    app.addHook('onClose', () => add('onClose, registered after'))
    await app.ready()
    await app.close()
    t.strictSame(said, {
      'preClose, registered before': 'stored',
      'preClose, registered after': 'stored',
      'onClose, registered after': 'stored',
      'onClose, registered before': 'the app has closed'
    })
    t.match((await seen.counts(['default']))[0], { delayed: 3 })
  })

  t.test(`${type} queue: a reply that is hijacked while the app closes commits by hand`, async t => {
    const [store, seen] = makeStores()
    await seen.open()
    const { app, closing } = await appOn(t, store)
    const arrived = gate()
    const { opened, open } = gate()
    app.get('/', async (request, reply) => {
      reply.hijack()
      arrived.open()
      await opened
      request.taskqueue.add('/', { delayMs: 60_000 })
      await request.taskqueue.commit()
      reply.raw.end('ok')
    })
    const address = await app.listen({ port: 0, host: '127.0.0.1' })
    const answer = once(get(address, { agent: false }), 'response')
    await arrived.opened
    const closed = app.close()
    await closing
    open()
    const [response] = await answer as [IncomingMessage]
    response.resume()
    await closed
    t.match((await seen.counts(['default']))[0], { delayed: 1 })
  })
}

t.test('a closing app waits until a store that is late has been told what becomes of a commit', async t => {
  const events: string[] = []
  const preparing = gate()
  class LateStore extends LocalStore {
    override async prepare (...args: Parameters<LocalStore['prepare']>) {
      const prepared = await super.prepare(...args)
      await preparing.opened
      return { ...prepared, rollback () { events.push('rolled back') } }
    }

    override async close (): Promise<void> { events.push('closed') }
  }
  const { app } = await loggedApp(t, { queues: { default: { type: () => new LateStore() } }, commitTimeoutMs: 50 })
  await app.ready()
  await t.rejects(app.taskqueue.add('/'), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
  const closed = app.close()
  await new Promise(setImmediate)
  t.strictSame(events, [])
  preparing.open()
  await closed
  t.strictSame(events, ['rolled back', 'closed'])
})

t.test('what an app adds before it is ready is stored, or rejected, although it closes meanwhile', async t => {
  const adds = async (app: FastifyInstance) => {
    const adding = app.taskqueue.add('/', { id: 'mine', delayMs: 60_000 }).then(() => true, () => false)
    await app.close()
    return await adding
  }
  const prefix = randomUUID()
  const { app } = await loggedApp(t, { redis: { path: redis.path }, prefix })
  const wasAdded = await adds(app)
  const client = new Redis(redis.path)
  t.teardown(() => { client.disconnect() })
  t.equal(await client.zcard(`${prefix}:{default}:delayed`), wasAdded ? 1 : 0)
  t.strictSame((await client.keys(`${prefix}:*`)).filter(key => /:(?:prepared|reserved)$/.test(key)), [])

  const { app: local } = await loggedApp(t, {})
  t.equal(await adds(local), true)
  const { app: failing } = await loggedApp(t, { redis: { path: `${redis.path}-not` }, commitTimeoutMs: 200 })
  t.equal(await adds(failing), false)
})

for (const script of ['commitNew', 'rollback'] as const) {
  t.test(`a closing app tells a Redis that is away for a while what becomes of its commits: ${script}`, async t => {
    const redis = await startRedis(t, { args: ['--appendonly', 'yes', '--appendfsync', 'always'] })
    const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false, commitTimeoutMs: 3000 })
    await app.ready()
    const transaction = app.taskqueue.transaction(tx => {
      tx.add('/', { delayMs: 60_000 })
      tx.join({
        // Between the phases, when there is no way back for the tasks.
        async commit () {
          await redis.stop()
          if (script === 'rollback') throw new Error('no')
        },
        rollback () {}
      })
    })
    await transaction.catch(() => {})
    const closed = app.close()
    // Its connection is lost by then, and its first attempts to be heard.
    await sleep(300)
    await redis.start()
    await closed
    const client = new Redis(redis.path)
    t.teardown(() => { client.disconnect() })
    t.equal(await client.zcard('taskqueue:{default}:delayed'), script === 'commitNew' ? 1 : 0)
    t.strictSame((await client.hvals('taskqueue:{default}:prepared')).filter(value => !/^\d+ $/.test(value)), [])
  })
}

t.test('tasks of a local queue that are lost with the app are logged', async t => {
  const { app, log } = await loggedApp(t, { queues: { empty: {}, mail: {} }, consumer: false })
  await app.ready()
  await app.taskqueue.transaction(tx => { for (const delayMs of [0, 0, 60_000]) tx.add('/', { queue: 'mail', delayMs }) })
  await app.close()
  t.match(log.filter(({ msg }) => msg.includes('lost with its process')), [{ level: 40, queue: 'mail', waiting: 2, delayed: 1 }])
  t.equal(log.filter(({ queue }) => queue === 'empty').length, 0)
})

t.test('an app closes before it is ready', async t => {
  for (const options of [{}, { redis: { path: redis.path } }, { redis: { path: `${redis.path}-not` } }]) {
    const { app } = await loggedApp(t, options)
    t.ok(await inTime(() => app.close()) < 5000)
  }
})

t.test('an app whose start failed closes, and lets go of its connections', async t => {
  const { port } = await startRedis(t, { tcp: true, args: ['--requirepass', 'secret'] })
  const { app } = await loggedApp(t, { redis: `redis://127.0.0.1:${port}` })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_TASKQUEUE_UNREACHABLE' })
  t.ok(await inTime(() => app.close()) < 5000)
})

for (const trouble of ['gone', 'frozen'] as const) {
  t.test(`an app whose Redis is ${trouble} closes, and says which tasks will run again`, async t => {
    const redis = await startRedis(t)
    const { app, log } = await loggedApp(t, { redis: { path: redis.path }, consumer: { concurrency: 2, closeGraceMs: 100 } })
    let running = 0
    app.get('/', async () => {
      running++
      await new Promise(() => {})
    })
    await app.ready()
    const ids = [await app.taskqueue.add('/'), await app.taskqueue.add('/')]
    await until(() => running === 2)
    if (trouble === 'gone') await redis.stop()
    else redis.freeze()
    t.ok(await inTime(() => app.close()) < 5000)
    t.match(log.filter(({ msg }) => msg.includes('could not be settled')), [{ level: 40, taskIds: ids }])
  })
}

t.test('SIGTERM of Redis during the grace does not keep the app from closing', async t => {
  const redis = await startRedis(t)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: { closeGraceMs: 300, leaseMs: 500 } })
  const { opened, open } = gate()
  const running = gate()
  app.get('/', async () => {
    running.open()
    await opened
    return {}
  })
  await app.ready()
  await app.taskqueue.add('/')
  await running.opened
  const closing = inTime(() => app.close())
  await redis.stop('SIGTERM')
  open()
  t.ok(await closing < 5000)
})

/** Returns how many milliseconds it took; rejects when it was too many. */
async function inTime (close: () => PromiseLike<unknown>): Promise<number> {
  const start = performance.now()
  const timer = AbortSignal.timeout(15_000)
  await Promise.race([close(), once(timer, 'abort').then(() => { throw new Error('it did not close within 15 s') })])
  return performance.now() - start
}
