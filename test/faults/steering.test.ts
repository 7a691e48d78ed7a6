import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { HEARTBEAT_MS, idsOf, LEASE_MS, repeat, settlements, startAll, type Process } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// What is known of tasks, and done to them from outside, must not be torn when a process is killed in the middle of it.

const ROUNDS = 6

// Processes take their time to start.
t.setTimeout(300_000)

const rounds = Array.from({ length: ROUNDS }, (_, round) => round)
const DIED = { reason: 'its lease expired: its process died, or its handler blocked the event loop' }

t.test('progress and attempts outlive the consumers of a task, and who waits elsewhere hears of its end', async t => {
  const { start, add, drained, counts, pass } = await startAll(t)
  const desk = await start(false)
  let first = await start({})
  for (const round of rounds.slice(0, 4)) {
    const [id] = await add([`/task?note=${round}&hold=2&tell=1`]) as [string]
    const ended = desk.taskqueue.wait(id)
    await until(async () => (await desk.taskqueue.get(id))!.progress !== undefined)
    const [second] = await Promise.all([start({}), first.end('SIGKILL')])
    await until(() => second.begun.length === 1)
    t.match(await desk.taskqueue.get(id), { state: 'running', progress: String(round), attempts: [DIED] })
    await second.end('SIGKILL')
    t.match(await desk.taskqueue.get(id), { state: 'running', progress: String(round), attempts: [DIED] })
    first = await start({})
    t.match(await ended, { id, state: 'done', attempts: [DIED, DIED, { status: 200, startedAt: Date }], answer: { status: 200 } })
    t.same(await desk.taskqueue.get(id), await ended)
    await drained()
    t.strictSame(settlements([first]), [`${id} 3`])
  }
  await pass(LEASE_MS)
  t.same(await counts(), NOTHING)
})

t.test('of processes that are killed while they wait nothing is left but the ids they wait for, and those for as long', async t => {
  const { start, add, admin, kill, drained } = await startAll(t)
  const key = 'taskqueue:{default}:awaited'
  const ids = await add(repeat(20, '/task'), { delayMs: 600_000 })
  const waiters = await Promise.all(rounds.map(() => start(false)))
  for (const waiter of waiters) {
    for (const id of ids) waiter.taskqueue.wait(id, { timeoutMs: 60_000 })
    await until(() => waiter.reports.filter(({ event }) => event === 'calls').length === 20)
    await sleep(Math.random() * 20)
    await kill(waiter)
    t.ok(await admin.zcard(key) <= 20)
    const leftMs = await admin.pttl(key)
    t.ok(leftMs <= 60_000 && (leftMs > 0 || await admin.exists(key) === 0), `for ${leftMs} ms`)
  }
  const worker = await start({})
  const last = await start(false)
  const waits = ids.map(id => last.taskqueue.wait(id))
  await until(async () => await admin.zcard(key) === 20)
  for (const id of ids) t.equal(await last.taskqueue.runNow(id), true)
  for (const wait of waits) t.match(await wait, { state: 'done' })
  t.equal(await admin.exists(key), 0, 'nor is one that has ended')
  const [delayed] = await add(['/task'], { delayMs: 600_000 }) as [string]
  last.taskqueue.wait(delayed, { timeoutMs: 2000 }).catch(() => {})
  await until(async () => await admin.exists(key) === 1)
  await kill(last)
  await until(async () => await admin.exists(key) === 0)
  t.equal(await worker.taskqueue.cancel(delayed), true)
  await drained()
})

t.test('a queue stays paused when all processes are killed, and is resumed by others', async t => {
  const { start, add, counts, drained, pass, kill } = await startAll(t)
  let [desk, consumer] = await Promise.all([start(false), start({ concurrency: 5 })])
  for (const round of rounds) {
    const held = await add(repeat(5, '/task?hold=1&tell=1'))
    await until(() => consumer.begun.filter(({ id }) => held.includes(id)).length === 5)
    await desk.queue.pause()
    const added = await add(repeat(10, '/task'))
    await Promise.all([kill(desk), sleep(round).then(() => kill(consumer))])
    const [newDesk, heir] = await Promise.all([start(false), start({ concurrency: 5 })])
    t.equal(await newDesk.queue.isPaused(), true)
    await pass(LEASE_MS + 2 * HEARTBEAT_MS)
    t.strictSame(heir.begun, [])
    t.same(await counts(), { ...NOTHING, waiting: 10, running: 5 }, 'nor is anything taken over')
    await newDesk.queue.resume()
    await drained()
    t.strictSame(idsOf(heir.ended.filter(({ id }) => added.includes(id))), added.sort())
    t.strictSame(settlements([heir]), held.map(id => `${id} 2`).sort())
    ;[desk, consumer] = [newDesk, heir]
  }
})

