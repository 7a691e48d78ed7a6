import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import type { State } from '../found.js'
import type { NewTask } from '../tasks.js'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly } from './support/assertions.js'
import { stageEnded, stageUnended } from './support/stages.js'
import {
  KEEP, LONG_MS, SHORT_MS, add, claim, claimAll, claimOne, claimSuspect, counters, dead, done, ids, known, lost,
  release, retry, settle, show, task, tasks, trimmed, turn
} from './support/steps.js'
import { untilClaimable, untilExpired } from './support/until.js'

/** Tasks that replace another one of their id, and follow it if it runs. */
export const replacing = chapter({
  async 'replaces a task that waits or is delayed by a new one at the end of the line' (store, queue) {
    await stageUnended(store, queue)
    const replaced = ['suspect', 'retried', 'waiting', 'delayed', 'dead', 'new']
    const replacements = tasks(queue, replaced, { message: 'again', onDuplicate: 'replace' })
    await add(store, [task(queue, 'before')])
    assert.deepEqual(await add(store, replacements), [])
    await assertCounts(store, queue, { waiting: 7, running: 1 })
    assert.deepEqual(await show(store, queue, 'retried'), known(queue, 'retried', 'waiting', { message: 'again' }))
    const leases = await claim(store, queue)
    assert.deepEqual(ids(leases), ['before', ...replaced])
    for (const lease of leases.slice(1)) {
      assert.equal(lease.message, 'again')
      assert.deepEqual(counters(lease), { attempt: 1, retries: 0, deaths: 0 })
      assert.equal(lease.suspect, false)
    }
  },

  async 'replaces a task that waits by one that is delayed or expires, and the other way round' (store, queue) {
    await add(store, [task(queue, 'a'), task(queue, 'b', { delayMs: SHORT_MS, expiresMs: 2 * SHORT_MS })])
    await add(store, [
      task(queue, 'a', { message: 'later', delayMs: LONG_MS, onDuplicate: 'replace' }),
      task(queue, 'b', { message: 'at any time', delayMs: 3 * SHORT_MS, onDuplicate: 'replace' })
    ])
    await assertCounts(store, queue, { delayed: 2 })
    assert.deepEqual(await claim(store, queue), [])
    await untilClaimable(store, queue)
    assert.equal((await claimOne(store, queue)).message, 'at any time')
    await assertCounts(store, queue, { delayed: 1, running: 1 })
    await add(store, [task(queue, 'a', { message: 'now', onDuplicate: 'replace' })])
    assert.equal((await claimOne(store, queue)).message, 'now')
  },

  async 'has a replacement follow the task that runs, whatever becomes of that one' (store, queue, other) {
    const verdicts = [done, release, retry(LONG_MS), dead]
    await add(store, verdicts.map(({ kind }) => task(queue, kind)))
    await turn(store, queue, (await claim(store, queue)).map(lease => ({ lease, verdict: retry(0), record: 'first' })))
    await untilClaimable(store, queue)
    const leases = await claimAll(store, queue, verdicts.length)
    const running = ids(leases)
    assert.deepEqual(await add(store, tasks(queue, running, { message: 'replaced', onDuplicate: 'replace' })), [])
    const following = running.map(id => task(queue, id, { message: `after ${id}`, onDuplicate: 'replace' }))
    assert.deepEqual(await add(store, following), [])
    assert.deepEqual(await add(store, tasks(queue, running, { message: 'no', onDuplicate: 'keep' })), running)
    await add(store, tasks(queue, running, { message: 'no' }))
    assert.deepEqual(await claim(store, queue), [])
    assert.deepEqual(await lost(store, queue, leases), [])
    await store.setProgress(queue, leases[0]!, 'half')
    await add(store, [task(queue, 'before')])
    const { settled } = await turn(store, queue, leases.map((lease, index) => ({
      lease, verdict: verdicts[index]!, record: 'second', chain: [task(other, `chain of ${lease.id}`)]
    })))
    assert.deepEqual(settled, verdicts.map(() => true))
    await assertCounts(store, queue, { waiting: 5 })
    await assertCounts(store, other, { waiting: 4 })
    for (const state of ['done', 'cancelled', 'expired', 'dead'] as const) {
      assert.deepEqual(await store.list(queue, state, 0, 10), [])
    }
    const { progress, records } = (await show(store, queue, 'done'))!
    assert.deepEqual({ progress, records }, { progress: undefined, records: ['first', 'second'] })
    assert.equal((await claimOne(store, queue)).id, 'before')
    const next = await claim(store, queue)
    assert.deepEqual(next.map(({ message }) => message).sort(), verdicts.map(({ kind }) => `after ${kind}`).sort())
    for (const { attempt, retries } of next) assert.deepEqual({ attempt, retries }, { attempt: 3, retries: 0 })
    await turn(store, queue, next.map(lease => ({ lease, verdict: done })))
    await assertCounts(store, queue, { running: 1 })
  },

  async 'neither shows nor hands out the replacement of a running task until that attempt has ended' (store, queue) {
    await add(store, [task(queue, 'a')])
    const lease = await claimOne(store, queue)
    const before = await show(store, queue, 'a')
    const replacement = { message: 'again', delayMs: LONG_MS, expiresMs: LONG_MS, onDuplicate: 'replace' } as const
    await add(store, [task(queue, 'a', replacement)])
    assert.deepEqual(await show(store, queue, 'a'), before)
    assert.deepEqual((await store.list(queue, 'running', 0, 10)).map(trimmed), [before])
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    assert.equal((await show(store, queue, 'a'))?.message, 'message of a')
    assert.equal(await settle(store, queue, lease, done), false)
  },

  async 'lets the replacement of a running task expire by its own time, and counts no attempt that was unseen' (
    store, queue
  ) {
    await add(store, tasks(queue, ['a', 'b', 'c'], { expiresMs: SHORT_MS }))
    const leases = await claim(store, queue)
    const replacement = { message: 'again', onDuplicate: 'replace' } as const
    await add(store, [
      task(queue, 'a', { ...replacement, expiresMs: SHORT_MS }),
      task(queue, 'b', replacement),
      task(queue, 'c', { ...replacement, expiresMs: LONG_MS })
    ])
    const again = tasks(queue, ['a', 'b', 'c'], { onDuplicate: 'keep' })
    // A replacement does not expire while the attempt before it runs.
    assert.deepEqual(await add(store, again), ['a', 'b', 'c'])
    await setTimeout(2 * SHORT_MS)
    assert.deepEqual(await add(store, again), ['a', 'b', 'c'])
    await turn(store, queue, leases.map(lease => ({ lease, verdict: { kind: 'release', unseen: lease.id !== 'c' } })))
    const next = await claim(store, queue)
    assert.deepEqual(next.map(({ id, message, attempt }) => ({ id, message, attempt })), [
      { id: 'b', message: 'again', attempt: 1 }, { id: 'c', message: 'again', attempt: 2 }
    ])
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['a'])
  },

  async 'delays the replacement of a running task until its own due time' (store, queue) {
    await add(store, tasks(queue, ['a', 'b']))
    const leases = await claim(store, queue)
    const since = performance.now()
    await add(store, [
      task(queue, 'a', { delayMs: LONG_MS, onDuplicate: 'replace' }),
      task(queue, 'b', { message: 'soon', delayMs: 2 * SHORT_MS, onDuplicate: 'replace' })
    ])
    await turn(store, queue, leases.map(lease => ({ lease, verdict: done })))
    await assertCounts(store, queue, { delayed: 2 })
    await untilClaimable(store, queue)
    assertNotEarly(since, 2 * SHORT_MS)
    assert.equal((await claimOne(store, queue)).message, 'soon')
    await assertCounts(store, queue, { delayed: 1, running: 1 })
  },

  async 'merges a task whose lease expires with its replacement: one suspect, the later message, all retries' (
    store, queue
  ) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), retry(0))
    await untilClaimable(store, queue)
    await claimOne(store, queue, SHORT_MS)
    await add(store, [task(queue, 'a', { message: 'again', delayMs: LONG_MS, onDuplicate: 'replace' })])
    await untilClaimable(store, queue)
    const lease = await claimSuspect(store, queue)
    assert.deepEqual([lease.message, lease.attempt, lease.retries], ['again', 3, 0])
    assert.equal(await settle(store, queue, lease, done), true)
    await assertCounts(store, queue, {})
  },

  async 'leaves nothing of the first of two tasks of one id in a commit where the second replaces it' (store, queue) {
    const replacing = (id: string, rest: Partial<NewTask> = {}) => {
      return task(queue, id, { message: 'again', onDuplicate: 'replace', ...rest })
    }
    await add(store, [
      task(queue, 'place', { onDuplicate: 'keep' }), task(queue, 'between'), replacing('place'),
      task(queue, 'never', { onDuplicate: 'keep', expiresMs: SHORT_MS }), replacing('never'),
      task(queue, 'soon', { onDuplicate: 'replace' }), replacing('soon', { expiresMs: SHORT_MS }),
      task(queue, 'now', { onDuplicate: 'keep', delayMs: LONG_MS }), replacing('now'),
      task(queue, 'later', { onDuplicate: 'keep' }), replacing('later', { delayMs: LONG_MS })
    ])
    await assertCounts(store, queue, { waiting: 5, delayed: 1 })
    await untilExpired(store, queue, ['soon'])
    assert.deepEqual((await claim(store, queue)).map(({ id, message }) => [id, message]), [
      ['between', 'message of between'], ['place', 'again'], ['never', 'again'], ['now', 'again']
    ])
  },

  async 'puts a new task in the place of one that has ended' (store, queue) {
    await stageEnded(store, queue)
    for (const id of ['done', 'dead', 'cancelled', 'expired']) {
      const onDuplicate = id === 'dead' ? 'replace' : 'reject'
      assert.deepEqual(await add(store, [task(queue, id, { message: 'again', onDuplicate })]), [])
      assert.deepEqual(await show(store, queue, id), known(queue, id, 'waiting', { message: 'again' }))
      assert.deepEqual(await store.list(queue, id as State, 0, 10), [])
    }
    assert.equal((await claim(store, queue)).length, 4)
  }
})
