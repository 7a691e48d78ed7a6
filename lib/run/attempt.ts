import type { FastifyInstance } from 'fastify'
import { dispatch } from '../dispatch/dispatch.js'
import type { Exchanger } from '../dispatch/exchange.js'
import type { Dispatch, RequestTask } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import { answered } from '../queue/queue.js'
import type { Store } from '../store/store.js'
import type { Keep, Settlement, Verdict } from '../store/turn.js'
import type { Codec } from '../task/codec.js'
import type { Outcome } from '../task/outcome.js'
import { progressOf, recordOf } from '../task/record.js'
import type { Task } from '../task/task.js'
import { judge, prejudge, type RetryPolicy } from '../task/verdict.js'
import type { Attempt } from './consumer.js'
import { type LazyAbortController, AttemptWithdrawn } from '../dispatch/abort.js'

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
}

/** Makes the function that attempts tasks of one queue: read the message, make the request, judge how it ended, log it. */
export function attemptWith ({ app, queue, store, codec, exchanger, keep, policy, warnings }: AttemptContext): Attempt {
  return async (lease, aborter) => {
    const bury = (verdict: Verdict, err?: unknown): Settlement => {
      const details = { taskId: lease.id, queue, attempt: lease.attempt, err, ...verdict }
      quietly(() => { app.log.error(details, 'task is dead before it was attempted') })
      return { lease, verdict }
    }
    const prejudged = prejudge(lease)
    if (prejudged !== undefined) return bury(prejudged)
    const message = typeof lease.message === 'string' ? lease.message : await lease.message(aborter.signal).catch(() => undefined)
    if (message === undefined) return { lease, verdict: { kind: 'release', unseen: true } }
    const at = Date.now()
    const start = performance.now()
    let task: Task
    try {
      task = codec.decode(queue, lease.id, message)
    } catch (err) {
      return bury({ kind: 'dead', reason: (err as Error).message }, err)
    }
    const note = async (value: unknown) => { await answered(store.setProgress(queue, lease, codec.encodeRecord(queue, task.id, progressOf(value)))) }
    const context: Dispatch = {
      task: new CurrentTask(task, queue, lease.attempt, aborter, note),
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
    const attempt = { taskId: lease.id, queue, url: task.url, attempt: lease.attempt, durationMs }
    quietly(() => { report(app, attempt, outcome, verdict) })
    if (outcome.kind === 'unrouted' && verdict.kind === 'defer') quietly(() => { warnings.missed(task, queue) })
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

/** Has a reason kept as the message is, since it may say what the error of a handler said. */
function sealed (codec: Codec, queue: string, id: string, verdict: Verdict): Verdict {
  return 'reason' in verdict ? { ...verdict, reason: codec.encodeReason(queue, id, verdict.reason) } : verdict
}

/** A logger of the app's that throws must not change what becomes of a task. */
function quietly (log: () => void): void {
  try {
    log()
  } catch {}
}

class CurrentTask implements RequestTask {
  readonly id: string
  readonly queue: string
  readonly attempt: number
  readonly userId: string | undefined
  readonly progress: RequestTask['progress']
  readonly #aborter: LazyAbortController

  constructor ({ id, userId }: Task, queue: string, attempt: number, aborter: LazyAbortController, progress: RequestTask['progress']) {
    this.id = id
    this.queue = queue
    this.attempt = attempt
    this.userId = userId
    this.progress = progress
    this.#aborter = aborter
  }

  get signal (): AbortSignal { return this.#aborter.signal }
}

/** Logs the one line that each attempt ends with. */
function report ({ log }: FastifyInstance, attempt: object, outcome: Outcome, verdict: Verdict): void {
  const ended = endOf(outcome)
  switch (verdict.kind) {
    case 'done':
      if (outcome.kind === 'answered' && outcome.status >= 300) log.warn({ ...attempt, ...ended }, 'task done, its redirection not followed')
      else log.info({ ...attempt, ...ended }, 'task done')
      break
    case 'retry':
      log.warn({ ...attempt, ...ended, ...reasonAndDelay(verdict) }, 'task failed and will be tried again')
      break
    case 'defer':
      // Of those without a route there is one warning for all.
      log[verdict.unrouted === true ? 'debug' : 'info']({ ...attempt, ...ended, ...reasonAndDelay(verdict) }, 'task is put off')
      break
    case 'release':
      log.info({ ...attempt, ...ended }, 'task given back: the app closes')
      break
    case 'dead':
      log.error({ ...attempt, ...ended, reason: verdict.reason }, 'task failed for good')
  }
}

const reasonAndDelay = ({ reason, delayMs }: { reason: string, delayMs: number }) => ({ reason, delayMs })

function endOf (outcome: Outcome): object {
  if (outcome.kind !== 'answered') return {}
  const { location, 'retry-after': retryAfter } = outcome.answer.headers
  return { status: outcome.status, location, retryAfter }
}
