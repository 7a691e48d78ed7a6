import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'
import type { ScheduleChange, ScheduleView, Tick } from '../schedules.js'
import type { Store } from '../store.js'
import type { NewTask } from '../tasks.js'
import { chapter } from './chapter.js'
import { assertCounts, assertTime } from './support/assertions.js'
import {
  add, claim, claimOne, dead, defer, done, holding, ids, KEEP, LONG_MS, lost, retry, settle, SHORT_MS, show, task, turn
} from './support/steps.js'
import { untilTold, untilWoken } from './support/until.js'

/** Schedules: they are planned, and add a task at each slot. */
export const scheduling = chapter({
  async 'lists schedules in the order of their next slots, and those without one last' (store, queue, other) {
    const { now, revision, isPaused, schedules } = await list(store, queue)
    assertTime(now, Date.now() - 1000)
    assert.deepEqual([revision, isPaused, schedules], [0, false, []])
    await plan(
      store, queue, { id: 'b b', next: now + 2 * LONG_MS }, { id: 'over' }, { id: 'a:"\\', next: now + LONG_MS })
    await plan(store, queue, { id: 'B', next: now + 2 * LONG_MS }, { id: 'paused', paused: true, next: now + LONG_MS })
    assert.deepEqual(ids((await list(store, queue)).schedules), ['a:"\\', 'B', 'b b', 'over', 'paused'])
    assert.deepEqual(ids((await store.schedules(queue, { offset: 1, limit: 2 })).schedules), ['B', 'b b'])
    assert.deepEqual(ids((await store.schedules(queue, { ids: ['over', 'unknown', 'B'] })).schedules), ['over', 'B'])
    assert.deepEqual((await list(store, other)).schedules, [])
    assert.deepEqual((await list(store, queue)).schedules.map(trimmed), [
      { id: 'a:"\\', plan: 'plan of a:"\\', next: now + LONG_MS, paused: false, skipped: 0, missed: 0 },
      { id: 'B', plan: 'plan of B', next: now + 2 * LONG_MS, paused: false, skipped: 0, missed: 0 },
      { id: 'b b', plan: 'plan of b b', next: now + 2 * LONG_MS, paused: false, skipped: 0, missed: 0 },
      { id: 'over', plan: 'plan of over', paused: false, skipped: 0, missed: 0 },
      { id: 'paused', plan: 'plan of paused', paused: true, skipped: 0, missed: 0 }
    ])
  },

  async 'changes all schedules or none: they must be as expected, and their slots in the future' (store, queue) {
    const slot = await planned(store, queue, 'a')
    const good: ScheduleChange = { id: 'b', plan: 'p', next: slot }
    const bad: ScheduleChange[] = [
      { id: 'a', plan: 'p', next: slot },
      { id: 'a', expects: 'another plan', plan: 'p', next: slot },
      { id: 'a', expects: '', plan: 'p', next: slot },
      { id: 'a', expects: 'another plan' },
      { id: 'c', expects: 'a plan', plan: 'p', next: slot },
      { id: 'c', plan: 'p', next: Date.now() - LONG_MS }
    ]
    for (const change of bad) assert.equal(await store.plan(queue, [good, change]), false)
    assert.deepEqual(ids((await list(store, queue)).schedules), ['a'])
    const changes = [good, { id: 'a', expects: 'plan of a', plan: 'new', next: slot + 1 }]
    assert.equal(await store.plan(queue, changes), true)
    assert.deepEqual((await list(store, queue)).schedules.map(({ plan, next }) => [plan, next]), [
      ['p', slot], ['new', slot + 1]
    ])
    assert.equal(await store.plan(queue, [{ id: 'b', expects: 'p' }]), true)
    assert.deepEqual(ids((await list(store, queue)).schedules), ['a'])
  },

  async 'refuses changes of a lower revision than the highest' (store, queue) {
    assert.equal(await store.plan(queue, [], 3), true)
    assert.equal((await list(store, queue)).revision, 3)
    assert.equal(await store.plan(queue, [{ id: 'a', plan: 'p' }], 2), false)
    assert.equal(await store.plan(queue, [{ id: 'a', plan: 'p' }], 3), true)
    assert.equal(await store.plan(queue, [{ id: 'b', plan: 'p' }]), true)
    const { revision, schedules } = await list(store, queue)
    assert.deepEqual([revision, ids(schedules)], [3, ['a', 'b']])
  },

  async 'lists those that are declared, until they are gone or declared no longer' (store, queue) {
    const declared = async () => ids((await store.schedules(queue, { declared: true })).schedules).sort()
    await plan(store, queue, { id: 'b' }, ...['a', 'c', 'd'].map(id => ({ id, declared: true })))
    assert.deepEqual(await declared(), ['a', 'c', 'd'])
    await store.plan(queue, [
      { id: 'a', expects: 'plan of a', plan: 'p' }, { id: 'b', expects: 'plan of b', plan: 'p', declared: true },
      { id: 'c', expects: 'plan of c', plan: 'p', declared: false }, { id: 'd', expects: 'plan of d' }
    ])
    assert.deepEqual(await declared(), ['a', 'b'])
    await store.plan(queue, [{ id: 'a', expects: 'p' }, { id: 'b', expects: 'p' }])
    assert.deepEqual(await declared(), [])
    await plan(store, queue, { id: 'd' })
    assert.deepEqual(await declared(), [], 'it is another one')
  },

  async 'does nothing at a slot while the queue is paused, and says that it is' (store, queue) {
    const slot = await planned(store, queue, 'a')
    await store.operate(queue, { kind: 'pause' })
    assert.equal((await list(store, queue)).isPaused, true)
    assert.equal(await tick(store, queue, { slot, next: slot + 1, task: 't1' }), 'over')
    assert.equal(await tick(store, queue, { task: 't2', overlap: 'allow' }), 'added', 'it can be run all the same')
    await store.operate(queue, { kind: 'resume' })
    const { isPaused, schedules: [a] } = await list(store, queue)
    assert.deepEqual([isPaused, a!.next], [false, slot])
    assert.equal(await tick(store, queue, { slot, next: slot + 1, task: 't3', overlap: 'allow' }), 'added')
  },

  async 'adds one task for a slot, however many processes try' (store, queue) {
    const slot = await planned(store, queue, 'a')
    const since = Date.now()
    const next = slot + LONG_MS
    const results = await Promise.all(['t1', 't2', 't3'].map(id => tick(store, queue, { slot, next, task: id })))
    assert.deepEqual(results.sort(), ['added', 'over', 'over'])
    const [a] = (await list(store, queue)).schedules
    assert.equal(a!.next, next)
    assertTime(a!.last!.at, since)
    assert.deepEqual(ids(await claim(store, queue)), [a!.last!.taskId])
  },

  async 'does nothing at a slot that is not the next one' (store, queue) {
    const slot = await planned(store, queue, 'a')
    await plan(store, queue, { id: 'paused', next: slot, paused: true }, { id: 'over' })
    for (const id of ['a', 'paused', 'over', 'unknown']) {
      const at = id === 'a' ? slot + 1 : slot
      assert.equal(await tick(store, queue, { id, slot: at, next: at + LONG_MS, task: 't' }), 'over')
    }
    await assertCounts(store, queue, {})
    assert.deepEqual(await store.tick(queue, [], KEEP), [])
  },

  async 'adds the task with all that belongs to it, and leaves a taken id alone' (store, queue) {
    const slot = await planned(store, queue, 'a')
    const lane: Partial<NewTask> = { priority: 'high', key: 'k', expiresMs: 2 * LONG_MS, runAt: Date.now() + LONG_MS }
    await tick(store, queue, { slot, next: slot + 1, task: 'late' }, lane)
    const { state, priority, key, dueAt } = (await show(store, queue, 'late'))!
    assert.deepEqual([state, priority, key, dueAt], ['delayed', 'high', 'k', lane.runAt])
    await tick(store, queue, { slot: slot + 1, next: slot + 2, task: 'now', overlap: 'allow' })
    assert.deepEqual(ids(await claim(store, queue)), ['now'])
    assert.equal(await tick(store, queue, { slot: slot + 2, task: 'now', overlap: 'allow' }), 'skipped')
    await assertCounts(store, queue, { running: 1, delayed: 1 })
  },

  async 'skips a slot while the last task waits or runs, and not once it has ended' (store, queue) {
    let slot = await planned(store, queue, 'a')
    const next = async (task: string) => await tick(store, queue, { slot, next: ++slot, task })
    assert.equal(await next('t1'), 'added')
    assert.equal(await next('t2'), 'skipped', 'it waits')
    const t1 = await claimOne(store, queue)
    assert.equal(await next('t3'), 'skipped', 'it runs')
    await settle(store, queue, t1, done)
    assert.equal(await next('t4'), 'added')
    await settle(store, queue, await claimOne(store, queue), dead)
    assert.equal(await next('t5'), 'added', 'a dead letter is no obstacle')
    await store.operate(queue, { kind: 'cancel', ids: ['t5'], keep: KEEP })
    assert.equal(await next('t6'), 'added')
    const [a] = (await list(store, queue)).schedules
    assert.deepEqual([a!.skipped, a!.last!.taskId, a!.next], [2, 't6', slot])
    await assertCounts(store, queue, { waiting: 1, dead: 1 })
  },

  async 'cancels a task that waits to be tried again, in place of skipping the slot' (store, queue) {
    let slot = await planned(store, queue, 'a')
    const next = async (task: string, rest?: Partial<NewTask>) =>
      await tick(store, queue, { slot, next: ++slot, task }, rest)
    await next('t1')
    await settle(store, queue, await claimOne(store, queue), retry(LONG_MS))
    assert.equal(await next('t2'), 'added')
    assert.equal((await show(store, queue, 't1'))!.state, 'cancelled')
    await settle(store, queue, await claimOne(store, queue), defer(LONG_MS, true))
    assert.equal(await next('t3', { delayMs: LONG_MS }), 'added')
    assert.equal(await next('t4'), 'skipped', 'a delay before the first attempt is no retry')
    await assertCounts(store, queue, { delayed: 1 })
  },

  async 'cancels the last task if the schedule replaces it, even if it runs' (store, queue) {
    let slot = await planned(store, queue, 'a')
    const next = async (task: string) => await tick(store, queue, { slot, next: ++slot, task, overlap: 'replace' })
    await next('t1')
    assert.equal(await next('t2'), 'added')
    assert.equal((await show(store, queue, 't1'))!.state, 'cancelled')
    const t2 = await claimOne(store, queue)
    assert.equal(await next('t3'), 'added')
    assert.deepEqual(await lost(store, queue, [t2]), ['t2'])
    assert.equal(await settle(store, queue, t2, done), false)
    assert.deepEqual(ids(await claim(store, queue)), ['t3'])
  },

  async 'takes a last task that has expired for ended' (store, queue) {
    const slot = await planned(store, queue, 'a')
    await tick(store, queue, { slot, next: slot + 1, task: 't1' }, { expiresMs: 1 })
    // No claim has noticed it yet.
    await setTimeout(SHORT_MS)
    assert.equal(await tick(store, queue, { slot: slot + 1, next: slot + 2, task: 't2' }), 'added')
    assert.deepEqual(ids(await claim(store, queue)), ['t2'])
  },

  async 'counts slots that are missed, with a task or without' (store, queue) {
    const slot = await planned(store, queue, 'a')
    assert.equal(await tick(store, queue, { slot, next: slot + 1, missed: 3 }), 'missed')
    assert.equal(await tick(store, queue, { slot: slot + 1, missed: 2, task: 't' }), 'added')
    const [a] = (await list(store, queue)).schedules
    assert.deepEqual([a!.next, a!.missed], [undefined, 5])
    await assertCounts(store, queue, { waiting: 1 })
  },

  async 'adds a task besides those of the slots, and leaves the next slot as it is' (store, queue) {
    const slot = await planned(store, queue, 'a')
    const since = Date.now()
    assert.equal(await tick(store, queue, { task: 't1' }), 'added')
    const [a] = (await list(store, queue)).schedules
    assert.equal(a!.next, slot)
    assertTime(a!.last!.at, since)
    assert.equal(await tick(store, queue, { task: 't2' }), 'skipped')
    assert.equal((await list(store, queue)).schedules[0]!.skipped, 0, 'no slot was skipped')
    assert.equal(await tick(store, queue, { id: 'unknown', task: 't3' }), 'over')
    await store.plan(queue, [{ id: 'a', expects: 'plan of a', plan: 'plan of a', paused: true }])
    assert.equal(await tick(store, queue, { task: 't4', overlap: 'allow' }), 'added', 'a paused schedule can be run')
    assert.deepEqual(ids(await claim(store, queue)), ['t1', 't4'])
  },

  async 'pauses a schedule until it is resumed, whatever else changes' (store, queue) {
    const slot = await planned(store, queue, 'a')
    await tick(store, queue, { slot, next: slot + 1, task: 't' })
    const change = async (rest: Partial<ScheduleChange>) => {
      const [{ plan }] = (await list(store, queue)).schedules as [ScheduleView]
      assert.equal(await store.plan(queue, [{ id: 'a', expects: plan, plan, ...rest }]), true)
      const [a] = (await list(store, queue)).schedules
      return [a!.paused, a!.next, a!.plan, a!.last!.taskId]
    }
    assert.deepEqual(await change({ paused: true }), [true, undefined, 'plan of a', 't'])
    assert.deepEqual(await change({ plan: 'new', next: slot + 2 }), [true, undefined, 'new', 't'])
    assert.deepEqual(await change({ paused: false, next: slot + 3 }), [false, slot + 3, 'new', 't'])
  },

  async 'says when the next slot comes, unless the queue is paused' (store, queue) {
    const outlooks = async () => {
      const [pulse] = await store.extend([holding(queue)])
      return [(await turn(store, queue, [], 1)).outlook, pulse!.outlook].map(({ slotInMs = Infinity }) => slotInMs)
    }
    assert.deepEqual(await outlooks(), [Infinity, Infinity])
    await plan(store, queue, { id: 'over' })
    const slot = await planned(store, queue, 'a')
    for (const ms of await outlooks()) assert.ok(ms <= LONG_MS && ms > LONG_MS / 2, `${ms} ms`)
    const { now } = await list(store, queue)
    await store.plan(queue, [{ id: 'a', expects: 'plan of a', plan: 'p', next: now + SHORT_MS }])
    await untilDue(store, queue)
    const [due] = (await list(store, queue)).schedules
    const kept = { id: 'a', expects: 'p', plan: 'q', next: due!.next }
    assert.equal(await store.plan(queue, [{ ...kept, next: due!.next! - 1 }]), false)
    assert.equal(await store.plan(queue, [kept]), true, 'a slot that is over can be kept')
    await add(store, [task(queue, 'busy')])
    assert.deepEqual(await outlooks(), [0, 0])
    await store.operate(queue, { kind: 'pause' })
    assert.deepEqual(await outlooks(), [Infinity, Infinity])
    await store.operate(queue, { kind: 'resume' })
    const [a] = (await list(store, queue)).schedules
    await tick(store, queue, { slot: a!.next, next: slot + LONG_MS, missed: 1 })
    for (const ms of await outlooks()) assert.ok(ms > LONG_MS / 2, `${ms} ms`)
  },

  async 'wakes all watchers when schedules change, and when a slot adds a task' (store, queue) {
    let slot = Date.now() + LONG_MS
    let expects: string | undefined
    await untilWoken(store, queue, async () => {
      const plan = `plan ${++slot}`
      assert.equal(await store.plan(queue, [{ id: 'a', expects, plan, next: slot }]), true)
      expects = plan
    })
    let id = 0
    await untilTold(store, queue, ({ kind }) => kind === 'work', async () => {
      await store.tick(queue, [{ id: 'a', missed: 0, overlap: 'replace', task: task(queue, `t${++id}`) }], KEEP)
    })
  }
})

