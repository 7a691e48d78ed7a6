import type { FastifyInstance } from 'fastify'
import { Withdrawn, type Attempt } from './consumer.js'
import { dispatch } from './dispatch.js'
import type { Exchanger } from './exchange.js'
import type { Codec } from './message.js'
import type { Settlement, Store, Verdict } from './store.js'
import type { Task } from './task.js'
import { judge, prejudge, type Outcome, type RetryPolicy } from './verdict.js'

export interface AttemptPolicy extends RetryPolicy {
  /** How long an attempt may take. */
  readonly timeoutMs: number
}

/** Makes the function that attempts tasks of one queue: read the message, make the request, judge how it ended, log it. */
export function attemptWith (app: FastifyInstance, queue: string, store: Store, codec: Codec, exchanger: Exchanger, policy: AttemptPolicy): Attempt {
  return async (lease, abort) => {
    const start = performance.now()
    const bury = (verdict: Verdict, err?: unknown): Settlement => {
      app.log.error({ taskId: lease.id, queue, attempt: lease.attempt, err, ...verdict }, 'task is dead before it was attempted')
      return { lease, verdict }
    }
    const prejudged = prejudge(lease)
    if (prejudged !== undefined) return bury(prejudged)
    let task: Task
    try {
      task = codec.decode(queue, lease.id, lease.message)
    } catch (err) {
      return bury({ kind: 'dead', reason: (err as Error).message }, err)
    }
    const context = {
      task: { id: task.id, queue, attempt: lease.attempt, userId: task.userId, signal: abort.signal },
      depth: task.depth,
      store,
      chain: [],
      seen: false
    }
    const { timeoutMs = policy.timeoutMs, maxRetries = policy.maxRetries } = task
    const timer = setTimeout(() => { abort.abort(new Error(`no answer within ${timeoutMs} ms`)) }, timeoutMs)
    const outcome = await dispatch(app, exchanger, task, context)
    clearTimeout(timer)
    if (abort.signal.reason instanceof Withdrawn) return { lease, verdict: { kind: 'release' } }
    const verdict = judge(outcome, lease, { ...policy, maxRetries })
    report(app, { taskId: lease.id, queue, url: task.url, attempt: lease.attempt, durationMs: performance.now() - start }, outcome, verdict)
    return { lease, verdict, chain: verdict.kind === 'done' ? context.chain : [] }
  }
}

/** Logs the one line that each attempt ends with. */
function report ({ log }: FastifyInstance, attempt: object, outcome: Outcome, verdict: Verdict): void {
  const { kind: _, ...ended } = outcome
  switch (verdict.kind) {
    case 'done':
      if (outcome.kind === 'answered' && outcome.status >= 300) log.warn({ ...attempt, ...ended }, 'task done, its redirection not followed')
      else log.info({ ...attempt, ...ended }, 'task done')
      break
    case 'retry':
      log.warn({ ...attempt, ...ended, delayMs: verdict.delayMs }, 'task failed and will be tried again')
      break
    case 'release':
      log.info({ ...attempt, ...ended }, 'task given back: the app closes')
      break
    case 'dead':
      log.error({ ...attempt, ...ended, reason: verdict.reason }, 'task failed for good')
  }
}
