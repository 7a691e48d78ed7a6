import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves when the promise does, which must not reject, and at the latest after so many milliseconds. */
export async function waitAtMost (promise: Promise<unknown>, ms: number): Promise<void> {
  const over = new AbortController()
  await Promise.race([promise, sleep(ms, undefined, { signal: over.signal }).catch(() => {})])
  over.abort()
}
