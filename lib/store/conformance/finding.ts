import assert from 'node:assert/strict'
import { type Found, SHOWN_BYTES, type State } from '../found.js'
import { chapter } from './chapter.js'
import { assertCounts, assertTime } from './support/assertions.js'
import { stageEnded, stageUnended } from './support/stages.js'
import {
  KEEP, LONG_MS, REASON, SHORT_MS, add, claim, claimOne, dead, done, holding, ids, known, release, settle, show, task,
  tasks, trimmed, turn
} from './support/steps.js'
import { untilClaimable, untilSuspect } from './support/until.js'

/** Looking at tasks: one by its id, or all of one state. */
export const finding = chapter({
  async 'finds a task in every state, with what is known of it' (store, queue) {
    const before = Date.now()
    await stageEnded(store, queue)
    await stageUnended(store, queue)
    await add(store, [task(queue, 'at', { runAt: before + LONG_MS })])
    const found = new Map<string, Found>()
    const names = [
      'suspect', 'running', 'waiting', 'delayed', 'at', 'retried', 'done', 'dead', 'cancelled', 'expired'
    ]
    for (const id of names) {
      const { endedAt, dueAt, ...rest } = (await show(store, queue, id))!
      if (endedAt !== undefined) assertTime(endedAt, before)
      if (dueAt !== undefined) assertTime(dueAt - LONG_MS, before)
      if (id === 'at') assert.equal(dueAt, before + LONG_MS)
      assert.equal(endedAt !== undefined, ['done', 'dead', 'cancelled', 'expired'].includes(id))
      assert.equal(dueAt !== undefined, ['delayed', 'at', 'retried'].includes(id))
      found.set(id, rest)
    }
    // The message of a task that is done is gone.
    const { message, ...doneOne } = known(queue, 'done', 'done', { attempt: 1, records: ['end of done'] })
    assert.deepEqual([...found.values()], [
      known(queue, 'suspect', 'waiting', { attempt: 2, records: [undefined] }),
      known(queue, 'running', 'running', { attempt: 1 }),
      known(queue, 'waiting', 'waiting'),
      known(queue, 'delayed', 'delayed'),
      known(queue, 'at', 'delayed'),
      known(queue, 'retried', 'delayed', { attempt: 1, reason: REASON, records: ['try'], progress: 'half' }),
      doneOne,
      known(queue, 'dead', 'dead', { attempt: 1, reason: REASON, records: ['end of dead'] }),
      known(queue, 'cancelled', 'cancelled'),
      known(queue, 'expired', 'expired')
    ])
  },

  async 'says when a running task was claimed, and by whom once its consumer has extended the lease' (store, queue) {
    const before = Date.now()
    await add(store, tasks(queue, ['a', 'b']))
    const lease = await claimOne(store, queue)
    const running = await store.find([queue], 'a')
    assertTime(running!.startedAt!, before)
    assert.equal(running!.consumer, undefined)
    await store.extend([holding(queue, [lease])])
    assert.equal((await store.find([queue], 'a'))?.consumer, 'one')
    assert.equal((await store.find([queue], 'a'))?.startedAt, running!.startedAt)
    await settle(store, queue, lease, release)
    for (const id of ['a', 'b']) {
      const { startedAt, consumer } = (await store.find([queue], id))!
      assert.deepEqual([startedAt, consumer], [undefined, undefined])
    }
    await claimOne(store, queue)
    assert.equal((await store.find([queue], 'a'))?.consumer, undefined, 'the next lease has another holder')
  },

  async 'finds a message of up to 64 KiB as a whole, and of a longer one at least the first line' (store, queue) {
    const head = '{"url":"/"}\n'
    const short = head + 'é'.repeat((SHOWN_BYTES - head.length) / 2)
    await add(store, [task(queue, 'short', { message: short }), task(queue, 'long', { message: `${short}.` })])
    const found = await store.find([queue], 'short')
    assert.deepEqual([found?.message, found?.isWhole], [short, true])
    const long = await store.find([queue], 'long')
    assert.ok(long?.isWhole !== true && long?.message?.startsWith(head))
    for (const listed of await store.list(queue, 'waiting', 0, 10)) assert.ok(listed.message?.startsWith(head))
  },

  async 'finds a task in the first of several queues that knows its id, and nothing for an unknown id' (
    store, queue, other
  ) {
    await add(store, [task(queue, 'a'), task(other, 'a'), task(other, 'b')])
    assert.equal((await store.find([queue, other], 'a'))?.queue, queue)
    assert.equal((await store.find([other, queue], 'a'))?.queue, other)
    assert.equal((await store.find([queue, other], 'b', LONG_MS))?.queue, other)
    assert.equal(await store.find([queue], 'b', LONG_MS), undefined)
    assert.equal(await store.find([], 'a'), undefined)
    await store.operate(other, { kind: 'purge' })
    assert.equal(await store.find([queue, other], 'b'), undefined)
  },

  async 'shows a delayed task that has become due as one that waits' (store, queue) {
    await add(store, [task(queue, 'due', { delayMs: SHORT_MS })])
    await untilClaimable(store, queue)
    assert.deepEqual(await show(store, queue, 'due'), known(queue, 'due', 'waiting'))
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['due'])
    assert.deepEqual(await store.list(queue, 'delayed', 0, 10), [])
  },

  async 'says of several queues at once which task is the first to be claimed, and nothing where none waits' (
    store, queue, other
  ) {
    const first = async () => (await store.counts([queue]))[0]!.first
    const assertFirst = async (id: string) => {
      assert.deepEqual(trimmed((await first())!), await show(store, queue, id))
    }
    assert.equal(await first(), undefined)
    await add(store, [task(queue, 'delayed', { delayMs: LONG_MS })])
    assert.equal(await first(), undefined, 'a delayed task does not wait')
    await add(store, [...tasks(queue, ['a', 'b', 'c']), task(other, 'z')])
    await assertFirst('a')
    await store.operate(queue, { kind: 'reschedule', ids: ['a'], delayMs: LONG_MS })
    await store.operate(queue, { kind: 'cancel', ids: ['b'], keep: KEEP })
    await assertFirst('c')
    const views = await store.counts([other, queue])
    const seen = views.map(({ waiting, delayed, first }) => [waiting, delayed, first?.id])
    assert.deepEqual(seen, [[1, 0, 'z'], [1, 2, 'c']])
    assert.deepEqual(await store.counts([]), [])
    const lease = await claimOne(store, queue)
    assert.equal(await first(), undefined)
    await settle(store, queue, lease, release, [], { record: 'try' })
    await assertFirst('c')
    await claim(store, queue, 1, SHORT_MS)
    await untilSuspect(store, queue)
    await add(store, [task(queue, 'd')])
    await assertFirst('c')
    await store.operate(queue, { kind: 'cancel', ids: ['c', 'd'], keep: KEEP })
    await add(store, [task(queue, 'due', { delayMs: SHORT_MS })])
    await untilClaimable(store, queue)
    await assertFirst('due')
  },

  async 'lists the tasks of each state in order, a part at a time' (store, queue) {
    await add(store, tasks(queue, ['s1', 's2']))
    await claim(store, queue, 2, SHORT_MS)
    await untilSuspect(store, queue)
    await add(store, tasks(queue, ['r1', 'r2']))
    await claim(store, queue, 2, LONG_MS * 2)
    await add(store, [task(queue, 'r3')])
    await claim(store, queue, 1, LONG_MS)
    for (const [kind, verdict] of [['done', done], ['dead', dead]] as const) {
      await add(store, ['1', '2', '3'].map(id => task(queue, `${kind}${id}`)))
      await turn(store, queue, (await claim(store, queue)).map(lease => ({ lease, verdict })))
    }
    await add(store, tasks(queue, ['w1', 'w2', 'w3']))
    await settle(store, queue, await claimOne(store, queue), release)
    await add(store, [
      task(queue, 'd1', { delayMs: LONG_MS * 2 }),
      task(queue, 'd2', { delayMs: LONG_MS }),
      task(queue, 'd3', { delayMs: LONG_MS * 2 })
    ])
    await add(store, tasks(queue, ['c1', 'c2']))
    await store.operate(queue, { kind: 'cancel', ids: ['c2', 'c1'], keep: KEEP })
    const expected: Array<[State, string[]]> = [
      ['waiting', ['s1', 's2', 'w1', 'w2', 'w3']],
      ['delayed', ['d2', 'd1', 'd3']],
      ['running', ['r3', 'r1', 'r2']],
      ['dead', ['dead3', 'dead2', 'dead1']],
      ['done', ['done3', 'done2', 'done1']],
      ['cancelled', ['c1', 'c2']],
      ['expired', []]
    ]
    for (const [state, all] of expected) {
      const found = await store.list(queue, state, 0, 100)
      assert.deepEqual(ids(found), all)
      for (const one of found) {
        assert.deepEqual([one.queue, one.state], [queue, state])
        assert.equal(one.message, state === 'done' ? undefined : `message of ${one.id}`)
      }
      for (const one of await store.list(queue, state, 1, 1)) {
        assert.deepEqual(trimmed(one), await show(store, queue, one.id))
      }
      assert.deepEqual(ids(await store.list(queue, state, 1, 2)), all.slice(1, 3))
      assert.deepEqual(ids(await store.list(queue, state, 2, 100)), all.slice(2))
      assert.deepEqual(await store.list(queue, state, 100, 100), [])
      assert.deepEqual(await store.list(queue, state, 0, 0), [])
    }
  },

  async 'lists each waiting task once, and in full pages, after others have left the line and come back' (
    store, queue
  ) {
    const all = Array.from({ length: 12 }, (_, index) => `${index}`)
    await add(store, tasks(queue, all))
    await store.operate(queue, { kind: 'reschedule', ids: ['0', '3', '4', '11'], delayMs: LONG_MS })
    await store.operate(queue, { kind: 'cancel', ids: ['1', '5'], keep: KEEP })
    await store.operate(queue, { kind: 'reschedule', ids: ['4', '3'] })
    await store.operate(queue, { kind: 'reschedule', ids: ['3'], delayMs: LONG_MS })
    await store.operate(queue, { kind: 'reschedule', ids: ['3'] })
    await add(store, [
      task(queue, '6', { onDuplicate: 'replace' }),
      task(queue, '5', { onDuplicate: 'keep' }),
      task(queue, '7', { delayMs: LONG_MS, onDuplicate: 'replace' })
    ])
    const waiting = ['2', '8', '9', '10', '4', '3', '6', '5']
    for (const limit of [1, 2, 3, 5, 8, 9]) {
      for (let offset = 0; offset <= waiting.length; offset++) {
        const page = ids(await store.list(queue, 'waiting', offset, limit))
        assert.deepEqual(page, waiting.slice(offset, offset + limit), `list with offset ${offset} and limit ${limit}`)
      }
    }
    await assertCounts(store, queue, { waiting: 8, delayed: 3 })
    assert.deepEqual(ids(await claim(store, queue)), waiting)
  }
})
