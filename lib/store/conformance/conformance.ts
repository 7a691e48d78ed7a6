import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { FST_TASKQUEUE_DUPLICATE } from '../../errors.js'
import {
  RECORD_LIMIT, type Counts, type Found, type Held, type Keep, type Lease, type NewTask, type News, type Settlement, type State,
  type Store, type Turn, type TurnResult, type Verdict
} from '../store.js'

export interface ConformanceTest { readonly title: string, readonly run: () => Promise<void> }

/** What every store promises, as tests for any runner: `for (const { title, run } of storeConformance(create)) test(title, run)`. */
export function storeConformance (create: () => Store | Promise<Store>): ConformanceTest[] {
  return Object.entries(promises).map(([title, promise]) => ({
    title,
    async run () {
      const store = await create()
      // Names of its own, so that a store over a database that others use starts empty.
      const queue = `conformance-${randomUUID()}`
      try {
        await store.open()
        await promise(store, queue, `${queue}-2`)
      } finally {
        await store.close()
      }
    }
  }))
}

const SHORT_MS = 50
const LONG_MS = 60_000
/** How long a store may take over what it promises to do at some time. */
const PATIENCE_MS = 10_000
const KEEP: Keep = { count: 100, ms: LONG_MS }

const done: Verdict = { kind: 'done' }
const release: Verdict = { kind: 'release' }
const REASON = '500 "it\'s broken"\n🚨'
const dead: Verdict = { kind: 'dead', reason: REASON }
const defer = (delayMs: number, unrouted?: boolean): Verdict => ({ kind: 'defer', delayMs, reason: REASON, ...unrouted !== undefined && { unrouted } })
const retry = (delayMs: number): Verdict => ({ kind: 'retry', delayMs, reason: REASON })

function task (queue: string, id: string, rest: Partial<NewTask> = {}): NewTask {
  return { queue, id, message: `message of ${id}`, ...rest }
}

/** Returns the ids of those that are kept out. */
async function add (store: Store, tasks: readonly NewTask[]): Promise<readonly string[]> {
  const prepared = await store.prepare(tasks)
  await prepared.commit()
  return prepared.keptOut.map(({ id }) => id)
}

function turn (store: Store, queue: string, settlements: readonly Settlement[], limit = 0, rest: Partial<Turn> = {}): Promise<TurnResult> {
  return store.turn(queue, { settlements, limit, alone: false, leaseMs: LONG_MS, keep: KEEP, ...rest })
}

async function claim (store: Store, queue: string, limit = 100, leaseMs = LONG_MS): Promise<readonly Lease[]> {
  return (await turn(store, queue, [], limit, { leaseMs })).leases
}

async function claimSuspect (store: Store, queue: string, leaseMs = LONG_MS): Promise<Lease> {
  const [lease, ...rest] = (await turn(store, queue, [], 100, { alone: true, leaseMs })).leases
  assert.ok(lease !== undefined && rest.length === 0, 'one suspect is claimed')
  assert.equal(lease.suspect, true)
  return lease
}

async function claimOne (store: Store, queue: string, leaseMs = LONG_MS): Promise<Lease> {
  const [lease, ...rest] = await claim(store, queue, 1, leaseMs)
  assert.ok(lease !== undefined && rest.length === 0, 'one task is claimed')
  return lease
}

async function settle (store: Store, queue: string, lease: Held, verdict: Verdict, chain: readonly NewTask[] = [], rest: Partial<Settlement> = {}): Promise<boolean | undefined> {
  return (await turn(store, queue, [{ lease, verdict, chain, ...rest }])).settled[0]
}

async function lost (store: Store, queue: string, leases: readonly Held[]): Promise<readonly string[] | undefined> {
  return (await store.extend([{ queue, leases, leaseMs: LONG_MS }]))[0]?.lost
}

/** Looks again, every few milliseconds, because a lease runs out only while its queue is in contact with somebody. */
async function untilClaimable (store: Store, queue: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const [pulse] = await store.extend([{ queue, leases: [], leaseMs: SHORT_MS }])
    assert.ok(pulse !== undefined, 'there is a pulse for each queue')
    if (pulse.outlook.wakeInMs === 0) return
    assert.ok(performance.now() < deadline, `there is something to claim within ${PATIENCE_MS} ms`)
    await setTimeout(Math.min(pulse.outlook.wakeInMs, 5))
  }
}

/** Claims until leases have expired, and gives back what it gets. */
async function untilSuspect (store: Store, queue: string): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  for (;;) {
    const { leases } = await turn(store, queue, [], 1, { alone: true, leaseMs: SHORT_MS })
    const [lease] = leases
    if (lease !== undefined) {
      assert.equal(await settle(store, queue, lease, release), true)
      return
    }
    assert.ok(performance.now() < deadline, `there is a suspect within ${PATIENCE_MS} ms`)
    await setTimeout(5)
  }
}

/** Acts again and again until two watchers are woken, because any one wake-up may be lost. */
async function untilWoken (store: Store, queue: string, act: () => Promise<unknown>): Promise<void> {
  const woken = new Set<number>()
  for (const watcher of [1, 2]) await store.watch(queue, ({ kind }) => { if (kind === 'work') woken.add(watcher) })
  // Late ones, for what happened before, are not meant.
  await setTimeout(20)
  woken.clear()
  const deadline = performance.now() + PATIENCE_MS
  while (woken.size < 2) {
    assert.ok(performance.now() < deadline, `watchers are woken within ${PATIENCE_MS} ms`)
    await act()
    await setTimeout(10)
  }
}

/** Acts again and again until a watcher is told what is meant, because any one news may be lost. */
async function untilTold (store: Store, queue: string, isMeant: (news: News) => boolean, act: () => Promise<unknown>): Promise<void> {
  let tell = () => {}
  const told = new Promise<true>(resolve => { tell = () => resolve(true) })
  await store.watch(queue, news => { if (isMeant(news)) tell() })
  await until('watchers are told', async () => {
    await act()
    return await Promise.race([told, setTimeout(10 * SHORT_MS, false)])
  })
}

async function until (what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!await isSo()) {
    assert.ok(performance.now() < deadline, `${what} within ${PATIENCE_MS} ms`)
    await setTimeout(5)
  }
}

/** Has tasks found that have expired, by turns that claim only suspects, which they give back. */
async function untilExpired (store: Store, queue: string, ids: readonly string[]): Promise<void> {
  for (const id of ids) {
    await until(`${id} expires`, async () => {
      const { leases } = await turn(store, queue, [], 1, { alone: true })
      for (const lease of leases) await settle(store, queue, lease, release)
      return (await show(store, queue, id))?.state === 'expired'
    })
  }
}

/** Makes a task of every state that has not ended, and a dead one, named after it; returns the lease of the one that runs. */
async function stage (store: Store, queue: string): Promise<Lease> {
  await add(store, [task(queue, 'suspect')])
  await claimOne(store, queue, SHORT_MS)
  await untilSuspect(store, queue)
  await add(store, ['running', 'retried', 'dead'].map(id => task(queue, id, { onDuplicate: 'replace' })))
  const [running, retried, dying] = await claim(store, queue)
  await store.note(queue, retried!, 'half')
  await turn(store, queue, [
    { lease: retried!, verdict: retry(LONG_MS), record: 'try' },
    { lease: dying!, verdict: dead, record: 'end of dead' }
  ])
  await add(store, [task(queue, 'waiting'), task(queue, 'delayed', { delayMs: LONG_MS })])
  return running!
}

/** Makes a task of every state that has ended in an empty queue, one after the other, named after it. */
async function end (store: Store, queue: string): Promise<void> {
  for (const [id, verdict] of [['done', done], ['dead', dead]] as const) {
    await add(store, [task(queue, id)])
    await settle(store, queue, await claimOne(store, queue), verdict, [], { record: `end of ${id}` })
  }
  await add(store, [task(queue, 'cancelled'), task(queue, 'expired', { expiresMs: 1 })])
  await store.steer(queue, { kind: 'cancel', ids: ['cancelled'], keep: KEEP })
  await untilExpired(store, queue, ['expired'])
}

/** Claims so many tasks, one turn after the other if not all of them are due yet. */
async function claimAll (store: Store, queue: string, count: number): Promise<Lease[]> {
  const leases: Lease[] = []
  await until(`${count} tasks can be claimed`, async () => leases.push(...await claim(store, queue)) >= count)
  assert.equal(leases.length, count)
  return leases
}

async function show (store: Store, queue: string, id: string): Promise<Found | undefined> {
  const found = await store.find([queue], id)
  return found === undefined ? undefined : trimmed(found)
}

/** Without what is undefined. */
const trimmed = (found: Found) => Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) as unknown as Found

const isDuplicate = (id: string) => (error: unknown) => error instanceof FST_TASKQUEUE_DUPLICATE && error.message.includes(id)

/** The clock of the store is that of this machine, or close to it. */
function assertTime (time: number, before: number): void {
  assert.ok(Number.isInteger(time) && time >= before - 5 && time <= Date.now() + 5, `${time} is between ${before} and now`)
}

async function assertCounts (store: Store, queue: string, expected: Partial<Counts>): Promise<void> {
  const { waiting, delayed, running, dead } = await store.counts(queue)
  assert.deepEqual({ waiting, delayed, running, dead }, { waiting: 0, delayed: 0, running: 0, dead: 0, ...expected })
}

function assertWake (wakeInMs: number | undefined, dueInMs: number, since: number): void {
  assert.ok(wakeInMs !== undefined && wakeInMs <= dueInMs + 1, `${wakeInMs} is at most ${dueInMs}`)
  assert.ok(wakeInMs >= dueInMs - (performance.now() - since) - 1, `${wakeInMs} is no sooner than in ${dueInMs}`)
}

const ids = (tasks: ReadonlyArray<{ readonly id: string }>) => tasks.map(({ id }) => id)
const deferrals = ({ deferredMs, unroutedMs }: Lease) => ({ deferredMs, unroutedMs })
const counters = ({ attempt, retries, deaths }: Lease) => ({ attempt, retries, deaths })

