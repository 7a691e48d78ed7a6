import assert from 'node:assert/strict'
import { chapter } from './chapter.js'
import { assertCounts, assertNotEarly } from './support/assertions.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimOne, claimSuspect, dead, ids, known, lost, release, retry, settle, show, task,
  tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable, untilExpired, untilSuspect } from './support/until.js'

/** Tasks that are too late for their first attempt. */
export const expiry = chapter({
  async 'claims no task after it has expired, and says that it has' (store, queue, other) {
    const since = performance.now()
    const expiring = (queue: string) => [
      task(queue, 'waiting', { expiresMs: SHORT_MS }), task(queue, 'delayed', { delayMs: 5, expiresMs: SHORT_MS }),
      task(queue, 'never due', { delayMs: LONG_MS, expiresMs: SHORT_MS })
    ]
    await add(store, [...expiring(other), task(other, 'in time', { expiresMs: LONG_MS }), ...expiring(queue)])
    await untilExpired(store, queue, ['waiting', 'delayed', 'never due'])
    assertNotEarly(since, SHORT_MS)
    assert.deepEqual(ids(await claim(store, other)), ['in time'])
    await assertCounts(store, queue, {})
    await assertCounts(store, other, { running: 1 })
    const { endedAt, ...expired } = (await show(store, other, 'never due'))!
    assert.deepEqual(expired, known(other, 'never due', 'expired'))
    assert.equal(typeof endedAt, 'number')
  },

  async 'lets no task expire that was attempted, unless the app has not seen it' (store, queue) {
    const names = ['released', 'retried', 'abandoned', 'unseen', 'running', 'dead']
    await add(store, tasks(queue, names, { expiresMs: 6 * SHORT_MS }))
    const all = await claim(store, queue, 2)
    await claim(store, queue, 1, SHORT_MS)
    const rest = await claim(store, queue)
    assert.equal(all.length + rest.length, 5)
    await turn(store, queue, [
      { lease: all[0]!, verdict: release },
      { lease: all[1]!, verdict: retry(LONG_MS) },
      { lease: rest[0]!, verdict: { kind: 'release', unseen: true } },
      { lease: rest[2]!, verdict: dead }
    ])
    await untilExpired(store, queue, ['unseen'])
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['unseen'])
    await untilSuspect(store, queue)
    await store.operate(queue, { kind: 'redrive' })
    await store.operate(queue, { kind: 'reschedule', ids: ['retried'] })
    assert.deepEqual(ids(await claim(store, queue)).sort(), ['dead', 'released', 'retried'])
    assert.equal((await claimSuspect(store, queue)).id, 'abandoned')
    assert.deepEqual(await lost(store, queue, [rest[1]!]), [])
  },

  async 'lets a task expire that comes back unseen too late, even if others looked meanwhile' (store, queue) {
    await add(store, [task(queue, 'unseen', { expiresMs: SHORT_MS })])
    const lease = await claimOne(store, queue)
    await add(store, [task(queue, 'other', { delayMs: LONG_MS, expiresMs: SHORT_MS })])
    await untilExpired(store, queue, ['other'])
    assert.equal(await settle(store, queue, lease, { kind: 'release', unseen: true }), true)
    assert.deepEqual(await claim(store, queue), [])
    assert.equal((await show(store, queue, 'unseen'))?.state, 'expired')
  },

  async 'lets no suspect expire' (store, queue) {
    await add(store, [task(queue, 'suspect', { expiresMs: 4 * SHORT_MS })])
    await claimOne(store, queue, SHORT_MS)
    await add(store, [task(queue, 'other', { delayMs: LONG_MS, expiresMs: 4 * SHORT_MS })])
    await until('the other task expires', async () => {
      assert.deepEqual(await claim(store, queue), [])
      return (await show(store, queue, 'other'))?.state === 'expired'
    })
    await untilClaimable(store, queue)
    assert.equal((await claimSuspect(store, queue)).id, 'suspect')
  },

  async 'takes the id of a task that has expired, even if nobody has noticed' (store, queue) {
    await add(store, tasks(queue, ['a', 'b'], { expiresMs: SHORT_MS }))
    const again = [task(queue, 'b', { message: 'again', onDuplicate: 'keep' })]
    // Once b has expired, a has too.
    await until('the id is free', async () => (await add(store, again)).length === 0)
    await add(store, [task(queue, 'a', { message: 'again', onDuplicate: 'reject' })])
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['again', 'again'])
    assert.deepEqual(await store.list(queue, 'expired', 0, 10), [])
  }
})
