import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { loggedApp } from '../support/logged-app.js'

import { HEARTBEAT_MS, LEASE_MS, SLACK_MS, startAll, type Processes } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

t.setTimeout(300_000)
// They wait most of the time.
t.jobs = 5

const TROUBLES: Array<[title: string, run: (processes: Processes) => Promise<void>]> = [
  ['frozen for three leases', async ({ redis }) => {
    redis.freeze()
    await sleep(3 * LEASE_MS)
    redis.thaw()
  }],
  ['paused for two leases', async ({ admin }) => {
    await admin.call('CLIENT', 'PAUSE', String(2 * LEASE_MS), 'ALL')
    await admin.ping()
  }]
]

for (const [title, run] of TROUBLES) {
  t.test(`while Redis is ${title}, three times, no consumer loses one of twenty tasks, and none begins twice`, { buffered: true }, async t => {
    const processes = await startAll(t)
    const { start, add, counts } = processes
    // Each could take all the tasks over.
    const consumers = await Promise.all([start({ concurrency: 20 }), start({ concurrency: 20 })])
    const ids = await add(Array.from({ length: 20 }, () => '/task?hold=1'))
    const begun = () => consumers.flatMap(({ begun }) => begun)
    await until(() => begun().length === 20)
    for (let i = 0; i < 3; i++) {
      // At another time between two heartbeats.
      await sleep(i * HEARTBEAT_MS / 3)
      await run(processes)
      // A task that is added now runs, and beside it whatever has been lost.
      const [id] = await add(['/task'])
      await until(() => begun().some(attempt => attempt.id === id))
    }
    for (const consumer of consumers) consumer.send({ open: true })
    await until(async () => (await counts()).running === 0)
    t.same(await counts(), NOTHING)
    t.strictSame(begun().filter(({ id, attempt }) => ids.includes(id) && attempt > 1), [])
    t.equal(begun().length, 23)
    t.strictSame(consumers.flatMap(({ aborted }) => aborted), [])
  })
}

t.test('a consumer that dies while Redis is frozen loses its tasks within a lease and two heartbeats of contact, and no other does', { buffered: true }, async t => {
  const { redis, start, add, counts, drained } = await startAll(t)
  const victim = await start({ concurrency: 5 })
  const lost = await add(Array.from({ length: 5 }, () => '/task?hold=1'))
  await until(() => victim.begun.length === 5)
  const other = await start({ concurrency: 5 })
  const [kept] = await add(['/task?hold=1'])
  await until(() => other.begun.length === 1)
  redis.freeze()
  await victim.end('SIGKILL')
  await sleep(2 * LEASE_MS)
  const thawedAt = Date.now()
  redis.thaw()
  // Suspects run alone: first the task that runs here has to end.
  other.send({ open: true })
  await until(() => other.ended.length === 6)
  const again = other.begun.filter(({ id }) => lost.includes(id))
  t.strictSame(again.map(({ attempt }) => attempt), [2, 2, 2, 2, 2])
  const lateMs = Math.max(...again.map(({ at }) => at)) - thawedAt
  t.ok(lateMs <= LEASE_MS + 2 * HEARTBEAT_MS + SLACK_MS, `${lateMs} ms`)
  t.match(other.ended[0], { id: kept, attempt: 1 })
  await drained()
  t.same(await counts(), NOTHING)
})

for (const [title, halt] of [['frozen', freeze], ['paused', pause]] as const) {
  t.test(`while Redis is ${title} a reply waits no longer than the commit timeout, and its tasks never run`, { buffered: true }, async t => {
    const processes = await startAll(t)
    const { app } = await loggedApp(t, { redis: { path: processes.redis.path } })
    const runs: string[] = []
    app.get<{ Params: { name: string } }>('/task/:name', async ({ params: { name } }) => {
      runs.push(name)
      return {}
    })
    app.post<{ Params: { name: string } }>('/add/:name', async ({ params: { name }, taskqueue }) => ({
      id: taskqueue.add(`/task/${name}`)
    }))
    await app.ready()
    const add = async (name: string) => await app.inject({ method: 'POST', url: `/add/${name}` })
    await until(async () => (await add('before')).statusCode === 200)
    await until(() => runs.includes('before'))
    const resume = await halt(processes)
    const start = performance.now()
    const replies = await Promise.all(Array.from({ length: 50 }, () => add('meanwhile')))
    const tookMs = performance.now() - start
    t.ok(tookMs <= 2000 + SLACK_MS, `${tookMs} ms`)
    t.strictSame(replies.filter(({ statusCode, body }) => statusCode !== 503 || !body.includes('FST_TASKQUEUE_COMMIT_FAILED')), [])
    await resume()
    await until(async () => (await add('after')).statusCode === 200)
    await until(() => runs.includes('after'))
    await until(async () => (await processes.counts()).running === 0)
    t.strictSame(runs.filter(name => name === 'meanwhile'), [])
    t.same(await processes.counts(), NOTHING)
  })
}

async function freeze ({ redis }: Processes): Promise<() => Promise<void>> {
  redis.freeze()
  return async () => { redis.thaw() }
}

async function pause ({ admin }: Processes): Promise<() => Promise<void>> {
  // Nothing ends it earlier, since CLIENT UNPAUSE would wait as well.
  await admin.call('CLIENT', 'PAUSE', '8000', 'ALL')
  return async () => { await admin.ping() }
}
