import { setTimeout as sleep } from 'node:timers/promises'
import t from 'tap'
import { LEASE_MS, repeat, settledIds, settlements, SLACK_MS, startAll } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// Which tasks there are must be whole when a process is killed while they are added, or while they keep others out.

const ROUNDS = 6
const HOUR_MS = 3_600_000
const MANY = 10_000

// Processes take their time to start.
t.setTimeout(300_000)

const rounds = Array.from({ length: ROUNDS }, (_, round) => round)

t.test('an id that a process adds over and over until it is killed has one task under way at most, and is free again or a dead letter after an hour at most', async t => {
  const { redis, start, counts, drained, taskqueue, admin, all, kill } = await startAll(t, { clock: true })
  const options = { id: 'one' }
  await Promise.all([start({ concurrency: 3 }), start({ concurrency: 3 })])
  for (const round of rounds) {
    const adder = await start(false)
    adder.send({ add: ['/task'], options, how: 'for ever' })
    await until(() => adder.added.length > 0)
    await sleep(Math.random() * 50)
    // The last one dies between the phases for certain.
    if (round === ROUNDS - 1) {
      const other = await start(false)
      await kill(adder)
      await drained()
      other.send({ add: ['/task'], options, how: 'and die' })
      await other.exit
      t.equal(await admin.hexists('taskqueue:{default}:reserved', 'one'), 1)
    } else {
      await kill(adder)
    }
    if (await admin.exists('taskqueue:{default}:reserved') === 1) {
      await drained()
      redis.setClock((round + 1) * HOUR_MS / 1000 + 1)
      await until(async () => await admin.exists('taskqueue:{default}:reserved') === 0)
      t.match(await taskqueue.get('one'), { state: 'dead', reason: 'its process died while it committed', attempts: [] })
      t.equal(await taskqueue.add('/task', options), null)
      t.equal(await taskqueue.queue('default').remove(['one']), 1)
    }
    await drained()
    t.equal(await taskqueue.add('/task', options), 'one')
    t.match(await taskqueue.wait('one'), { state: 'done' })
  }
  t.same(await counts(), NOTHING)
  const begun = all.flatMap(({ begun }) => begun).map(({ at }) => at).sort()
  const ended = all.flatMap(({ ended }) => ended).map(({ at }) => at).sort()
  t.ok(begun.length > 2 * ROUNDS, `it ran ${begun.length} times`)
  t.strictSame(begun.filter((at, index) => index > 0 && at < ended[index - 1]!), [])
})

t.test('what replaces a task that runs in a process which is then killed runs instead of it, and once', async t => {
  const { start, add, counts, drained, kill } = await startAll(t)
  const leaseMs = LEASE_MS + SLACK_MS
  const victims = await Promise.all(rounds.map(() => start({ leaseMs })))
  const ids = rounds.map(round => `id-${round}`)
  for (const id of ids) await add(['/task?hold=1&old=1'], { id })
  await until(() => victims.every(({ begun }) => begun.length === 1))
  const heirs = [await start({ leaseMs }), await start({ leaseMs })]
  // From just before it is replaced to some time after that.
  await Promise.all(victims.map(async (victim, index) => {
    await Promise.all([
      add(['/task?new=1&tell=1'], { id: victim.begun[0]!.id, onDuplicate: 'replace' }),
      sleep(index).then(() => kill(victim))
    ])
  }))
  await drained()
  t.same(await counts(), NOTHING)
  t.strictSame(heirs.flatMap(({ begun }) => begun).filter(({ url }) => url.includes('old')), [])
  t.strictSame(settlements(heirs), ids.map(id => `${id} 2`))
})

t.test('an id keeps others out for its time although its consumer is killed as soon as the task has ended', async t => {
  const { redis, start, counts, drained, taskqueue, all, kill } = await startAll(t, { clock: true })
  const add = async (id: string) => await taskqueue.add('/task?tell=1', { id, dedupeMs: HOUR_MS / 2 })
  const ids = rounds.map(round => `id-${round}`)
  let victim = await start({})
  for (const [round, id] of ids.entries()) {
    await add(id)
    await until(() => victim.ended.some(ended => ended.id === id))
    await sleep(round)
    const [heir] = await Promise.all([start({}), kill(victim)])
    t.match(await taskqueue.wait(id), { state: 'done' })
    t.equal(await add(id), null)
    victim = heir
  }
  for (const id of ids) t.equal(await add(id), null)
  await drained()
  t.strictSame(settledIds(all), ids)
  redis.setClock(HOUR_MS / 1000)
  for (const id of ids) {
    t.equal(await add(id), id)
    t.match(await taskqueue.wait(id), { state: 'done' })
  }
  await drained()
  t.same(await counts(), NOTHING)
})

t.test('of ten thousand tasks whose adder is killed meanwhile all are queued, or none', async t => {
  const { redis, start, counts, taskqueue, admin, killWithin } = await startAll(t, { clock: true })
  const adders = [await start(false), await start(false)]
  const queued: number[] = []
  let tookMs = 0
  for (let round = 0; round <= 10; round++) {
    const adder = adders.shift()!
    adders.push(await start(false))
    const tasks = repeat(MANY, '/task').map((url, index) => ({ url, ...round % 2 === 1 && { id: `${round}-${index}` } }))
    // The first one has all the time that it takes.
    const { returned, ...took } = await killWithin(adder, round === 0 ? Infinity : (round - Math.random()) / 10 * tookMs, () => adder.taskqueue.addAll(tasks))
    if (round === 0) ({ tookMs } = took)
    const { waiting } = await counts()
    queued.push(waiting)
    if (returned !== undefined) t.equal(waiting, MANY)
    t.equal(await taskqueue.queue('default').purge(), waiting)
  }
  t.comment(`queued before a kill within ${Math.round(tookMs)} ms: ${queued.join(', ')}`)
  t.strictSame(queued.filter(count => count !== 0 && count !== MANY), [])

  adders[0]!.send({ add: repeat(MANY, '/task'), how: 'and die' })
  await adders[0]!.exit
  t.same(await counts(), NOTHING)
  const consumer = await start({})
  await until(async () => (await admin.hvals('taskqueue:{default}:prepared')).every(text => !text.startsWith('0 ')), 'heartbeats know of them')
  redis.setClock(HOUR_MS / 1000 + 1)
  await until(async () => await admin.exists('taskqueue:{default}:prepared') === 0)
  t.equal(await admin.exists('taskqueue:{default}:reserved'), 0)
  const { dead, ...others } = await counts()
  t.match(others, { waiting: 0, running: 0 })
  t.ok(dead >= MANY, `those that were killed before may have left some as well: ${dead}`)
  t.equal(await admin.hlen('taskqueue:{default}:message'), dead)
  t.strictSame(consumer.begun, [])
})
