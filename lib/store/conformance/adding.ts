import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import { chapter } from './chapter.js'
import { assertCounts, assertTime, isDuplicate } from './support/assertions.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimAll, claimOne, counters, dead, done, holding, ids, lost, retry, settle, show,
  task, tasks, turn
} from './support/steps.js'
import { untilClaimable } from './support/until.js'

/** Prepare, commit and roll back: which tasks a store takes in, and that it keeps them as they are. */
export const adding = chapter({
  async 'claims nothing that is only prepared, or was rolled back' (store, queue, other) {
    const prepared = await store.prepare([task(queue, 'a'), task(other, 'b')])
    const unwanted = await store.prepare([task(queue, 'c'), task(other, 'd')])
    assert.deepEqual(await claim(store, queue), [])
    unwanted.rollback()
    await assertCounts(store, other, {})
    await prepared.commit()
    assert.deepEqual(ids(await claim(store, queue)), ['a'])
    assert.deepEqual(ids(await claim(store, other)), ['b'])
  },

  async 'shows and changes no task that is only prepared' (store, queue) {
    const prepared = await store.prepare([task(queue, 'new'), task(queue, 'chosen', { onDuplicate: 'keep' })])
    const alone = await store.prepare([task(queue, 'alone'), task(queue, 'later', { delayMs: LONG_MS })])
    for (const id of ['new', 'chosen', 'alone', 'later']) {
      assert.equal(await show(store, queue, id), undefined)
      for (const order of [{ kind: 'cancel', keep: { count: 9, ms: LONG_MS } }, { kind: 'reschedule' }] as const) {
        assert.equal(await store.operate(queue, { ...order, ids: [id] }), 0)
      }
    }
    assert.equal(await store.operate(queue, { kind: 'purge' }), 0)
    assert.deepEqual(await store.list(queue, 'waiting', 0, 9), [])
    await assertCounts(store, queue, {})
    await add(store, [task(queue, 'ended')])
    await settle(store, queue, await claimOne(store, queue), done)
    const again = await store.prepare([task(queue, 'ended')])
    assert.equal((await show(store, queue, 'ended'))?.state, 'done')
    assert.deepEqual(ids(await store.list(queue, 'done', 0, 9)), ['ended'])
    again.rollback()
    await alone.commit()
    await prepared.commit()
    await assertCounts(store, queue, { waiting: 3, delayed: 1 })
    assert.deepEqual(ids(await claim(store, queue, 9)), ['alone', 'new', 'chosen'])
  },

  async 'takes an id that was prepared and rolled back, and leaves the one that was committed first' (store, queue) {
    const first = await store.prepare([task(queue, 'a', { message: 'first' }), task(queue, 'b', { message: 'first' })])
    const second = await store.prepare([task(queue, 'a', { message: 'second' })])
    await second.commit()
    first.rollback()
    const third = await store.prepare([task(queue, 'b', { message: 'third' })])
    const fourth = await store.prepare([task(queue, 'b', { message: 'fourth' })])
    await third.commit()
    await fourth.commit()
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['second', 'third'])
  },

  async 'starts empty, with nothing to claim and nothing to come' (store, queue) {
    assert.deepEqual(await claim(store, queue), [])
    assert.equal((await turn(store, queue, [])).outlook.wakeInMs, Infinity)
    assert.equal((await store.extend([holding(queue)]))[0]?.outlook.wakeInMs, Infinity)
    assert.deepEqual(await store.extend([]), [])
    assert.equal(await store.operate(queue, { kind: 'purge' }), 0)
    await add(store, [])
    await assertCounts(store, queue, {})
  },

  async 'keeps any message as it is: unicode, quotes, newlines, 1 MiB' (store, queue) {
    const messages = [
      '', ' a\r\n\tb ', '"\'`\\%s$1?{}', "'); DROP TABLE task; --", 'ßéあ🚨\u{10FFFF}\u2028', '007', '1e3', 'null',
      'é'.repeat(2 ** 19)
    ]
    await add(store, messages.map((message, index) => task(queue, `${index}`, { message })))
    const leases = await claimAll(store, queue, messages.length)
    const { signal } = new AbortController()
    const claimed = await Promise.all(leases.map(({ message }) => {
      return typeof message === 'string' ? message : message(signal)
    }))
    assert.ok(claimed.every((message, index) => message === messages[index]))
  },

  async 'tells ids apart by every character' (store, queue) {
    const odd = [
      'a', 'A', '7', '07', '7.0', '__proto__', 'constructor', "o'clock", '"', '%', '*', '{a}:b', '-', 'x'.repeat(255)
    ]
    await add(store, tasks(queue, odd))
    const leases = await claim(store, queue)
    assert.deepEqual(ids(leases), odd)
    assert.deepEqual(await lost(store, queue, leases), [])
    const { settled } = await turn(store, queue, leases.map(lease => ({ lease, verdict: done })))
    assert.deepEqual(settled, odd.map(() => true))
    await assertCounts(store, queue, {})
  },

  async 'adds to several queues in one call and keeps them apart' (store, queue, other) {
    await add(store, [task(queue, 'a', { message: 'one' }), task(other, 'a', { message: 'two' }), task(queue, 'b')])
    await assertCounts(store, queue, { waiting: 2 })
    await assertCounts(store, other, { waiting: 1 })
    const [a] = await claim(store, queue)
    const [b] = await claim(store, other)
    assert.deepEqual([a?.message, b?.message], ['one', 'two'])
    assert.equal(await settle(store, other, b!, done), true)
    assert.deepEqual(await lost(store, queue, [a!]), [])
    await assertCounts(store, queue, { running: 2 })
    await assertCounts(store, other, {})
  },

  async 'leaves an id that is waiting, delayed or running alone' (store, queue) {
    await add(store, [task(queue, 'running'), task(queue, 'retried')])
    const [running, retried] = await claim(store, queue)
    await settle(store, queue, retried!, retry(LONG_MS))
    const twice = [task(queue, 'waiting'), task(queue, 'delayed', { delayMs: LONG_MS })]
    await add(store, [...twice, ...twice])
    const again = tasks(queue, ['running', 'retried', 'delayed', 'behind', 'waiting'], { message: 'again' })
    await Promise.all([add(store, again), add(store, again)])
    await assertCounts(store, queue, { waiting: 2, delayed: 2, running: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['message of waiting', 'again'])
    assert.equal(await settle(store, queue, running!, done), true)
    await assertCounts(store, queue, { delayed: 2, running: 2 })
  },

  async 'frees an id when its task is done, but that of a dead one only when it is removed or replaced' (store, queue) {
    const fail = async () => {
      await settle(store, queue, await claimOne(store, queue), retry(0))
      await untilClaimable(store, queue)
      await settle(store, queue, await claimOne(store, queue), dead)
    }
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), done)
    await add(store, [task(queue, 'a')])
    await fail()
    for (const rest of [{}, { onDuplicate: 'keep' }] as const) {
      await add(store, [task(queue, 'a', { message: 'no', ...rest })])
    }
    await assertCounts(store, queue, { dead: 1 })
    assert.equal((await show(store, queue, 'a'))?.message, 'message of a')
    for (const makeWay of [
      async () => { await store.operate(queue, { kind: 'remove', ids: ['a'] }) },
      async () => { await add(store, [task(queue, 'a', { message: 'replaces it', onDuplicate: 'replace' })]) }
    ]) {
      await makeWay()
      await add(store, [task(queue, 'a', { message: 'again' })])
      await assertCounts(store, queue, { waiting: 1 })
      await fail()
    }
    await add(store, [task(queue, 'a', { onDuplicate: 'replace' })])
    assert.deepEqual(counters(await claimOne(store, queue)), { attempt: 1, retries: 0, deaths: 0 })
  },

  async 'counts delays and expiry from the commit' (store, queue) {
    const prepared = await store.prepare([
      task(queue, 'expiring', { expiresMs: 2 * SHORT_MS }),
      task(queue, 'delayed', { delayMs: LONG_MS }),
      task(queue, 'at', { runAt: Date.now() + LONG_MS })
    ])
    await setTimeout(3 * SHORT_MS)
    const before = Date.now()
    await prepared.commit()
    assert.deepEqual(ids(await claim(store, queue)), ['expiring'])
    assertTime((await show(store, queue, 'delayed'))!.dueAt! - LONG_MS, before)
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 10)), ['at', 'delayed'])
  },

  async 'takes thousands of tasks in one commit or none of them, and compares even ids that are far apart' (
    store, queue, other
  ) {
    const many = Array.from({ length: 2500 }, (_, index) => {
      return task(index % 5 === 0 ? other : queue, `${index}`, index % 2 === 0 ? {} : { onDuplicate: 'keep' })
    })
    const prepared = await store.prepare(many)
    await assertCounts(store, queue, {})
    prepared.rollback()
    await assertCounts(store, queue, {})
    const refused = async () => await store.prepare([...many, task(queue, '1', { onDuplicate: 'reject' })])
    await assert.rejects(refused, isDuplicate('1'))
    await assertCounts(store, queue, {})
    const again = [
      task(queue, '1', { message: 'again', onDuplicate: 'keep' }),
      task(queue, '3', { message: 'again', onDuplicate: 'replace' })
    ]
    assert.deepEqual(await add(store, [...many, ...again]), ['1'])
    await assertCounts(store, queue, { waiting: 2000 })
    await assertCounts(store, other, { waiting: 500 })
    const leases = await claim(store, queue, 3000)
    assert.deepEqual(ids(leases.filter(({ message }) => message === 'again')), ['3'])
    const untouched = ids(many.filter(task => task.queue === queue && task.id !== '3'))
    assert.deepEqual(ids(leases).filter(id => id !== '3'), untouched)
    const plain = many.map(({ id }) => task(queue, `new ${id}`))
    assert.deepEqual(await add(store, plain), [])
    assert.deepEqual(ids(await claim(store, queue, 3000)), ids(plain))
  }
})