t.test('a running task that is cancelled while its consumer is killed never runs again', async t => {
  const { start, add, counts, pass } = await startAll(t)
  const [desk, ...victims] = await Promise.all([start(false), ...rounds.map(() => start({}))]) as [Process, ...Process[]]
  const ids = await add(repeat(ROUNDS, '/task?hold=1&tell=1'))
  await until(() => victims.every(({ begun }) => begun.length === 1))
  const heirs = [await start({}), await start({})]
  for (const [round, victim] of victims.entries()) {
    const { id } = victim.begun[0]!
    const [isCancelled] = await Promise.all([desk.taskqueue.cancel(id), sleep(Math.abs(round - 2)).then(() => victim.end('SIGKILL'))])
    t.equal(isCancelled, true)
    t.match(await desk.taskqueue.get(id), { state: 'cancelled', attempts: [] })
  }
  await pass(LEASE_MS + 2 * HEARTBEAT_MS)
  t.same(await counts(), NOTHING)
  t.strictSame(heirs.flatMap(({ begun }) => begun), [])
  t.strictSame((await desk.queue.list('cancelled')).map(({ id }) => id).sort(), ids.sort())
})

t.test('dead letters are dead or back in line, each in one place, when who puts them back is killed', async t => {
  const { start, add, counts, admin, drained, taskqueue, killWithin } = await startAll(t)
  const queue = taskqueue.queue('default')
  const ids = (await add(repeat(1000, '/gone'))).sort()
  // Among others of which there is no dead letter, so that it takes ten steps.
  const order = ids.flatMap(id => [id, ...repeat(9, 'nobody')])
  await start({ concurrency: 10 })
  const redriven: number[] = []
  let tookMs = 0
  for (const round of rounds) {
    await queue.resume()
    await drained()
    await queue.pause()
    const dead = async () => await admin.zrange('taskqueue:{default}:dead', '0', '-1')
    t.strictSame((await dead()).sort(), ids)
    const desk = await start(false)
    // The first one has all the time that it takes.
    const { returned, ...took } = await killWithin(desk, round === 0 ? Infinity : (round - Math.random()) / ROUNDS * tookMs, () => desk.queue.redrive(order))
    if (round === 0) ({ tookMs } = took)
    const waiting = await admin.lrange('taskqueue:{default}:waiting', 0, -1)
    redriven.push(waiting.length)
    if (returned !== undefined) t.equal(returned, waiting.length)
    t.strictSame([...await dead(), ...waiting].sort(), ids)
    t.same(await counts(), { ...NOTHING, waiting: waiting.length, dead: ids.length - waiting.length })
    t.equal(await queue.redrive(), ids.length - waiting.length)
  }
  t.comment(`back in line after a kill: ${redriven.join(', ')}`)
  await queue.resume()
  await drained()
  t.same(await counts(), { ...NOTHING, dead: ids.length })
})

t.test('when who purges fifteen thousand tasks is killed the rest is whole, and can be purged or run', async t => {
  const { start, add, counts, admin, taskqueue, killWithin, drained } = await startAll(t)
  const queue = taskqueue.queue('default')
  const key = (name: string) => `taskqueue:{default}:${name}`
  const left: number[] = []
  let tookMs = 0
  for (const round of rounds) {
    const ids = [...await add(repeat(6000, '/task')), ...await add(repeat(6000, '/task'), { expiresMs: 600_000 })]
    await add(repeat(3000, '/task'), { delayMs: 600_000 })
    for (const id of ids.filter((_, index) => index % 120 === 0)) await taskqueue.cancel(id)
    const desk = await start(false)
    // The first one has all the time that it takes.
    const { returned, ...took } = await killWithin(desk, round === 0 ? Infinity : (round - Math.random()) / ROUNDS * tookMs, () => desk.queue.purge())
    if (round === 0) ({ tookMs } = took)
    const { waiting, delayed } = await counts()
    left.push(waiting + delayed)
    if (returned !== undefined) t.equal(returned + waiting + delayed, 14_900)
    t.equal(await admin.hlen(key('message')), waiting + delayed)
    t.equal(await admin.zcard(key('delayed')), delayed)
    const listed = await Promise.all(repeat(12, 1000).map((limit, index) => queue.list('waiting', { offset: index * limit, limit })))
    t.equal(new Set(listed.flat().map(({ id }) => id)).size, waiting)
    if (round < ROUNDS - 1) {
      t.equal(await queue.purge(), waiting + delayed)
      continue
    }
    const worker = await start({ concurrency: 10 })
    await until(async () => (await counts()).waiting === 0, 'they are run', 60_000)
    t.equal(await queue.purge(), delayed)
    await drained()
    t.equal(new Set(idsOf(worker.ended)).size, waiting)
  }
  t.comment(`left after a kill: ${left.join(', ')}`)
  t.same(await counts(), NOTHING)
  for (const name of ['waiting', 'delayed', 'suspects', 'message', 'attempts', 'stale', 'running']) t.equal(await admin.exists(key(name)), 0, name)
})
