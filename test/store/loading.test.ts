import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import { loggedApp } from '../support/logged-app.js'

import { startRedis, type RedisServer } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

t.test('an app is ready soon after a Redis that said it would load its data for a minute', async t => {
  const gateway = await startGateway(t, await startRedis(t))
  gateway.looks = 2
  const { app } = await loggedApp(t, { redis: { port: gateway.port }, consumer: { leaseMs: 60_000 } })
  // ioredis by itself looks again after ten seconds, when Fastify's patience is over.
  await app.ready()
  t.equal(gateway.looks, 0, 'it has looked twice')

  for (let i = 0; i < 3; i++) {
    gateway.looks = 2
    gateway.cut()
    await until(async () => await app.taskqueue.add('/', { delayMs: 60_000 }).then(() => true, () => false), 'adding', 5000)
  }
})

t.test('an app begins on a Redis that takes longer to load its data than a commit may', async t => {
  const gateway = await startGateway(t, await startRedis(t))
  gateway.looks = 5
  const { app } = await loggedApp(t, { redis: { port: gateway.port }, commitTimeoutMs: 300 })
  await app.ready()
  t.equal(gateway.looks, 0)
})

t.test('where an owner\'s client waits for a Redis that has loaded its data, another connection does not', async t => {
  const gateway = await startGateway(t, await startRedis(t))
  const client = new Redis({ port: gateway.port })
  client.on('error', () => {})
  t.teardown(() => { client.disconnect() })
  const { app } = await loggedApp(t, { redis: client, consumer: false })
  await app.ready()
  // One for the owner's client, which looks again after ten seconds.
  gateway.looks = 6
  gateway.cut()
  await until(() => client.status === 'connect')
  await until(async () => await app.taskqueue.add('/', { delayMs: 60_000 }).then(() => true, () => false), 'adding', 5000)
  t.equal(client.status, 'connect')
})

for (const leaseMs of [200, 500]) {
  t.test(`a Redis that loads its data takes no task from consumers whose leases are ${leaseMs} ms`, async t => {
    const redis = await startRedis(t, { args: ['--loading-process-events-interval-bytes', '1024'] })
    const admin = new Redis(redis.path)
    admin.on('error', () => {})
    t.teardown(() => { admin.disconnect() })
    for (let i = 0; i < 10; i++) await admin.mset(Object.fromEntries(Array.from({ length: 100 }, (_, j) => [`${i} ${j}`, 'x'.repeat(100)])))
    const attempts: string[] = []
    const { opened, open } = gate()
    const apps = await Promise.all([1, 2].map(async () => {
      const { app, log } = await loggedApp(t, { redis: { path: redis.path }, consumer: { leaseMs, concurrency: 3 } })
      app.get('/', async request => {
        attempts.push(`${request.task!.id} ${request.task!.attempt}`)
        await opened
        return 'ok'
      })
      await app.ready()
      return { app, log }
    }))
    const [{ app }] = apps as [typeof apps[0]]
    const ids = Array.from({ length: 6 }, (_, index) => `task${index}`)
    await app.taskqueue.addAll(ids.map(id => ({ url: '/', id })))
    await until(() => attempts.length === 6)
    await admin.save()
    await redis.stop()
    await redis.start(['--key-load-delay', '1000'])
    // Some leases, in which what has been lost would begin again.
    await sleep(5 * leaseMs)
    open()
    for (const id of ids) t.match(await app.taskqueue.wait(id), { state: 'done' })
    t.strictSame(attempts.sort(), ids.map(id => `${id} 1`))
    t.strictSame(apps.flatMap(({ log }) => log.filter(({ msg }) => /lost its lease/.test(msg))), [])
  })
}

interface Gateway {
  readonly port: number
  /** To how many looks at how Redis is it is said that it loads its data, for a minute. */
  looks: number
  cut (): void
}

/** Stands before a Redis and says that it loads its data. */
async function startGateway (t: Test, { path }: RedisServer): Promise<Gateway> {
  const sockets = new Set<Socket>()
  const server = createServer(socket => {
    const upstream = connect(path)
    for (const one of [socket, upstream]) {
      sockets.add(one)
      one.on('error', () => {}).on('close', () => {
        sockets.delete(one)
        socket.destroy()
        upstream.destroy()
      })
    }
    upstream.pipe(socket)
    socket.on('data', chunk => {
      if (!/^\*1\r\n\$4\r\ninfo\r\n$/.test(chunk.toString('latin1')) || gateway.looks === 0) {
        upstream.write(chunk)
        return
      }
      gateway.looks--
      const info = 'loading:1\r\nloading_eta_seconds:60\r\n'
      socket.write(`$${info.length}\r\n${info}\r\n`)
    })
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  const gateway: Gateway = {
    port: (server.address() as AddressInfo).port,
    looks: 0,
    cut () { for (const socket of sockets) socket.destroy() }
  }
  t.teardown(() => {
    gateway.cut()
    server.close()
  })
  return gateway
}