const list = async (store: Store, queue: string) => await store.schedules(queue, { offset: 0, limit: 100 })

/** Makes schedules that do not exist yet. */
async function plan (store: Store, queue: string, ...changes: ScheduleChange[]): Promise<void> {
  assert.equal(await store.plan(queue, changes.map(change => ({ plan: `plan of ${change.id}`, ...change }))), true)
}

/** Makes a schedule whose next slot comes after the test, and returns that slot. */
async function planned (store: Store, queue: string, id: string): Promise<number> {
  const next = (await list(store, queue)).now + LONG_MS
  await plan(store, queue, { id, next })
  return next
}

/** Does what a slot of the schedule `a` demands, as if it were over. @param rest how the task differs from others */
async function tick (
  store: Store, queue: string, { task: id, ...rest }: Partial<Omit<Tick, 'task'>> & { task?: string },
  ofTask: Partial<NewTask> = {}
) {
  const added = id === undefined ? {} : { task: task(queue, id, ofTask) }
  const [result, ...none] = await store.tick(queue, [{ id: 'a', missed: 0, overlap: 'skip', ...rest, ...added }], KEEP)
  assert.deepEqual(none, [])
  return result
}

async function untilDue (store: Store, queue: string): Promise<void> {
  for (let slotInMs = 1; slotInMs > 0;) {
    const [pulse] = await store.extend([holding(queue)])
    slotInMs = pulse!.outlook.slotInMs!
  }
}

const trimmed = (view: ScheduleView) =>
  Object.fromEntries(Object.entries(view).filter(([, value]) => value !== undefined))
