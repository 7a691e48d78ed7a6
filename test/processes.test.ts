import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import type { ConsumerOptions, Queue } from '../lib/index.js'
import type { Command, Report } from './fixtures/app.js'
import { loggedApp } from './logged-app.js'
import { startRedis, type RedisServer } from './redis-server.js'
import { until } from './until.js'

const NOTHING = { waiting: 0, delayed: 0, running: 0, dead: 0 }
const LEASE_MS = 1000
const HEARTBEAT_MS = LEASE_MS / 5
const SLACK_MS = 2000

// Processes take their time to start.
t.setTimeout(60_000)

t.test('two consumers share a queue fairly, and each task runs once; a process that only adds runs none', async t => {
  const { start, counts } = await startAll(t)
  const [adder, one, other] = await Promise.all([start(false), start({ concurrency: 5 }), start({ concurrency: 5 })])
  adder.send({ add: Array.from({ length: 1000 }, () => '/task?ms=1') })
  await until(() => one.ended.length + other.ended.length >= 1000)
  await until(async () => (await counts()).running === 0)
  t.same(await counts(), NOTHING)
  const ids = [...one.ended, ...other.ended].map(({ id }) => id)
  t.equal(ids.length, 1000)
  t.strictSame(new Set(ids), new Set(adder.reports.filter(({ event }) => event === 'added').map(report => 'id' in report ? report.id : undefined)))
  t.equal(adder.begun.length, 0)
  t.ok(Math.min(one.ended.length, other.ended.length) >= 300, `${one.ended.length} and ${other.ended.length} tasks`)
})

t.test('a worker that never listens stays alive and runs what is added later', async t => {
  const { add, start } = await startAll(t)
  const worker = await start({})
  await sleep(3 * HEARTBEAT_MS)
  t.equal(worker.child.exitCode, null)
  await add(['/task'])
  await until(() => worker.ended.length === 1)
  t.equal(worker.child.exitCode, null)
})

t.test('the tasks of a consumer that is killed run again elsewhere, one at a time, from within a lease and two heartbeats', async t => {
  const { add, start, counts } = await startAll(t)
  const victim = await start({ concurrency: 3 })
  await add(['/task?ms=60000', '/task?ms=60000', '/task?ms=60000', '/task'])
  await until(() => victim.begun.length === 3)
  const heir = await start({ concurrency: 4 })
  await until(() => heir.ended.length === 1)
  const killedAt = Date.now()
  victim.child.kill('SIGKILL')
  await until(() => heir.begun.length === 2)
  t.match(heir.begun[1], { id: victim.begun[0]!.id, attempt: 2 })
  const ms = heir.begun[1]!.at - killedAt
  t.ok(ms <= LEASE_MS + 2 * HEARTBEAT_MS + SLACK_MS, `${ms} ms`)
  t.same(await counts(), { ...NOTHING, waiting: 2, running: 1 })
  const others = await Promise.all([start({ concurrency: 4 }), start({ concurrency: 4 })])
  await until(() => others.every(({ begun }) => begun.length === 1))
  t.strictSame(others.flatMap(({ begun }) => begun).map(({ id }) => id).sort(), victim.begun.slice(1).map(({ id }) => id).sort())
})

t.test('a task that kills its process is dead after three deaths of its own, and what ran beside it is done', async t => {
  const { add, start, counts } = await startAll(t)
  const consumers = await Promise.all(Array.from({ length: 5 }, () => start({ concurrency: 5 })))
  const [poison] = await add(['/task?die=200', '/task?ms=400', '/task?ms=400', '/task?ms=400', '/task?ms=400'])
  await until(async () => {
    const { waiting, running } = await counts()
    return waiting + running === 0
  })
  t.same(await counts(), { ...NOTHING, dead: 1 })
  const runs = consumers.flatMap(({ begun }) => begun).filter(({ id }) => id === poison)
  t.equal(runs.length, 4, 'one beside others, and three alone')
  t.equal(consumers.filter(({ child }) => child.signalCode === 'SIGKILL').length, 4)
})

