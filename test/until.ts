import { setTimeout as sleep } from 'node:timers/promises'

/** Waits for a condition that announces itself by nothing else; rejects when it does not come true in time. */
export async function until (condition: () => unknown, what = 'condition'): Promise<void> {
  const deadline = Date.now() + 10_000
  while (!await condition()) {
    if (Date.now() > deadline) throw new Error(`${what} did not come true within 10 s`)
    await sleep(5)
  }
}
