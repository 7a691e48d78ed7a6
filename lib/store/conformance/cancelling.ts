import assert from 'node:assert/strict'
import type { Held } from '../turn.js'
import { chapter } from './chapter.js'
import { assertCounts } from './support/assertions.js'
import { stageEnded, stageUnended } from './support/stages.js'
import {
  KEEP, LONG_MS, SHORT_MS, add, claim, claimOne, done, holding, ids, release, settle, show, task, tasks, turn
} from './support/steps.js'
import { untilWoken } from './support/until.js'

/** Cancelling tasks, and the gaps that cancelled tasks leave in the line. */
export const cancelling = chapter({
  async 'cancels what waits, is delayed or runs, and passes over the rest' (store, queue, other) {
    await stageEnded(store, queue)
    const running = await stageUnended(store, queue)
    await add(store, [task(queue, 'stays'), task(other, 'waiting')])
    const cancelled = ['suspect', 'running', 'waiting', 'delayed', 'retried']
    const others = ['done', 'dead', 'expired', 'cancelled', 'nobody']
    const order = { kind: 'cancel', ids: [...cancelled, ...cancelled, ...others], keep: KEEP } as const
    assert.equal(await store.operate(queue, order), 5)
    await assertCounts(store, queue, { waiting: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await turn(store, queue, [])).outlook, { wakeInMs: 0, suspects: false })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['stays'])
    for (const id of cancelled) assert.equal((await show(store, queue, id))?.state, 'cancelled')
    assert.equal((await show(store, queue, 'running'))?.message, 'message of running')
    assert.deepEqual((await show(store, queue, 'suspect'))?.records, [undefined])
    assert.equal(await store.setProgress(queue, running, 'half'), false)
    assert.equal(await settle(store, queue, running, done, [task(other, 'chained')]), false)
    await assertCounts(store, other, { waiting: 1 })
    assert.equal(await store.operate(queue, order), 0)
    assert.deepEqual(ids(await claim(store, queue)), ['stays'])
    assert.equal((await turn(store, queue, [])).outlook.wakeInMs > SHORT_MS, true)
    assert.deepEqual((await turn(store, queue, [], 1, { alone: true })).leases, [])
  },

  async 'says of a lease that is lost whether its task was cancelled, even when its id is taken again' (
    store, queue, other
  ) {
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    const leases = await claim(store, queue)
    await claim(store, other)
    const [a, b, c] = leases
    await settle(store, queue, b!, done)
    await store.operate(queue, { kind: 'cancel', ids: ['a', 'b'], keep: { count: 0, ms: 0 } })
    await add(store, [task(queue, 'a')])
    const young = await claimOne(store, queue)
    const pulse = async (...leases: readonly Held[]) => {
      const [own, elsewhere] = await store.extend([holding(queue, leases), holding(other, leases)])
      assert.ok(own !== undefined && elsewhere !== undefined, 'extend should return a pulse for each queue')
      assert.deepEqual(elsewhere.cancelled, [])
      return { lost: [...own.lost], cancelled: [...own.cancelled] }
    }
    assert.deepEqual(await pulse(a!, b!, c!), { lost: ['a', 'b'], cancelled: ['a'] })
    assert.deepEqual(await pulse(young, c!, { id: 'nobody', fence: a!.fence }), { lost: ['nobody'], cancelled: [] })
    assert.equal(await settle(store, queue, a!, done), false)
    assert.equal(await settle(store, queue, young, done), true)
  },

  async 'cancels a running task together with its replacement' (store, queue) {
    await add(store, [task(queue, 'a')])
    const lease = await claimOne(store, queue)
    await add(store, [task(queue, 'a', { message: 'again', onDuplicate: 'replace' })])
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    assert.equal(await settle(store, queue, lease, done), false)
    await assertCounts(store, queue, {})
    assert.equal((await show(store, queue, 'a'))?.state, 'cancelled')
  },

  async 'has nothing to claim when all that waited has left the line, and wakes the watchers of what is added then' (
    store, queue
  ) {
    await add(store, tasks(queue, ['a', 'b', 'c']))
    await store.operate(queue, { kind: 'cancel', ids: ['b'], keep: KEEP })
    await store.operate(queue, { kind: 'reschedule', ids: ['c', 'a'], delayMs: LONG_MS })
    assert.ok((await turn(store, queue, [])).outlook.wakeInMs > SHORT_MS)
    const [pulse] = await store.extend([holding(queue)])
    assert.ok(pulse!.outlook.wakeInMs > SHORT_MS)
    let round = 0
    await untilWoken(store, queue, async () => {
      for (const lease of await claim(store, queue)) await settle(store, queue, lease, done)
      await add(store, [task(queue, `${++round}`)])
      await store.operate(queue, { kind: 'cancel', ids: [`${round}`], keep: KEEP })
      await add(store, [task(queue, `again ${round}`)])
    })
  },

  async 'purges what waits behind thousands that were cancelled' (store, queue) {
    const all = Array.from({ length: 2400 }, (_, index) => `${index}`)
    await add(store, tasks(queue, all))
    const order = { kind: 'cancel', ids: all.slice(0, 2300), keep: { count: 0, ms: 0 } } as const
    assert.equal(await store.operate(queue, order), 2300)
    assert.equal(await store.operate(queue, { kind: 'purge' }), 100)
    await assertCounts(store, queue, {})
  },

  async 'leaves the order of the others as it is when tasks in line are cancelled, and added again' (store, queue) {
    const all = Array.from({ length: 100 }, (_, index) => `${index}`)
    await add(store, tasks(queue, all))
    await settle(store, queue, await claimOne(store, queue), release)
    const odd = all.filter((_, index) => index % 2 === 1)
    assert.equal(await store.operate(queue, { kind: 'cancel', ids: ['0', ...odd], keep: KEEP }), 51)
    await assertCounts(store, queue, { waiting: 49 })
    await add(store, tasks(queue, ['3', '0', '1']))
    const even = all.filter((_, index) => index % 2 === 0 && index > 0)
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 100)), [...even, '3', '0', '1'])
    const first = await claim(store, queue, 10)
    assert.equal(first.length, 10)
    assert.deepEqual(ids([...first, ...await claim(store, queue)]), [...even, '3', '0', '1'])
    await assertCounts(store, queue, { running: 52 })
  }
})
