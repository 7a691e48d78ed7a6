// The steps that tests take with a store, and the parts of its answers that they compare.
import assert from 'node:assert/strict'
import type { Found, State } from '../../found.js'
import type { Holding } from '../../heartbeat.js'
import type { Store } from '../../store.js'
import type { NewTask } from '../../tasks.js'
import type { Claim, Held, Keep, Lease, Settlement, Turn, TurnResult, Verdict } from '../../turn.js'
import { until } from './patience.js'

/** A time that tests wait for. */
export const SHORT_MS = 50
/** A time that does not pass during a test. */
export const LONG_MS = 60_000
/** Keeps every task that a test ends. */
export const KEEP: Keep = { count: 100, ms: LONG_MS }

/** The reason of every verdict that has one. Its characters are hard to store. */
export const REASON = '500 "it\'s broken"\n🚨'

export const done: Verdict = { kind: 'done' }
export const release: Verdict = { kind: 'release' }
export const dead: Verdict = { kind: 'dead', reason: REASON }

export function retry (delayMs: number): Verdict {
  return { kind: 'retry', delayMs, reason: REASON }
}

export function defer (delayMs: number, unrouted?: boolean): Verdict {
  return { kind: 'defer', delayMs, reason: REASON, ...unrouted !== undefined && { unrouted } }
}

export function task (queue: string, id: string, rest: Partial<NewTask> = {}): NewTask {
  return { queue, id, message: `message of ${id}`, ...rest }
}

/** The same task under several ids. */
export function tasks (queue: string, ids: readonly string[], rest: Partial<NewTask> = {}): NewTask[] {
  return ids.map(id => task(queue, id, rest))
}

/** The answer of `show` for a task that `task` has made and nobody has tried. `rest` says how the task differs. */
export function known (queue: string, id: string, state: State, rest: Partial<Found> = {}): Found {
  return { queue, id, state, message: `message of ${id}`, attempt: 0, records: [], ...rest }
}

/** Prepares and commits tasks. Returns the ids that the store keeps out. */
export async function add (store: Store, tasks: readonly NewTask[]): Promise<readonly string[]> {
  const prepared = await store.prepare(tasks)
  await prepared.commit()
  return prepared.keptOut.map(({ id }) => id)
}

/** Takes a turn, which claims nothing unless it gets a limit. */
export function turn (
  store: Store, queue: string, settlements: readonly Settlement[], limit = 0,
  { alone = false, ahead, leaseMs = LONG_MS, ...rest }: Partial<Claim & Turn> = {}
): Promise<TurnResult> {
  const claim = limit > 0 ? { limit, alone, leaseMs, ...ahead !== undefined && { ahead } } : undefined
  return store.turn(queue, { settlements, heartbeatMs: leaseMs / 5, claim, keep: KEEP, ...rest })
}

export async function claim (store: Store, queue: string, limit = 100, leaseMs = LONG_MS): Promise<readonly Lease[]> {
  return (await turn(store, queue, [], limit, { leaseMs })).leases
}

export async function claimOne (store: Store, queue: string, leaseMs = LONG_MS): Promise<Lease> {
  const [lease, ...rest] = await claim(store, queue, 1, leaseMs)
  assert.ok(lease !== undefined && rest.length === 0, 'a claim with limit 1 should return one task')
  return lease
}

/** Claims as a consumer that runs nothing else. */
export async function claimSuspect (store: Store, queue: string, leaseMs = LONG_MS): Promise<Lease> {
  const [lease, ...rest] = (await turn(store, queue, [], 100, { alone: true, leaseMs })).leases
  assert.ok(lease !== undefined && rest.length === 0, 'a claim with alone: true should return one suspect')
  assert.equal(lease.suspect, true)
  return lease
}

/** Claims exactly `count` tasks, by several turns if some of them are not due yet. */
export async function claimAll (store: Store, queue: string, count: number): Promise<Lease[]> {
  const leases: Lease[] = []
  await until(`${count} tasks can be claimed`, async () => leases.push(...await claim(store, queue)) >= count)
  assert.equal(leases.length, count)
  return leases
}

/** Settles one attempt. Returns whether the store carried the settlement out. */
export async function settle (
  store: Store, queue: string, lease: Held, verdict: Verdict, chain: readonly NewTask[] = [],
  rest: Partial<Settlement> = {}
): Promise<boolean | undefined> {
  return (await turn(store, queue, [{ lease, verdict, chain, ...rest }])).settled[0]
}

/** What a heartbeat says of the leases that it holds, of a consumer whose leases last. */
export function holding (queue: string, leases: readonly Held[] = []): Holding {
  return {
    queue, consumer: 'one', startedAt: 1, concurrency: 1, leases, heartbeatMs: LONG_MS / 5, leaseMs: LONG_MS
  }
}

/** Extends leases. Returns the ids of those that the store reports lost. */
export async function lost (
  store: Store, queue: string, leases: readonly Held[]
): Promise<readonly string[] | undefined> {
  return (await store.extend([holding(queue, leases)]))[0]?.lost
}

/** Finds a task, trimmed for a comparison. */
export async function show (store: Store, queue: string, id: string): Promise<Found | undefined> {
  const found = await store.find([queue], id)
  return found === undefined ? undefined : trimmed(found)
}

/** Drops properties that are undefined, which a store may leave out, and those that tests of their own look at. */
export function trimmed ({ isWhole, startedAt, consumer, ...found }: Found): Found {
  return Object.fromEntries(Object.entries(found).filter(([, value]) => value !== undefined)) as unknown as Found
}

export function ids (tasks: ReadonlyArray<{ readonly id: string }>): string[] {
  return tasks.map(({ id }) => id)
}

export function counters ({ attempt, retries, deaths }: Lease): Pick<Lease, 'attempt' | 'retries' | 'deaths'> {
  return { attempt, retries, deaths }
}

export function deferrals ({ deferredMs, unroutedMs }: Lease): Pick<Lease, 'deferredMs' | 'unroutedMs'> {
  return { deferredMs, unroutedMs }
}
