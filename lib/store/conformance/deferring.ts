import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly, assertWake } from './support/assertions.js'
import {
  LONG_MS, REASON, SHORT_MS, add, claim, claimOne, claimSuspect, counters, dead, defer, deferrals, done, known, retry,
  settle, show, task, tasks, turn
} from './support/steps.js'
import { untilClaimable, untilExpired } from './support/until.js'

/** Deferred tasks: they cost no retry, and the store adds up for how long. */
export const deferring = chapter({
  async 'defers a task without a retry, and adds up for how long until it is redriven or replaced' (store, queue) {
    await add(store, [task(queue, 'a'), task(queue, 'b')])
    const [a, b] = await claim(store, queue)
    assert.deepEqual(deferrals(a!), { deferredMs: 0, unroutedMs: 0 })
    assert.deepEqual(counters(a!), { attempt: 1, retries: 0, deaths: 0 })
    const since = performance.now()
    // Long enough to find it delayed, also where the store is slow.
    const deferMs = 10 * SHORT_MS
    const { settled, outlook } = await turn(store, queue, [
      { lease: a!, verdict: defer(deferMs), record: 'busy' }, { lease: b!, verdict: done }
    ])
    assert.deepEqual(settled, [true, true])
    assertWake(outlook.wakeInMs, deferMs, since)
    const { dueAt, ...found } = (await show(store, queue, 'a'))!
    assert.deepEqual(found, known(queue, 'a', 'delayed', { attempt: 1, reason: REASON, records: ['busy'] }))
    assert.ok(dueAt !== undefined)
    await untilClaimable(store, queue)
    assertNotEarly(since, deferMs)
    const second = await claimOne(store, queue)
    assert.deepEqual(deferrals(second), { deferredMs: deferMs, unroutedMs: 0 })
    assert.deepEqual(counters(second), { attempt: 2, retries: 0, deaths: 0 })
    await settle(store, queue, second, defer(1000))
    await store.operate(queue, { kind: 'reschedule', ids: ['a'] })
    const third = await claimOne(store, queue)
    assert.deepEqual(deferrals(third), { deferredMs: 1000 + deferMs, unroutedMs: 0 })
    await settle(store, queue, third, retry(0))
    await untilClaimable(store, queue)
    const fourth = await claimOne(store, queue)
    assert.deepEqual(deferrals(fourth), { deferredMs: 1000 + deferMs, unroutedMs: 0 })
    assert.deepEqual(counters(fourth), { attempt: 4, retries: 1, deaths: 0 })
    await settle(store, queue, fourth, dead)
    await store.operate(queue, { kind: 'redrive' })
    const fifth = await claimOne(store, queue)
    assert.deepEqual(deferrals(fifth), { deferredMs: 0, unroutedMs: 0 })
    await settle(store, queue, fifth, defer(5))
    await untilClaimable(store, queue)
    const sixth = await claimOne(store, queue)
    await add(store, [task(queue, 'a', { onDuplicate: 'replace' })])
    await settle(store, queue, sixth, defer(LONG_MS))
    assert.deepEqual(deferrals(await claimOne(store, queue)), { deferredMs: 0, unroutedMs: 0 })
  },

  async 'does not count the attempt when no route takes a task, adds up its deferrals apart, and lets it expire' (
    store, queue, other
  ) {
    await add(store, [task(queue, 'a'), ...tasks(other, ['b', 'late'], { expiresMs: 10 * SHORT_MS })])
    await settle(store, queue, await claimOne(store, queue), defer(7))
    await untilClaimable(store, queue)
    const second = await claimOne(store, queue)
    assert.equal(second.attempt, 2)
    await settle(store, queue, second, defer(5, true))
    await untilClaimable(store, queue)
    const third = await claimOne(store, queue)
    assert.deepEqual(deferrals(third), { deferredMs: 12, unroutedMs: 5 })
    assert.deepEqual(counters(third), { attempt: 2, retries: 0, deaths: 0 })
    assert.equal(await settle(store, queue, second, done), false)
    await settle(store, queue, third, defer(LONG_MS, true))
    const { dueAt, ...found } = (await show(store, queue, 'a'))!
    assert.deepEqual(found, known(queue, 'a', 'delayed', { attempt: 1, reason: REASON }))
    const [b, late] = await claim(store, other)
    await settle(store, other, b!, defer(LONG_MS, true))
    await setTimeout(10 * SHORT_MS)
    await add(store, [task(other, 'looks', { delayMs: LONG_MS })])
    await turn(store, other, [], 1, { alone: true })
    await settle(store, other, late!, defer(LONG_MS, true))
    await untilExpired(store, other, ['b', 'late'])
    await assertCounts(store, other, { delayed: 1 })
  },

  async 'remembers for how long a task was deferred when its consumer dies, and clears a suspect that is deferred' (
    store, queue
  ) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), defer(5, true))
    await untilClaimable(store, queue)
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const suspect = await claimSuspect(store, queue)
    assert.deepEqual(deferrals(suspect), { deferredMs: 5, unroutedMs: 5 })
    assert.deepEqual(counters(suspect), { attempt: 3, retries: 0, deaths: 1 })
    await settle(store, queue, suspect, defer(6))
    await untilClaimable(store, queue)
    const last = await claimOne(store, queue)
    assert.deepEqual(deferrals(last), { deferredMs: 11, unroutedMs: 5 })
    assert.deepEqual(counters(last), { attempt: 4, retries: 0, deaths: 1 })
    assert.equal(last.suspect, false)
  }
})
