// Tests of every state begin with these tasks. Each task has the name of its state, or of how it got there.
import type { Store } from '../../store.js'
import type { Lease } from '../../turn.js'
import { add, claim, claimOne, dead, done, KEEP, LONG_MS, retry, settle, SHORT_MS, task, tasks, turn } from './steps.js'
import { untilExpired, untilSuspect } from './until.js'

/**
 * Adds a task in each state that occupies its id: a suspect, running, waiting, delayed, retried and dead.
 * Returns the lease of the running one.
 */
export async function stageUnended (store: Store, queue: string): Promise<Lease> {
  await add(store, [task(queue, 'suspect')])
  await claimOne(store, queue, SHORT_MS)
  await untilSuspect(store, queue)
  await add(store, tasks(queue, ['running', 'retried', 'dead'], { onDuplicate: 'replace' }))
  const [running, retried, dying] = await claim(store, queue)
  await store.setProgress(queue, retried!, 'half')
  await turn(store, queue, [
    { lease: retried!, verdict: retry(LONG_MS), record: 'try' },
    { lease: dying!, verdict: dead, record: 'end of dead' }
  ])
  await add(store, [task(queue, 'waiting'), task(queue, 'delayed', { delayMs: LONG_MS })])
  return running!
}

/** Ends a task in each way, one after the other: done, dead, cancelled and expired. The queue has to be empty. */
export async function stageEnded (store: Store, queue: string): Promise<void> {
  for (const [id, verdict] of [['done', done], ['dead', dead]] as const) {
    await add(store, [task(queue, id)])
    await settle(store, queue, await claimOne(store, queue), verdict, [], { record: `end of ${id}` })
  }
  await add(store, [task(queue, 'cancelled'), task(queue, 'expired', { expiresMs: 1 })])
  await store.operate(queue, { kind: 'cancel', ids: ['cancelled'], keep: KEEP })
  await untilExpired(store, queue, ['expired'])
}
