import assert from 'node:assert/strict'
import { FST_TASKQUEUE_DUPLICATE } from '../../../errors.js'
import type { Counts } from '../../found.js'
import type { Store } from '../../store.js'

/** Compares the counts of a queue. Those that are not given have to be 0. */
export async function assertCounts (store: Store, queue: string, expected: Partial<Counts>): Promise<void> {
  const { waiting, delayed, running, dead } = (await store.counts([queue]))[0]!
  assert.deepEqual({ waiting, delayed, running, dead }, { waiting: 0, delayed: 0, running: 0, dead: 0, ...expected })
}

/** Asserts that the store set a time between `before` and now. Its clock has to agree with this machine's, roughly. */
export function assertTime (time: number, before: number): void {
  const isBetween = time >= before - 5 && time <= Date.now() + 5
  assert.ok(Number.isInteger(time) && isBetween, `${time} should be an integer between ${before} and now`)
}

/** Asserts that `wakeInMs` points to a task that was due in `dueInMs` when the clock stood at `since`. */
export function assertWake (wakeInMs: number | undefined, dueInMs: number, since: number): void {
  const isSoon = wakeInMs !== undefined && wakeInMs <= dueInMs + 1
  assert.ok(isSoon, `wakeInMs is ${wakeInMs}, and should be at most ${dueInMs}`)
  const leastMs = dueInMs - (performance.now() - since) - 1
  assert.ok(wakeInMs >= leastMs, `wakeInMs is ${wakeInMs}, and should be at least ${leastMs}`)
}

/** Asserts that a test waited for at least `ms` milliseconds since `since`, less what a timer may be early. */
export function assertNotEarly (since: number, ms: number): void {
  const waitedMs = performance.now() - since
  assert.ok(waitedMs > ms - 2, `this happened after ${waitedMs} ms, and should not before ${ms} ms`)
}

/** Whether `prepare` rejected because of the id. For `assert.rejects`. */
export function isDuplicate (id: string): (error: unknown) => boolean {
  return error => error instanceof FST_TASKQUEUE_DUPLICATE && error.message.includes(id)
}
