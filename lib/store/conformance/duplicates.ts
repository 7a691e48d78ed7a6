import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import type { Turn } from '../turn.js'
import { chapter } from './chapter.js'
import { assertCounts, isDuplicate } from './support/assertions.js'
import { stageUnended } from './support/stages.js'
import {
  LONG_MS, SHORT_MS, add, claim, claimOne, dead, done, lost, retry, settle, show, task, tasks, turn
} from './support/steps.js'
import { until } from './support/patience.js'
import { untilClaimable } from './support/until.js'

/** Tasks whose id is taken: they are kept out or refused, also while others are being prepared. */
export const duplicates = chapter({
  async 'keeps out a task whose id waits, is delayed, runs or is dead, and says so' (store, queue, other) {
    await stageUnended(store, queue)
    const taken = ['suspect', 'running', 'waiting', 'delayed', 'retried', 'dead']
    const again = tasks(queue, [...taken, 'new'], { message: 'again', onDuplicate: 'keep' })
    assert.deepEqual(await add(store, [...again, task(other, 'waiting', { onDuplicate: 'keep' })]), taken)
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['message of waiting', 'again'])
  },

  async 'refuses a task whose id waits, is delayed, runs or is dead, and all that is prepared with it' (
    store, queue, other
  ) {
    await stageUnended(store, queue)
    for (const id of ['suspect', 'running', 'waiting', 'delayed', 'retried', 'dead']) {
      const refused = async () => await store.prepare([
        task(other, 'a', { onDuplicate: 'keep' }),
        task(queue, id, { onDuplicate: 'reject' }),
        task(queue, 'b', { onDuplicate: 'replace' })
      ])
      await assert.rejects(refused, isDuplicate(id))
    }
    await assertCounts(store, other, {})
    const free = [task(other, 'a', { onDuplicate: 'reject' }), task(queue, 'b', { onDuplicate: 'reject' })]
    assert.deepEqual(await add(store, free), [])
    await assertCounts(store, other, { waiting: 1 })
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
  },

  async 'keeps an id out, or refuses it, for dedupeMs after it is done, even if nothing else is kept of it' (
    store, queue
  ) {
    const nothing: Partial<Turn> = { keep: { count: 0, ms: LONG_MS } }
    await add(store, tasks(queue, ['done', 'briefly', 'at once', 'dead', 'retried']))
    const verdicts = [done, done, done, dead, retry(0)]
    await turn(store, queue, (await claim(store, queue)).map((lease, index) => ({
      lease, verdict: verdicts[index]!, dedupeMs: [LONG_MS, SHORT_MS, 0][index] ?? LONG_MS
    })), 0, nothing)
    await untilClaimable(store, queue)
    const [retried] = (await turn(store, queue, [], 1, nothing)).leases
    await turn(store, queue, [{ lease: retried!, verdict: dead, dedupeMs: LONG_MS }], 0, nothing)
    assert.equal(await show(store, queue, 'done'), undefined)
    assert.equal(await store.operate(queue, { kind: 'remove' }), 2)
    const again = tasks(queue, ['at once', 'dead', 'retried', 'done'], { onDuplicate: 'keep' })
    assert.deepEqual(await add(store, again), ['done'])
    const refused = async () => await store.prepare([task(queue, 'done', { onDuplicate: 'reject' })])
    await assert.rejects(refused, isDuplicate('done'))
    const briefly = [task(queue, 'briefly', { onDuplicate: 'keep' })]
    await until('the id is free', async () => (await add(store, briefly)).length === 0)
    await assertCounts(store, queue, { waiting: 4 })
    assert.deepEqual(await add(store, [task(queue, 'done', { onDuplicate: 'replace' })]), [])
    await assertCounts(store, queue, { waiting: 5 })
  },

  async 'keeps an id out for the longest time that was given' (store, queue) {
    for (const dedupeMs of [LONG_MS, 1]) {
      await add(store, [task(queue, 'a', { onDuplicate: 'replace' })])
      await settle(store, queue, await claimOne(store, queue), done, [], { dedupeMs })
    }
    await setTimeout(5)
    assert.deepEqual(await add(store, [task(queue, 'a', { onDuplicate: 'keep' })]), ['a'])
  },

  async 'adds a task without onDuplicate even while its id keeps others out' (store, queue) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), done, [], { dedupeMs: LONG_MS })
    await add(store, [task(queue, 'a')])
    assert.equal((await claimOne(store, queue)).id, 'a')
  },

  async 'decides about the second of two tasks of one id as if the first were there' (store, queue, other) {
    assert.deepEqual(await add(store, [
      task(queue, 'a', { message: 'first', onDuplicate: 'reject' }),
      task(other, 'a', { onDuplicate: 'reject' }),
      task(queue, 'b', { message: 'first', onDuplicate: 'keep' }),
      task(queue, 'a', { message: 'second', onDuplicate: 'keep' }),
      task(queue, 'b', { message: 'second', onDuplicate: 'replace' }),
      task(queue, 'c'),
      task(queue, 'c', { onDuplicate: 'keep' })
    ]), ['a', 'c'])
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['first', 'second', 'message of c'])
    for (const onDuplicate of ['keep', 'replace'] as const) {
      const twice = [task(queue, 'd', { onDuplicate }), task(queue, 'd', { onDuplicate: 'reject' })]
      await assert.rejects(async () => await store.prepare(twice), isDuplicate('d'))
    }
    assert.deepEqual(await claim(store, queue), [])
  },

  async 'commits a task although its id was done since prepare, but leaves alone one that is under way by then' (
    store, queue
  ) {
    const prepared = await store.prepare([
      task(queue, 'done', { message: 'second', onDuplicate: 'keep' }),
      task(queue, 'runs', { message: 'second', onDuplicate: 'reject' })
    ])
    // Without onDuplicate these do not wait for the tasks that are prepared.
    await add(store, [task(queue, 'done'), task(queue, 'runs')])
    const [finished, running] = await claim(store, queue)
    await settle(store, queue, finished!, done, [], { dedupeMs: LONG_MS })
    await prepared.commit()
    await assertCounts(store, queue, { waiting: 1, running: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ id, message }) => [id, message]), [['done', 'second']])
    assert.deepEqual(await lost(store, queue, [running!]), [])
  },

  async 'waits until a prepared task of the same id is committed or rolled back, and then decides' (
    store, queue, other
  ) {
    const choices = ['keep', 'reject', 'replace'] as const
    const cases = ['commit', 'rollback'].flatMap(outcome => choices.map(choice => [outcome, choice] as const))
    for (const [outcome, onDuplicate] of cases) {
      const id = `${outcome} ${onDuplicate}`
      const first = await store.prepare([
        task(queue, 'with it'), task(queue, id, { message: 'first', onDuplicate: 'keep' })
      ])
      let isDecided = false
      const second = Promise.resolve(store.prepare([task(queue, id, { message: 'second', onDuplicate })]))
        .finally(() => { isDecided = true })
      second.catch(() => {})
      // Tasks of another queue or another id need not wait.
      for (const [name, free] of [[other, id], [other, 'with it'], [queue, `not ${id}`]] as const) {
        const prepared = await store.prepare([task(name, free, { onDuplicate: 'keep' })])
        prepared.rollback()
      }
      for (let round = 0; round < 3; round++) await store.counts([queue])
      assert.equal(isDecided, false)
      if (outcome === 'commit') await first.commit()
      else first.rollback()
      if (outcome === 'commit' && onDuplicate === 'reject') {
        await assert.rejects(second, isDuplicate(id))
      } else {
        const prepared = await second
        assert.deepEqual(prepared.keptOut, outcome === 'commit' && onDuplicate === 'keep' ? [{ queue, id }] : [])
        await prepared.commit()
      }
      const claimed = await claim(store, queue)
      const messages = claimed.filter(lease => lease.id === id).map(({ message }) => message)
      assert.deepEqual(messages, [outcome === 'commit' && onDuplicate !== 'replace' ? 'first' : 'second'])
      await turn(store, queue, claimed.map(lease => ({ lease, verdict: done })))
    }
  },

  async 'decides one after the other about several calls of prepare that wait for the same ids' (store, queue) {
    const both = tasks(queue, ['a', 'b'], { onDuplicate: 'keep' })
    const first = await store.prepare(both)
    const others = [both, both.toReversed(), both].map(async wanted => {
      const prepared = await store.prepare(wanted)
      await prepared.commit()
      return prepared.keptOut.length
    })
    first.rollback()
    assert.deepEqual((await Promise.all(others)).sort(), [0, 2, 2])
    await assertCounts(store, queue, { waiting: 2 })
  },

  async 'decides about chained tasks when their task is settled: those that would be refused are kept out' (
    store, queue, other
  ) {
    await add(store, [task(other, 'known'), task(other, 'done'), task(queue, 'a')])
    const ending = (await claim(store, other)).find(({ id }) => id === 'done')!
    await settle(store, other, ending, done, [], { dedupeMs: LONG_MS })
    await add(store, [task(other, 'replaced')])
    await settle(store, queue, await claimOne(store, queue), done, [
      ...(['keep', 'reject'] as const).flatMap(onDuplicate => {
        return tasks(other, ['known', 'done', `new ${onDuplicate}`], { message: onDuplicate, onDuplicate })
      }),
      task(other, 'replaced', { message: 'replace', onDuplicate: 'replace' })
    ])
    assert.deepEqual((await claim(store, other)).map(({ message }) => message), ['keep', 'reject', 'replace'])
  }
})
