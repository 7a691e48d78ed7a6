import assert from 'node:assert/strict'
import type { KeyView } from '../limits.js'
import type { Lease } from '../turn.js'
import { chapter } from './chapter.js'
import { assertCounts } from './support/assertions.js'
import { keysOf, numbered } from './support/lanes.js'
import {
  KEEP, LONG_MS, SHORT_MS, add, claim, claimOne, claimSuspect, dead, done, ids, release, retry, settle, show, task,
  tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable, untilSuspect } from './support/until.js'

/** Levels and keys: which lane a claim takes the next task from. */
export const sharing = chapter({
  async 'claims the highest level first, and each level in order' (store, queue) {
    await add(store, [
      task(queue, 'n1'), task(queue, 'l1', { priority: 'low' }), task(queue, 'h1', { priority: 'high' }),
      task(queue, 'n2'), task(queue, 'h2', { priority: 'high' }), task(queue, 'l2', { priority: 'low' })
    ])
    await assertCounts(store, queue, { waiting: 6 })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['h1', 'h2', 'n1', 'n2', 'l1', 'l2'])
    assert.deepEqual(ids(await store.list(queue, 'waiting', 1, 4)), ['h2', 'n1', 'n2', 'l1'])
    const claimed = [...await claim(store, queue, 3), ...await claim(store, queue, 1)]
    assert.deepEqual(ids(claimed), ['h1', 'h2', 'n1', 'n2'])
    assert.deepEqual(ids(await claim(store, queue)), ['l1', 'l2'])
  },

  async 'gives each lower level that waits one of eight claims' (store, queue) {
    await add(store, tasks(queue, numbered('h', 30), { priority: 'high' }))
    await add(store, tasks(queue, numbered('n', 30)))
    await add(store, tasks(queue, numbered('l', 30), { priority: 'low' }))
    const first = await claim(store, queue, 24)
    for (let start = 0; start < 24; start += 8) {
      const eight = levelsOf(first.slice(start, start + 8))
      assert.equal(eight, 'hhhnhhhl', 'the fourth is normal and the eighth is low')
    }
    // Once no high one is left, two levels wait, and then one.
    const rest = 'hhhnhhhl'.repeat(2) + 'nnnnnnnl'.repeat(3) + 'nnnn' + 'l'.repeat(22)
    assert.equal(levelsOf(await claim(store, queue)), rest)
  },

  async 'keeps the level of a task that is tried again, released, redriven or rescheduled' (store, queue) {
    const low = ['retried', 'released', 'redriven', 'delayed']
    await add(store, [
      ...tasks(queue, low.slice(0, 3), { priority: 'low' }),
      task(queue, 'delayed', { priority: 'low', delayMs: LONG_MS })
    ])
    const [retried, released, redriven] = await claim(store, queue)
    await turn(store, queue, [
      { lease: retried!, verdict: retry(0) },
      { lease: released!, verdict: release },
      { lease: redriven!, verdict: dead }
    ])
    await store.operate(queue, { kind: 'redrive' })
    await store.operate(queue, { kind: 'reschedule', ids: ['delayed'] })
    await add(store, tasks(queue, ['n1', 'n2']))
    await untilClaimable(store, queue)
    for (const id of low) assert.equal((await show(store, queue, id))?.priority, 'low')
    const claimed = ids(await claim(store, queue))
    assert.deepEqual(claimed.slice(0, 2), ['n1', 'n2'])
    assert.equal(claimed[2], 'released')
    assert.deepEqual(claimed.slice(3).sort(), ['delayed', 'redriven', 'retried'])
  },

  async 'keeps the level and the key of a task whose consumer has died' (store, queue) {
    await add(store, [task(queue, 'low', { priority: 'low', key: 'k' }), task(queue, 'high', { priority: 'high' })])
    await claim(store, queue, 2, SHORT_MS)
    await untilSuspect(store, queue)
    for (const expected of ['low', 'high']) {
      const lease = await claimSuspect(store, queue)
      const { priority, key } = (await show(store, queue, lease.id))!
      assert.deepEqual([priority, key], [lease.id, lease.id === 'low' ? 'k' : undefined], expected)
      await settle(store, queue, lease, retry(0))
    }
    await add(store, [task(queue, 'normal', { key: 'k' }), task(queue, 'plain')])
    await until('all are in line', async () => (await store.counts([queue]))[0]!.waiting === 4)
    assert.deepEqual(ids(await claim(store, queue)).sort(), ['high', 'low', 'normal', 'plain'])
    assert.equal((await show(store, queue, 'low'))?.priority, 'low')
  },

  async 'has the level and the key of a replacement, also of one that follows' (store, queue) {
    await add(store, [task(queue, 'follows', { key: 'old' }), task(queue, 'waits', { key: 'old', priority: 'high' })])
    const [waits] = await claim(store, queue, 1)
    assert.equal(waits?.id, 'waits')
    await add(store, [
      task(queue, 'follows', { onDuplicate: 'replace', key: 'new' }),
      task(queue, 'waits', { onDuplicate: 'replace', priority: 'low' })
    ])
    await settle(store, queue, waits!, done)
    assert.equal((await show(store, queue, 'follows'))?.key, 'new')
    const shown = (await show(store, queue, 'waits'))!
    assert.deepEqual([shown.priority, shown.key], ['low', undefined])
    assert.deepEqual(await keysOf(store, queue), ['new 1/0'])
  },

  async 'changes the level of tasks that wait, are delayed or run' (store, queue) {
    await add(store, [...tasks(queue, ['running', 'a', 'b', 'c']), task(queue, 'delayed', { delayMs: LONG_MS })])
    const running = await claimOne(store, queue)
    const all = ['running', 'b', 'delayed', 'nobody']
    assert.equal(await store.operate(queue, { kind: 'prioritize', ids: all, priority: 'high' }), 3)
    assert.equal(await store.operate(queue, { kind: 'prioritize', ids: ['a'], priority: 'low' }), 1)
    await settle(store, queue, running, release)
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['running', 'b', 'c', 'a'])
    assert.equal(await store.operate(queue, { kind: 'prioritize', ids: ['running', 'b'], priority: 'normal' }), 2)
    assert.equal((await show(store, queue, 'delayed'))?.priority, 'high')
    assert.deepEqual(ids(await claim(store, queue)), ['c', 'running', 'b', 'a'])
  },

  async 'claims from the key of which the fewest tasks run, then in turns' (store, queue) {
    await add(store, tasks(queue, numbered('a', 6), { key: 'a' }))
    await add(store, tasks(queue, numbered('b', 3), { key: 'b' }))
    await add(store, tasks(queue, numbered('none', 3)))
    const first = await claim(store, queue, 3)
    assert.deepEqual(ids(first), ['a0', 'b0', 'none0'])
    assert.deepEqual(ids(await claim(store, queue, 4)), ['a1', 'b1', 'none1', 'a2'])
    assert.deepEqual(await keysOf(store, queue), ['a 3/3', 'b 1/2'])
    await settle(store, queue, first[0]!, done)
    // Of b and of no key two run, and of a as well now, which has come to that last.
    assert.deepEqual(ids(await claim(store, queue)), ['b2', 'none2', 'a3', 'a4', 'a5'])
  },

  async 'serves a key that comes late before one that floods the queue' (store, queue) {
    await add(store, tasks(queue, numbered('flood', 100), { key: 'flood' }))
    const running = await claim(store, queue, 2)
    await add(store, [task(queue, 'late', { key: 'late' })])
    await settle(store, queue, running[0]!, done)
    assert.equal((await claimOne(store, queue)).id, 'late')
  },

  async 'gives a key no credit for the time in which it had nothing to do' (store, queue) {
    await add(store, [task(queue, 'a0', { key: 'a' })])
    await settle(store, queue, await claimOne(store, queue), done)
    await add(store, tasks(queue, numbered('b', 4), { key: 'b' }))
    for (const id of ['b0', 'b1']) {
      const lease = await claimOne(store, queue)
      assert.equal(lease.id, id)
      await settle(store, queue, lease, done)
    }
    await add(store, tasks(queue, ['a1', 'a2'], { key: 'a' }))
    const turns: string[] = []
    for (let count = 0; count < 4; count++) {
      const lease = await claimOne(store, queue)
      turns.push(lease.id)
      await settle(store, queue, lease, done)
    }
    assert.deepEqual(turns, ['b2', 'a1', 'b3', 'a2'])
  },

  async 'passes over a key whose tasks are delayed' (store, queue) {
    await add(store, tasks(queue, ['x', 'y'], { key: 'later', delayMs: LONG_MS }))
    await add(store, tasks(queue, numbered('a', 3), { key: 'a' }))
    assert.deepEqual(ids(await claim(store, queue)), ['a0', 'a1', 'a2'])
    assert.deepEqual(await keysOf(store, queue), ['a 0/3'])
  },

  async 'orders the levels within a key' (store, queue) {
    await add(store, [
      task(queue, 'a-low', { key: 'a', priority: 'low' }), task(queue, 'a-normal', { key: 'a' }),
      task(queue, 'b-low', { key: 'b', priority: 'low' }), task(queue, 'a-high', { key: 'a', priority: 'high' })
    ])
    assert.deepEqual(ids(await claim(store, queue)), ['a-high', 'b-low', 'a-normal', 'a-low'])
  },

  async 'leaves what cannot begin at once to others, if the queue has keys or limits' (store, queue, other) {
    await add(store, [...tasks(other, ['p0', 'p1', 'p2']), ...tasks(queue, ['k0', 'k1', 'k2'], { key: 'k' })])
    const plain = await turn(store, other, [], 3, { ahead: 2 })
    assert.deepEqual([ids(plain.leases), plain.isShared ?? false], [['p0', 'p1', 'p2'], false])
    const shared = await turn(store, queue, [], 3, { ahead: 2 })
    assert.deepEqual([ids(shared.leases), shared.isShared], [['k0'], true])
    await turn(store, queue, shared.leases.map(lease => ({ lease, verdict: done })), 3, { ahead: 0 })
    await store.operate(queue, { kind: 'cancel', ids: ['k1', 'k2'], keep: KEEP })
    await add(store, tasks(queue, ['p0', 'p1', 'p2']))
    assert.equal((await turn(store, queue, [], 3, { ahead: 2 })).leases.length, 3)
  },

  async 'lists keys one after the other, and forgets those that have nothing left' (store, queue) {
    const keys = ['a', 'a a', 'aa', 'b', '~'.repeat(255)]
    for (const key of keys) await add(store, [task(queue, `of ${key}`.replaceAll(' ', '_').slice(0, 99), { key })])
    const all: KeyView[] = []
    for (let isMore = true; isMore;) {
      const page = await store.keys(queue, all.at(-1)?.key ?? '', 2)
      all.push(...page)
      isMore = page.length === 2
    }
    assert.deepEqual(all, keys.map(key => ({ key, waiting: 1, running: 0, restMs: 0 })))
    const leases = await claim(store, queue)
    assert.deepEqual(await keysOf(store, queue), keys.map(key => `${key} 0/1`))
    await turn(store, queue, leases.map(lease => ({ lease, verdict: done })))
    assert.deepEqual(await store.keys(queue, '', 9), [])
  },

  async 'claims nothing of a paused queue, whatever its lanes' (store, queue) {
    await add(store, [task(queue, 'h', { priority: 'high' }), task(queue, 'k', { key: 'k' })])
    await store.operate(queue, { kind: 'pause' })
    const { leases, outlook } = await turn(store, queue, [], 9)
    assert.deepEqual([leases, outlook.wakeInMs], [[], Infinity])
    await store.operate(queue, { kind: 'resume' })
    assert.equal((await claim(store, queue)).length, 2)
  }
})

/** The first letters of the ids of leases, which say their levels. */
const levelsOf = (leases: readonly Lease[]): string => leases.map(({ id }) => id[0]).join('')
