import { randomBytes } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { TaskqueueOptions } from '../../lib/index.js'
import { scripts } from '../../lib/store/redis/scripts.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

t.setTimeout(300_000)

t.test('a process with a thousand queues has two connections, and sends nothing but one command a heartbeat when it is idle', async t => {
  const HEARTBEAT_MS = 500
  const warnings: Error[] = []
  const note = (warning: Error) => { warnings.push(warning) }
  process.on('warning', note)
  t.teardown(() => { process.off('warning', note) })
  const { path } = await startRedis(t)
  const admin = adminOf(t, path)
  const names = Array.from({ length: 1000 }, (_, index) => `queue${index}`)
  const { app, runs } = await countingApp(t, {
    redis: { path }, queues: Object.fromEntries(names.map(name => [name, {}])), consumer: { leaseMs: HEARTBEAT_MS * 5 }, commitTimeoutMs: 10_000
  })
  await app.taskqueue.transaction(tx => { for (const queue of names) tx.add('/run', { queue }) })
  await until(() => runs.length === names.length)
  await until(async () => (await Promise.all(app.taskqueue.queues.map(queue => queue.counts()))).every(({ running }) => running === 0))
  t.equal((await admin.client('LIST') as string).trim().split('\n').length, 2 + 1, 'and that of the test')

  // A heartbeat that is under way as a task ends has its lease looked at once more.
  await sleep(6 * HEARTBEAT_MS)
  const start = performance.now()
  const before = await sentCommands(admin)
  await sleep(7 * HEARTBEAT_MS)
  const after = await sentCommands(admin)
  const beats = Math.ceil((performance.now() - start) / HEARTBEAT_MS)
  const sent = [...after].map(([name, calls]) => [name, calls - (before.get(name) ?? 0)] as const).filter(([, calls]) => calls > 0)
  t.strictSame(sent.map(([name]) => name), ['evalsha'])
  t.ok(sent[0]![1] >= 1 && sent[0]![1] <= beats + 1, `${sent[0]![1]} commands in ${beats} heartbeats`)
  t.strictSame(warnings, [])
  t.equal((await admin.client('LIST') as string).trim().split('\n').length, 2 + 1)
})

t.test('a hundred payloads of almost a mebibyte arrive byte for byte, added one by one and all at once, and leave nothing behind', async t => {
  const { path } = await startRedis(t)
  const admin = adminOf(t, path)
  const { app } = await loggedApp(t, { redis: { path }, consumer: { concurrency: 10 }, commitTimeoutMs: 30_000 }, { bodyLimit: 2 ** 20 })
  const payloads = Array.from({ length: 100 }, (_, index) => {
    // Bytes take more room in a message than text does.
    return index % 2 === 0 ? Buffer.alloc(2 ** 20 - 1000, `${index} `) : randomBytes(780_000)
  })
  const different: number[] = []
  let runs = 0
  app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) })
  app.post<{ Body: Buffer, Params: { index: string } }>('/:index', async ({ body, params: { index } }) => {
    runs++
    if (!body.equals(payloads[Number(index)]!)) different.push(Number(index))
    return {}
  })
  await app.ready()
  const headers = { 'content-type': 'application/octet-stream' }
  for (const [index, payload] of payloads.slice(0, 50).entries()) await app.taskqueue.add(`/${index}`, { payload, headers })
  await app.taskqueue.transaction(tx => {
    for (let index = 50; index < 100; index++) tx.add(`/${index}`, { payload: payloads[index]!, headers })
  })
  await until(() => runs === 100, 'all run', 60_000)
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
  t.same(await app.taskqueue.queue('default').counts(), NOTHING)
  t.strictSame(different, [])
  t.equal(runs, 100)
  t.equal(await admin.hlen('taskqueue:{default}:message'), 0)
})

t.test('of twenty-five consumers that one task wakes one runs it, fifty times, and the others ask once at most', async t => {
  const { path } = await startRedis(t)
  const admin = adminOf(t, path)
  // Their heartbeats come too late to ask for it.
  const options = { redis: { path }, consumer: { leaseMs: 600_000 } }
  const consumers = await Promise.all(Array.from({ length: 25 }, () => countingApp(t, options)))
  const [{ app }] = consumers as [typeof consumers[0]]
  const runs = () => consumers.flatMap(({ runs }) => runs)
  const before = (await sentCommands(admin)).get('evalsha')!
  for (let i = 1; i <= 50; i++) {
    await app.taskqueue.add('/run')
    await until(() => runs().length === i)
  }
  await until(async () => (await app.taskqueue.queue('default').counts()).running === 0)
  // Whoever has taken it for himself as well has done so before the next has run.
  await app.taskqueue.add('/run')
  await until(() => runs().length >= 51)
  t.equal(runs().length, 51)
  t.same(await app.taskqueue.queue('default').counts().then(({ waiting, delayed, dead }) => [waiting, delayed, dead]), [0, 0, 0])
  const each = ((await sentCommands(admin)).get('evalsha')! - before) / 51
  // Prepare, commit, the claim and the settlement of the one, and a claim in vain of each other; and now and then one more.
  t.ok(each <= 4 + 24 + 2, `${each} commands for each task`)
})

/** An app with a route that notes what is run. */
async function countingApp (t: Test, options: TaskqueueOptions) {
  const { app } = await loggedApp(t, options)
  const runs: string[] = []
  app.get('/run', async ({ task }) => {
    runs.push(task!.id)
    return {}
  })
  await app.ready()
  return { app, runs }
}

function adminOf (t: Test, path: string): Redis {
  const admin = new Redis({ path })
  t.teardown(() => { admin.disconnect() })
  return admin
}

const CALLED = new Set(Object.values(scripts).flatMap(({ body }) => [...body.matchAll(/redis\.p?call\('(\w+)'/g)].map(([, name]) => name!.toLowerCase())))

/** Returns how often Redis was sent each command: by a client, and not by a script, and not by the test itself. */
async function sentCommands (admin: Redis): Promise<Map<string, number>> {
  const stats = await admin.info('commandstats')
  const calls = [...stats.matchAll(/cmdstat_([^:]+):calls=(\d+)/g)].map(([, name, count]) => [name!, Number(count)] as const)
  return new Map(calls.filter(([name]) => !CALLED.has(name) && name !== 'info' && !name.startsWith('client')))
}
