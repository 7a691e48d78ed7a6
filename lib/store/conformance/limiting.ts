import assert from 'node:assert/strict'
import type { Lease } from '../turn.js'
import { chapter } from './chapter.js'
import { assertCounts } from './support/assertions.js'
import { busy, keysOf, limit, numbered } from './support/lanes.js'
import {
  KEEP, LONG_MS, REASON, SHORT_MS, add, claim, claimOne, claimSuspect, dead, done, ids, release, retry, settle, show,
  task, tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable, untilSuspect, untilTold } from './support/until.js'

/** Limits, rates and rests: when a claim takes nothing although tasks wait. */
export const limiting = chapter({
  async 'runs no more tasks of a queue than its limit allows, in whatever way one ends' (store, queue) {
    await limit(store, queue, { running: 2 })
    await add(store, tasks(queue, numbered('t', 9)))
    const [a, b, ...none] = await claim(store, queue)
    assert.deepEqual(none, [])
    const blocked = await turn(store, queue, [], 5)
    assert.deepEqual([blocked.leases, blocked.isShared], [[], true])
    assert.ok(blocked.outlook.wakeInMs > 0, 'nothing may be claimed before a task ends')
    const verdicts = [done, dead, release, retry(LONG_MS), { kind: 'defer', delayMs: LONG_MS, reason: REASON }] as const
    let running: Lease[] = [a!, b!]
    for (const verdict of verdicts) {
      const { leases } = await turn(store, queue, [{ lease: running[0]!, verdict }], 5)
      assert.equal(leases.length, 1, `a task that ends as ${verdict.kind} makes room for one`)
      running = [running[1]!, leases[0]!]
    }
    await store.operate(queue, { kind: 'cancel', ids: [running[0]!.id], keep: KEEP })
    assert.equal((await claim(store, queue)).length, 1)
    await assertCounts(store, queue, { waiting: 2, delayed: 2, running: 2, dead: 1 })
  },

  async 'counts suspects as running, for the queue and for their key' (store, queue) {
    await limit(store, queue, { running: 2, perKey: { running: 1 } })
    await add(store, tasks(queue, ['a0', 'a1'], { key: 'a' }))
    await claimOne(store, queue, SHORT_MS)
    await untilSuspect(store, queue)
    assert.deepEqual(await keysOf(store, queue), ['a 1/1'])
    await add(store, [task(queue, 'b0', { key: 'b' }), task(queue, 'c0', { key: 'c' })])
    assert.deepEqual(ids(await claim(store, queue)), ['b0'])
    const suspect = await claimSuspect(store, queue)
    assert.equal(suspect.id, 'a0')
    assert.deepEqual(await claim(store, queue), [])
    await settle(store, queue, suspect, done)
    assert.deepEqual(ids(await claim(store, queue)), ['c0'])
  },

  async 'runs no more tasks of a key than its limit allows, and all that others have' (store, queue) {
    await limit(store, queue, { perKey: { running: 2 } })
    await add(store, tasks(queue, numbered('a', 5), { key: 'a' }))
    await add(store, tasks(queue, numbered('b', 1), { key: 'b' }))
    await add(store, tasks(queue, numbered('none', 3)))
    const leases = await claim(store, queue)
    assert.deepEqual(ids(leases).sort(), ['a0', 'a1', 'b0', 'none0', 'none1', 'none2'])
    const a0 = leases.find(({ id }) => id === 'a0')!
    const { leases: next } = await turn(store, queue, [{ lease: a0, verdict: done }], 9)
    assert.deepEqual(ids(next), ['a2'])
  },

  async 'takes limits that change while tasks run, also of a single key' (store, queue) {
    await limit(store, queue, { perKey: { running: 3 } })
    await add(store, tasks(queue, numbered('a', 9), { key: 'a' }))
    await add(store, tasks(queue, numbered('b', 9), { key: 'b' }))
    const leases = await claim(store, queue)
    assert.deepEqual(await keysOf(store, queue), ['a 6/3', 'b 6/3'])
    await limit(store, queue, { perKey: { running: 1 } })
    await settle(store, queue, leases.find(({ id }) => id === 'a0')!, done)
    assert.deepEqual(await claim(store, queue), [], 'two still run where one may')
    await store.operate(queue, { kind: 'limitKey', key: 'a', limits: { running: 4 } })
    assert.deepEqual(ids(await claim(store, queue)), ['a3', 'a4'])
    assert.deepEqual((await store.keys(queue, '', 9)).map(({ limits }) => limits), [{ running: 4 }, undefined])
    await store.operate(queue, { kind: 'limitKey', key: 'a' })
    assert.deepEqual(await claim(store, queue), [])
    await limit(store, queue, {})
    assert.equal((await claim(store, queue)).length, 18 - 8)
    assert.equal((await store.counts([queue]))[0]!.limits, undefined)
  },

  async 'spaces the attempts of a queue as its rate says' (store, queue) {
    const rate = { max: 2, ms: 4 * SHORT_MS }
    await limit(store, queue, { rate })
    assert.deepEqual((await store.counts([queue]))[0]!.limits, { rate })
    await add(store, tasks(queue, numbered('t', 4)))
    const since = performance.now()
    for (let begun = 1; begun <= 4; begun++) {
      await untilClaimable(store, queue)
      const { leases, outlook } = await turn(store, queue, [], 9)
      assert.equal(leases.length, 1)
      const soonest = since + begun * 2 * SHORT_MS - performance.now()
      const { wakeInMs } = outlook
      if (begun < 4) assert.ok(wakeInMs >= soonest - 2, `the next comes in ${wakeInMs} ms, not ${soonest}`)
    }
    assert.ok(performance.now() - since > 6 * SHORT_MS - 2)
  },

  async 'lets a burst begin at once, and counts attempts that are tried again' (store, queue) {
    await limit(store, queue, { rate: { max: 1, ms: LONG_MS, burst: 3 } })
    await add(store, tasks(queue, numbered('t', 9)))
    const [first, ...others] = await claim(store, queue, 2)
    assert.equal(others.length, 1)
    const { leases } = await turn(store, queue, [{ lease: first!, verdict: release }], 9)
    assert.equal(leases.length, 1)
    const { leases: none, outlook } = await turn(store, queue, [{ lease: leases[0]!, verdict: retry(0) }], 9)
    assert.deepEqual(none, [])
    assert.ok(outlook.wakeInMs > LONG_MS / 2 && outlook.wakeInMs <= LONG_MS)
  },

  async 'spaces the attempts of each key, and does not hold up others' (store, queue) {
    await limit(store, queue, { perKey: { rate: { max: 1, ms: LONG_MS } } })
    await add(store, tasks(queue, ['a0', 'a1'], { key: 'a' }))
    await add(store, tasks(queue, ['b0', 'b1'], { key: 'b' }))
    const { leases, outlook } = await turn(store, queue, [], 9)
    assert.deepEqual(ids(leases), ['a0', 'b0'])
    assert.ok(outlook.wakeInMs > LONG_MS / 2)
    const [a] = await store.keys(queue, '', 1)
    assert.ok(a!.restMs > LONG_MS / 2 && a!.restMs <= LONG_MS)
    await store.operate(queue, { kind: 'limitKey', key: 'a', limits: {} })
    assert.deepEqual(ids(await claim(store, queue)), ['a1'])
    await limit(store, queue, { perKey: { rate: { max: 1, ms: 1 } } })
    await untilClaimable(store, queue)
    assert.deepEqual(ids(await claim(store, queue)), ['b1'])
  },

  async 'has the key of a task rest that finds no room, and costs the task nothing' (store, queue) {
    await add(store, tasks(queue, ['a0', 'a1', 'a2'], { key: 'a' }))
    await add(store, tasks(queue, ['b0', 'b1'], { key: 'b' }))
    const [a0, b0, a1] = await claim(store, queue, 3)
    // A rest only becomes longer.
    await turn(store, queue, [
      { lease: a0!, verdict: busy(LONG_MS) }, { lease: b0!, verdict: done }, { lease: a1!, verdict: busy(SHORT_MS) }
    ])
    const [a] = await store.keys(queue, '', 1)
    assert.ok(a!.restMs > LONG_MS / 2 && a!.restMs <= LONG_MS)
    assert.deepEqual(ids(await claim(store, queue)), ['b1'])
    await store.operate(queue, { kind: 'rest', ms: 0, key: 'a' })
    const again = await claim(store, queue)
    assert.deepEqual(ids(again), ['a0', 'a1', 'a2'], 'they are in front again')
    const { attempt, retries, deferredMs } = again[0]!
    assert.deepEqual({ attempt, retries, deferredMs }, { attempt: 2, retries: 0, deferredMs: LONG_MS })
  },

  async 'has a key rest until the latest of the times that ten of its tasks are told' (store, queue) {
    await add(store, tasks(queue, numbered('a', 11), { key: 'a' }))
    const leases = await claim(store, queue, 10)
    const times = [3, 7, 1, 9, 4, 10, 2, 8, 6, 5].map(tenths => LONG_MS * tenths / 10)
    for (const [index, lease] of leases.entries()) await settle(store, queue, lease, busy(times[index]!))
    const [a] = await store.keys(queue, '', 1)
    assert.ok(a!.restMs > LONG_MS * 0.95 && a!.restMs <= LONG_MS, `it rests for ${a!.restMs} ms`)
    await assertCounts(store, queue, { waiting: 11 })
    await store.operate(queue, { kind: 'rest', ms: 0, key: 'a' })
    const again = await claim(store, queue)
    assert.deepEqual(ids(again).sort(), numbered('a', 11).sort())
    assert.ok(again.every(({ retries }) => retries === 0), 'it costs none of them a retry')
  },

  async 'has a queue with limits rest for a task without a key, and otherwise only the task' (store, queue) {
    await add(store, tasks(queue, ['t0', 't1', 't2']))
    await settle(store, queue, await claimOne(store, queue), busy(LONG_MS))
    const second = await claimOne(store, queue)
    assert.equal(second.id, 't1')
    await limit(store, queue, { running: 9 })
    await settle(store, queue, second, busy(LONG_MS))
    const { leases, outlook } = await turn(store, queue, [], 9)
    assert.deepEqual(leases, [])
    assert.ok(outlook.wakeInMs > LONG_MS / 2)
    assert.ok((await store.counts([queue]))[0]!.restMs! > LONG_MS / 2)
    await store.operate(queue, { kind: 'rest', ms: 0 })
    assert.deepEqual(ids(await claim(store, queue)), ['t1', 't2'])
  },

  async 'ends a rest in time, of a key and of the queue' (store, queue) {
    await add(store, [task(queue, 'a0', { key: 'a' }), task(queue, 'b0', { key: 'b' })])
    await store.operate(queue, { kind: 'rest', ms: SHORT_MS, key: 'a' })
    const { leases, outlook } = await turn(store, queue, [], 9)
    assert.deepEqual(ids(leases), ['b0'])
    assert.ok(outlook.wakeInMs > 0 && outlook.wakeInMs <= SHORT_MS)
    await untilClaimable(store, queue)
    assert.deepEqual(ids(await claim(store, queue)), ['a0'])
    await add(store, [task(queue, 'c0')])
    await store.operate(queue, { kind: 'rest', ms: SHORT_MS })
    assert.deepEqual(await claim(store, queue), [])
    await untilClaimable(store, queue)
    assert.deepEqual(ids(await claim(store, queue)), ['c0'])
  },

  async 'tells watchers when a task that ends makes room for another key' (store, queue) {
    await limit(store, queue, { perKey: { running: 1 } })
    await add(store, tasks(queue, numbered('a', 100), { key: 'a' }))
    let running = await claimOne(store, queue)
    await untilTold(store, queue, ({ kind }) => kind === 'work', async () => {
      // This claims nothing, as a consumer without room does.
      await settle(store, queue, running, done)
      running = (await claim(store, queue, 1))[0] ?? running
    })
  },

  async 'forgets the places of tasks that are purged, cancelled or expire' (store, queue) {
    await limit(store, queue, { perKey: { running: 1 } })
    await add(store, [task(queue, 'expires', { key: 'a', expiresMs: 1 })])
    await add(store, tasks(queue, numbered('a', 3), { key: 'a' }))
    await until('it expires', async () => {
      await turn(store, queue, [], 1, { alone: true })
      return (await show(store, queue, 'expires'))?.state === 'expired'
    })
    const running = await claimOne(store, queue)
    await store.operate(queue, { kind: 'cancel', ids: ['a1'], keep: KEEP })
    assert.deepEqual(await keysOf(store, queue), ['a 1/1'])
    assert.equal(await store.operate(queue, { kind: 'purge' }), 1)
    assert.deepEqual(await keysOf(store, queue), ['a 0/1'])
    await store.operate(queue, { kind: 'cancel', ids: [running.id], keep: KEEP })
    assert.deepEqual(await keysOf(store, queue), [])
    await add(store, [task(queue, 'next', { key: 'a' })])
    assert.deepEqual(ids(await claim(store, queue)), ['next'])
  }
})
