import t from 'tap'
import { HEARTBEAT_MS, idsOf, repeat, startAll, type Process } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// What one process learns of the tasks of another, and does to them.

const HOUR_MS = 3_600_000

// Processes take their time to start.
t.setTimeout(300_000)

const idsIn = (tasks: ReadonlyArray<{ id: string }>) => tasks.map(({ id }) => id)

t.test('a queue that one process pauses is paused in every other, until any of them resumes it', async t => {
  const { start, add, counts, pass } = await startAll(t)
  const [desk, one, other] = await Promise.all([start(false), start({}), start({})])
  const [held] = await add(['/task?hold=1'])
  const busy = await until(() => [one, other].find(({ begun }) => begun.length === 1), 'one begins') as Process
  await desk.queue.pause()
  for (const { queue } of [desk, one, other]) t.equal(await queue.isPaused(), true)
  const added = await add(repeat(4, '/task'))
  busy.send({ open: true })
  await until(() => busy.ended.some(({ id }) => id === held))
  await pass(3 * HEARTBEAT_MS)
  t.same(await counts(), { ...NOTHING, waiting: 4 }, 'what has begun goes on, and nothing begins')
  await other.queue.resume()
  await until(async () => (await desk.queue.counts()).waiting === 0)
  await until(() => one.ended.length + other.ended.length === 5)
  t.strictSame(idsOf([...one.ended, ...other.ended]), [held, ...added].sort())
  t.equal(await desk.queue.isPaused(), false)
})

t.test('a running task that another process cancels is told by its signal, and its end counts for nothing', async t => {
  const { start, add, counts } = await startAll(t)
  // News alone are in time: its heart beats every two minutes.
  const [desk, worker] = await Promise.all([start(false), start({ concurrency: 2, leaseMs: 600_000 })])
  const [id, other] = await add(repeat(2, '/task?hold=1&note=half')) as [string, string]
  await until(async () => (await desk.taskqueue.get(id))?.progress === 'half')
  const wait = desk.taskqueue.wait(id)
  t.equal(await desk.taskqueue.cancel(id), true)
  await until(() => worker.aborted.length === 1)
  t.match(worker.aborted, [{ id, attempt: 1 }])
  t.match(await wait, { id, state: 'cancelled' })
  worker.send({ open: true })
  t.match(await desk.taskqueue.wait(other), { state: 'done' })
  t.strictSame(idsOf(worker.ended), [id, other].sort())
  for (const { taskqueue } of [desk, worker]) {
    t.match(await taskqueue.get(id), { id, state: 'cancelled', url: '/task?hold=1&note=half', attempts: [] })
    t.equal(await taskqueue.cancel(id), false)
  }
  t.same(await counts(), NOTHING)
})

t.test('tasks that wait for a busy process, or for their time, are cancelled, put off and run at once by another', async t => {
  const { start, add, counts } = await startAll(t)
  const [desk, worker] = await Promise.all([start(false), start({})])
  await add(['/task?hold=1'])
  await until(() => worker.begun.length === 1)
  const [first, second, third] = await add(['/task', '/task', '/task']) as [string, string, string]
  const [later, never] = await add(repeat(2, '/task'), { delayMs: HOUR_MS }) as [string, string]
  t.equal(await desk.taskqueue.cancel(second), true)
  t.equal(await desk.taskqueue.cancel(never), true)
  t.equal(await desk.taskqueue.reschedule(first, { delayMs: HOUR_MS }), true)
  t.ok((await desk.taskqueue.get(first))!.dueAt!.getTime() > Date.now() + HOUR_MS / 2)
  t.equal(await desk.taskqueue.reschedule(later, { runAt: new Date(Date.now() + 2 * HOUR_MS) }), true)
  t.ok((await desk.taskqueue.get(later))!.dueAt!.getTime() > Date.now() + HOUR_MS)
  t.strictSame(idsIn(await desk.queue.list('delayed')), [first, later])
  t.equal(await desk.taskqueue.runNow(later), true)
  t.match(await desk.queue.counts(), { waiting: 2, delayed: 1, running: 1 })
  worker.send({ open: true })
  for (const id of [third, later]) t.match(await desk.taskqueue.wait(id), { state: 'done' })
  t.equal(await desk.taskqueue.reschedule(first, { delayMs: 1 }), true)
  t.match(await desk.taskqueue.wait(first), { state: 'done' })
  t.strictSame(idsIn(worker.begun).slice(1), [third, later, first])
  for (const id of [second, never]) t.match(await desk.taskqueue.get(id), { state: 'cancelled', attempts: [] })
  for (const id of [second, first, 'nobody']) {
    t.strictSame([await desk.taskqueue.cancel(id), await desk.taskqueue.runNow(id), await desk.taskqueue.reschedule(id, { delayMs: 1 })], [false, false, false])
  }
  t.same(await counts(), NOTHING)
  await t.rejects(desk.taskqueue.reschedule(first, { delayMs: -1 }), { code: 'FST_TASKQUEUE_INVALID_DELAY' })
})

