import { setTimeout as sleep } from 'node:timers/promises'

/** Waits for a condition that announces itself by nothing else, and returns its value; rejects when it does not come true in time. */
export async function until<T> (condition: () => T | Promise<T>, what = String(condition), ms = 20_000): Promise<T> {
  const deadline = performance.now() + ms
  for (;;) {
    const value = await condition()
    if (value) return value
    if (performance.now() > deadline) throw new Error(`did not come true within ${ms} ms: ${what}`)
    await sleep(5)
  }
}
