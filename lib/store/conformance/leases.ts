import assert from 'node:assert/strict'
import { chapter } from './chapter.js'
import { assertCounts } from './support/assertions.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimOne, claimSuspect, counters, dead, done, holding, ids, lost, release, retry,
  settle, task, tasks, turn
} from './support/steps.js'
import { untilClaimable, untilSuspect } from './support/until.js'

/** Leases: how they last, how they expire, and how their tasks become suspects. */
export const leases = chapter({
  async 'makes suspects of tasks whose leases expire, in their order, and claims them one at a time and apart' (
    store, queue
  ) {
    await add(store, tasks(queue, ['a', 'b', 'c', 'd']))
    await claim(store, queue, 3, SHORT_MS)
    await untilSuspect(store, queue)
    await assertCounts(store, queue, { waiting: 4 })
    const ordinary = await turn(store, queue, [], 10)
    assert.deepEqual(ordinary.leases.map(({ id, suspect }) => ({ id, suspect })), [{ id: 'd', suspect: false }])
    assert.deepEqual(ordinary.outlook, { wakeInMs: 0, suspects: true })
    const claimed: string[] = []
    for (let suspects = true; suspects;) {
      const { leases, outlook } = await turn(store, queue, [], 10, { alone: true })
      claimed.push(...ids(leases))
      suspects = outlook.suspects
    }
    assert.deepEqual(claimed, ['a', 'b', 'c'])
    assert.deepEqual(await turn(store, queue, [], 10, { alone: true }).then(({ leases }) => leases), [])
    await assertCounts(store, queue, { running: 4 })
  },

  async 'counts a death only of a task that died alone' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue, SHORT_MS)
    assert.deepEqual(counters(second), { attempt: 2, retries: 0, deaths: 0 })
    assert.equal(second.message, 'message of a')
    await untilClaimable(store, queue)
    assert.deepEqual(counters(await claimSuspect(store, queue)), { attempt: 3, retries: 0, deaths: 1 })
  },

  async 'does not clear a suspect that is given back, and clears one that is tried again' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    await claim(store, queue, 2, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), release), true)
    const a = await claimSuspect(store, queue)
    assert.equal(a.id, 'a', 'a suspect that is released should go to the front')
    assert.equal(await settle(store, queue, a, retry(0)), true)
    await settle(store, queue, await claimSuspect(store, queue), done)
    await untilClaimable(store, queue)
    assert.equal((await claimOne(store, queue)).suspect, false)
  },

  async 'fences off the first holder: its settlement is refused and its extension reported lost' (store, queue, other) {
    await add(store, [task(queue, 'a')])
    const first = await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue)
    assert.deepEqual(await lost(store, queue, [first]), ['a'])
    for (const verdict of [done, release, retry(0), dead]) {
      assert.equal(await settle(store, queue, first, verdict, [task(other, 'b')]), false)
    }
    assert.deepEqual(await lost(store, queue, [second]), [])
    assert.equal(await settle(store, queue, second, done), true)
    await assertCounts(store, queue, {})
    await assertCounts(store, other, {})
  },

  async 'keeps counts of attempts, retries and deaths through expired leases, retries and releases' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await settle(store, queue, await claimSuspect(store, queue), retry(0))
    await untilClaimable(store, queue)
    await settle(store, queue, await claimOne(store, queue), release)
    await settle(store, queue, await claimOne(store, queue), retry(SHORT_MS))
    await untilClaimable(store, queue)
    assert.deepEqual(counters(await claimOne(store, queue)), { attempt: 6, retries: 2, deaths: 1 })
  },

  async 'knows the consumers of queues by their last heartbeats, and what they hold' (store, queue, other) {
    await add(store, [...tasks(queue, ['a', 'b']), task(other, 'c')])
    const leases = await claim(store, queue)
    const about = { startedAt: 1_700_000_000_000, concurrency: 7, heartbeatMs: LONG_MS / 5 }
    assert.deepEqual(await store.consumers([queue, other]), [])
    await store.extend([
      { queue, consumer: 'one', ...about, leases, leaseMs: LONG_MS },
      { queue: other, consumer: 'one', ...about, leases: [], leaseMs: LONG_MS }
    ])
    await store.extend([{ queue, consumer: 'two', ...about, concurrency: 1, leases: [], leaseMs: LONG_MS }])
    const present = await store.consumers([queue, other])
    for (const { silentMs } of present) assert.ok(silentMs >= 0 && silentMs < LONG_MS, `silent for ${silentMs} ms`)
    const named = present.map(({ silentMs, ...rest }) => rest)
    named.sort((a, b) => a.queue.localeCompare(b.queue) || a.consumer.localeCompare(b.consumer))
    assert.deepEqual(named, [
      { queue, consumer: 'one', ...about, held: 2, taskIds: ['a', 'b'] },
      { queue, consumer: 'two', ...about, concurrency: 1, held: 0, taskIds: [] },
      { queue: other, consumer: 'one', ...about, held: 0, taskIds: [] }
    ])
    await store.extend([{ queue, consumer: 'one', ...about, leases: leases.slice(1), leaseMs: LONG_MS }])
    const one = (await store.consumers([queue])).find(({ consumer }) => consumer === 'one')
    assert.deepEqual([one?.held, one?.taskIds], [1, ['b']])
    assert.deepEqual(await store.consumers([]), [])
  },

  async 'makes no lease shorter by prolonging it' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    const [a] = await claim(store, queue, 1)
    await claim(store, queue, 1, SHORT_MS)
    await store.extend([{ ...holding(queue, [a!]), heartbeatMs: 0.2, leaseMs: 1 }])
    await untilClaimable(store, queue)
    assert.equal((await claimSuspect(store, queue)).id, 'b')
    assert.deepEqual(await lost(store, queue, [a!]), [])
  },

  async 'keeps a lease alive that is prolonged, while others of the same claim expire' (store, queue, other) {
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    const held = await claim(store, queue, 3, 4 * SHORT_MS)
    const alsoHeld = await claim(store, other, 3, 4 * SHORT_MS)
    await store.extend([
      holding(queue, held.slice(1)),
      holding(other, alsoHeld.slice(1))
    ])
    for (const name of [queue, other]) {
      await untilClaimable(store, name)
      assert.equal((await claimSuspect(store, name)).id, 'a')
    }
    assert.deepEqual(await lost(store, queue, held), ['a'])
    assert.deepEqual(await lost(store, other, alsoHeld), ['a'])
  },

  async 'fences off the holder of a lease of an earlier task with the same id' (store, queue, other) {
    await add(store, [task(queue, 'a')])
    const first = await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue)
    assert.equal(await settle(store, queue, second, done), true)
    await add(store, [task(queue, 'a')])
    const young = await claimOne(store, queue)
    assert.deepEqual(counters(young), { attempt: 1, retries: 0, deaths: 0 })
    for (const old of [first, second]) {
      assert.deepEqual(await lost(store, queue, [old]), ['a'])
      assert.equal(await settle(store, queue, old, done, [task(other, 'b')]), false)
    }
    assert.equal(await settle(store, queue, young, done), true)
    await assertCounts(store, other, {})
  },

  async 'prolongs leases of several queues and reports for each which are lost' (store, queue, other) {
    await add(store, [task(queue, 'a'), task(queue, 'b'), task(other, 'c'), task(other, 'd')])
    const [a, b] = await claim(store, queue)
    const c = await claimOne(store, other)
    const pulses = await store.extend([
      holding(queue, [{ id: 'b', fence: b!.fence + 1 }, a!, { id: 'nobody', fence: 1 }]),
      holding(other, [c, a!, { id: 'd', fence: 0 }])
    ])
    assert.deepEqual(pulses.map(({ lost }) => [...lost].sort()), [['b', 'nobody'], ['a', 'd']])
    assert.deepEqual(pulses.map(({ outlook }) => outlook.wakeInMs === 0), [false, true])
    assert.equal(await settle(store, queue, b!, done), true)
  }
})