const promises: Record<string, (store: Store, queue: string, other: string) => Promise<void>> = {
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
    assert.equal((await store.extend([{ queue, leases: [], leaseMs: LONG_MS }]))[0]?.outlook.wakeInMs, Infinity)
    assert.deepEqual(await store.extend([]), [])
    assert.equal(await store.steer(queue, { kind: 'purge' }), 0)
    await add(store, [])
    await assertCounts(store, queue, {})
  },

  async 'claims tasks in the order they were added' (store, queue) {
    await add(store, ['c', '10', '9', 'a'].map(id => task(queue, id)))
    await add(store, ['b', '1'].map(id => task(queue, id)))
    assert.deepEqual(ids(await claim(store, queue)), ['c', '10', '9', 'a', 'b', '1'])
  },

  async 'claims up to a limit, 0 included, and says whether there is more' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    const none = await turn(store, queue, [], 0)
    assert.deepEqual(none, { settled: [], leases: [], outlook: { wakeInMs: 0, suspects: false } })
    const some = await turn(store, queue, [], 2)
    assert.deepEqual(ids(some.leases), ['a', 'b'])
    assert.equal(some.outlook.wakeInMs, 0)
    const rest = await turn(store, queue, [], 2)
    assert.deepEqual(ids(rest.leases), ['c'])
    assert.ok(rest.outlook.wakeInMs > 0)
  },

  async 'hands a task to one of several claimers, and carries out one of several verdicts' (store, queue, other) {
    const all = Array.from({ length: 30 }, (_, index) => `task ${index + 10}`)
    await add(store, all.map(id => task(queue, id)))
    const shares = await Promise.all(Array.from({ length: 6 }, () => claim(store, queue, 7)))
    assert.deepEqual(shares.flatMap(ids).sort(), all)
    const [lease] = shares.flat()
    const settled = await Promise.all(['x', 'y', 'z'].map(id => settle(store, queue, lease!, done, [task(other, id)])))
    assert.deepEqual(settled.sort(), [false, false, true])
    await assertCounts(store, queue, { running: 29 })
    await assertCounts(store, other, { waiting: 1 })
  },

  async 'keeps any message as it is: unicode, quotes, newlines, 1 MiB' (store, queue) {
    const messages = ['', ' a\r\n\tb ', '"\'`\\%s$1?{}', "'); DROP TABLE task; --", 'ßéあ🚨\u{10FFFF}\u2028', '007', '1e3', 'null', 'é'.repeat(2 ** 19)]
    await add(store, messages.map((message, index) => task(queue, `${index}`, { message })))
    const leases = await claimAll(store, queue, messages.length)
    const claimed = await Promise.all(leases.map(({ message }) => typeof message === 'string' ? message : message(new AbortController().signal)))
    assert.ok(claimed.every((message, index) => message === messages[index]))
  },

  async 'tells ids apart by every character' (store, queue) {
    const odd = ['a', 'A', '7', '07', '7.0', '__proto__', 'constructor', "o'clock", '"', '%', '*', '{a}:b', '-', 'x'.repeat(255)]
    await add(store, odd.map(id => task(queue, id)))
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
    const again = ['running', 'retried', 'delayed', 'behind', 'waiting'].map(id => task(queue, id, { message: 'again' }))
    await Promise.all([add(store, again), add(store, again)])
    await assertCounts(store, queue, { waiting: 2, delayed: 2, running: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['message of waiting', 'again'])
    assert.equal(await settle(store, queue, running!, done), true)
    await assertCounts(store, queue, { delayed: 2, running: 2 })
  },

  async 'takes an id again once its task is done, and once one that is dead is removed or replaced, and no sooner' (store, queue) {
    const fail = async () => {
      await settle(store, queue, await claimOne(store, queue), retry(0))
      await untilClaimable(store, queue)
      await settle(store, queue, await claimOne(store, queue), dead)
    }
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), done)
    await add(store, [task(queue, 'a')])
    await fail()
    for (const rest of [{}, { onDuplicate: 'keep' }] as const) await add(store, [task(queue, 'a', { message: 'no', ...rest })])
    await assertCounts(store, queue, { dead: 1 })
    assert.equal((await show(store, queue, 'a'))?.message, 'message of a')
    for (const makeWay of [
      async () => { await store.steer(queue, { kind: 'remove', ids: ['a'] }) },
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

  async 'holds a delayed task back until it is due, and then counts it as waiting' (store, queue) {
    const since = performance.now()
    await add(store, [task(queue, 'later', { delayMs: SHORT_MS }), task(queue, 'much later', { delayMs: LONG_MS }), task(queue, 'now', { delayMs: 0 })])
    assert.equal((await claimOne(store, queue)).id, 'now')
    await untilClaimable(store, queue)
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    await assertCounts(store, queue, { waiting: 1, delayed: 1, running: 1 })
    const { leases, outlook: { wakeInMs } } = await turn(store, queue, [], 100)
    assert.deepEqual(ids(leases), ['later'])
    assert.ok(wakeInMs > 0)
  },

  async 'runs a task at a time, at once if that is past' (store, queue) {
    const now = Date.now()
    await add(store, [task(queue, 'past', { runAt: now - 3_600_000 }), task(queue, 'soon', { runAt: now + SHORT_MS }), task(queue, 'future', { runAt: now + 3_600_000 })])
    assert.equal((await claimOne(store, queue)).id, 'past')
    await untilClaimable(store, queue)
    assert.equal((await claimOne(store, queue)).id, 'soon')
    await assertCounts(store, queue, { delayed: 1, running: 2 })
  },

  async 'keeps the order of tasks that become due' (store, queue) {
    const [last, ...first] = ['d', 'c', '10', '9', 'a', 'b']
    await add(store, [task(queue, last!, { delayMs: 3 * SHORT_MS }), ...first.map(id => task(queue, id, { delayMs: SHORT_MS }))])
    // Most often they are all due by then, which makes it harder to tell them apart.
    await setTimeout(4 * SHORT_MS)
    const claimed: string[] = []
    while (claimed.length < 6) {
      await untilClaimable(store, queue)
      const leases = await claim(store, queue)
      assert.ok(leases.length > 0, 'what can be claimed is claimed')
      claimed.push(...ids(leases))
    }
    assert.deepEqual(claimed, [...first, last])
  },

  async 'has tasks that are due at one time run in the order in which they were delayed' (store, queue) {
    const runAt = Date.now() + 4 * SHORT_MS
    for (const id of ['c', 'b', '10', '9']) await add(store, [task(queue, id, { runAt }), task(queue, `after ${id}`, { runAt })])
    await add(store, ['z', 'y'].map(id => task(queue, id)))
    await store.steer(queue, { kind: 'schedule', ids: ['z', 'b', 'y'], runAt })
    const all = ['c', 'after c', 'after b', '10', 'after 10', '9', 'after 9', 'z', 'b', 'y']
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 100)), all)
    await until('they are due', async () => (await store.counts(queue)).waiting === all.length)
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 100)), all)
    assert.deepEqual(ids(await claim(store, queue)), all)
  },

  async 'says when the next delayed task is due' (store, queue, other) {
    const since = performance.now()
    await add(store, [task(queue, 'a', { delayMs: LONG_MS }), task(queue, 'b', { delayMs: LONG_MS / 2 }), task(other, 'c', { delayMs: LONG_MS / 3 })])
    assertWake((await turn(store, queue, [], 1)).outlook.wakeInMs, LONG_MS / 2, since)
    const pulses = await store.extend([queue, other].map(queue => ({ queue, leases: [], leaseMs: LONG_MS })))
    assertWake(pulses[0]?.outlook.wakeInMs, LONG_MS / 2, since)
    assertWake(pulses[1]?.outlook.wakeInMs, LONG_MS / 3, since)
    await add(store, [task(queue, 'd')])
    const withLimit0 = await turn(store, queue, [])
    assert.equal(withLimit0.outlook.wakeInMs, 0)
  },

  async 'does not count an attempt at a task that is given back unseen' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const [first] = await claim(store, queue, 1)
    assert.equal(await settle(store, queue, first!, release), true)
    const [second] = await claim(store, queue, 1)
    assert.equal(await settle(store, queue, second!, { kind: 'release', unseen: true }), true)
    const [third] = await claim(store, queue, 1)
    assert.equal(third?.id, 'a')
    assert.deepEqual(counters(third), { attempt: 2, retries: 0, deaths: 0 })
    assert.equal(await settle(store, queue, second!, done), false)
  },

  async 'gives a released task back to the front, without a retry and with a higher attempt' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    const [a, b] = await claim(store, queue, 2)
    assert.deepEqual(counters(a!), { attempt: 1, retries: 0, deaths: 0 })
    assert.equal(await settle(store, queue, b!, release), true)
    await assertCounts(store, queue, { waiting: 2, running: 1 })
    const again = await claimOne(store, queue)
    assert.equal(again.id, 'b')
    assert.equal(again.message, 'message of b')
    assert.deepEqual(counters(again), { attempt: 2, retries: 0, deaths: 0 })
  },

  async 'puts what is given back last in front of what was given back before' (store, queue) {
    await add(store, ['a', 'b', 'c', 'd'].map(id => task(queue, id)))
    const [a, b, c] = await claim(store, queue, 3)
    await settle(store, queue, a!, release)
    await turn(store, queue, [{ lease: b!, verdict: release }, { lease: c!, verdict: { kind: 'release', unseen: true } }])
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['b', 'c', 'a', 'd'])
    assert.deepEqual(ids(await claim(store, queue)), ['b', 'c', 'a', 'd'])
  },

  async 'retries a task after a delay, counting a retry, and behind those that wait' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    const [a, b] = await claim(store, queue, 2)
    const { settled, outlook: { wakeInMs } } = await turn(store, queue, [{ lease: a!, verdict: retry(LONG_MS) }, { lease: b!, verdict: retry(0) }])
    assert.deepEqual({ settled, wakeInMs }, { settled: [true, true], wakeInMs: 0 })
    const [c, again] = await claim(store, queue)
    assert.deepEqual([c?.id, again?.id, again?.message], ['c', 'b', 'message of b'])
    assert.deepEqual(counters(again!), { attempt: 2, retries: 1, deaths: 0 })
    const since = performance.now()
    const last = await turn(store, queue, [{ lease: c!, verdict: retry(SHORT_MS) }, { lease: again!, verdict: done }])
    assertWake(last.outlook.wakeInMs, SHORT_MS, since)
    await untilClaimable(store, queue)
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    assert.equal((await claimOne(store, queue)).id, 'c')
    await assertCounts(store, queue, { delayed: 1, running: 1 })
  },

  async 'keeps every dead letter, and hands none out' (store, queue, other) {
    const many = Array.from({ length: 1500 }, (_, index) => `${index}`)
    await add(store, [...many.map(id => task(queue, id)), task(other, 'a')])
    const leases = await claim(store, queue, many.length)
    const after = await turn(store, queue, leases.map(lease => ({ lease, verdict: dead })), 1)
    assert.deepEqual([after.leases, after.outlook.wakeInMs, after.dropped ?? 0], [[], Infinity, 0])
    await settle(store, other, await claimOne(store, other), dead)
    await assertCounts(store, queue, { dead: many.length })
    assert.equal((await show(store, queue, '0'))?.message, 'message of 0')
    assert.equal(await store.steer(queue, { kind: 'redrive' }), many.length)
    await assertCounts(store, queue, { waiting: many.length })
    assert.deepEqual(ids(await claim(store, queue, 2)).sort().length, 2)
    await assertCounts(store, other, { dead: 1 })
  },

  async 'drops the oldest dead letters where it is told to, and says how many' (store, queue, other) {
    const die = async (name: string, ids: readonly string[]) => {
      await add(store, ids.map(id => task(name, id)))
      for (const lease of await claim(store, name)) await settle(store, name, lease, dead, [], { record: 'end' })
    }
    await die(queue, ['a', 'b', 'c', 'd'])
    await die(other, ['a', 'b'])
    const trim = async (keepDead: Keep, limit = 0) => (await turn(store, queue, [], limit, { keepDead })).dropped ?? 0
    assert.equal(await trim({ count: Infinity, ms: Infinity }), 0)
    assert.equal(await trim({ count: 4, ms: LONG_MS }), 0)
    assert.equal(await trim({ count: 2, ms: Infinity }), 2)
    assert.deepEqual(ids(await store.list(queue, 'dead', 0, 10)), ['d', 'c'])
    assert.equal(await show(store, queue, 'a'), undefined)
    await setTimeout(10 * SHORT_MS)
    await die(queue, ['a'])
    assert.equal(await trim({ count: 10, ms: 9 * SHORT_MS }), 2)
    assert.deepEqual(ids(await store.list(queue, 'dead', 0, 10)), ['a'])
    assert.equal((await turn(store, queue, [], 1, { keepDead: { count: 0, ms: Infinity } })).dropped, 1)
    await assertCounts(store, queue, {})
    await assertCounts(store, other, { dead: 2 })
    await add(store, [task(queue, 'a')])
    assert.deepEqual(counters(await claimOne(store, queue)), { attempt: 1, retries: 0, deaths: 0 })
  },

  async 'defers a task at no cost of a retry, counts for how long, and forgets that when it is put back in line or replaced' (store, queue) {
    await add(store, [task(queue, 'a'), task(queue, 'b')])
    const [a, b] = await claim(store, queue)
    assert.deepEqual([deferrals(a!), counters(a!)], [{ deferredMs: 0, unroutedMs: 0 }, { attempt: 1, retries: 0, deaths: 0 }])
    const since = performance.now()
    const { settled, outlook } = await turn(store, queue, [{ lease: a!, verdict: defer(SHORT_MS), record: 'busy' }, { lease: b!, verdict: done }])
    assert.deepEqual(settled, [true, true])
    assertWake(outlook.wakeInMs, SHORT_MS, since)
    const { dueAt, ...found } = (await show(store, queue, 'a'))!
    assert.deepEqual(found, { queue, id: 'a', state: 'delayed', message: 'message of a', attempt: 1, reason: REASON, records: ['busy'] })
    assert.ok(dueAt !== undefined)
    await untilClaimable(store, queue)
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    const second = await claimOne(store, queue)
    assert.deepEqual([deferrals(second), counters(second)], [{ deferredMs: SHORT_MS, unroutedMs: 0 }, { attempt: 2, retries: 0, deaths: 0 }])
    await settle(store, queue, second, defer(1000))
    await store.steer(queue, { kind: 'schedule', ids: ['a'] })
    const third = await claimOne(store, queue)
    assert.deepEqual(deferrals(third), { deferredMs: 1000 + SHORT_MS, unroutedMs: 0 })
    await settle(store, queue, third, retry(0))
    await untilClaimable(store, queue)
    const fourth = await claimOne(store, queue)
    assert.deepEqual([deferrals(fourth), counters(fourth)], [{ deferredMs: 1000 + SHORT_MS, unroutedMs: 0 }, { attempt: 4, retries: 1, deaths: 0 }])
    await settle(store, queue, fourth, dead)
    await store.steer(queue, { kind: 'redrive' })
    const fifth = await claimOne(store, queue)
    assert.deepEqual(deferrals(fifth), { deferredMs: 0, unroutedMs: 0 })
    await settle(store, queue, fifth, defer(5))
    await untilClaimable(store, queue)
    const sixth = await claimOne(store, queue)
    await add(store, [task(queue, 'a', { onDuplicate: 'replace' })])
    await settle(store, queue, sixth, defer(LONG_MS))
    assert.deepEqual(deferrals(await claimOne(store, queue)), { deferredMs: 0, unroutedMs: 0 })
  },

  async 'does not count an attempt at a task that no route takes, and lets it expire; counts apart for how long it was deferred' (store, queue, other) {
    await add(store, [task(queue, 'a'), ...['b', 'late'].map(id => task(other, id, { expiresMs: 10 * SHORT_MS }))])
    await settle(store, queue, await claimOne(store, queue), defer(7))
    await untilClaimable(store, queue)
    const second = await claimOne(store, queue)
    assert.equal(second.attempt, 2)
    await settle(store, queue, second, defer(5, true))
    await untilClaimable(store, queue)
    const third = await claimOne(store, queue)
    assert.deepEqual([deferrals(third), counters(third)], [{ deferredMs: 12, unroutedMs: 5 }, { attempt: 2, retries: 0, deaths: 0 }])
    assert.equal(await settle(store, queue, second, done), false)
    await settle(store, queue, third, defer(LONG_MS, true))
    const { dueAt, ...found } = (await show(store, queue, 'a'))!
    assert.deepEqual(found, { queue, id: 'a', state: 'delayed', message: 'message of a', attempt: 1, reason: REASON, records: [] })
    const [b, late] = await claim(store, other)
    await settle(store, other, b!, defer(LONG_MS, true))
    await setTimeout(10 * SHORT_MS)
    await add(store, [task(other, 'looks', { delayMs: LONG_MS })])
    await turn(store, other, [], 1, { alone: true })
    await settle(store, other, late!, defer(LONG_MS, true))
    await untilExpired(store, other, ['b', 'late'])
    await assertCounts(store, other, { delayed: 1 })
  },

  async 'keeps for how long a task was deferred when its consumer dies, and suspects none that is deferred' (store, queue) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), defer(5, true))
    await untilClaimable(store, queue)
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const suspect = await claimSuspect(store, queue)
    assert.deepEqual([deferrals(suspect), counters(suspect)], [{ deferredMs: 5, unroutedMs: 5 }, { attempt: 3, retries: 0, deaths: 1 }])
    await settle(store, queue, suspect, defer(6))
    await untilClaimable(store, queue)
    const last = await claimOne(store, queue)
    assert.deepEqual([deferrals(last), counters(last), last.suspect], [{ deferredMs: 11, unroutedMs: 5 }, { attempt: 4, retries: 0, deaths: 1 }, false])
  },

  async 'wakes the watchers of a queue in which a task is left to others, who may have a route for it' (store, queue) {
    let round = 0
    await untilWoken(store, queue, async () => {
      await add(store, [task(queue, `${++round}`, { expiresMs: LONG_MS })])
      await settle(store, queue, await claimOne(store, queue), defer(LONG_MS, true))
    })
  },

  async 'settles and then claims, in one turn' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    const [a, b] = await claim(store, queue, 2)
    const { settled, leases, outlook: { wakeInMs } } = await turn(store, queue, [
      { lease: a!, verdict: done, chain: [task(queue, 'd')] },
      { lease: b!, verdict: release }
    ], 2)
    assert.deepEqual(settled, [true, true])
    assert.deepEqual(ids(leases), ['b', 'c'])
    assert.equal(wakeInMs, 0)
    const next = await turn(store, queue, [{ lease: leases[1]!, verdict: retry(0) }], 5)
    assert.deepEqual(ids(next.leases), ['d', 'c'])
    const chained = await turn(store, queue, [{ lease: next.leases[0]!, verdict: done, chain: [task(queue, 'e')] }], 5)
    assert.deepEqual(ids(chained.leases), ['e'])
    await assertCounts(store, queue, { running: 3 })
  },

  async 'settles a batch that is partly lost' (store, queue, other) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const [a, b] = await claim(store, queue)
    const { settled } = await turn(store, queue, [
      { lease: { id: 'nobody', fence: 1 }, verdict: done },
      { lease: a!, verdict: done },
      { lease: a!, verdict: dead },
      { lease: { id: 'b', fence: b!.fence + 1 }, verdict: done },
      { lease: b!, verdict: dead }
    ])
    assert.deepEqual(settled, [false, true, false, false, true])
    assert.equal(await settle(store, other, a!, done), false)
    await assertCounts(store, queue, { dead: 1 })
  },

  async 'lets a lease that was settled settle and prolong nothing more' (store, queue, other) {
    const verdicts = [done, release, retry(LONG_MS), defer(LONG_MS), retry(0), dead]
    await add(store, verdicts.map((_, index) => task(queue, `${index}`)))
    const leases = await claim(store, queue)
    await turn(store, queue, leases.map((lease, index) => ({ lease, verdict: verdicts[index]! })))
    for (const verdict of verdicts) {
      const late = leases.map(lease => ({ lease, verdict, chain: [task(other, 'a')] }))
      assert.deepEqual((await turn(store, queue, late)).settled, verdicts.map(() => false))
      assert.deepEqual([...await lost(store, queue, leases) ?? []].sort(), ids(leases))
    }
    await assertCounts(store, queue, { waiting: 2, delayed: 2, dead: 1 })
    await assertCounts(store, other, {})
  },

  async 'stores a chain only if its task is settled: with any verdict, in several queues' (store, queue, other) {
    const verdicts = [done, release, retry(LONG_MS), dead]
    await add(store, [...verdicts.map(({ kind }) => kind), 'lost'].map(id => task(queue, id)))
    const leases = await claim(store, queue)
    await turn(store, queue, leases.map(({ id, fence }, index) => ({
      lease: { id, fence: id === 'lost' ? fence + 1 : fence },
      verdict: verdicts[index] ?? done,
      chain: [task(other, `after ${id}`), task(other, 'same'), task(queue, `later than ${id}`, { delayMs: LONG_MS })]
    })))
    await assertCounts(store, queue, { waiting: 1, delayed: 5, running: 1, dead: 1 })
    assert.deepEqual(ids(await claim(store, other)), ['after done', 'same', 'after release', 'after retry', 'after dead'])
  },

  async 'adds chains when all settlements of the turn are carried out, and one without a delay before it claims' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const [a, b] = await claim(store, queue)
    const chain = [task(queue, 'b', { message: 'again', onDuplicate: 'keep' }), ...['z', 'y'].map(id => task(queue, id, { delayMs: 0 })), task(queue, 'x')]
    const { settled, leases } = await turn(store, queue, [{ lease: a!, verdict: done, chain }, { lease: b!, verdict: done }], 10)
    assert.deepEqual(settled, [true, true])
    assert.deepEqual(leases.map(({ id, message }) => [id, message]), [['b', 'again'], ...['z', 'y', 'x'].map(id => [id, `message of ${id}`])])
  },

  async 'makes suspects of tasks whose leases expire, in their order, and claims them one at a time and apart' (store, queue) {
    await add(store, ['a', 'b', 'c', 'd'].map(id => task(queue, id)))
    await claim(store, queue, 3, SHORT_MS)
    await untilSuspect(store, queue)
    await assertCounts(store, queue, { waiting: 4 })
    const ordinary = await turn(store, queue, [], 10)
    assert.deepEqual(ordinary.leases.map(({ id, suspect }) => ({ id, suspect })), [{ id: 'd', suspect: false }])
    assert.deepEqual(ordinary.outlook, { wakeInMs: 0, suspects: true })
    const claimed: string[] = []
    for (let suspects = true; suspects;) {
      const { leases, outlook } = await turn(store, queue, [], 10, { alone: true })
      claimed.push(...ids(leases))
      suspects = outlook.suspects
    }
    assert.deepEqual(claimed, ['a', 'b', 'c'])
    assert.deepEqual(await turn(store, queue, [], 10, { alone: true }).then(({ leases }) => leases), [])
    await assertCounts(store, queue, { running: 4 })
  },

  async 'counts a death only of a task that died alone' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue, SHORT_MS)
    assert.deepEqual(counters(second), { attempt: 2, retries: 0, deaths: 0 })
    assert.equal(second.message, 'message of a')
    await untilClaimable(store, queue)
    assert.deepEqual(counters(await claimSuspect(store, queue)), { attempt: 3, retries: 0, deaths: 1 })
  },

  async 'keeps a suspect one that is given back, and clears one that is tried again' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    await claim(store, queue, 2, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), release), true)
    const a = await claimSuspect(store, queue)
    assert.equal(a.id, 'a', 'to the front')
    assert.equal(await settle(store, queue, a, retry(0)), true)
    await settle(store, queue, await claimSuspect(store, queue), done)
    await untilClaimable(store, queue)
    assert.equal((await claimOne(store, queue)).suspect, false)
  },

  async 'fences off the first holder: its settlement is refused and its extension reported lost' (store, queue, other) {
    await add(store, [task(queue, 'a')])
    const first = await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue)
    assert.deepEqual(await lost(store, queue, [first]), ['a'])
    for (const verdict of [done, release, retry(0), dead]) {
      assert.equal(await settle(store, queue, first, verdict, [task(other, 'b')]), false)
    }
    assert.deepEqual(await lost(store, queue, [second]), [])
    assert.equal(await settle(store, queue, second, done), true)
    await assertCounts(store, queue, {})
    await assertCounts(store, other, {})
  },

  async 'keeps what it has counted, whatever happens next' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await settle(store, queue, await claimSuspect(store, queue), retry(0))
    await untilClaimable(store, queue)
    await settle(store, queue, await claimOne(store, queue), release)
    await settle(store, queue, await claimOne(store, queue), retry(SHORT_MS))
    await untilClaimable(store, queue)
    assert.deepEqual(counters(await claimOne(store, queue)), { attempt: 6, retries: 2, deaths: 1 })
  },

  async 'makes no lease shorter by prolonging it' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const [a] = await claim(store, queue, 1)
    await claim(store, queue, 1, SHORT_MS)
    await store.extend([{ queue, leases: [a!], leaseMs: 1 }])
    await untilClaimable(store, queue)
    assert.equal((await claimSuspect(store, queue)).id, 'b')
    assert.deepEqual(await lost(store, queue, [a!]), [])
  },

  async 'lets leases last that are prolonged' (store, queue, other) {
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    const held = await claim(store, queue, 3, 4 * SHORT_MS)
    const alsoHeld = await claim(store, other, 3, 4 * SHORT_MS)
    await store.extend([
      { queue, leases: held.slice(1), leaseMs: LONG_MS },
      { queue: other, leases: alsoHeld.slice(1), leaseMs: LONG_MS }
    ])
    for (const name of [queue, other]) {
      await untilClaimable(store, name)
      assert.equal((await claimSuspect(store, name)).id, 'a')
    }
    assert.deepEqual(await lost(store, queue, held), ['a'])
    assert.deepEqual(await lost(store, other, alsoHeld), ['a'])
  },

  async 'fences off who had a lease of an earlier task of the same id' (store, queue, other) {
    await add(store, [task(queue, 'a')])
    const first = await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    const second = await claimSuspect(store, queue)
    assert.equal(await settle(store, queue, second, done), true)
    await add(store, [task(queue, 'a')])
    const young = await claimOne(store, queue)
    assert.deepEqual(counters(young), { attempt: 1, retries: 0, deaths: 0 })
    for (const old of [first, second]) {
      assert.deepEqual(await lost(store, queue, [old]), ['a'])
      assert.equal(await settle(store, queue, old, done, [task(other, 'b')]), false)
    }
    assert.equal(await settle(store, queue, young, done), true)
    await assertCounts(store, other, {})
  },

  async 'prolongs leases of several queues and reports for each which are lost' (store, queue, other) {
    await add(store, [task(queue, 'a'), task(queue, 'b'), task(other, 'c'), task(other, 'd')])
    const [a, b] = await claim(store, queue)
    const c = await claimOne(store, other)
    const pulses = await store.extend([
      { queue, leases: [{ id: 'b', fence: b!.fence + 1 }, a!, { id: 'nobody', fence: 1 }], leaseMs: LONG_MS },
      { queue: other, leases: [c, a!, { id: 'd', fence: 0 }], leaseMs: LONG_MS }
    ])
    assert.deepEqual(pulses.map(({ lost }) => [...lost].sort()), [['b', 'nobody'], ['a', 'd']])
    assert.deepEqual(pulses.map(({ outlook }) => outlook.wakeInMs === 0), [false, true])
    assert.equal(await settle(store, queue, b!, done), true)
  },

  async 'counts tasks by state and purges those that wait or are delayed, not those that run nor dead ones' (store, queue, other) {
    await add(store, ['dead', 'running', 'released', 'retried', 'waiting', 'waiting too'].map(id => task(queue, id)))
    const [a, running, b, c] = await claim(store, queue, 4)
    await turn(store, queue, [{ lease: a!, verdict: dead }, { lease: b!, verdict: release }, { lease: c!, verdict: retry(LONG_MS) }])
    await add(store, [task(queue, 'delayed', { delayMs: LONG_MS }), task(other, 'waiting')])
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
    assert.equal(await store.steer(queue, { kind: 'purge' }), 5)
    await assertCounts(store, queue, { running: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    await add(store, [task(queue, 'delayed')])
    assert.deepEqual(ids(await claim(store, queue)), ['delayed'])
    assert.equal(await settle(store, queue, running!, done), true)
  },

  async 'wakes the watchers of an empty queue to which a task is added, chained or given back, and of any that has one delayed' (store, queue, other) {
    await untilWoken(store, queue, () => add(store, [task(queue, '1')]))
    await untilWoken(store, queue, async () => settle(store, queue, await claimOne(store, queue), release))
    await untilWoken(store, other, async () => { await settle(store, queue, await claimOne(store, queue), done, [task(other, '2')]) })
    await untilWoken(store, other, () => add(store, [{ ...task(other, '3'), delayMs: 1000 }]))
  },

  async 'keeps out a task whose id waits, is delayed, runs or is dead, and says so' (store, queue, other) {
    await stage(store, queue)
    const again = ['suspect', 'running', 'waiting', 'delayed', 'retried', 'dead', 'new'].map(id => task(queue, id, { message: 'again', onDuplicate: 'keep' }))
    assert.deepEqual(await add(store, [...again, task(other, 'waiting', { onDuplicate: 'keep' })]), ['suspect', 'running', 'waiting', 'delayed', 'retried', 'dead'])
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['message of waiting', 'again'])
  },

  async 'refuses a task whose id waits, is delayed, runs or is dead, and all that is prepared with it' (store, queue, other) {
    await stage(store, queue)
    for (const id of ['suspect', 'running', 'waiting', 'delayed', 'retried', 'dead']) {
      const tasks = [task(other, 'a', { onDuplicate: 'keep' }), task(queue, id, { onDuplicate: 'reject' }), task(queue, 'b', { onDuplicate: 'replace' })]
      await assert.rejects(store.prepare(tasks), isDuplicate(id))
    }
    await assertCounts(store, other, {})
    assert.deepEqual(await add(store, [task(other, 'a', { onDuplicate: 'reject' }), task(queue, 'b', { onDuplicate: 'reject' })]), [])
    await assertCounts(store, other, { waiting: 1 })
    await assertCounts(store, queue, { waiting: 3, delayed: 2, running: 1, dead: 1 })
  },

  async 'replaces a task that waits or is delayed by a new one at the end of the line' (store, queue) {
    await stage(store, queue)
    const ids = ['suspect', 'retried', 'waiting', 'delayed', 'dead', 'new']
    const replacements = ids.map(id => task(queue, id, { message: 'again', onDuplicate: 'replace' }))
    await add(store, [task(queue, 'before')])
    assert.deepEqual(await add(store, replacements), [])
    await assertCounts(store, queue, { waiting: 7, running: 1 })
    assert.deepEqual(await show(store, queue, 'retried'), { queue, id: 'retried', state: 'waiting', message: 'again', attempt: 0, records: [] })
    const leases = await claim(store, queue)
    assert.deepEqual(leases.map(({ id }) => id), ['before', ...ids])
    for (const lease of leases.slice(1)) {
      assert.equal(lease.message, 'again')
      assert.deepEqual({ ...counters(lease), suspect: lease.suspect }, { attempt: 1, retries: 0, deaths: 0, suspect: false })
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
    assert.deepEqual(await add(store, leases.map(({ id }) => task(queue, id, { message: 'replaced', onDuplicate: 'replace' }))), [])
    assert.deepEqual(await add(store, leases.map(({ id }) => task(queue, id, { message: `after ${id}`, onDuplicate: 'replace' }))), [])
    assert.deepEqual(await add(store, leases.map(({ id }) => task(queue, id, { message: 'no', onDuplicate: 'keep' }))), leases.map(({ id }) => id))
    await add(store, leases.map(({ id }) => task(queue, id, { message: 'no' })))
    assert.deepEqual(await claim(store, queue), [])
    assert.deepEqual(await lost(store, queue, leases), [])
    await store.note(queue, leases[0]!, 'half')
    await add(store, [task(queue, 'before')])
    const { settled } = await turn(store, queue, leases.map((lease, index) => ({
      lease, verdict: verdicts[index]!, record: 'second', chain: [task(other, `chain of ${lease.id}`)]
    })))
    assert.deepEqual(settled, verdicts.map(() => true))
    await assertCounts(store, queue, { waiting: 5 })
    await assertCounts(store, other, { waiting: 4 })
    for (const state of ['done', 'cancelled', 'expired', 'dead'] as const) assert.deepEqual(await store.list(queue, state, 0, 10), [])
    const { progress, records } = (await show(store, queue, 'done'))!
    assert.deepEqual({ progress, records }, { progress: undefined, records: ['first', 'second'] })
    assert.equal((await claimOne(store, queue)).id, 'before')
    const next = await claim(store, queue)
    assert.deepEqual(next.map(({ message }) => message).sort(), verdicts.map(({ kind }) => `after ${kind}`).sort())
    for (const { attempt, retries } of next) assert.deepEqual({ attempt, retries }, { attempt: 3, retries: 0 })
    await turn(store, queue, next.map(lease => ({ lease, verdict: done })))
    await assertCounts(store, queue, { running: 1 })
  },

  async 'shows and hands out nothing of what follows a task while that runs' (store, queue) {
    await add(store, [task(queue, 'a')])
    const lease = await claimOne(store, queue)
    const before = await show(store, queue, 'a')
    await add(store, [task(queue, 'a', { message: 'again', delayMs: LONG_MS, expiresMs: LONG_MS, onDuplicate: 'replace' })])
    assert.deepEqual(await show(store, queue, 'a'), before)
    assert.deepEqual((await store.list(queue, 'running', 0, 10)).map(trimmed), [before])
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    assert.equal((await show(store, queue, 'a'))?.message, 'message of a')
    assert.equal(await settle(store, queue, lease, done), false)
  },

  async 'lets what follows a task expire by itself, and counts no attempt that was unseen' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id, { expiresMs: SHORT_MS })))
    const leases = await claim(store, queue)
    const replacement = { message: 'again', onDuplicate: 'replace' } as const
    await add(store, [task(queue, 'a', { ...replacement, expiresMs: SHORT_MS }), task(queue, 'b', replacement), task(queue, 'c', { ...replacement, expiresMs: LONG_MS })])
    // Nothing expires as long as something else runs under its id.
    assert.deepEqual(await add(store, leases.map(({ id }) => task(queue, id, { onDuplicate: 'keep' }))), ['a', 'b', 'c'])
    await setTimeout(2 * SHORT_MS)
    assert.deepEqual(await add(store, leases.map(({ id }) => task(queue, id, { onDuplicate: 'keep' }))), ['a', 'b', 'c'])
    await turn(store, queue, leases.map(lease => ({ lease, verdict: { kind: 'release', unseen: lease.id !== 'c' } })))
    const next = await claim(store, queue)
    assert.deepEqual(next.map(({ id, message, attempt }) => ({ id, message, attempt })), [
      { id: 'b', message: 'again', attempt: 1 }, { id: 'c', message: 'again', attempt: 2 }
    ])
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['a'])
  },

  async 'delays what follows a task that runs until it is due by itself' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const leases = await claim(store, queue)
    const since = performance.now()
    await add(store, [
      task(queue, 'a', { delayMs: LONG_MS, onDuplicate: 'replace' }),
      task(queue, 'b', { message: 'soon', delayMs: 2 * SHORT_MS, onDuplicate: 'replace' })
    ])
    await turn(store, queue, leases.map(lease => ({ lease, verdict: done })))
    await assertCounts(store, queue, { delayed: 2 })
    await untilClaimable(store, queue)
    assert.ok(performance.now() - since > 2 * SHORT_MS - 2, 'it is not early')
    assert.equal((await claimOne(store, queue)).message, 'soon')
    await assertCounts(store, queue, { delayed: 1, running: 1 })
  },

  async 'makes one suspect, with the message of the later one and all its retries, of a task and what was to follow it' (store, queue) {
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

  async 'keeps an id out, or refuses it, for a while after it is done, and forgets the rest of it at once' (store, queue) {
    const nothing: Partial<Turn> = { keep: { count: 0, ms: LONG_MS } }
    await add(store, ['done', 'briefly', 'at once', 'dead', 'retried'].map(id => task(queue, id)))
    const verdicts = [done, done, done, dead, retry(0)]
    await turn(store, queue, (await claim(store, queue)).map((lease, index) => ({
      lease, verdict: verdicts[index]!, dedupeMs: [LONG_MS, SHORT_MS, 0][index] ?? LONG_MS
    })), 0, nothing)
    await untilClaimable(store, queue)
    const [retried] = (await turn(store, queue, [], 1, nothing)).leases
    await turn(store, queue, [{ lease: retried!, verdict: dead, dedupeMs: LONG_MS }], 0, nothing)
    assert.equal(await show(store, queue, 'done'), undefined)
    assert.equal(await store.steer(queue, { kind: 'remove' }), 2)
    assert.deepEqual(await add(store, ['at once', 'dead', 'retried', 'done'].map(id => task(queue, id, { onDuplicate: 'keep' }))), ['done'])
    await assert.rejects(store.prepare([task(queue, 'done', { onDuplicate: 'reject' })]), isDuplicate('done'))
    await until('the id is free', async () => (await add(store, [task(queue, 'briefly', { onDuplicate: 'keep' })])).length === 0)
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

  async 'adds a task that is not to be compared with others while its id is kept out' (store, queue) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), done, [], { dedupeMs: LONG_MS })
    await add(store, [task(queue, 'a')])
    assert.equal((await claimOne(store, queue)).id, 'a')
  },

  async 'decides about the second of two tasks of one id as if the first were there' (store, queue, other) {
    assert.deepEqual(await add(store, [
      task(queue, 'a', { message: 'first', onDuplicate: 'reject' }), task(other, 'a', { onDuplicate: 'reject' }),
      task(queue, 'b', { message: 'first', onDuplicate: 'keep' }), task(queue, 'a', { message: 'second', onDuplicate: 'keep' }),
      task(queue, 'b', { message: 'second', onDuplicate: 'replace' }), task(queue, 'c'), task(queue, 'c', { onDuplicate: 'keep' })
    ]), ['a', 'c'])
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['first', 'second', 'message of c'])
    await assert.rejects(store.prepare([task(queue, 'd', { onDuplicate: 'keep' }), task(queue, 'd', { onDuplicate: 'reject' })]), isDuplicate('d'))
    await assert.rejects(store.prepare([task(queue, 'd', { onDuplicate: 'replace' }), task(queue, 'd', { onDuplicate: 'reject' })]), isDuplicate('d'))
    assert.deepEqual(await claim(store, queue), [])
  },

  async 'leaves nothing of the first of two tasks of one id in a commit where the second replaces it' (store, queue) {
    const replacing = (id: string, rest: Partial<NewTask> = {}) => task(queue, id, { message: 'again', onDuplicate: 'replace', ...rest })
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

  async 'adds what was not kept out although its id has been done since, and leaves alone what is under way by then' (store, queue) {
    const prepared = await store.prepare([task(queue, 'done', { message: 'second', onDuplicate: 'keep' }), task(queue, 'runs', { message: 'second', onDuplicate: 'reject' })])
    // These are not compared with others.
    await add(store, [task(queue, 'done'), task(queue, 'runs')])
    const [finished, running] = await claim(store, queue)
    await settle(store, queue, finished!, done, [], { dedupeMs: LONG_MS })
    await prepared.commit()
    await assertCounts(store, queue, { waiting: 1, running: 1 })
    assert.deepEqual((await claim(store, queue)).map(({ id, message }) => [id, message]), [['done', 'second']])
    assert.deepEqual(await lost(store, queue, [running!]), [])
  },

  async 'counts delays and expiry from the commit' (store, queue) {
    const prepared = await store.prepare([
      task(queue, 'expiring', { expiresMs: 2 * SHORT_MS }), task(queue, 'delayed', { delayMs: LONG_MS }), task(queue, 'at', { runAt: Date.now() + LONG_MS })
    ])
    await setTimeout(3 * SHORT_MS)
    const before = Date.now()
    await prepared.commit()
    assert.deepEqual(ids(await claim(store, queue)), ['expiring'])
    assertTime((await show(store, queue, 'delayed'))!.dueAt! - LONG_MS, before)
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 10)), ['at', 'delayed'])
  },

  async 'takes thousands of tasks in one commit or none of them, and decides about those of one id that are far apart' (store, queue, other) {
    const many = Array.from({ length: 2500 }, (_, index) => task(index % 5 === 0 ? other : queue, `${index}`, index % 2 === 0 ? {} : { onDuplicate: 'keep' }))
    const prepared = await store.prepare(many)
    await assertCounts(store, queue, {})
    prepared.rollback()
    await assertCounts(store, queue, {})
    await assert.rejects(store.prepare([...many, task(queue, '1', { onDuplicate: 'reject' })]), isDuplicate('1'))
    await assertCounts(store, queue, {})
    const again = [task(queue, '1', { message: 'again', onDuplicate: 'keep' }), task(queue, '3', { message: 'again', onDuplicate: 'replace' })]
    assert.deepEqual(await add(store, [...many, ...again]), ['1'])
    await assertCounts(store, queue, { waiting: 2000 })
    await assertCounts(store, other, { waiting: 500 })
    const leases = await claim(store, queue, 3000)
    assert.deepEqual(leases.filter(({ message }) => message === 'again').map(({ id }) => id), ['3'])
    assert.deepEqual(leases.map(({ id }) => id).filter(id => id !== '3'), many.filter(task => task.queue === queue && task.id !== '3').map(({ id }) => id))
    const plain = many.map(({ id }) => task(queue, `new ${id}`))
    assert.deepEqual(await add(store, plain), [])
    assert.deepEqual((await claim(store, queue, 3000)).map(({ id }) => id), plain.map(({ id }) => id))
  },

  async 'waits for what becomes of an id that is prepared, and then decides' (store, queue, other) {
    for (const [outcome, onDuplicate] of ['commit', 'rollback'].flatMap(outcome => (['keep', 'reject', 'replace'] as const).map(kind => [outcome, kind] as const))) {
      const id = `${outcome} ${onDuplicate}`
      const first = await store.prepare([task(queue, 'with it'), task(queue, id, { message: 'first', onDuplicate: 'keep' })])
      let isDecided = false
      const second = store.prepare([task(queue, id, { message: 'second', onDuplicate })]).finally(() => { isDecided = true })
      second.catch(() => {})
      // Neither another queue's nor one that is not compared has to wait.
      for (const tasks of [[task(other, id, { onDuplicate: 'keep' })], [task(other, 'with it', { onDuplicate: 'keep' })], [task(queue, `not ${id}`, { onDuplicate: 'keep' })]]) {
        (await store.prepare(tasks)).rollback()
      }
      for (let round = 0; round < 3; round++) await store.counts(queue)
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
      assert.deepEqual(claimed.filter(lease => lease.id === id).map(({ message }) => message), [outcome === 'commit' && onDuplicate !== 'replace' ? 'first' : 'second'])
      await turn(store, queue, claimed.map(lease => ({ lease, verdict: done })))
    }
  },

  async 'lets several who wait for one id have it one after the other' (store, queue) {
    const tasks = [task(queue, 'a', { onDuplicate: 'keep' }), task(queue, 'b', { onDuplicate: 'keep' })]
    const first = await store.prepare(tasks)
    const others = [tasks, tasks.toReversed(), tasks].map(async tasks => {
      const prepared = await store.prepare(tasks)
      await prepared.commit()
      return prepared.keptOut.length
    })
    first.rollback()
    assert.deepEqual((await Promise.all(others)).sort(), [0, 2, 2])
    await assertCounts(store, queue, { waiting: 2 })
  },

  async 'decides about chained tasks when their task is settled: those that would be refused are kept out' (store, queue, other) {
    await add(store, [task(other, 'known'), task(other, 'done'), task(queue, 'a')])
    await settle(store, other, (await claim(store, other)).find(({ id }) => id === 'done')!, done, [], { dedupeMs: LONG_MS })
    await add(store, [task(other, 'replaced')])
    await settle(store, queue, await claimOne(store, queue), done, [
      ...(['keep', 'reject'] as const).flatMap(onDuplicate => ['known', 'done', `new ${onDuplicate}`].map(id => task(other, id, { message: onDuplicate, onDuplicate }))),
      task(other, 'replaced', { message: 'replace', onDuplicate: 'replace' })
    ])
    assert.deepEqual((await claim(store, other)).map(({ message }) => message), ['keep', 'reject', 'replace'])
  },

  async 'puts a new task in the place of one that has ended' (store, queue) {
    await end(store, queue)
    for (const id of ['done', 'dead', 'cancelled', 'expired']) {
      assert.deepEqual(await add(store, [task(queue, id, { message: 'again', onDuplicate: id === 'dead' ? 'replace' : 'reject' })]), [])
      assert.deepEqual(await show(store, queue, id), { queue, id, state: 'waiting', message: 'again', attempt: 0, records: [] })
      assert.deepEqual(await store.list(queue, id as State, 0, 10), [])
    }
    assert.equal((await claim(store, queue)).length, 4)
  },

  async 'claims no task after it has expired, and says that it has' (store, queue, other) {
    const since = performance.now()
    const expiring = (queue: string) => [
      task(queue, 'waiting', { expiresMs: SHORT_MS }), task(queue, 'delayed', { delayMs: 5, expiresMs: SHORT_MS }),
      task(queue, 'never due', { delayMs: LONG_MS, expiresMs: SHORT_MS })
    ]
    await add(store, [...expiring(other), task(other, 'in time', { expiresMs: LONG_MS }), ...expiring(queue)])
    await untilExpired(store, queue, ['waiting', 'delayed', 'never due'])
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    assert.deepEqual(ids(await claim(store, other)), ['in time'])
    await assertCounts(store, queue, {})
    await assertCounts(store, other, { running: 1 })
    const { endedAt, ...expired } = (await show(store, other, 'never due'))!
    assert.deepEqual(expired, { queue: other, id: 'never due', state: 'expired', message: 'message of never due', attempt: 0, records: [] })
    assert.equal(typeof endedAt, 'number')
  },

  async 'lets no task expire that was attempted, unless the app has not seen it' (store, queue) {
    await add(store, ['released', 'retried', 'abandoned', 'unseen', 'running', 'dead'].map(id => task(queue, id, { expiresMs: 6 * SHORT_MS })))
    const all = await claim(store, queue, 2)
    await claim(store, queue, 1, SHORT_MS)
    const rest = await claim(store, queue)
    assert.equal(all.length + rest.length, 5)
    await turn(store, queue, [
      { lease: all[0]!, verdict: release }, { lease: all[1]!, verdict: retry(LONG_MS) }, { lease: rest[0]!, verdict: { kind: 'release', unseen: true } },
      { lease: rest[2]!, verdict: dead }
    ])
    await untilExpired(store, queue, ['unseen'])
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['unseen'])
    await untilSuspect(store, queue)
    await store.steer(queue, { kind: 'redrive' })
    await store.steer(queue, { kind: 'schedule', ids: ['retried'] })
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
    await until('the other one expires', async () => {
      assert.deepEqual(await claim(store, queue), [])
      return (await show(store, queue, 'other'))?.state === 'expired'
    })
    await untilClaimable(store, queue)
    assert.equal((await claimSuspect(store, queue)).id, 'suspect')
  },

  async 'takes the id of a task that has expired, even if nobody has noticed' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id, { expiresMs: SHORT_MS })))
    // The last of them to expire.
    await until('the id is free', async () => (await add(store, [task(queue, 'b', { message: 'again', onDuplicate: 'keep' })])).length === 0)
    await add(store, [task(queue, 'a', { message: 'again', onDuplicate: 'reject' })])
    assert.deepEqual((await claim(store, queue)).map(({ message }) => message), ['again', 'again'])
    assert.deepEqual(await store.list(queue, 'expired', 0, 10), [])
  },

  async 'finds a task in every state, with what is known of it' (store, queue) {
    const before = Date.now()
    await end(store, queue)
    await stage(store, queue)
    await add(store, [task(queue, 'at', { runAt: before + LONG_MS })])
    const found = new Map<string, Found>()
    for (const id of ['suspect', 'running', 'waiting', 'delayed', 'at', 'retried', 'done', 'dead', 'cancelled', 'expired']) {
      const { endedAt, dueAt, ...rest } = (await show(store, queue, id))!
      if (endedAt !== undefined) assertTime(endedAt, before)
      if (dueAt !== undefined) assertTime(dueAt - LONG_MS, before)
      if (id === 'at') assert.equal(dueAt, before + LONG_MS)
      assert.equal(endedAt !== undefined, ['done', 'dead', 'cancelled', 'expired'].includes(id))
      assert.equal(dueAt !== undefined, ['delayed', 'at', 'retried'].includes(id))
      found.set(id, rest)
    }
    const known = (id: string, state: State, attempt: number, rest: Partial<Found> = {}) => ({ queue, id, state, message: `message of ${id}`, attempt, records: [], ...rest })
    const { message, ...doneOne } = known('done', 'done', 1, { records: ['end of done'] })
    assert.deepEqual([...found.values()], [
      known('suspect', 'waiting', 2, { records: [undefined] }), known('running', 'running', 1), known('waiting', 'waiting', 0),
      known('delayed', 'delayed', 0), known('at', 'delayed', 0), known('retried', 'delayed', 1, { reason: REASON, records: ['try'], progress: 'half' }),
      doneOne, known('dead', 'dead', 1, { reason: REASON, records: ['end of dead'] }), known('cancelled', 'cancelled', 0), known('expired', 'expired', 0)
    ])
    assert.ok(message !== undefined && message !== '', 'that of the one that is done is gone')
  },

  async 'finds the task in the first of several queues that knows its id, and none that nobody knows' (store, queue, other) {
    await add(store, [task(queue, 'a'), task(other, 'a'), task(other, 'b')])
    assert.equal((await store.find([queue, other], 'a'))?.queue, queue)
    assert.equal((await store.find([other, queue], 'a'))?.queue, other)
    assert.equal((await store.find([queue, other], 'b', LONG_MS))?.queue, other)
    assert.equal(await store.find([queue], 'b', LONG_MS), undefined)
    assert.equal(await store.find([], 'a'), undefined)
    await store.steer(other, { kind: 'purge' })
    assert.equal(await store.find([queue, other], 'b'), undefined)
  },

  async 'shows a delayed task that has become due as one that waits' (store, queue) {
    await add(store, [task(queue, 'due', { delayMs: SHORT_MS })])
    await untilClaimable(store, queue)
    assert.deepEqual(await show(store, queue, 'due'), { queue, id: 'due', state: 'waiting', message: 'message of due', attempt: 0, records: [] })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['due'])
    assert.deepEqual(await store.list(queue, 'delayed', 0, 10), [])
  },

  async 'keeps the newest RECORD_LIMIT records of a task, as they are, and a gap for a death' (store, queue) {
    const texts = [' a\r\n\tb ', '"\'`\\%s$1?{}', '007', 'null', '[]', 'ßéあ🚨\u{10FFFF}\u2028', 'é'.repeat(1000)]
    await add(store, [task(queue, 'a')])
    for (const record of texts) await settle(store, queue, await claimOne(store, queue), release, [], { record })
    await settle(store, queue, await claimOne(store, queue), release)
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), retry(0), [], { record: 'after' }), true)
    assert.deepEqual((await show(store, queue, 'a'))?.records, [...texts, undefined, 'after'])
    const more = Array.from({ length: RECORD_LIMIT - 1 }, (_, index) => `${index}`)
    await untilClaimable(store, queue)
    for (const record of more) await settle(store, queue, await claimOne(store, queue), release, [], { record })
    assert.deepEqual((await show(store, queue, 'a'))?.records, ['after', ...more])
    await settle(store, queue, await claimOne(store, queue), done, [], { record: 'end' })
    assert.deepEqual((await show(store, queue, 'a'))?.records, [...more, 'end'])
  },

  async 'keeps no record of a settlement that is not carried out' (store, queue) {
    await add(store, [task(queue, 'a')])
    const { id, fence } = await claimOne(store, queue)
    assert.equal(await settle(store, queue, { id, fence: fence + 1 }, done, [], { record: 'no', dedupeMs: LONG_MS }), false)
    assert.deepEqual(await show(store, queue, 'a'), { queue, id: 'a', state: 'running', message: 'message of a', attempt: 1, records: [] })
  },

  async 'keeps the newest of the tasks that are done, cancelled or expired, and none of them too long' (store, queue, other) {
    const settleAll = async (name: string, verdict: Verdict, keep: Keep) => {
      const settlements = (await claim(store, name)).map(lease => ({ lease, verdict }))
      await turn(store, name, settlements, 0, { keep })
    }
    await end(store, queue)
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    await settleAll(queue, done, { count: 3, ms: LONG_MS })
    const kept = async (name: string) => {
      const lists = await Promise.all((['done', 'cancelled', 'expired', 'dead'] as const).map(state => store.list(name, state, 0, 10)))
      return lists.map(ids)
    }
    assert.deepEqual(await kept(queue), [['b', 'a'], [], ['expired'], ['dead']])
    assert.equal(await show(store, queue, 'done'), undefined)
    await add(store, ['x', 'y'].map(id => task(queue, id)))
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['x', 'y'], keep: { count: 2, ms: LONG_MS } }), 2)
    assert.deepEqual(await kept(queue), [[], ['y', 'x'], [], ['dead']])
    await add(store, [task(other, 'a'), task(other, 'b', { delayMs: LONG_MS })])
    await settleAll(other, done, { count: 0, ms: LONG_MS })
    assert.equal(await store.steer(other, { kind: 'cancel', ids: ['b'], keep: { count: 0, ms: LONG_MS } }), 1)
    assert.deepEqual([await kept(other), await show(store, other, 'a'), await show(store, other, 'b')], [[[], [], [], []], undefined, undefined])
    await add(store, [task(other, 'c')])
    const since = performance.now()
    await settleAll(other, done, { count: 3, ms: SHORT_MS })
    await until('it is forgotten', async () => await show(store, other, 'c') === undefined)
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    assert.deepEqual(await kept(other), [[], [], [], []])
    await turn(store, queue, [], 1, { keep: { count: 1, ms: LONG_MS } })
    assert.deepEqual(await kept(queue), [[], ['y'], [], ['dead']])
  },

  async 'keeps what one turn ends in the order of its settlements, and then of what expires' (store, queue) {
    const keep = { count: 3, ms: LONG_MS }
    await add(store, ['c', 'b', 'a'].map(id => task(queue, id)))
    const leases = await claim(store, queue)
    await add(store, [task(queue, 'z', { expiresMs: SHORT_MS, delayMs: LONG_MS }), task(queue, 'y', { expiresMs: SHORT_MS, delayMs: LONG_MS })])
    await setTimeout(2 * SHORT_MS)
    await turn(store, queue, leases.map(lease => ({ lease, verdict: done })), 1, { keep })
    assert.deepEqual(ids(await store.list(queue, 'expired', 0, 10)), ['y', 'z'])
    assert.deepEqual(ids(await store.list(queue, 'done', 0, 10)), ['a'])
  },

  async 'keeps the reason of a task that is cancelled after it was tried' (store, queue) {
    await add(store, [task(queue, 'a')])
    await settle(store, queue, await claimOne(store, queue), retry(LONG_MS), [], { record: 'first' })
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    const { state, reason, records, attempt } = (await show(store, queue, 'a'))!
    assert.deepEqual({ state, reason, records, attempt }, { state: 'cancelled', reason: REASON, records: ['first'], attempt: 1 })
  },

  async 'keeps what a running task notes until it notes something else or has ended' (store, queue) {
    await add(store, ['a', 'b'].map(id => task(queue, id)))
    const progress = async (id = 'a') => (await show(store, queue, id))?.progress
    const leases = await claim(store, queue)
    const [a, b] = leases
    for (const text of ['', '"half" é\n🚨', 'half']) {
      assert.equal(await store.note(queue, a!, text), true)
      assert.equal(await progress(), text)
    }
    assert.equal(await store.note(queue, b!, 'all'), true)
    await turn(store, queue, [{ lease: a!, verdict: retry(0) }, { lease: b!, verdict: done }])
    assert.equal(await store.note(queue, a!, 'late'), false)
    assert.deepEqual([await progress(), await progress('b')], ['half', undefined])
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimOne(store, queue), release), true)
    const again = await claimOne(store, queue)
    assert.equal(await store.note(queue, { id: 'a', fence: again.fence + 1 }, 'forged'), false)
    assert.equal(await store.note(queue, { id: 'nobody', fence: again.fence }, 'forged'), false)
    assert.equal(await progress(), 'half')
    assert.equal(await settle(store, queue, again, dead), true)
    assert.equal(await progress(), undefined)
    await store.steer(queue, { kind: 'redrive' })
    assert.equal(await progress(), undefined)
  },

  async 'lists the tasks of each state in order, a part at a time' (store, queue) {
    await add(store, ['s1', 's2'].map(id => task(queue, id)))
    await claim(store, queue, 2, SHORT_MS)
    await untilSuspect(store, queue)
    await add(store, ['r1', 'r2'].map(id => task(queue, id)))
    await claim(store, queue, 2, LONG_MS * 2)
    await add(store, [task(queue, 'r3')])
    await claim(store, queue, 1, LONG_MS)
    for (const [kind, verdict] of [['done', done], ['dead', dead]] as const) {
      await add(store, ['1', '2', '3'].map(id => task(queue, `${kind}${id}`)))
      await turn(store, queue, (await claim(store, queue)).map(lease => ({ lease, verdict })))
    }
    await add(store, ['w1', 'w2', 'w3'].map(id => task(queue, id)))
    await settle(store, queue, await claimOne(store, queue), release)
    await add(store, [task(queue, 'd1', { delayMs: LONG_MS * 2 }), task(queue, 'd2', { delayMs: LONG_MS }), task(queue, 'd3', { delayMs: LONG_MS * 2 })])
    await add(store, ['c1', 'c2'].map(id => task(queue, id)))
    await store.steer(queue, { kind: 'cancel', ids: ['c2', 'c1'], keep: KEEP })
    const expected: Array<[State, string[]]> = [
      ['waiting', ['s1', 's2', 'w1', 'w2', 'w3']], ['delayed', ['d2', 'd1', 'd3']], ['running', ['r3', 'r1', 'r2']],
      ['dead', ['dead3', 'dead2', 'dead1']], ['done', ['done3', 'done2', 'done1']], ['cancelled', ['c1', 'c2']], ['expired', []]
    ]
    for (const [state, all] of expected) {
      const found = await store.list(queue, state, 0, 100)
      assert.deepEqual(ids(found), all)
      assert.ok(found.every(found => found.queue === queue && found.state === state && found.message === (state === 'done' ? undefined : `message of ${found.id}`)))
      for (const found of await store.list(queue, state, 1, 1)) assert.deepEqual(trimmed(found), await show(store, queue, found.id))
      assert.deepEqual(ids(await store.list(queue, state, 1, 2)), all.slice(1, 3))
      assert.deepEqual(ids(await store.list(queue, state, 2, 100)), all.slice(2))
      assert.deepEqual(await store.list(queue, state, 100, 100), [])
      assert.deepEqual(await store.list(queue, state, 0, 0), [])
    }
  },

  async 'cancels what waits, is delayed or runs, and passes over the rest' (store, queue, other) {
    await end(store, queue)
    const running = await stage(store, queue)
    await add(store, [task(queue, 'stays'), task(other, 'waiting')])
    const cancelled = ['suspect', 'running', 'waiting', 'delayed', 'retried']
    const order = { kind: 'cancel', ids: [...cancelled, ...cancelled, 'done', 'dead', 'expired', 'cancelled', 'nobody'], keep: KEEP } as const
    assert.equal(await store.steer(queue, order), 5)
    await assertCounts(store, queue, { waiting: 1, dead: 1 })
    await assertCounts(store, other, { waiting: 1 })
    assert.deepEqual((await turn(store, queue, [])).outlook, { wakeInMs: 0, suspects: false })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['stays'])
    for (const id of cancelled) assert.equal((await show(store, queue, id))?.state, 'cancelled')
    assert.equal((await show(store, queue, 'running'))?.message, 'message of running')
    assert.deepEqual((await show(store, queue, 'suspect'))?.records, [undefined])
    assert.equal(await store.note(queue, running, 'half'), false)
    assert.equal(await settle(store, queue, running, done, [task(other, 'chained')]), false)
    await assertCounts(store, other, { waiting: 1 })
    assert.equal(await store.steer(queue, order), 0)
    assert.deepEqual(ids(await claim(store, queue)), ['stays'])
    assert.equal((await turn(store, queue, [])).outlook.wakeInMs > SHORT_MS, true)
    assert.deepEqual((await turn(store, queue, [], 1, { alone: true })).leases, [])
  },

  async 'says of a lease that is lost whether its task was cancelled, even when its id is taken again' (store, queue, other) {
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    const leases = await claim(store, queue)
    await claim(store, other)
    const [a, b, c] = leases
    await settle(store, queue, b!, done)
    await store.steer(queue, { kind: 'cancel', ids: ['a', 'b'], keep: { count: 0, ms: 0 } })
    await add(store, [task(queue, 'a')])
    const young = await claimOne(store, queue)
    const pulse = async (...leases: readonly Held[]) => {
      const [{ lost, cancelled } = assert.fail('there is a pulse'), { cancelled: elsewhere } = assert.fail('there are two')] = await store.extend([
        { queue, leases, leaseMs: LONG_MS }, { queue: other, leases, leaseMs: LONG_MS }
      ])
      assert.deepEqual(elsewhere, [])
      return { lost: [...lost], cancelled: [...cancelled] }
    }
    assert.deepEqual(await pulse(a!, b!, c!), { lost: ['a', 'b'], cancelled: ['a'] })
    assert.deepEqual(await pulse(young, c!, { id: 'nobody', fence: a!.fence }), { lost: ['nobody'], cancelled: [] })
    assert.equal(await settle(store, queue, a!, done), false)
    assert.equal(await settle(store, queue, young, done), true)
  },

  async 'cancels a task that runs together with what was to follow it' (store, queue) {
    await add(store, [task(queue, 'a')])
    const lease = await claimOne(store, queue)
    await add(store, [task(queue, 'a', { message: 'again', onDuplicate: 'replace' })])
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['a'], keep: KEEP }), 1)
    assert.equal(await settle(store, queue, lease, done), false)
    await assertCounts(store, queue, {})
    assert.equal((await show(store, queue, 'a'))?.state, 'cancelled')
  },

  async 'lists what waits once, and in full pages, whatever has left the line and come back' (store, queue) {
    const all = Array.from({ length: 12 }, (_, index) => `${index}`)
    await add(store, all.map(id => task(queue, id)))
    await store.steer(queue, { kind: 'schedule', ids: ['0', '3', '4', '11'], delayMs: LONG_MS })
    await store.steer(queue, { kind: 'cancel', ids: ['1', '5'], keep: KEEP })
    await store.steer(queue, { kind: 'schedule', ids: ['4', '3'] })
    await store.steer(queue, { kind: 'schedule', ids: ['3'], delayMs: LONG_MS })
    await store.steer(queue, { kind: 'schedule', ids: ['3'] })
    await add(store, [task(queue, '6', { onDuplicate: 'replace' }), task(queue, '5', { onDuplicate: 'keep' }), task(queue, '7', { delayMs: LONG_MS, onDuplicate: 'replace' })])
    const waiting = ['2', '8', '9', '10', '4', '3', '6', '5']
    for (const limit of [1, 2, 3, 5, 8, 9]) {
      for (let offset = 0; offset <= waiting.length; offset++) {
        assert.deepEqual(ids(await store.list(queue, 'waiting', offset, limit)), waiting.slice(offset, offset + limit), `${limit} from ${offset}`)
      }
    }
    await assertCounts(store, queue, { waiting: 8, delayed: 3 })
    assert.deepEqual(ids(await claim(store, queue)), waiting)
  },

  async 'has nothing to claim, and is woken again, when all that waited has left the line' (store, queue) {
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    await store.steer(queue, { kind: 'cancel', ids: ['b'], keep: KEEP })
    await store.steer(queue, { kind: 'schedule', ids: ['c', 'a'], delayMs: LONG_MS })
    assert.ok((await turn(store, queue, [])).outlook.wakeInMs > SHORT_MS)
    const [pulse] = await store.extend([{ queue, leases: [], leaseMs: LONG_MS }])
    assert.ok(pulse!.outlook.wakeInMs > SHORT_MS)
    let round = 0
    await untilWoken(store, queue, async () => {
      for (const lease of await claim(store, queue)) await settle(store, queue, lease, done)
      await add(store, [task(queue, `${++round}`)])
      await store.steer(queue, { kind: 'cancel', ids: [`${round}`], keep: KEEP })
      await add(store, [task(queue, `again ${round}`)])
    })
  },

  async 'purges what waits behind thousands that were cancelled' (store, queue) {
    const all = Array.from({ length: 2400 }, (_, index) => `${index}`)
    await add(store, all.map(id => task(queue, id)))
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: all.slice(0, 2300), keep: { count: 0, ms: 0 } }), 2300)
    assert.equal(await store.steer(queue, { kind: 'purge' }), 100)
    await assertCounts(store, queue, {})
  },

  async 'leaves the order of the others as it is when tasks in line are cancelled, and added again' (store, queue) {
    const all = Array.from({ length: 100 }, (_, index) => `${index}`)
    await add(store, all.map(id => task(queue, id)))
    await settle(store, queue, await claimOne(store, queue), release)
    const odd = all.filter((_, index) => index % 2 === 1)
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['0', ...odd], keep: KEEP }), 51)
    await assertCounts(store, queue, { waiting: 49 })
    await add(store, ['3', '0', '1'].map(id => task(queue, id)))
    const even = all.filter((_, index) => index % 2 === 0 && index > 0)
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 100)), [...even, '3', '0', '1'])
    const first = await claim(store, queue, 10)
    assert.equal(first.length, 10)
    assert.deepEqual(ids([...first, ...await claim(store, queue)]), [...even, '3', '0', '1'])
    await assertCounts(store, queue, { running: 52 })
  },

  async 'makes tasks due at another time, and leaves suspects and those that run or have ended alone' (store, queue) {
    await end(store, queue)
    const running = await stage(store, queue)
    await add(store, ['a', 'b', 'c'].map(id => task(queue, id)))
    const schedule = (ids: string[], when: { delayMs?: number, runAt?: number } = {}) => store.steer(queue, { kind: 'schedule', ids, ...when })
    assert.equal(await schedule(['suspect', 'running', 'done', 'dead', 'cancelled', 'expired', 'nobody'], { delayMs: LONG_MS }), 0)
    assert.equal(await schedule(['suspect', 'waiting', 'a', 'a']), 2)
    await assertCounts(store, queue, { waiting: 5, delayed: 2, running: 1, dead: 1 })
    const runAt = Date.now() + LONG_MS * 2
    assert.equal(await schedule(['waiting', 'b', 'retried'], { runAt }), 3)
    for (const id of ['waiting', 'b', 'retried']) assert.equal((await show(store, queue, id))?.dueAt, runAt)
    assert.deepEqual(ids(await store.list(queue, 'delayed', 0, 10)).slice(0, 1), ['delayed'])
    assert.equal(await schedule(['waiting'], { runAt: runAt - LONG_MS * 4 }), 1)
    assert.equal(await schedule(['delayed']), 1)
    await assertCounts(store, queue, { waiting: 5, delayed: 2, running: 1, dead: 1 })
    assert.deepEqual(ids(await claim(store, queue)), ['a', 'c', 'waiting', 'delayed'])
    const since = performance.now()
    assert.equal(await schedule(['retried', 'b'], { delayMs: SHORT_MS }), 2)
    await settle(store, queue, await claimSuspect(store, queue), done)
    await untilClaimable(store, queue)
    assert.ok(performance.now() - since > SHORT_MS - 2, 'it is not early')
    const leases = await claimAll(store, queue, 2)
    assert.deepEqual(counters(leases.find(({ id }) => id === 'retried')!), { attempt: 2, retries: 1, deaths: 0 })
    assert.deepEqual(await lost(store, queue, [running]), [])
  },

  async 'puts dead tasks back in line with all their retries, and keeps what is known of them' (store, queue, other) {
    await add(store, ['a', 'b', 'c', 'd'].map(id => task(queue, id)))
    await turn(store, queue, (await claim(store, queue)).map(lease => ({ lease, verdict: retry(0), record: 'first' })))
    await untilClaimable(store, queue)
    await turn(store, queue, (await claimAll(store, queue, 4)).map(lease => ({ lease, verdict: dead, record: 'second' })))
    await add(store, [task(queue, 'w'), task(other, 'a')])
    await settle(store, other, await claimOne(store, other), dead)
    const { endedAt, reason, ...known } = (await show(store, queue, 'b'))!
    assert.equal(await store.steer(queue, { kind: 'redrive', ids: ['b', 'w', 'nobody', 'b'] }), 1)
    await assertCounts(store, queue, { waiting: 2, dead: 3 })
    const { reason: oldReason, ...again } = (await show(store, queue, 'b'))!
    assert.deepEqual(again, { ...known, state: 'waiting' })
    assert.equal(await store.steer(queue, { kind: 'redrive' }), 3)
    assert.equal(await store.steer(queue, { kind: 'redrive' }), 0)
    assert.deepEqual(await store.list(queue, 'dead', 0, 10), [])
    const leases = await claim(store, queue)
    assert.deepEqual(ids(leases.slice(0, 2)), ['w', 'b'])
    assert.deepEqual(ids(leases.slice(2)).sort(), ['a', 'c', 'd'])
    for (const lease of leases.slice(1)) assert.deepEqual({ ...counters(lease), message: lease.message }, { attempt: 3, retries: 0, deaths: 0, message: `message of ${lease.id}` })
    await assertCounts(store, other, { dead: 1 })
  },

  async 'no more suspects a task that was put back in line' (store, queue) {
    await add(store, [task(queue, 'a')])
    await claimOne(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    await claimSuspect(store, queue, SHORT_MS)
    await untilClaimable(store, queue)
    assert.equal(await settle(store, queue, await claimSuspect(store, queue), dead), true)
    assert.equal(await store.steer(queue, { kind: 'redrive', ids: ['a'] }), 1)
    const lease = await claimOne(store, queue)
    assert.deepEqual({ ...counters(lease), suspect: lease.suspect }, { attempt: 4, retries: 0, deaths: 0, suspect: false })
  },

  async 'forgets dead tasks, and nothing else' (store, queue, other) {
    await end(store, queue)
    await stage(store, queue)
    await add(store, ['a', 'b', 'c'].flatMap(id => [task(queue, id), task(other, id)]))
    await settle(store, queue, (await claim(store, queue)).find(({ id }) => id === 'a')!, dead)
    await turn(store, other, (await claim(store, other)).map(lease => ({ lease, verdict: dead })))
    assert.equal(await store.steer(queue, { kind: 'remove', ids: ['suspect', 'running', 'delayed', 'retried', 'done', 'cancelled', 'expired', 'a', 'a', 'nobody'] }), 1)
    assert.equal(await show(store, queue, 'a'), undefined)
    for (const id of ['suspect', 'running', 'delayed', 'retried', 'done', 'cancelled', 'expired', 'dead']) assert.equal((await show(store, queue, id))?.id, id)
    assert.equal(await store.steer(other, { kind: 'remove', ids: ['b'] }), 1)
    assert.deepEqual(ids(await store.list(other, 'dead', 0, 10)), ['c', 'a'])
    assert.equal(await store.steer(other, { kind: 'remove' }), 2)
    await assertCounts(store, other, {})
    await assertCounts(store, queue, { waiting: 1, delayed: 2, running: 4, dead: 1 })
    assert.deepEqual(await add(store, [task(other, 'a', { onDuplicate: 'reject' })]), [])
  },

  async 'has nothing claimed while a queue is paused, and all else go on' (store, queue, other) {
    const running = await stage(store, queue)
    const resumed = (await turn(store, queue, [])).outlook
    assert.equal((await store.counts(queue)).paused, false)
    for (const kind of ['pause', 'pause'] as const) assert.equal(await store.steer(queue, { kind }), 0)
    assert.equal((await store.counts(queue)).paused, true)
    assert.equal((await store.counts(other)).paused, false)
    await add(store, [task(queue, 'added'), task(other, 'added')])
    assert.deepEqual(ids(await claim(store, other)), ['added'])
    const nothing = { wakeInMs: Infinity, suspects: false }
    for (const alone of [false, true]) assert.deepEqual(await turn(store, queue, [], 10, { alone }), { settled: [], leases: [], outlook: nothing })
    assert.deepEqual(await store.extend([{ queue, leases: [running], leaseMs: LONG_MS }]), [{ lost: [], cancelled: [], outlook: nothing }])
    assert.deepEqual(await turn(store, queue, [{ lease: running, verdict: release }], 10), { settled: [true], leases: [], outlook: nothing })
    await assertCounts(store, queue, { waiting: 4, delayed: 2, dead: 1 })
    assert.equal(await store.steer(queue, { kind: 'cancel', ids: ['added'], keep: KEEP }), 1)
    for (const kind of ['resume', 'resume'] as const) assert.equal(await store.steer(queue, { kind }), 0)
    assert.equal((await store.counts(queue)).paused, false)
    assert.deepEqual((await turn(store, queue, [])).outlook, resumed)
    assert.deepEqual(ids(await claim(store, queue)), ['running', 'waiting'])
    assert.equal((await claimSuspect(store, queue)).id, 'suspect')
  },

  async 'does what time demands in a queue that is paused' (store, queue) {
    await add(store, [task(queue, 'running')])
    await claimOne(store, queue, SHORT_MS)
    await add(store, [task(queue, 'due', { delayMs: SHORT_MS }), task(queue, 'expired', { delayMs: LONG_MS, expiresMs: SHORT_MS })])
    await store.steer(queue, { kind: 'pause' })
    await until('the lease expires', async () => {
      const { leases } = await turn(store, queue, [], 10, { leaseMs: SHORT_MS })
      assert.deepEqual(leases, [])
      return (await store.counts(queue)).running === 0 && (await store.list(queue, 'expired', 0, 10)).length === 1
    })
    await add(store, [task(queue, 'added')])
    await assertCounts(store, queue, { waiting: 3 })
    assert.deepEqual(ids(await store.list(queue, 'waiting', 0, 10)), ['running', 'due', 'added'])
    await store.steer(queue, { kind: 'resume' })
    assert.equal((await claimSuspect(store, queue)).id, 'running')
    assert.deepEqual(ids(await claim(store, queue)), ['due', 'added'])
  },

  async 'wakes the watchers of a queue that is resumed, and of one with a task made due or put back in line' (store, queue, other) {
    await untilWoken(store, queue, async () => {
      await store.steer(queue, { kind: 'pause' })
      await store.steer(queue, { kind: 'resume' })
    })
    await add(store, [task(other, 'a', { delayMs: LONG_MS })])
    await untilWoken(store, other, async () => {
      await store.steer(other, { kind: 'schedule', ids: ['a'], delayMs: LONG_MS })
      await store.steer(other, { kind: 'schedule', ids: ['a'] })
    })
    await untilWoken(store, other, async () => {
      await settle(store, other, await claimOne(store, other), dead)
      await store.steer(other, { kind: 'redrive', ids: ['a'] })
    })
    let isSettled = false
    await untilTold(store, other, ({ kind }) => kind === 'work' && isSettled, async () => {
      isSettled = false
      const lease = await claimOne(store, other)
      await add(store, [task(other, 'a', { onDuplicate: 'replace' })])
      // What is told of that is not meant.
      await setTimeout(20)
      isSettled = true
      await settle(store, other, lease, done)
    })
  },

  async 'tells the watchers that a task that ran is cancelled, but not within the call' (store, queue) {
    let round = 0
    let told = 0
    await store.watch(queue, () => { told++ })
    await untilTold(store, queue, ({ kind }) => kind === 'change', async () => {
      const id = `${++round}`
      await add(store, [task(queue, id)])
      await claimOne(store, queue)
      const before = told
      const steered = store.steer(queue, { kind: 'cancel', ids: [id], keep: KEEP })
      assert.equal(told, before)
      return steered
    })
  },

  async 'tells the watchers that a task has ended which somebody awaits' (store, queue) {
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
        return store.steer(queue, { kind: 'cancel', ids: [id], keep: KEEP })
      })
    }
    await untilTold(store, queue, isMeant, async () => {
      await awaited()
      await claimOne(store, queue)
      return store.steer(queue, { kind: 'cancel', ids: [id], keep: KEEP })
    })
    await untilTold(store, queue, isMeant, async () => {
      await awaited({ expiresMs: SHORT_MS })
      return untilExpired(store, queue, [id])
    })
  }
}