t.test('tasks of each state are listed in pages by a process that runs none, and purged', async t => {
  const { start, add, drained, counts } = await startAll(t)
  const [desk, worker] = await Promise.all([start(false), start({ concurrency: 2 })])
  const list = async (...[state]: Parameters<Process['queue']['list']>) => {
    const pages = await Promise.all([0, 1, 2, 3].map(page => desk.queue.list(state, { offset: 10 * page, limit: 10 })))
    t.strictSame(pages.flat().filter(task => task.state !== state), [])
    t.ok(pages.every(({ length }, page) => length === 10 || pages.slice(page + 1).every(({ length }) => length === 0)))
    return idsIn(pages.flat())
  }
  const done = await add(repeat(25, '/task'))
  const dead = await add(repeat(25, '/gone'))
  await drained()
  const running = await add(repeat(2, '/task?hold=1'))
  await until(() => worker.begun.length === 27)
  // Lest it claims ahead.
  await desk.queue.pause()
  const waiting = await add(repeat(25, '/task'))
  const delayed = await add(repeat(25, '/task'), { delayMs: HOUR_MS })
  const cancelled = waiting.filter((_, index) => index % 2 === 1)
  for (const id of cancelled) await desk.taskqueue.cancel(id)
  // Two at once, of which either may be the first to be settled.
  t.strictSame((await list('done')).sort(), done.sort())
  t.strictSame((await list('dead')).sort(), dead.sort())
  t.strictSame(await list('running'), running)
  t.strictSame(await list('waiting'), waiting.filter(id => !cancelled.includes(id)))
  t.strictSame(await list('delayed'), delayed)
  t.strictSame(await list('cancelled'), cancelled.reverse())
  t.strictSame(await list('expired'), [])
  t.match((await desk.queue.list('done', { limit: 1 }))[0], { queue: 'default', method: 'GET', url: '/task', endedAt: Date, attempts: [{ status: 200 }] })
  await t.rejects(desk.queue.list('dead', { limit: 1001 }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
  t.equal(await desk.queue.purge(), 13 + 25)
  t.same(await counts(), { ...NOTHING, running: 2, dead: 25 })
  await desk.queue.resume()
  worker.send({ open: true })
  for (const id of running) t.match(await desk.taskqueue.wait(id), { state: 'done' })
})

t.test('dead letters of one process are put back by another, and run by a third, or are removed', async t => {
  const { start, add, drained, counts } = await startAll(t)
  const [desk, worker] = await Promise.all([start(false), start({ maxRetries: 0 })])
  const ids = await add(repeat(6, '/task?fails=1')) as [string, ...string[]]
  await drained()
  t.match(await desk.taskqueue.get(ids[0]), { state: 'dead', reason: 'status 503, after 0 retries', attempts: [{ status: 503 }], answer: { status: 503 } })
  await worker.end('SIGTERM')
  t.equal(await desk.queue.redrive([ids[0], 'nobody']), 1)
  t.equal(await desk.queue.remove([ids[1]!, ids[0], 'nobody']), 1)
  t.equal(await desk.taskqueue.get(ids[1]!), undefined)
  t.match(await desk.taskqueue.get(ids[0]), { state: 'waiting', attempts: [{ status: 503 }] })
  const heir = await start({ maxRetries: 0 })
  t.match(await desk.taskqueue.wait(ids[0]), { state: 'done', attempts: [{ status: 503 }, { status: 200 }] })
  t.equal(await desk.queue.redrive(ids.slice(1, 4)), 2)
  await drained()
  t.strictSame(idsOf(heir.ended), [ids[0], ids[2], ids[3]].sort())
  t.equal(await desk.queue.remove(), 2)
  t.same(await counts(), NOTHING)
  for (const id of ids.slice(4)) t.equal(await desk.taskqueue.get(id), undefined)
})

t.test('processes that wait for one task hear of its end, however it ends, or that it takes too long', async t => {
  const { start, add } = await startAll(t)
  const [desk, other, worker] = await Promise.all([start(false), start(false), start({ leaseMs: 600_000 })])
  const [id] = await add(['/task?hold=1']) as [string]
  await t.rejects(desk.taskqueue.wait(id, { timeoutMs: 20 }), { code: 'FST_TASKQUEUE_TIMEOUT' })
  t.equal(await desk.taskqueue.wait('nobody'), undefined)
  const waits = [desk, other, worker].map(({ taskqueue }) => taskqueue.wait(id))
  for (const { reports } of [desk, other, worker]) await until(() => reports.some(({ event }) => event === 'calls'))
  worker.send({ open: true })
  const statuses = await Promise.all(waits)
  t.match(statuses[0], { id, queue: 'default', state: 'done', attempts: [{ status: 200, startedAt: Date }], answer: { status: 200, whole: true } })
  t.equal(Buffer.from(statuses[0]!.answer!.body).toString(), '{}')
  for (const status of [...statuses, await other.taskqueue.get(id)]) t.same(status, statuses[0])
  const [gone, dead] = [...await add(['/task'], { delayMs: HOUR_MS }), ...await add(['/gone'])] as [string, string]
  t.match(await other.taskqueue.wait(dead), { state: 'dead', reason: 'status 410' })
  const purged = other.taskqueue.wait(gone)
  await until(() => other.reports.filter(({ event }) => event === 'calls').length === 4)
  t.equal(await desk.queue.purge(), 1)
  t.equal(await purged, undefined)
})
