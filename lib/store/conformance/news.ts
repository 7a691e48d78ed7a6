import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import type { News } from '../news.js'
import type { NewTask } from '../tasks.js'
import { chapter } from './chapter.js'
import {
  KEEP, LONG_MS, SHORT_MS, add, claimOne, dead, defer, done, release, retry, settle, task, turn
} from './support/steps.js'
import { untilClaimable, untilExpired, untilTold, untilWoken } from './support/until.js'

/** What a store tells its watchers. */
export const news = chapter({
  async 'wakes the watchers of a queue when a task is deferred because it is unrouted: they may have a route' (
    store, queue
  ) {
    let round = 0
    await untilWoken(store, queue, async () => {
      await add(store, [task(queue, `${++round}`, { expiresMs: LONG_MS })])
      await settle(store, queue, await claimOne(store, queue), defer(LONG_MS, true))
    })
  },

  async 'wakes watchers when a task is added, chained or given back to an empty queue, or delayed in any queue' (
    store, queue, other
  ) {
    await untilWoken(store, queue, () => add(store, [task(queue, '1')]))
    await untilWoken(store, queue, async () => settle(store, queue, await claimOne(store, queue), release))
    await untilWoken(store, other, async () => {
      await settle(store, queue, await claimOne(store, queue), done, [task(other, '2')])
    })
    await untilWoken(store, other, () => add(store, [{ ...task(other, '3'), delayMs: 1000 }]))
  },

  async 'wakes the watchers of a queue that is resumed, and of one with a task made due or put back in line' (
    store, queue, other
  ) {
    await untilWoken(store, queue, async () => {
      await store.operate(queue, { kind: 'pause' })
      await store.operate(queue, { kind: 'resume' })
    })
    await add(store, [task(other, 'a', { delayMs: LONG_MS })])
    await untilWoken(store, other, async () => {
      await store.operate(other, { kind: 'reschedule', ids: ['a'], delayMs: LONG_MS })
      await store.operate(other, { kind: 'reschedule', ids: ['a'] })
    })
    await untilWoken(store, other, async () => {
      await settle(store, other, await claimOne(store, other), dead)
      await store.operate(other, { kind: 'redrive', ids: ['a'] })
    })
    let isSettled = false
    await untilTold(store, other, ({ kind }) => kind === 'work' && isSettled, async () => {
      isSettled = false
      const lease = await claimOne(store, other)
      await add(store, [task(other, 'a', { onDuplicate: 'replace' })])
      // News of these two steps does not count.
      await setTimeout(20)
      isSettled = true
      await settle(store, other, lease, done)
    })
  },

  async 'tells the watchers that a running task is cancelled, but not within the call' (store, queue) {
    let round = 0
    let told = 0
    await store.watch(queue, () => { told++ })
    await untilTold(store, queue, ({ kind }) => kind === 'change', async () => {
      const id = `${++round}`
      await add(store, [task(queue, id)])
      await claimOne(store, queue)
      const before = told
      const steered = store.operate(queue, { kind: 'cancel', ids: [id], keep: KEEP })
      assert.equal(told, before)
      return steered
    })
  },

  async 'tells the watchers that a task that somebody awaits has ended' (store, queue) {
    let id = ''
    const isMeant = (news: News) => news.kind === 'ended' && news.id === id
    const awaited = async (rest: Partial<NewTask> = {}) => {
      id = randomUUID()
      await add(store, [task(queue, id, rest)])
      assert.equal((await store.find([queue], id, LONG_MS))?.endedAt, undefined)
    }
    for (const verdict of [done, dead]) {
      for (const keep of [KEEP, { count: 0, ms: LONG_MS }]) {
        await untilTold(store, queue, isMeant, async () => {
          await awaited()
          const lease = await claimOne(store, queue)
          return turn(store, queue, [{ lease, verdict }], 0, { keep })
        })
      }
    }
    await untilTold(store, queue, isMeant, async () => {
      await awaited()
      await settle(store, queue, await claimOne(store, queue), retry(0))
      await untilClaimable(store, queue)
      return settle(store, queue, await claimOne(store, queue), done)
    })
    for (const rest of [{}, { delayMs: LONG_MS }]) {
      await untilTold(store, queue, isMeant, async () => {
        await awaited(rest)
        return store.operate(queue, { kind: 'cancel', ids: [id], keep: KEEP })
      })
    }
    await untilTold(store, queue, isMeant, async () => {
      await awaited()
      await claimOne(store, queue)
      return store.operate(queue, { kind: 'cancel', ids: [id], keep: KEEP })
    })
    await untilTold(store, queue, isMeant, async () => {
      await awaited({ expiresMs: SHORT_MS })
      return untilExpired(store, queue, [id])
    })
  }
})
