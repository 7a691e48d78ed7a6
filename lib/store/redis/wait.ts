import { setTimeout as sleep } from 'node:timers/promises'

/** Resolves with a promise that does not reject, or after some time. */
export async function waitAtMost (promise: Promise<unknown>, ms: number): Promise<void> {
  const over = new AbortController()
  await Promise.race([promise, sleep(ms, undefined, { signal: over.signal }).catch(() => {})])
  over.abort()
}
