import t from 'tap'
import { SLACK_MS, startAll, type Process } from '../support/processes.js'
import { until } from '../support/until.js'

// What schedules promise where processes die, and where clocks are wrong.

t.setTimeout(300_000)

const HOUR_MS = 3_600_000

const slotOf = (id: string) => Date.parse(id.slice(id.indexOf('@') + 1))

/** The first attempts at the tasks of schedules, by all processes. */
const firsts = (processes: readonly Process[]) => processes.flatMap(({ begun }) => begun)
  .filter(({ id, attempt }) => id.includes('@') && attempt === 1)

t.test('five processes, some of them killed again and again, add exactly one task for each slot of 200 schedules', async t => {
  const { start, all, add, admin } = await startAll(t)
  const consumer = { concurrency: 20, leaseMs: 1000 }
  const desk = await start(false)
  await Promise.all(Array.from({ length: 5 }, () => start(consumer)))
  const names = Array.from({ length: 200 }, (_, index) => `s${index}`)
  await Promise.all(names.map(name => desk.taskqueue.schedule(name, { everyMs: 1000, url: '/task', overlap: 'allow', catchUp: 'all' })))
  for (let round = 0; round < 4; round++) {
    const before = firsts(all).length
    await until(() => firsts(all).length > before + 300, 'tasks run', 60_000)
    const victim = all.findLast(({ child }) => child.exitCode === null && child.signalCode === null)!
    await victim.end('SIGKILL')
    await start(consumer)
  }
  await Promise.all(names.map(name => desk.taskqueue.pauseSchedule(name)))
  const [last] = await add(['/task'])
  await until(() => all.some(({ begun }) => begun.some(({ id }) => id === last)), 'the last task runs', 60_000)
  await until(async () => {
    const { waiting, delayed, running } = await desk.queue.counts()
    return waiting + delayed + running === 0
  }, 'nothing is left', 60_000)
  t.equal(await admin.zcard('taskqueue:{default}:dead'), 0)
  const ids = new Set(all.flatMap(({ begun }) => begun).map(({ id }) => id))
  // A process may be killed before it has reported what it began, and its task is then attempted again.
  const twice = firsts(all).map(({ id }) => id).filter((id, index, list) => list.indexOf(id) !== index)
  t.strictSame(twice, [], 'no slot was added a second time')
  for (const name of names) {
    const slots = [...ids].filter(id => id.startsWith(`${name}@`)).map(slotOf).sort((a, b) => a - b)
    t.ok(slots.length >= 2 && slots.at(-1)! - slots[0]! === (slots.length - 1) * 1000, `${name} has ${slots.length} slots without a gap`)
  }
})

t.test('processes whose clocks are an hour off compute the slots of the clock of Redis', async t => {
  const { start, admin } = await startAll(t)
  const [early, late, desk] = await Promise.all([start({}), start({}), start(false)])
  early.send({ shiftMs: -HOUR_MS })
  late.send({ shiftMs: HOUR_MS })
  desk.send({ shiftMs: 3 * HOUR_MS })
  await desk.taskqueue.schedule('cron', { cron: '* * * * * *', tz: 'Asia/Kolkata', url: '/task' })
  await desk.taskqueue.schedule('every', { everyMs: 1000, url: '/task' })
  for (const name of ['cron', 'every']) {
    const runs = await until(() => {
      const found = firsts([early, late]).filter(({ id }) => id.startsWith(name))
      return found.length >= 3 && found
    }, name) as ReturnType<typeof firsts>
    for (const { id, at } of runs) {
      const lateMs = at - slotOf(id)
      t.ok(lateMs > -50 && lateMs < SLACK_MS, `${id} began ${lateMs} ms after its slot`)
    }
  }
  await early.taskqueue.schedule('paused', { everyMs: HOUR_MS, url: '/task' })
  await early.taskqueue.pauseSchedule('paused')
  await late.taskqueue.resumeSchedule('paused')
  const score = Number(await admin.zscore('taskqueue:{default}:schedules', 'paused'))
  t.equal(score, (Math.floor(Date.now() / HOUR_MS) + 1) * HOUR_MS)
})

t.test('when the clock of Redis jumps ahead a schedule adds one task, and when it is set back none twice', async t => {
  const { redis, start, admin } = await startAll(t, { clock: true })
  const consumer = await start({ leaseMs: 1000 })
  await consumer.taskqueue.schedule('tick', { everyMs: 60_000, url: '/task' })
  redis.setClock(3600)
  await until(() => firsts([consumer]).length > 0, 'the task of the last slot')
  redis.setClock(0)
  const { id } = firsts([consumer])[0]!
  await until(async () => Number(await admin.zscore('taskqueue:{default}:schedules', 'tick')) === slotOf(id) + 60_000)
  redis.setClock(3600 + 60)
  await until(() => firsts([consumer]).length > 1, 'the task of the next slot')
  const ids = firsts([consumer]).map(({ id }) => id)
  t.equal(new Set(ids).size, ids.length)
  t.ok(slotOf(ids[0]!) > Date.now() + HOUR_MS / 2)
  t.equal(slotOf(ids[1]!) - slotOf(ids[0]!), 60_000)
})
