import type { Limits } from '../../limits.js'
import type { Store } from '../../store.js'
import type { Verdict } from '../../turn.js'
import { REASON } from './steps.js'

/** The verdict on an attempt for which there was no room. */
export function busy (delayMs: number): Verdict {
  return { kind: 'defer', delayMs, reason: REASON, busy: true }
}

export function numbered (name: string, count: number): string[] {
  return Array.from({ length: count }, (_, index) => `${name}${index}`)
}

export async function limit (store: Store, queue: string, limits: Limits): Promise<void> {
  await store.operate(queue, { kind: 'limit', limits })
}

/** Each key as "key waiting/running". */
export async function keysOf (store: Store, queue: string): Promise<string[]> {
  return (await store.keys(queue, '', 100)).map(({ key, waiting, running }) => `${key} ${waiting}/${running}`)
}
