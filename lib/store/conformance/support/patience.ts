import assert from 'node:assert/strict'
import { setTimeout } from 'node:timers/promises'

/** How long a store may take over something that it must do at a given time. */
export const PATIENCE_MS = 10_000

export async function until (what: string, isSo: () => Promise<boolean>): Promise<void> {
  const deadline = performance.now() + PATIENCE_MS
  while (!await isSo()) {
    assert.ok(performance.now() < deadline, `this should be so within ${PATIENCE_MS} ms: ${what}`)
    await setTimeout(5)
  }
}
