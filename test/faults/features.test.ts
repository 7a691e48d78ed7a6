import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { idsOf, repeat, settledIds, settlements, startAll } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// When tasks run must not change when a process is killed in the middle of it.

const ROUNDS = 6
const HOUR_MS = 3_600_000

// Processes take their time to start.
t.setTimeout(300_000)

const rounds = Array.from({ length: ROUNDS }, (_, round) => round)

t.test('delayed tasks whose adder and consumer are killed before they are due run elsewhere when they are, and once', async t => {
  const DELAY_MS = 500
  const { start, counts, drained, all, kill } = await startAll(t)
  let victim = await start({ concurrency: 10 })
  const ids: string[] = []
  for (const round of rounds) {
    const [adder, heir] = await Promise.all([start(false), start({ concurrency: 10 })])
    const dueAt = Date.now() + DELAY_MS
    adder.send({ add: repeat(20, `/task?tell=1&round=${round}`), options: { delayMs: DELAY_MS } })
    await until(() => adder.added.length === 20)
    await sleep(DELAY_MS / ROUNDS * round)
    await Promise.all([kill(adder), kill(victim)])
    ids.push(...adder.added)
    await drained()
    const earlyMs = dueAt - Math.min(...all.flatMap(({ begun }) => begun).filter(({ url }) => url.endsWith(`round=${round}`)).map(({ at }) => at))
    t.ok(earlyMs <= 2, `none was more than ${earlyMs} ms early`)
    victim = heir
  }
  t.same(await counts(), NOTHING)
  t.strictSame(settledIds(all), ids.sort())
})

t.test('tasks whose consumer is killed after a failed attempt are tried again elsewhere, not before their time, and done once', async t => {
  const SOONEST_MS = 500
  const { start, add, counts, drained, all, kill } = await startAll(t)
  let victim = await start({ concurrency: 10 })
  const ids: string[] = []
  for (const round of rounds) {
    const added = await add(repeat(10, '/task?fails=1&tell=1'))
    ids.push(...added)
    await until(() => victim.ended.filter(({ id }) => added.includes(id)).length === 10)
    await sleep(SOONEST_MS / ROUNDS * round)
    const [heir] = await Promise.all([start({ concurrency: 10 }), kill(victim)])
    await drained()
    for (const id of added) {
      const [failed, ...others] = all.flatMap(({ ended }) => ended).filter(attempt => attempt.id === id)
      t.equal(others.length, 1)
      t.ok(others[0]!.at - failed!.at >= SOONEST_MS - 2, `tried again after ${others[0]!.at - failed!.at} ms`)
    }
    victim = heir
  }
  t.same(await counts(), NOTHING)
  t.strictSame(settledIds(all), ids.sort())
})

t.test('what expires while no consumer lives is recorded as expired and never run, and what has begun in time is tried again', async t => {
  const processes = await startAll(t, { clock: true })
  const { redis, start, add, counts, drained, taskqueue, admin, all, kill } = processes
  const options = { expiresMs: HOUR_MS / 2 }
  let victim = await start({ concurrency: 5 })
  for (const round of rounds) {
    const begun = await add(repeat(5, '/task?hold=1&tell=1'), options)
    await until(() => victim.begun.filter(({ id }) => begun.includes(id)).length === 5)
    // Every other time they expire before it dies.
    if (round % 2 === 0) redis.setClock((round + 1) * HOUR_MS / 1000)
    await kill(victim)
    const late = [...await add(repeat(10, '/task'), options), ...await add(repeat(10, '/task'), { ...options, delayMs: HOUR_MS / 4 })]
    // Asked behind the commits, from which the times count.
    await counts()
    redis.setClock((round + 2) * HOUR_MS / 1000)
    victim = await start({ concurrency: 5 })
    await until(async () => (await taskqueue.queue('default').list('expired')).length === late.length)
    for (const id of late) t.match(await taskqueue.get(id), { state: 'expired', attempts: [] })
    await drained()
    t.strictSame(idsOf(all.flatMap(({ begun }) => begun).filter(({ id }) => late.includes(id))), [])
    t.strictSame(settlements([victim]), begun.map(id => `${id} 2`).sort())
    for (const id of begun) t.match(await taskqueue.get(id), { state: 'done', attempts: [{ reason: /died/ }, { status: 200 }] })
  }
  t.same(await counts(), NOTHING)
  t.equal(await admin.exists('taskqueue:{default}:expiring'), 0)
})
