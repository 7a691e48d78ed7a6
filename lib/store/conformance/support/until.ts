// Tests wait for a store with these functions, which fail when the store takes too long.
import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import type { News } from '../../news.js'
import type { Store } from '../../store.js'
import { PATIENCE_MS, until } from './patience.js'
import { holding, release, settle, SHORT_MS, show, turn } from './steps.js'

/** Extends no lease, every few milliseconds: a lease runs out only while somebody is in contact with its queue. */
export async function untilClaimable (store: Store, queue: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const [pulse] = await store.extend([{ ...holding(queue), heartbeatMs: SHORT_MS / 5, leaseMs: SHORT_MS }])
    assert.ok(pulse !== undefined, 'extend should return a pulse for each queue')
    if (pulse.outlook.wakeInMs === 0) return
    assert.ok(performance.now() < deadline, `the queue should have something to claim within ${PATIENCE_MS} ms`)
    await setTimeout(Math.min(pulse.outlook.wakeInMs, 5))
  }
}

/** Claims until leases have expired, and releases the suspect that it gets. */
export async function untilSuspect (store: Store, queue: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const { leases } = await turn(store, queue, [], 1, { alone: true, leaseMs: SHORT_MS })
    const [lease] = leases
    if (lease !== undefined) {
      assert.equal(await settle(store, queue, lease, release), true)
      return
    }
    assert.ok(performance.now() < deadline, `the queue should have a suspect within ${PATIENCE_MS} ms`)
    await setTimeout(5)
  }
}

/** Takes turns until the store has noticed that tasks have expired. The turns claim only suspects, and release them. */
export async function untilExpired (store: Store, queue: string, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    await until(`${id} expires`, async () => {
      const { leases } = await turn(store, queue, [], 1, { alone: true })
      for (const lease of leases) await settle(store, queue, lease, release)
      return (await show(store, queue, id))?.state === 'expired'
    })
  }
}

/** Repeats an act until it wakes two watchers. A store may lose any single wake-up. */
export async function untilWoken (store: Store, queue: string, act: () => Promise<unknown>): Promise<void> {
  const woken = new Set<number>()
  for (const watcher of [1, 2]) await store.watch(queue, ({ kind }) => { if (kind === 'work') woken.add(watcher) })
  // Late wake-ups for what the test did before are ignored.
  await setTimeout(20)
  woken.clear()
  const deadline = performance.now() + PATIENCE_MS
  while (woken.size < 2) {
    assert.ok(performance.now() < deadline, `both watchers should be woken within ${PATIENCE_MS} ms`)
    await act()
    await setTimeout(10)
  }
}

/** Repeats an act until a watcher hears the news that is meant. A store may lose any single piece of news. */
export async function untilTold (
  store: Store, queue: string, isMeant: (news: News) => boolean, act: () => Promise<unknown>
): Promise<void> {
  let tell = () => {}
  const told = new Promise<true>(resolve => { tell = () => resolve(true) })
  await store.watch(queue, news => { if (isMeant(news)) tell() })
  await until('a watcher is told', async () => {
    await act()
    return await Promise.race([told, setTimeout(10 * SHORT_MS, false)])
  })
}
