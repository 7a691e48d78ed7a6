import assert from 'node:assert/strict'
import { HISTORY_MINUTES } from '../found.js'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly, assertWake } from './support/assertions.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimOne, counters, dead, defer, done, ids, lost, release, retry, settle, task, tasks,
  turn
} from './support/steps.js'
import { untilClaimable } from './support/until.js'

/** What a settlement does: release, retry, done and dead, with the tasks that an attempt has added. */
export const settling = chapter({
  async 'counts in each minute how many tasks were done, and how many attempts have failed' (store, queue, other) {
    const sum = (counts: readonly number[]) => counts.reduce((all, count) => all + count, 0)
    const [before] = await store.history([queue])
    assert.deepEqual(before, { done: new Array(HISTORY_MINUTES).fill(0), failed: new Array(HISTORY_MINUTES).fill(0) })
    await add(store, tasks(queue, ['a', 'b', 'c', 'd', 'e', 'f']))
    const verdicts = [done, done, retry(LONG_MS), dead, release, defer(LONG_MS)]
    await turn(store, queue, (await claim(store, queue)).map((lease, index) => ({ lease, verdict: verdicts[index]! })))
    await settle(store, queue, await claimOne(store, queue), done)
    const [there, here] = await store.history([other, queue])
    assert.deepEqual([sum(there!.done), sum(there!.failed)], [0, 0])
    // A minute may have ended meanwhile.
    assert.deepEqual([sum(here!.done.slice(-2)), sum(here!.failed.slice(-2))], [3, 2])
    assert.deepEqual([here!.done.length, here!.failed.length], [HISTORY_MINUTES, HISTORY_MINUTES])
  },

  async 'does not count an attempt at a task that is given back unseen' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    const [first] = await claim(store, queue, 1)
    assert.equal(await settle(store, queue, first!, release), true)
    const [second] = await claim(store, queue, 1)
    assert.equal(await settle(store, queue, second!, { kind: 'release', unseen: true }), true)
    const [third] = await claim(store, queue, 1)
    assert.equal(third?.id, 'a')
    assert.deepEqual(counters(third), { attempt: 2, retries: 0, deaths: 0 })
    assert.equal(await settle(store, queue, second!, done), false)
  },

  async 'gives a released task back to the front, without a retry and with a higher attempt' (store, queue) {
    await add(store, tasks(queue, ['a', 'b', 'c']))
    const [a, b] = await claim(store, queue, 2)
    assert.deepEqual(counters(a!), { attempt: 1, retries: 0, deaths: 0 })
    assert.equal(await settle(store, queue, b!, release), true)
    await assertCounts(store, queue, { waiting: 2, running: 1 })
    const again = await claimOne(store, queue)
    assert.equal(again.id, 'b')
    assert.equal(again.message, 'message of b')
    assert.deepEqual(counters(again), { attempt: 2, retries: 0, deaths: 0 })
  },

  async 'puts what is given back last in front of what was given back before' (store, queue) {
    await add(store, tasks(queue, ['a', 'b', 'c', 'd']))
    const [a, b, c] = await claim(store, queue, 3)
    await settle(store, queue, a!, release)
    await turn(store, queue, [
      { lease: b!, verdict: release }, { lease: c!, verdict: { kind: 'release', unseen: true } }
    ])
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['b', 'c', 'a', 'd'])
    assert.deepEqual(ids(await claim(store, queue)), ['b', 'c', 'a', 'd'])
  },

  async 'retries a task after a delay, counting a retry, and behind those that wait' (store, queue) {
    await add(store, tasks(queue, ['a', 'b', 'c']))
    const [a, b] = await claim(store, queue, 2)
    const { settled, outlook: { wakeInMs } } = await turn(store, queue, [
      { lease: a!, verdict: retry(LONG_MS) }, { lease: b!, verdict: retry(0) }
    ])
    assert.deepEqual({ settled, wakeInMs }, { settled: [true, true], wakeInMs: 0 })
    const [c, again] = await claim(store, queue)
    assert.deepEqual([c?.id, again?.id, again?.message], ['c', 'b', 'message of b'])
    assert.deepEqual(counters(again!), { attempt: 2, retries: 1, deaths: 0 })
    const since = performance.now()
    const last = await turn(store, queue, [{ lease: c!, verdict: retry(SHORT_MS) }, { lease: again!, verdict: done }])
    assertWake(last.outlook.wakeInMs, SHORT_MS, since)
    await untilClaimable(store, queue)
    assertNotEarly(since, SHORT_MS)
    assert.equal((await claimOne(store, queue)).id, 'c')
    await assertCounts(store, queue, { delayed: 1, running: 1 })
  },

  async 'settles and then claims, in one turn' (store, queue) {
    await add(store, tasks(queue, ['a', 'b', 'c']))
    const [a, b] = await claim(store, queue, 2)
    const { settled, leases, outlook: { wakeInMs } } = await turn(store, queue, [
      { lease: a!, verdict: done, chain: [task(queue, 'd')] },
      { lease: b!, verdict: release }
    ], 2)
    assert.deepEqual(settled, [true, true])
    assert.deepEqual(ids(leases), ['b', 'c'])
    assert.equal(wakeInMs, 0)
    const next = await turn(store, queue, [{ lease: leases[1]!, verdict: retry(0) }], 5)
    assert.deepEqual(ids(next.leases), ['d', 'c'])
    const chained = await turn(store, queue, [{ lease: next.leases[0]!, verdict: done, chain: [task(queue, 'e')] }], 5)
    assert.deepEqual(ids(chained.leases), ['e'])
    await assertCounts(store, queue, { running: 3 })
  },

  async 'settles a batch that is partly lost' (store, queue, other) {
    await add(store, tasks(queue, ['a', 'b']))
    const [a, b] = await claim(store, queue)
    const { settled } = await turn(store, queue, [
      { lease: { id: 'nobody', fence: 1 }, verdict: done },
      { lease: a!, verdict: done },
      { lease: a!, verdict: dead },
      { lease: { id: 'b', fence: b!.fence + 1 }, verdict: done },
      { lease: b!, verdict: dead }
    ])
    assert.deepEqual(settled, [false, true, false, false, true])
    assert.equal(await settle(store, other, a!, done), false)
    await assertCounts(store, queue, { dead: 1 })
  },

  async 'refuses to settle or prolong a lease that was settled' (store, queue, other) {
    const verdicts = [done, release, retry(LONG_MS), defer(LONG_MS), retry(0), dead]
    await add(store, verdicts.map((_, index) => task(queue, `${index}`)))
    const leases = await claim(store, queue)
    await turn(store, queue, leases.map((lease, index) => ({ lease, verdict: verdicts[index]! })))
    for (const verdict of verdicts) {
      const late = leases.map(lease => ({ lease, verdict, chain: [task(other, 'a')] }))
      assert.deepEqual((await turn(store, queue, late)).settled, verdicts.map(() => false))
      assert.deepEqual([...await lost(store, queue, leases) ?? []].sort(), ids(leases))
    }
    await assertCounts(store, queue, { waiting: 2, delayed: 2, dead: 1 })
    await assertCounts(store, other, {})
  },

  async 'stores a chain only if its task is settled: with any verdict, in several queues' (store, queue, other) {
    const verdicts = [done, release, retry(LONG_MS), dead]
    await add(store, tasks(queue, [...verdicts.map(({ kind }) => kind), 'lost']))
    const leases = await claim(store, queue)
    await turn(store, queue, leases.map(({ id, fence }, index) => ({
      lease: { id, fence: id === 'lost' ? fence + 1 : fence },
      verdict: verdicts[index] ?? done,
      chain: [task(other, `after ${id}`), task(other, 'same'), task(queue, `later than ${id}`, { delayMs: LONG_MS })]
    })))
    await assertCounts(store, queue, { waiting: 1, delayed: 5, running: 1, dead: 1 })
    const chained = ['after done', 'same', 'after release', 'after retry', 'after dead']
    assert.deepEqual(ids(await claim(store, other)), chained)
  },

  async 'adds the chains of a turn after all its settlements, and before it claims' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    const [a, b] = await claim(store, queue)
    const chain = [
      task(queue, 'b', { message: 'again', onDuplicate: 'keep' }),
      ...tasks(queue, ['z', 'y'], { delayMs: 0 }),
      task(queue, 'x')
    ]
    const settlements = [{ lease: a!, verdict: done, chain }, { lease: b!, verdict: done }]
    const { settled, leases } = await turn(store, queue, settlements, 10)
    assert.deepEqual(settled, [true, true])
    assert.deepEqual(leases.map(({ id, message }) => [id, message]), [
      ['b', 'again'], ['z', 'message of z'], ['y', 'message of y'], ['x', 'message of x']
    ])
  }
})
