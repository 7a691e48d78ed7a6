import type { FastifyInstance } from 'fastify'
import { AttemptWithdrawn, type LazyAbortController } from '../dispatch/abort.js'
import { dispatch } from '../dispatch/dispatch.js'
import type { Exchanger } from '../dispatch/exchange.js'
import type { Dispatch, RequestTask } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import type { AttemptEnd, Publish } from '../observe/events.js'
import { reach } from '../queue/reach.js'
import type { Store } from '../store/store.js'
import type { Keep, Lease, Settlement, Verdict } from '../store/turn.js'
import type { Codec } from '../task/codec.js'
import type { Outcome } from '../task/outcome.js'
import { progressOf, recordOf } from '../task/record.js'
import type { Task } from '../task/task.js'
import { judge, prejudge, type RetryPolicy } from '../task/verdict.js'

/** Makes one attempt at one task and decides what becomes of it. Never rejects. */
export type Attempt = (lease: Lease, aborter: LazyAbortController) => Promise<Settlement>

export interface AttemptPolicy extends RetryPolicy {
  /** How long an attempt may take. */
  readonly timeoutMs: number
}

/** What attempts at the tasks of one queue depend on. */
export interface AttemptContext {
  readonly app: FastifyInstance
  readonly queue: string
  readonly store: Store
  readonly codec: Codec
  readonly exchanger: Exchanger
  readonly keep: Keep
  readonly policy: AttemptPolicy
  readonly warnings: RouteWarnings
  readonly publish: Publish
}

/**
 * Makes the function that attempts tasks of one queue: it reads the message, makes the request, judges how that ended,
 * and tells of it.
 */
export function attemptWith (
  { app, queue, store, codec, exchanger, keep, policy, warnings, publish }: AttemptContext
): Attempt {
  return async (lease, aborter) => {
    const bury = (reason: string, err?: unknown): Settlement => {
      publish('task:buried', { taskId: lease.id, queue, attempt: lease.attempt, reason, err })
      return { lease, verdict: { kind: 'dead', reason } }
    }
    const prejudged = prejudge(lease)
    if (prejudged?.kind === 'dead') return bury(prejudged.reason)
    const message = await messageOf(lease, aborter)
    if (message === undefined) return { lease, verdict: { kind: 'release', unseen: true } }
    const at = Date.now()
    const start = performance.now()
    let task: Task
    try {
      task = codec.decode(queue, lease.id, message)
    } catch (err) {
      return bury((err as Error).message, err)
    }
    const setProgress = async (value: unknown) => {
      const progress = codec.encodeRecord(queue, task.id, progressOf(value))
      await reach(store.setProgress(queue, lease, progress))
    }
    const context: Dispatch = {
      task: new CurrentTask(task, queue, lease.attempt, aborter, setProgress),
      aborter,
      depth: task.depth,
      store,
      chain: [],
      seen: false
    }
    const { timeoutMs = policy.timeoutMs, maxRetries = policy.maxRetries } = task
    const timer = setTimeout(() => { aborter.abort(new Error(`no answer within ${timeoutMs} ms`)) }, timeoutMs)
    const outcome = await dispatch(app, exchanger, task, context)
    clearTimeout(timer)
    if (aborter.reason instanceof AttemptWithdrawn) return { lease, verdict: { kind: 'release' } }
    const verdict = judge(outcome, lease, { ...policy, maxRetries })
    const durationMs = performance.now() - start
    publish('attempt:end', attemptEnd(task, queue, lease.attempt, durationMs, outcome, verdict))
    if (outcome.kind === 'unrouted' && verdict.kind === 'defer') {
      // A logger that throws must not change what becomes of the task.
      try { warnings.missed(task, queue) } catch {}
    }
    const isDone = verdict.kind === 'done'
    const isLast = isDone || verdict.kind === 'dead'
    // Without a handler it was no attempt that anybody would want to look at.
    const isKept = outcome.kind !== 'unseen' && outcome.kind !== 'unrouted' && (!isDone || keep.count > 0)
    return {
      lease,
      verdict: sealed(codec, queue, lease.id, verdict),
      chain: isDone ? context.chain : [],
      ...isKept && { record: codec.encodeRecord(queue, lease.id, recordOf(task, outcome, at, durationMs, isLast)) },
      ...task.dedupeMs !== undefined && { dedupeMs: task.dedupeMs }
    }
  }
}

/** Returns the message of a lease; undefined if it is gone, or nobody waits for it. */
async function messageOf ({ message }: Lease, { signal }: LazyAbortController): Promise<string | undefined> {
  return typeof message === 'string' ? message : await message(signal).catch(() => undefined)
}

/** Has a reason kept as the message is, since it may say what the error of a handler said. */
function sealed (codec: Codec, queue: string, id: string, verdict: Verdict): Verdict {
  return 'reason' in verdict ? { ...verdict, reason: codec.encodeReason(queue, id, verdict.reason) } : verdict
}

class CurrentTask implements RequestTask {
  readonly id: string
  readonly queue: string
  readonly attempt: number
  readonly userId: string | undefined
  readonly progress: RequestTask['progress']
  readonly #aborter: LazyAbortController

  constructor (
    { id, userId }: Task, queue: string, attempt: number, aborter: LazyAbortController,
    progress: RequestTask['progress']
  ) {
    this.id = id
    this.queue = queue
    this.attempt = attempt
    this.userId = userId
    this.progress = progress
    this.#aborter = aborter
  }

  get signal (): AbortSignal { return this.#aborter.signal }
}

/** Says how an attempt has ended. */
function attemptEnd (
  task: Task, queue: string, attempt: number, durationMs: number, outcome: Outcome, verdict: Verdict
): AttemptEnd {
  return {
    taskId: task.id,
    queue,
    url: task.url,
    attempt,
    durationMs,
    verdict: verdict.kind,
    unrouted: outcome.kind === 'unrouted',
    ...'reason' in verdict && { reason: verdict.reason },
    ...'delayMs' in verdict && { delayMs: verdict.delayMs },
    ...outcome.kind === 'answered' && answerOf(outcome)
  }
}

function answerOf ({ status, answer: { headers } }: Extract<Outcome, { kind: 'answered' }>) {
  return { status, location: headers.location, retryAfter: headers['retry-after'] }
}
