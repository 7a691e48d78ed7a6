import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { RECORD_LIMIT } from '../found.js'
import type { Keep, Verdict } from '../turn.js'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly } from './support/assertions.js'
import { stageEnded } from './support/stages.js'
import {
  KEEP, LONG_MS, REASON, SHORT_MS, add, claim, claimOne, claimSuspect, counters, dead, done, ids, known, release,
  retry, settle, show, task, tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable } from './support/until.js'

/** What a store keeps: tasks that have ended, records of attempts, and progress. */
export const keeping = chapter({
  async 'keeps every dead letter, and hands none out' (store, queue, other) {
    const many = Array.from({ length: 1500 }, (_, index) => `${index}`)
    await add(store, [...tasks(queue, many), task(other, 'a')])
    const leases = await claim(store, queue, many.length)
    const after = await turn(store, queue, leases.map(lease => ({ lease, verdict: dead })), 1)
    assert.deepEqual([after.leases, after.outlook.wakeInMs, after.dropped ?? 0], [[], Infinity, 0])
    await settle(store, other, await claimOne(store, other), dead)
    await assertCounts(store, queue, { dead: many.length })
    assert.equal((await show(store, queue, '0'))?.message, 'message of 0')
    assert.equal(await store.operate(queue, { kind: 'redrive' }), many.length)
    await assertCounts(store, queue, { waiting: many.length })
    assert.deepEqual(ids(await claim(store, queue, 2)).sort().length, 2)
    await assertCounts(store, other, { dead: 1 })
  },

  async 'drops the oldest dead letters where it is told to, and says how many' (store, queue, other) {
    const die = async (name: string, ids: readonly string[]) => {
      await add(store, tasks(name, ids))
      for (const lease of await claim(store, name)) await settle(store, name, lease, dead, [], { record: 'end' })
    }
    await die(queue, ['a', 'b', 'c', 'd'])
    await die(other, ['a', 'b'])
    const trim = async (keepDead: Keep, limit = 0) => (await turn(store, queue, [], limit, { keepDead })).dropped ?? 0
    assert.equal(await trim({ count: Infinity, ms: Infinity }), 0)
    assert.equal(await trim({ count: 4, ms: LONG_MS }), 0)
    assert.equal(await trim({ count: 2, ms: Infinity }), 2)
    assert.deepEqual(ids(await store.list(queue, 'dead', 0, 10)), ['d', 'c'])
    assert.equal(await show(store, queue, 'a'), undefined)
    await setTimeout(10 * SHORT_MS)
    await die(queue, ['a'])
    assert.equal(await trim({ count: 10, ms: 9 * SHORT_MS }), 2)
    assert.deepEqual(ids(await store.list(queue, 'dead', 0, 10)), ['a'])
    assert.equal((await turn(store, queue, [], 1, { keepDead: { count: 0, ms: Infinity } })).dropped, 1)
    await assertCounts(store, queue, {})
    await assertCounts(store, other, { dead: 2 })
    await add(store, [task(queue, 'a')])
    assert.deepEqual(counters(await claimOne(store, queue)), { attempt: 1, retries: 0, deaths: 0 })
  },

  async 'keeps the newest RECORD_LIMIT records of a task, as they are, and a gap for a death' (store, queue) {
    const texts = [' a\r\n\tb ', '"\'`\\%s$1?{}', '007', 'null', '[]', 'ßéあ🚨\u{10FFFF}\u2028', 'é'.repeat(1000)]
    await add(store, [task(queue, 'a')])
    for (const record of texts) await settle(store, queue, await claimOne(store, queue), release, [], { record })
    await settle(store, queue, await claimOne(store, queue), release)
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), retry(0), [], { record: 'after' }), true)
    assert.deepEqual((await show(store, queue, 'a'))?.records, [...texts, undefined, 'after'])
    const more = Array.from({ length: RECORD_LIMIT - 1 }, (_, index) => `${index}`)
    await untilClaimable(store, queue)
    for (const record of more) await settle(store, queue, await claimOne(store, queue), release, [], { record })
    assert.deepEqual((await show(store, queue, 'a'))?.records, ['after', ...more])
    await settle(store, queue, await claimOne(store, queue), done, [], { record: 'end' })
    assert.deepEqual((await show(store, queue, 'a'))?.records, [...more, 'end'])
  },

  async 'keeps no record of a settlement that is not carried out' (store, queue) {
    await add(store, [task(queue, 'a')])
    const { id, fence } = await claimOne(store, queue)
    const forged = { id, fence: fence + 1 }
    assert.equal(await settle(store, queue, forged, done, [], { record: 'no', dedupeMs: LONG_MS }), false)
    assert.deepEqual(await show(store, queue, 'a'), known(queue, 'a', 'running', { attempt: 1 }))
  },

  async 'keeps the newest of the tasks that are done, cancelled or expired, and none of them too long' (
    store, queue, other
  ) {
    const settleAll = async (name: string, verdict: Verdict, keep: Keep) => {
      const settlements = (await claim(store, name)).map(lease => ({ lease, verdict }))
      await turn(store, name, settlements, 0, { keep })
    }
    await stageEnded(store, queue)
    await add(store, tasks(queue, ['a', 'b']))
    await settleAll(queue, done, { count: 3, ms: LONG_MS })
    const kept = async (name: string) => {
      const states = ['done', 'cancelled', 'expired', 'dead'] as const
      const lists = await Promise.all(states.map(state => store.list(name, state, 0, 10)))
      return lists.map(ids)
    }
    assert.deepEqual(await kept(queue), [['b', 'a'], [], ['expired'], ['dead']])
    assert.equal(await show(store, queue, 'done'), undefined)
    await add(store, tasks(queue, ['x', 'y']))
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['x', 'y'], keep: { count: 2, ms: LONG_MS } }), 2)
    assert.deepEqual(await kept(queue), [[], ['y', 'x'], [], ['dead']])
    await add(store, [task(other, 'a'), task(other, 'b', { delayMs: LONG_MS })])
    await settleAll(other, done, { count: 0, ms: LONG_MS })
    assert.equal(await store.operate(other, { kind: 'cancel', ids: ['b'], keep: { count: 0, ms: LONG_MS } }), 1)
    assert.deepEqual(await kept(other), [[], [], [], []])
    for (const id of ['a', 'b']) assert.equal(await show(store, other, id), undefined)
    await add(store, [task(other, 'c')])
    const since = performance.now()
    await settleAll(other, done, { count: 3, ms: SHORT_MS })
    await until('the task is forgotten', async () => await show(store, other, 'c') === undefined)
    assertNotEarly(since, SHORT_MS)
    assert.deepEqual(await kept(other), [[], [], [], []])
    await turn(store, queue, [], 1, { keep: { count: 1, ms: LONG_MS } })
    assert.deepEqual(await kept(queue), [[], ['y'], [], ['dead']])
  },

  async 'keeps what one turn ends in the order of its settlements, and then of what expires' (store, queue) {
    const keep = { count: 3, ms: LONG_MS }
    await add(store, tasks(queue, ['c', 'b', 'a']))
    const leases = await claim(store, queue)
    await add(store, tasks(queue, ['z', 'y'], { expiresMs: SHORT_MS, delayMs: LONG_MS }))
    await setTimeout(2 * SHORT_MS)
    await turn(store, queue, leases.map(lease => ({ lease, verdict: done })), 1, { keep })
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['y', 'z'])
    assert.deepEqual(ids(await store.list(queue, 'done', 0, 10)), ['a'])
  },

  async 'keeps the reason of a task that is cancelled after it was tried' (store, queue) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), retry(LONG_MS), [], { record: 'first' })
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    const { state, reason, records, attempt } = (await show(store, queue, 'a'))!
    const expected = { state: 'cancelled', reason: REASON, records: ['first'], attempt: 1 }
    assert.deepEqual({ state, reason, records, attempt }, expected)
  },

  async 'keeps what a running task notes until it notes something else or has ended' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    const progress = async (id = 'a') => (await show(store, queue, id))?.progress
    const leases = await claim(store, queue)
    const [a, b] = leases
    for (const text of ['', '"half" é\n🚨', 'half']) {
      assert.equal(await store.setProgress(queue, a!, text), true)
      assert.equal(await progress(), text)
    }
    assert.equal(await store.setProgress(queue, b!, 'all'), true)
    await turn(store, queue, [{ lease: a!, verdict: retry(0) }, { lease: b!, verdict: done }])
    assert.equal(await store.setProgress(queue, a!, 'late'), false)
    assert.deepEqual([await progress(), await progress('b')], ['half', undefined])
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimOne(store, queue), release), true)
    const again = await claimOne(store, queue)
    assert.equal(await store.setProgress(queue, { id: 'a', fence: again.fence + 1 }, 'forged'), false)
    assert.equal(await store.setProgress(queue, { id: 'nobody', fence: again.fence }, 'forged'), false)
    assert.equal(await progress(), 'half')
    assert.equal(await settle(store, queue, again, dead), true)
    assert.equal(await progress(), undefined)
    await store.operate(queue, { kind: 'redrive' })
    assert.equal(await progress(), undefined)
  }
})
