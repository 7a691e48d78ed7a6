import assert from 'node:assert/strict'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly } from './support/assertions.js'
import { stageEnded, stageUnended } from './support/stages.js'
import {
  KEEP, LONG_MS, SHORT_MS, add, claim, claimAll, claimOne, claimSuspect, counters, dead, done, holding, ids, lost,
  release, retry, settle, show, task, tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable } from './support/until.js'

/** Other orders from outside: purge, schedule, redrive, remove, pause and resume. */
export const operating = chapter({
  async 'counts tasks by state, and purges only those that wait or are delayed' (store, queue, other) {
    await add(store, tasks(queue, ['dead', 'running', 'released', 'retried', 'waiting', 'waiting too']))
    const [a, running, b, c] = await claim(store, queue, 4)
    await turn(store, queue, [
      { lease: a!, verdict: dead }, { lease: b!, verdict: release }, { lease: c!, verdict: retry(LONG_MS) }
    ])
    await add(store, [task(queue, 'delayed', { delayMs: LONG_MS }), task(other, 'waiting')])
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
    assert.equal(await store.operate(queue, { kind: 'purge' }), 5)
    await assertCounts(store, queue, { running: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    await add(store, [task(queue, 'delayed')])
    assert.deepEqual(ids(await claim(store, queue)), ['delayed'])
    assert.equal(await settle(store, queue, running!, done), true)
  },

  async 'makes tasks due at another time, and leaves suspects and those that run or have ended alone' (store, queue) {
    await stageEnded(store, queue)
    const running = await stageUnended(store, queue)
    await add(store, tasks(queue, ['a', 'b', 'c']))
    const schedule = (ids: string[], when: { delayMs?: number, runAt?: number } = {}) => {
      return store.operate(queue, { kind: 'reschedule', ids, ...when })
    }
    const fixed = ['suspect', 'running', 'done', 'dead', 'cancelled', 'expired', 'nobody']
    assert.equal(await schedule(fixed, { delayMs: LONG_MS }), 0)
    assert.equal(await schedule(['suspect', 'waiting', 'a', 'a']), 2)
    await assertCounts(store, queue, { waiting: 5, delayed: 2, running: 1, dead: 1 })
    const runAt = Date.now() + LONG_MS * 2
    assert.equal(await schedule(['waiting', 'b', 'retried'], { runAt }), 3)
    for (const id of ['waiting', 'b', 'retried']) assert.equal((await show(store, queue, id))?.dueAt, runAt)
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 10)).slice(0, 1), ['delayed'])
    assert.equal(await schedule(['waiting'], { runAt: runAt - LONG_MS * 4 }), 1)
    assert.equal(await schedule(['delayed']), 1)
    await assertCounts(store, queue, { waiting: 5, delayed: 2, running: 1, dead: 1 })
    assert.deepEqual(ids(await claim(store, queue)), ['a', 'c', 'waiting', 'delayed'])
    const since = performance.now()
    assert.equal(await schedule(['retried', 'b'], { delayMs: SHORT_MS }), 2)
    await settle(store, queue, await claimSuspect(store, queue), done)
    await untilClaimable(store, queue)
    assertNotEarly(since, SHORT_MS)
    const leases = await claimAll(store, queue, 2)
    assert.deepEqual(counters(leases.find(({ id }) => id === 'retried')!), { attempt: 2, retries: 1, deaths: 0 })
    assert.deepEqual(await lost(store, queue, [running]), [])
  },

  async 'puts dead tasks back in line with all their retries, and keeps what is known of them' (store, queue, other) {
    await add(store, tasks(queue, ['a', 'b', 'c', 'd']))
    await turn(store, queue, (await claim(store, queue)).map(lease => ({ lease, verdict: retry(0), record: 'first' })))
    await untilClaimable(store, queue)
    const seconds = await claimAll(store, queue, 4)
    await turn(store, queue, seconds.map(lease => ({ lease, verdict: dead, record: 'second' })))
    await add(store, [task(queue, 'w'), task(other, 'a')])
    await settle(store, other, await claimOne(store, other), dead)
    const { endedAt, reason, ...known } = (await show(store, queue, 'b'))!
    assert.equal(await store.operate(queue, { kind: 'redrive', ids: ['b', 'w', 'nobody', 'b'] }), 1)
    await assertCounts(store, queue, { waiting: 2, dead: 3 })
    const { reason: oldReason, ...again } = (await show(store, queue, 'b'))!
    assert.deepEqual(again, { ...known, state: 'waiting' })
    assert.equal(await store.operate(queue, { kind: 'redrive' }), 3)
    assert.equal(await store.operate(queue, { kind: 'redrive' }), 0)
    assert.deepEqual(await store.list(queue, 'dead', 0, 10), [])
    const leases = await claim(store, queue)
    assert.deepEqual(ids(leases.slice(0, 2)), ['w', 'b'])
    assert.deepEqual(ids(leases.slice(2)).sort(), ['a', 'c', 'd'])
    for (const lease of leases.slice(1)) {
      assert.deepEqual(counters(lease), { attempt: 3, retries: 0, deaths: 0 })
      assert.equal(lease.message, `message of ${lease.id}`)
    }
    await assertCounts(store, other, { dead: 1 })
  },

  async 'no longer treats a dead task as a suspect once it is put back in line' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), dead), true)
    assert.equal(await store.operate(queue, { kind: 'redrive', ids: ['a'] }), 1)
    const lease = await claimOne(store, queue)
    assert.deepEqual(counters(lease), { attempt: 4, retries: 0, deaths: 0 })
    assert.equal(lease.suspect, false)
  },

  async 'forgets dead tasks, and nothing else' (store, queue, other) {
    await stageEnded(store, queue)
    await stageUnended(store, queue)
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    await settle(store, queue, (await claim(store, queue)).find(({ id }) => id === 'a')!, dead)
    await turn(store, other, (await claim(store, other)).map(lease => ({ lease, verdict: dead })))
    const notDead = ['suspect', 'running', 'delayed', 'retried', 'done', 'cancelled', 'expired']
    assert.equal(await store.operate(queue, { kind: 'remove', ids: [...notDead, 'a', 'a', 'nobody'] }), 1)
    assert.equal(await show(store, queue, 'a'), undefined)
    for (const id of [...notDead, 'dead']) assert.equal((await show(store, queue, id))?.id, id)
    assert.equal(await store.operate(other, { kind: 'remove', ids: ['b'] }), 1)
    assert.deepEqual(ids(await store.list(other, 'dead', 0, 10)), ['c', 'a'])
    assert.equal(await store.operate(other, { kind: 'remove' }), 2)
    await assertCounts(store, other, {})
    await assertCounts(store, queue, { waiting: 1, delayed: 2, running: 4, dead: 1 })
    assert.deepEqual(await add(store, [task(other, 'a', { onDuplicate: 'reject' })]), [])
  },

  async 'hands out nothing while a queue is paused, and does everything else' (store, queue, other) {
    const running = await stageUnended(store, queue)
    const resumed = (await turn(store, queue, [])).outlook
    assert.equal((await store.counts([queue]))[0]!.paused, false)
    for (const kind of ['pause', 'pause'] as const) assert.equal(await store.operate(queue, { kind }), 0)
    assert.equal((await store.counts([queue]))[0]!.paused, true)
    assert.equal((await store.counts([other]))[0]!.paused, false)
    await add(store, [task(queue, 'added'), task(other, 'added')])
    assert.deepEqual(ids(await claim(store, other)), ['added'])
    const nothing = { wakeInMs: Infinity, suspects: false }
    for (const alone of [false, true]) {
      assert.deepEqual(await turn(store, queue, [], 10, { alone }), { settled: [], leases: [], outlook: nothing })
    }
    const pulses = await store.extend([holding(queue, [running])])
    assert.deepEqual(pulses, [{ lost: [], cancelled: [], outlook: nothing }])
    const released = await turn(store, queue, [{ lease: running, verdict: release }], 10)
    assert.deepEqual(released, { settled: [true], leases: [], outlook: nothing })
    await assertCounts(store, queue, { waiting: 4, delayed: 2, dead: 1 })
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['added'], keep: KEEP }), 1)
    for (const kind of ['resume', 'resume'] as const) assert.equal(await store.operate(queue, { kind }), 0)
    assert.equal((await store.counts([queue]))[0]!.paused, false)
    assert.deepEqual((await turn(store, queue, [])).outlook, resumed)
    assert.deepEqual(ids(await claim(store, queue)), ['running', 'waiting'])
    assert.equal((await claimSuspect(store, queue)).id, 'suspect')
  },

  async 'expires leases and tasks and makes tasks due in a paused queue too' (store, queue) {
    await add(store, [task(queue, 'running')])
    await claimOne(store, queue, SHORT_MS)
    await add(store, [
      task(queue, 'due', { delayMs: SHORT_MS }), task(queue, 'expired', { delayMs: LONG_MS, expiresMs: SHORT_MS })
    ])
    await store.operate(queue, { kind: 'pause' })
    await until('the lease and a task expire', async () => {
      const { leases } = await turn(store, queue, [], 10, { leaseMs: SHORT_MS })
      assert.deepEqual(leases, [])
      return (await store.counts([queue]))[0]!.running === 0 && (await store.list(queue, 'expired', 0, 10)).length === 1
    })
    await add(store, [task(queue, 'added')])
    await assertCounts(store, queue, { waiting: 3 })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['running', 'due', 'added'])
    await store.operate(queue, { kind: 'resume' })
    assert.equal((await claimSuspect(store, queue)).id, 'running')
    assert.deepEqual(ids(await claim(store, queue)), ['due', 'added'])
  }
})