t.test('while Redis is frozen for several leases no consumer loses its tasks', async t => {
  const { redis, add, start, counts } = await startAll(t)
  const consumers = await Promise.all([start({ concurrency: 5 }), start({ concurrency: 5 })])
  await add(Array.from({ length: 8 }, () => '/task?ms=5000'))
  await until(() => consumers.flatMap(({ begun }) => begun).length === 8)
  redis.freeze()
  await sleep(3 * LEASE_MS)
  redis.thaw()
  await until(() => consumers.flatMap(({ ended }) => ended).length === 8)
  await until(async () => (await counts()).running === 0)
  t.same(await counts(), NOTHING)
  t.strictSame(consumers.flatMap(({ begun }) => begun).map(({ attempt }) => attempt), Array(8).fill(1))
})

t.test('a consumer that was frozen itself loses its task to another, and cannot settle it', async t => {
  const { add, start, counts } = await startAll(t)
  const sleeper = await start({})
  await add(['/task?ms=60000&then=100'])
  await until(() => sleeper.begun.length === 1)
  const heir = await start({})
  sleeper.child.kill('SIGSTOP')
  await until(async () => heir.ended.length === 1 && (await counts()).running === 0)
  sleeper.child.kill('SIGCONT')
  await until(() => sleeper.reports.some(({ event }) => event === 'aborts'), 'the signal')
  // What it has to say of its attempt it has said when it takes the next task.
  heir.child.kill('SIGSTOP')
  await add(['/task'])
  await until(() => sleeper.ended.length === 1)
  await until(async () => (await counts()).running === 0)
  t.match(heir.begun, [{ attempt: 2 }])
  t.same(await counts(), NOTHING)
})

t.test('SIGTERM, handled by closing the app, gives the tasks back at once', async t => {
  const { add, start } = await startAll(t)
  const leaver = await start({ closeGraceMs: 100, leaseMs: 600_000 })
  await add(['/task?ms=5000'])
  await until(() => leaver.begun.length === 1)
  const heir = await start({ leaseMs: 600_000 })
  const exit = once(leaver.child, 'exit')
  leaver.child.kill('SIGTERM')
  await until(() => heir.begun.length === 1)
  await until(() => leaver.reports.some(({ event }) => event === 'closed'))
  t.match(heir.begun, [{ id: leaver.begun[0]!.id, attempt: 2 }])
  t.same(leaver.ended, [])
  leaver.child.disconnect()
  t.strictSame(await exit, [0, null])
})

interface Process {
  child: ChildProcess
  reports: Report[]
  /** What it reported of the beginnings and ends of attempts. */
  readonly begun: Array<Extract<Report, { id: string }>>
  readonly ended: Array<Extract<Report, { id: string }>>
  send (command: Command): void
}

interface Processes {
  redis: RedisServer
  /** Starts a process that is a consumer with these options, or only adds. */
  start (consumer: ConsumerOptions | false): Promise<Process>
  /** Adds tasks from this process, which runs none. */
  add (urls: string[]): Promise<string[]>
  counts: Queue['counts']
}

async function startAll (t: Test): Promise<Processes> {
  const redis = await startRedis(t)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false })
  await app.ready()
  return {
    redis,
    add: urls => app.taskqueue.transaction(tx => urls.map(url => tx.add(url))),
    counts: () => app.taskqueue.queue('default').counts(),
    async start (consumer) {
      const options = { redis: { path: redis.path }, consumer: consumer && { leaseMs: LEASE_MS, ...consumer } }
      const child = fork(fileURLToPath(new URL('fixtures/app.js', import.meta.url)), [JSON.stringify(options)])
      t.teardown(() => {
        // One that is stopped hears of nothing else.
        if (child.exitCode === null && child.signalCode === null) child.kill('SIGKILL')
      })
      const reports: Report[] = []
      const of = (event: string) => reports.filter(report => report.event === event) as Process['begun']
      child.on('message', (report: Report) => { reports.push(report) })
      await Promise.race([
        until(() => reports.length > 0, 'start', 60_000),
        once(child, 'exit').then(([code, signal]) => { if (reports.length === 0) throw new Error(`it exited with ${code ?? signal}`) })
      ])
      return {
        child,
        reports,
        get begun () { return of('begins') },
        get ended () { return of('ends') },
        send (command) { child.send(command) }
      }
    }
  }
}
