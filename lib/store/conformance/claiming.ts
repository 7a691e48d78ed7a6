import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly, assertWake } from './support/assertions.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimOne, done, holding, ids, settle, task, tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable } from './support/until.js'

/** Which tasks a claim hands out, in which order, and when delayed ones become due. */
export const claiming = chapter({
  async 'claims tasks in the order they were added' (store, queue) {
    await add(store, tasks(queue, ['c', '10', '9', 'a']))
    await add(store, tasks(queue, ['b', '1']))
    assert.deepEqual(ids(await claim(store, queue)), ['c', '10', '9', 'a', 'b', '1'])
  },

  async 'claims up to a limit, 0 included, and says whether there is more' (store, queue) {
    await add(store, tasks(queue, ['a', 'b', 'c']))
    const none = await turn(store, queue, [], 0)
    assert.deepEqual(none, { settled: [], leases: [], outlook: { wakeInMs: 0, suspects: false } })
    const some = await turn(store, queue, [], 2)
    assert.deepEqual(ids(some.leases), ['a', 'b'])
    assert.equal(some.outlook.wakeInMs, 0)
    const rest = await turn(store, queue, [], 2)
    assert.deepEqual(ids(rest.leases), ['c'])
    assert.ok(rest.outlook.wakeInMs > 0)
  },

  async 'hands a task to one of several claimers, and carries out one of several verdicts' (store, queue, other) {
    const all = Array.from({ length: 30 }, (_, index) => `task ${index + 10}`)
    await add(store, tasks(queue, all))
    const shares = await Promise.all(Array.from({ length: 6 }, () => claim(store, queue, 7)))
    assert.deepEqual(shares.flatMap(ids).sort(), all)
    const [lease] = shares.flat()
    const settled = await Promise.all(['x', 'y', 'z'].map(id => settle(store, queue, lease!, done, [task(other, id)])))
    assert.deepEqual(settled.sort(), [false, false, true])
    await assertCounts(store, queue, { running: 29 })
    await assertCounts(store, other, { waiting: 1 })
  },

  async 'holds a delayed task back until it is due, and then counts it as waiting' (store, queue) {
    const since = performance.now()
    await add(store, [
      task(queue, 'later', { delayMs: SHORT_MS }),
      task(queue, 'much later', { delayMs: LONG_MS }),
      task(queue, 'now', { delayMs: 0 })
    ])
    assert.equal((await claimOne(store, queue)).id, 'now')
    await untilClaimable(store, queue)
    assertNotEarly(since, SHORT_MS)
    await assertCounts(store, queue, { waiting: 1, delayed: 1, running: 1 })
    const { leases, outlook: { wakeInMs } } = await turn(store, queue, [], 100)
    assert.deepEqual(ids(leases), ['later'])
    assert.ok(wakeInMs > 0)
  },

  async 'makes a task due at its runAt, and at once if that is past' (store, queue) {
    const now = Date.now()
    await add(store, [
      task(queue, 'past', { runAt: now - 3_600_000 }),
      task(queue, 'soon', { runAt: now + SHORT_MS }),
      task(queue, 'future', { runAt: now + 3_600_000 })
    ])
    assert.equal((await claimOne(store, queue)).id, 'past')
    await untilClaimable(store, queue)
    assert.equal((await claimOne(store, queue)).id, 'soon')
    await assertCounts(store, queue, { delayed: 1, running: 2 })
  },

  async 'keeps the order of tasks that become due' (store, queue) {
    const [last, ...first] = ['d', 'c', '10', '9', 'a', 'b']
    await add(store, [task(queue, last!, { delayMs: 3 * SHORT_MS }), ...tasks(queue, first, { delayMs: SHORT_MS })])
    // After this pause all of them are usually due, so a store cannot get their order right by chance.
    await setTimeout(4 * SHORT_MS)
    const claimed: string[] = []
    while (claimed.length < 6) {
      await untilClaimable(store, queue)
      const leases = await claim(store, queue)
      assert.ok(leases.length > 0, 'a claim should return tasks when wakeInMs is 0')
      claimed.push(...ids(leases))
    }
    assert.deepEqual(claimed, [...first, last])
  },

  async 'has tasks that are due at one time run in the order in which they were delayed' (store, queue) {
    const runAt = Date.now() + 4 * SHORT_MS
    for (const id of ['c', 'b', '10', '9']) await add(store, tasks(queue, [id, `after ${id}`], { runAt }))
    await add(store, tasks(queue, ['z', 'y']))
    await store.operate(queue, { kind: 'reschedule', ids: ['z', 'b', 'y'], runAt })
    const all = ['c', 'after c', 'after b', '10', 'after 10', '9', 'after 9', 'z', 'b', 'y']
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 100)), all)
    await until('all tasks are due', async () => (await store.counts([queue]))[0]!.waiting === all.length)
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 100)), all)
    assert.deepEqual(ids(await claim(store, queue)), all)
  },

  async 'says when the next delayed task is due' (store, queue, other) {
    const since = performance.now()
    await add(store, [
      task(queue, 'a', { delayMs: LONG_MS }),
      task(queue, 'b', { delayMs: LONG_MS / 2 }),
      task(other, 'c', { delayMs: LONG_MS / 3 })
    ])
    assertWake((await turn(store, queue, [], 1)).outlook.wakeInMs, LONG_MS / 2, since)
    const pulses = await store.extend([holding(queue), holding(other)])
    assertWake(pulses[0]?.outlook.wakeInMs, LONG_MS / 2, since)
    assertWake(pulses[1]?.outlook.wakeInMs, LONG_MS / 3, since)
    await add(store, [task(queue, 'd')])
    const withLimit0 = await turn(store, queue, [])
    assert.equal(withLimit0.outlook.wakeInMs, 0)
  }
})
