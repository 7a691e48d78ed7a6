import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { RedisStore } from '../../lib/store/redis/store.js'
import { addTo } from '../support/add-to.js'
import { loggedApp } from '../support/logged-app.js'

import { freePort, startRedis, type RedisServer } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

/** Each in a slot of another node. */
const QUEUES = ['a', 'b', 'c']

t.test('in a cluster', async t => {
  const nodes = await startCluster(t)
  const clusterOf = (t: Test, options = {}) => {
    const cluster = new Cluster(nodes.map(({ port }) => ({ host: '127.0.0.1', port })), options)
    cluster.on('error', () => {})
    t.teardown(() => { cluster.disconnect() })
    return cluster
  }

  await t.test('tasks of several queues are added, run and chained from one queue to another', async t => {
    const redis = clusterOf(t)
    const { app, log } = await loggedApp(t, { redis, queues: Object.fromEntries(QUEUES.map(name => [name, {}])), consumer: { leaseMs: 600_000 } })
    const runs: string[] = []
    app.get('/first', async request => {
      runs.push(`first in ${request.task!.queue}`)
      for (const queue of QUEUES) request.taskqueue.add('/second', { queue, headers: { 'x-from': request.task!.queue } })
      return {}
    })
    app.get('/second', async request => {
      runs.push(`${request.headers['x-from'] as string} to ${request.task!.queue}`)
      return {}
    })
    app.post('/', async request => QUEUES.map(queue => request.taskqueue.add('/first', { method: 'GET', queue })))
    await app.ready()
    const slots = await Promise.all(QUEUES.map(async name => await redis.cluster('KEYSLOT', `taskqueue:{${name}}:waiting`) as number))
    t.equal(new Set(slots.map(slot => Math.floor(slot / SLOTS_OF_NODE))).size, 3, 'the queues lie on three nodes')

    t.equal((await app.inject({ method: 'POST', url: '/' })).statusCode, 200)
    await until(() => runs.length === 12)
    t.strictSame(runs.sort(), [
      ...QUEUES.flatMap(from => QUEUES.map(to => `${from} to ${to}`)), ...QUEUES.map(queue => `first in ${queue}`)
    ])
    for (const queue of app.taskqueue.queues) await until(async () => JSON.stringify(await queue.counts()) === JSON.stringify(NOTHING))
    t.strictSame(log.filter(({ level }) => level > 30).map(({ msg }) => msg), ['the option secrets is not set: tasks are stored in clear, with the cookies and authorization headers that they copy, and anybody who can write to their store can make this app run requests as any user'])

    await app.close()
    t.equal(redis.status, 'ready', 'the cluster client stays open')
    t.equal(await redis.get('nothing'), null)
  })

  await t.test('a prefix of the client, and a heartbeat over several nodes', async t => {
    const store = new RedisStore(clusterOf(t, { keyPrefix: 'mine:' }), 'prefix', 2000)
    await store.open()
    await addTo(store, QUEUES.flatMap(queue => ['1', '2'].map(id => ({ queue, id, message: queue }))))
    const holdings = []
    for (const queue of QUEUES) {
      const { leases } = await store.turn(queue, { settlements: [], heartbeatMs: 200, claim: { limit: 1, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 1000 } })
      t.match(leases, [{ id: '1', message: queue }])
      holdings.push({ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases: queue === 'b' ? [{ id: '1', fence: 7 }] : leases, heartbeatMs: 200, leaseMs: 1000 })
    }
    await store.turn('c', { settlements: [], heartbeatMs: 160, claim: { limit: 1, alone: false, leaseMs: 800 }, keep: { count: 0, ms: 1000 } })
    t.match(await store.extend(holdings), [{ lost: [], outlook: { wakeInMs: 0 } }, { lost: ['1'], outlook: { wakeInMs: 0 } }, { lost: [], outlook: { wakeInMs: Number } }])
    await store.close()
  })

  for (const how of ['quit', 'disconnect'] as const) {
    await t.test(`${how}: what was told as a success is stored though its owner closes the client, and what runs is settled`, async t => {
      const redis = clusterOf(t)
      const { app, log } = await loggedApp(t, {
        redis, prefix: how, queues: Object.fromEntries(QUEUES.map(name => [name, {}])), consumer: { leaseMs: 1000 }
      })
      const runs: string[] = []
      const { opened, open } = gate()
      app.get('/', async request => {
        runs.push(`${request.task!.queue} ${request.task!.attempt}`)
        await opened
        // Those of other nodes are added before their turn.
        for (const queue of QUEUES) request.taskqueue.add('/next', { queue, delayMs: 60_000 })
        return 'ok'
      })
      await app.ready()
      for (const queue of QUEUES) await app.taskqueue.add('/', { queue })
      await until(() => runs.length === 3)
      let told = 0
      const over = new AbortController()
      const adders = Array.from({ length: 12 }, async (_, index) => {
        while (!over.signal.aborted) {
          await app.taskqueue.add('/later', { queue: QUEUES[index % 3], delayMs: 60_000 }).then(() => { told++ }, () => {})
          await new Promise(setImmediate)
        }
      })
      await until(() => told > 100)
      await redis[how]()
      await t.rejects(app.taskqueue.add('/', { queue: 'a' }), { code: 'FST_TASKQUEUE_COMMIT_FAILED', cause: { message: /its client was closed by its owner/ } })
      // Longer than a lease.
      await sleep(1500)
      open()
      await app.close()
      over.abort()
      await Promise.all(adders)
      const seen = clusterOf(t)
      const counts = async (what: string) => await Promise.all(QUEUES.map(async queue => await seen.zcard(`${how}:{${queue}}:${what}`)))
      t.equal((await counts('delayed')).reduce((sum, count) => sum + count, 0), told + 9)
      t.strictSame(await counts('running'), [0, 0, 0])
      t.strictSame(runs.sort(), QUEUES.map(queue => `${queue} 1`))
      t.strictSame(log.filter(({ msg }) => /lease|again|cleanly/.test(msg) && !/answers/.test(msg)), [])
    })
  }

  await t.test('while a node is down the queues of the others go on, and no lease of theirs is lost; then all go on', async t => {
    const { app, log } = await loggedApp(t, {
      // By default a command for a node that is down fails after a second or more, and a heartbeat waits for it.
      redis: clusterOf(t, { maxRedirections: 3, redisOptions: { maxRetriesPerRequest: 0, enableOfflineQueue: false } }),
      queues: Object.fromEntries(QUEUES.map(name => [name, {}])),
      consumer: { leaseMs: 1000, concurrency: 2 },
      prefix: 'another'
    })
    const runs: string[] = []
    const { opened, open } = gate()
    app.get('/', async request => {
      runs.push(request.task!.queue)
      return {}
    })
    app.get('/long', async request => {
      runs.push(`long ${request.task!.attempt}`)
      await opened
      return {}
    })
    await app.ready()
    await app.taskqueue.add('/long', { queue: 'b' })
    await until(() => runs.length === 1)
    const slot = await adminOf(t, nodes[0]!).cluster('KEYSLOT', 'another:{a}:waiting') as number
    const owner = nodes[Math.floor(slot / SLOTS_OF_NODE)]!
    await owner.stop()

    await t.rejects(app.taskqueue.add('/', { queue: 'a' }), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
    await app.taskqueue.add('/', { queue: 'c' })
    await until(() => runs.includes('c'), 'another queue')
    // Each claim moves the lease clock on by a heartbeat at most.
    for (let count = 1; count <= 10; count++) {
      await app.taskqueue.add('/', { queue: 'b' })
      await until(() => runs.filter(run => run === 'b').length === count)
      await sleep(200)
    }
    open()
    await until(async () => (await app.taskqueue.queue('b').counts()).running === 0)
    t.strictSame(runs.filter(run => run.startsWith('long')), ['long 1'])
    t.same(log.filter(({ msg }) => msg.includes('lost its lease')), [])

    await owner.start()
    await until(() => app.taskqueue.add('/', { queue: 'a', id: 'again' }).then(() => true, () => false), 'adding')
    await until(() => runs.includes('a'), 'the queue of the node')
  })
})

const SLOTS_OF_NODE = Math.ceil(16384 / 3)

async function startCluster (t: Test): Promise<RedisServer[]> {
  const nodes: RedisServer[] = []
  for (let i = 0; i < 3; i++) {
    let port = await freePort()
    // The nodes talk to each other on a port that is higher by 10,000.
    while (port > 55_535) port = await freePort()
    const node = await startRedis(t, {
      args: ['--port', String(port), '--cluster-enabled', 'yes', '--cluster-node-timeout', '5000', '--cluster-require-full-coverage', 'no', '--cluster-allow-replica-migration', 'no']
    })
    nodes.push(Object.assign(Object.create(node) as RedisServer, { port }))
  }
  const admins = nodes.map(node => adminOf(t, node))
  for (const [index, admin] of admins.entries()) {
    const first = index * SLOTS_OF_NODE
    // Not ADDSLOTSRANGE, which is younger than 6.2.
    const slots = Array.from({ length: Math.min(SLOTS_OF_NODE, 16384 - first) }, (_, offset) => first + offset)
    await admin.cluster('ADDSLOTS', ...slots)
    await admin.call('CLUSTER', 'SET-CONFIG-EPOCH', index + 1)
  }
  for (const { port } of nodes.slice(1)) await admins[0]!.cluster('MEET', '127.0.0.1', port)
  for (const admin of admins) {
    await until(async () => /cluster_state:ok[^]*cluster_known_nodes:3\r[^]*cluster_size:3\r/.test(await admin.cluster('INFO')), 'cluster')
  }
  // A cluster that is up may still lack the links that carry what is published, Valkey 8 for longer than Redis.
  for (const node of nodes) {
    const subscriber = adminOf(t, node)
    const heard = new Set<string>()
    subscriber.on('message', (_channel, from: string) => heard.add(from))
    await subscriber.subscribe('linked')
    await until(async () => {
      for (const [from, admin] of admins.entries()) await admin.publish('linked', String(from))
      return heard.size === nodes.length
    }, 'what every node publishes')
    subscriber.disconnect()
  }
  return nodes
}

function adminOf (t: Test, { path }: RedisServer): Redis {
  const admin = new Redis({ path })
  admin.on('error', () => {})
  t.teardown(() => { admin.disconnect() })
  return admin
}
