import assert from 'node:assert/strict'
import { randomUUID } from 'node:crypto'
import { setTimeout } from 'node:timers/promises'
import { DEAD_LIMIT, type Counts, type Held, type Lease, type NewTask, type Settlement, type Store, type Turn, type TurnResult, type Verdict } from './store.js'

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

const done: Verdict = { kind: 'done' }
const release: Verdict = { kind: 'release' }
const dead: Verdict = { kind: 'dead', reason: '500 "it\'s broken"\n🚨' }
const retry = (delayMs: number): Verdict => ({ kind: 'retry', delayMs, reason: '503 "it\'s broken"\n🚨' })

function task (queue: string, id: string, rest: Partial<NewTask> = {}): NewTask {
  return { queue, id, message: `message of ${id}`, ...rest }
}

async function add (store: Store, tasks: readonly NewTask[]): Promise<void> {
  const prepared = await store.prepare(tasks)
  await prepared.commit()
}

function turn (store: Store, queue: string, settlements: readonly Settlement[], limit = 0, rest: Partial<Turn> = {}): Promise<TurnResult> {
  return store.turn(queue, { settlements, limit, alone: false, leaseMs: LONG_MS, ...rest })
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

async function settle (store: Store, queue: string, lease: Held, verdict: Verdict, chain: readonly NewTask[] = []): Promise<boolean | undefined> {
  return (await turn(store, queue, [{ lease, verdict, chain }])).settled[0]
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
  for (const watcher of [1, 2]) await store.watch(queue, () => { woken.add(watcher) })
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

async function assertCounts (store: Store, queue: string, expected: Partial<Counts>): Promise<void> {
  const { waiting, delayed, running, dead } = await store.counts(queue)
  assert.deepEqual({ waiting, delayed, running, dead }, { waiting: 0, delayed: 0, running: 0, dead: 0, ...expected })
}

function assertWake (wakeInMs: number | undefined, dueInMs: number, since: number): void {
  assert.ok(wakeInMs !== undefined && wakeInMs <= dueInMs + 1, `${wakeInMs} is at most ${dueInMs}`)
  assert.ok(wakeInMs >= dueInMs - (performance.now() - since) - 1, `${wakeInMs} is no sooner than in ${dueInMs}`)
}

const ids = (leases: readonly Held[]) => leases.map(({ id }) => id)
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
    assert.equal(await store.purge(queue), 0)
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
    const claimed = (await claim(store, queue)).map(({ message }) => message)
    assert.ok(claimed.every((message, index) => message === messages[index]) && claimed.length === messages.length)
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

  async 'takes an id again once its task is done, and lets a dead task make way' (store, queue) {
    for (const verdict of [done, dead, dead]) {
      await add(store, [task(queue, 'a')])
      await settle(store, queue, await claimOne(store, queue), retry(0))
      await settle(store, queue, await claimOne(store, queue), verdict)
    }
    await add(store, [task(queue, 'a', { message: 'again' })])
    await assertCounts(store, queue, { waiting: 1 })
    const { message, retries, deaths } = await claimOne(store, queue)
    assert.deepEqual({ message, retries, deaths }, { message: 'again', retries: 0, deaths: 0 })
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

  async 'keeps the newest DEAD_LIMIT dead letters of a queue, and hands them out no more' (store, queue, other) {
    const newest = Array.from({ length: DEAD_LIMIT }, (_, index) => `${index}`)
    await add(store, ['z', ...newest].map(id => task(queue, id)))
    await settle(store, queue, await claimOne(store, queue), dead)
    const leases = await claim(store, queue, DEAD_LIMIT)
    const after = await turn(store, queue, leases.map(lease => ({ lease, verdict: dead })), 1)
    assert.deepEqual([after.leases, after.outlook.wakeInMs], [[], Infinity])
    await add(store, [task(other, 'a')])
    await settle(store, other, await claimOne(store, other), dead)
    await assertCounts(store, queue, { dead: DEAD_LIMIT })
    await assertCounts(store, other, { dead: 1 })
    await add(store, [task(queue, 'z')])
    await assertCounts(store, queue, { waiting: 1, dead: DEAD_LIMIT })
    await add(store, [task(queue, '0')])
    await assertCounts(store, queue, { waiting: 2, dead: DEAD_LIMIT - 1 })
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
    const verdicts = [done, release, retry(LONG_MS), retry(0), dead]
    await add(store, verdicts.map((_, index) => task(queue, `${index}`)))
    const leases = await claim(store, queue)
    await turn(store, queue, leases.map((lease, index) => ({ lease, verdict: verdicts[index]! })))
    for (const verdict of verdicts) {
      const late = leases.map(lease => ({ lease, verdict, chain: [task(other, 'a')] }))
      assert.deepEqual((await turn(store, queue, late)).settled, verdicts.map(() => false))
      assert.deepEqual([...await lost(store, queue, leases) ?? []].sort(), ids(leases))
    }
    await assertCounts(store, queue, { waiting: 2, delayed: 1, dead: 1 })
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
    assert.equal(await store.purge(queue), 5)
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
  }
}
