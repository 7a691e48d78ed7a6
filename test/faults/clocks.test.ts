import t from 'tap'
import { SLACK_MS, startAll, type Process, type Processes } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

const HOUR_MS = 3_600_000
const LEASE_MS = 4000

t.setTimeout(300_000)

t.test('processes whose clocks are an hour off, and jump, add and run tasks on time, and lose none', async t => {
  const processes = await startAll(t)
  const { start, admin, counts } = processes
  // Each has room for the task that it holds, and one more.
  const [adder, early, late] = await Promise.all([start(false), start({ concurrency: 2, leaseMs: LEASE_MS }), start({ concurrency: 2, leaseMs: LEASE_MS })])
  const held = await hold(processes, [early, late])
  const delays: number[] = []
  for (let i = 0; i < 10; i++) {
    // From one hour behind to one ahead, and back; the two consumers in opposite directions.
    const sign = i % 2 === 0 ? 1 : -1
    adder.send({ shiftMs: (i % 3 - 1) * HOUR_MS })
    early.send({ shiftMs: -sign * HOUR_MS })
    late.send({ shiftMs: sign * HOUR_MS })
    const at = Date.now()
    adder.send({ add: [`/task?round=${i}`], options: { delayMs: 300 } })
    adder.send({ add: ['/task'], options: { delayMs: HOUR_MS / 2 } })
    const run = (await until(() => [early, late].flatMap(({ begun }) => begun).find(({ url }) => url.endsWith(`round=${i}`)), `task ${i}`))!
    delays.push(run.at - at)
  }
  t.ok(Math.min(...delays) >= 298 && Math.max(...delays) <= 300 + SLACK_MS, `they ran after ${delays.join(', ')} ms`)
  await until(() => adder.added.length === 20)
  await until(async () => (await counts()).running === 2)
  t.same(await counts(), { ...NOTHING, delayed: 10, running: 2 })
  const [seconds] = await admin.time()
  const due = (await admin.zrange('taskqueue:{default}:delayed', '0', '-1', 'WITHSCORES')).filter((_, index) => index % 2 === 1)
  for (const score of due) {
    const leftMs = Number(score) / 1000 - Number(seconds) * 1000
    t.ok(Math.abs(leftMs - HOUR_MS / 2) < 60_000, `due in ${leftMs} ms`)
  }
  await keep(t, processes, [early, late], held)
})

for (const [title, hours] of [['ahead', 1], ['back', -1]] as const) {
  t.test(`while the clock of Redis jumps an hour ${title} no consumer loses its tasks, and one that dies still does`, async t => {
    const processes = await startAll(t, { clock: true })
    const { redis, start, add, admin, counts } = processes
    // A queue that has been in use for a day, so that a clock that is reset would show.
    await admin.set('taskqueue:{default}:clock', '0 86400000')
    const [victim, other, adder] = await Promise.all([start({ concurrency: 2, leaseMs: LEASE_MS }), start({ concurrency: 2, leaseMs: LEASE_MS }), start(false)])
    const held = await hold(processes, [victim, other])
    const [soon] = await add(['/task'], { delayMs: HOUR_MS / 2 })
    const [far] = await add(['/task'], { delayMs: HOUR_MS * 3 })
    await counts()
    const before = Number((await admin.time())[0])
    redis.setClock(hours * 3600)
    const jump = Number((await admin.time())[0]) - before
    t.ok(Math.abs(jump - hours * 3600) < 60, `it jumped by ${jump} s`)

    // What was delayed before is shifted by the jump, and what is delayed after it is not.
    const [after] = await add(['/task'], { delayMs: 100 })
    const ends = () => [victim, other].flatMap(({ ended }) => ended).map(({ id }) => id)
    await until(() => ends().includes(after!))
    if (hours > 0) await until(() => ends().includes(soon!))
    t.match(await counts(), { delayed: hours > 0 ? 1 : 2 })
    t.notOk(ends().includes(far!))
    t.strictSame([victim, other].flatMap(({ aborted }) => aborted), [])
    t.strictSame([victim, other].flatMap(({ begun }) => begun).filter(({ attempt }) => attempt > 1), [])
    // And adding works as before.
    adder.send({ add: ['/task'] })
    await until(() => adder.added.length === 1 && ends().includes(adder.added[0]!))

    const heir = await start({ leaseMs: LEASE_MS })
    const killedAt = Date.now()
    await victim.end('SIGKILL')
    // It has died before this jump, and nobody has noticed yet.
    redis.setClock(2 * hours * 3600)
    const again = (await until(() => [...other.begun, ...heir.begun].find(({ id, attempt }) => id === held[0] && attempt === 2), 'it begins again'))!
    t.ok(again.at - killedAt <= LEASE_MS * 7 / 5 + SLACK_MS, `after ${again.at - killedAt} ms`)
    await until(async () => (await counts()).running === 1)
    await keep(t, processes, [other], held.slice(1))
  })
}

/** Has each consumer hold one task; returns their ids. */
async function hold ({ add, admin }: Processes, consumers: readonly Process[]): Promise<string[]> {
  const ids: string[] = []
  for (const consumer of consumers) {
    // With nobody else awake, so that this one takes it.
    for (const { child } of consumers) child.kill(child === consumer.child ? 'SIGCONT' : 'SIGSTOP')
    // One that is stopped may wait for it as well.
    await admin.del('taskqueue:{default}:idle')
    ids.push(...await add(['/task?hold=1']))
    await until(() => consumer.begun.length === 1)
  }
  for (const { child } of consumers) child.kill('SIGCONT')
  return ids
}

/** Expects each consumer to hold its task still, and to end it at the first attempt. */
async function keep (t: { strictSame (found: unknown, wanted: unknown): unknown }, { counts }: Processes, consumers: readonly Process[], held: readonly string[]): Promise<void> {
  for (const consumer of consumers) consumer.send({ open: true })
  await until(async () => (await counts()).running === 0)
  for (const [index, { ended, aborted }] of consumers.entries()) {
    t.strictSame(ended.filter(({ id }) => id === held[index]).map(({ attempt }) => attempt), [1])
    t.strictSame(aborted, [])
  }
}
