import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { HEARTBEAT_MS, idsOf, repeat, settlements, SLACK_MS, startAll } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// Processes take their time to start.
t.setTimeout(300_000)

t.test('two consumers share a queue fairly, and each task runs once; a process that only adds runs none', async t => {
  const { start, counts, drained } = await startAll(t)
  const [adder, one, other] = await Promise.all([start(false), start({ concurrency: 5 }), start({ concurrency: 5 })])
  adder.send({ add: repeat(1000, '/task?ms=1') })
  await until(() => one.ended.length + other.ended.length >= 1000)
  await drained()
  t.same(await counts(), NOTHING)
  t.strictSame(idsOf([...one.ended, ...other.ended]), adder.added.sort())
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

t.test('SIGTERM, handled by closing the app, gives fifty tasks that hang back at once and at no cost, and five processes end', async t => {
  const GRACE_MS = 200
  const { add, start, counts, admin, drained } = await startAll(t)
  const leavers = await Promise.all(repeat(5, { concurrency: 10, closeGraceMs: GRACE_MS, leaseMs: 600_000 }).map(start))
  const ids = await add(repeat(50, '/task?hang=1&then=500&tell=1'))
  await until(() => leavers.every(({ begun }) => begun.length === 10))
  const heir = await start({ concurrency: 50, leaseMs: 600_000 })
  for (const [index, leaver] of leavers.entries()) {
    const at = Date.now()
    t.strictSame(await leaver.end('SIGTERM'), [0, null])
    const tookMs = Date.now() - at
    t.ok(tookMs >= GRACE_MS - 2 && tookMs <= GRACE_MS + SLACK_MS, `it ended after ${tookMs} ms`)
    t.match(leaver.reports.at(-1), { event: 'closed' })
    t.equal(leaver.aborted.length, 10)
    await until(() => heir.begun.filter(({ attempt }) => attempt === 2).length === (index + 1) * 10)
    const begun = heir.begun.filter(({ id }) => leaver.begun.some(attempt => attempt.id === id))
    const lateMs = Math.max(...begun.map(({ at }) => at)) - leaver.aborted[0]!.at
    t.ok(lateMs <= SLACK_MS, `its tasks began again after ${lateMs} ms`)
    const progress = await admin.hmget('taskqueue:{default}:attempts', ...begun.map(({ id }) => id))
    // After its fence: attempt 2, no retries, no deaths, no suspect. Of those that have ended already nothing is kept.
    t.strictSame(progress.filter(text => text !== null && !/^\d+ 2 0 0 0 0 0 0 $/.test(text)), [])
  }
  await drained()
  t.same(await counts(), NOTHING)
  t.strictSame(settlements([...leavers, heir]), ids.map(id => `${id} 2`).sort())
})
