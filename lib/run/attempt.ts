import type { FastifyInstance } from 'fastify'
import { AttemptWithdrawn, type LazyAbortController } from '../dispatch/abort.js'
import { dispatch } from '../dispatch/dispatch.js'
import type { Exchanger } from '../dispatch/exchange.js'
import type { Dispatch, RequestTask, TaskSchedule } from '../dispatch/identity.js'
import type { RouteWarnings } from '../dispatch/route-warnings.js'
import { type AttemptEnd, isHeard, type Publish } from '../observe/events.js'
import { attempts, type AttemptTrace, tracedTask } from '../observe/tracing.js'
import type { Store } from '../store/store.js'
import type { NewTask } from '../store/tasks.js'
import type { Keep, Lease, Settlement, Verdict } from '../store/turn.js'
import { type Backoff, backoffBy } from '../task/backoff.js'
import type { Codec } from '../task/codec.js'
import { withHeaders } from '../task/other-headers.js'
import type { Outcome } from '../task/outcome.js'
import { progressOf, recordOf } from '../task/record.js'
import { firstDueOf, type Task } from '../task/task.js'
import { judge, prejudge, type RetryPolicy } from '../task/verdict.js'

/** Makes one attempt at one task and decides what becomes of it. Never rejects. */
export type Attempt = (lease: Lease, aborter: LazyAbortController) => Promise<Settlement>

export interface AttemptPolicy extends RetryPolicy {
  /** The name of the consumer. */
  readonly name: string
  /** How long an attempt may take. */
  readonly timeoutMs: number
}

/** What the routes of an app say about the tasks that they take. */
export interface Routes {
  readonly warnings: RouteWarnings
  backoffOf (task: Task): Backoff | undefined
  /** Tells of a task that dies, and resolves to the tasks to add to its store as that buries it. May reject. */
  tellDead (
    task: Task, death: { queue: string, attempt: number, reason: string, status?: number }, store: Store,
    longestMs: number
  ): Promise<readonly NewTask[]> | readonly NewTask[]
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
  readonly routes: Routes
  readonly publish: Publish
}

/**
 * Makes the function that attempts tasks of one queue: it reads the message, makes the request, judges how that ended,
 * and tells of it.
 */
export function attemptWith (
  { app, queue, store, codec, exchanger, keep, policy, routes, publish }: AttemptContext
): Attempt {
  /** Returns the tasks that follow a dead one. If `onDead` fails, that must not keep the task from being buried. */
  const followersOf = async (dead: Task, { attempt }: Lease, reason: string, outcome?: Outcome, reqId?: string) => {
    const { timeoutMs = policy.timeoutMs, originReqId = reqId } = dead
    const task = { ...dead, originReqId }
    try {
      const status = outcome?.kind === 'answered' ? { status: outcome.status } : {}
      return await routes.tellDead(task, { queue, attempt, reason, ...status }, store, timeoutMs)
    } catch (err) {
      publish('onDead:failed', { taskId: task.id, queue, err })
      return []
    }
  }
  const policyFor = (task: Task): RetryPolicy => {
    const { maxRetries = policy.maxRetries } = task
    const backoff = (retry: number) => (listed(task) ?? routes.backoffOf(task) ?? policy.backoff)(retry)
    return { ...policy, maxRetries, backoff }
  }
  /** Makes the request of a task, and decides what becomes of the task. */
  const make = async (
    task: Task, lease: Lease, aborter: LazyAbortController, trace?: AttemptTrace
  ): Promise<Settlement> => {
    const at = Date.now()
    const start = performance.now()
    const setProgress = async (value: unknown) => {
      const progress = codec.encodeRecord(queue, task.id, progressOf(value))
      try {
        await store.setProgress(queue, lease, progress)
      } catch {
        // A store that is away is no reason for a handler to fail.
      }
    }
    const context: Dispatch = {
      task: new CurrentTask(task, queue, lease.attempt, aborter, setProgress),
      aborter,
      depth: task.depth,
      originReqId: task.originReqId,
      store,
      chain: []
    }
    const { timeoutMs = policy.timeoutMs } = task
    const timer = setTimeout(() => { aborter.abort(new Error(`no answer within ${timeoutMs} ms`)) }, timeoutMs)
    const outcome = await dispatch(app, exchanger, task, context)
    clearTimeout(timer)
    if (aborter.reason instanceof AttemptWithdrawn) return { lease, verdict: { kind: 'release' } }
    const verdict = judge(outcome, lease, policyFor(task))
    const durationMs = performance.now() - start
    const end = attemptEnd(task, policy.name, context, durationMs, outcome, verdict)
    // The log does without, and these take their time.
    if (trace !== undefined || isHeard('attempt:end')) Object.assign(end, watched(task, context, at))
    if (trace !== undefined) trace.end = end
    publish('attempt:end', end)
    if (outcome.kind === 'unrouted' && verdict.kind === 'defer') {
      // A logger that throws must not change what becomes of the task.
      try { routes.warnings.missed(task, queue) } catch {}
    }
    const isDone = verdict.kind === 'done'
    // Without a handler it was no attempt that anybody would want to look at.
    const isKept = outcome.kind !== 'unseen' && outcome.kind !== 'unrouted' && (!isDone || keep.count > 0)
    return {
      lease,
      verdict: sealed(codec, queue, lease.id, verdict),
      chain: verdict.kind === 'dead'
        ? await followersOf(task, lease, verdict.reason, outcome, context.request?.id)
        : isDone ? context.chain : [],
      record: isKept
        ? codec.encodeRecord(queue, lease.id, recordOf(task, outcome, verdict, at, durationMs))
        : undefined,
      dedupeMs: task.dedupeMs
    }
  }
  return async (lease, aborter) => {
    const bury = (reason: string, err?: unknown): Settlement => {
      publish('task:buried', { taskId: lease.id, queue, attempt: lease.attempt, reason, err })
      return { lease, verdict: { kind: 'dead', reason } }
    }
    const prejudged = prejudge(lease)
    // A message may be what kills its reader.
    if (prejudged?.isDeadly === true) return bury(prejudged.reason)
    const message = await messageOf(lease, aborter)
    if (message === undefined) return { lease, verdict: { kind: 'release', unseen: true } }
    let task: Task
    try {
      task = codec.decode(queue, lease.id, message)
    } catch (err) {
      return bury((err as Error).message, err)
    }
    if (prejudged !== undefined) {
      return { ...bury(prejudged.reason), chain: await followersOf(task, lease, prejudged.reason) }
    }
    if (!attempts.hasSubscribers) return await make(task, lease, aborter)
    const trace: AttemptTrace = { ...tracedTask(task, queue), consumer: policy.name, attempt: lease.attempt }
    return await attempts.tracePromise(() => make(withHeaders(task, trace.headers), lease, aborter, trace), trace)
  }
}

/** Returns the message of a lease; undefined if it is gone, or nobody waits for it. */
async function messageOf ({ message }: Lease, { signal }: LazyAbortController): Promise<string | undefined> {
  return typeof message === 'string' ? message : await message(signal).catch(() => undefined)
}

const listed = ({ backoff }: Task) => backoff && backoffBy(backoff)

/** Has a reason kept as the message is, since it may say what the error of a handler said. */
function sealed (codec: Codec, queue: string, id: string, verdict: Verdict): Verdict {
  return 'reason' in verdict ? { ...verdict, reason: codec.encodeReason(queue, id, verdict.reason) } : verdict
}

class CurrentTask implements RequestTask {
  readonly id: string
  readonly queue: string
  readonly attempt: number
  readonly userId: string | undefined
  readonly schedule: TaskSchedule | undefined
  readonly progress: RequestTask['progress']
  readonly #aborter: LazyAbortController

  constructor (
    { id, userId, schedule }: Task, queue: string, attempt: number, aborter: LazyAbortController,
    progress: RequestTask['progress']
  ) {
    this.id = id
    this.queue = queue
    this.attempt = attempt
    this.userId = userId
    this.schedule = schedule && { ...schedule, slot: new Date(schedule.slot) }
    this.progress = progress
    this.#aborter = aborter
  }

  get signal (): AbortSignal { return this.#aborter.signal }
}

/** Returns the members of the end of an attempt that only subscribers get to know. */
function watched (
  task: Task, { task: { attempt }, request }: Dispatch, at: number
): Pick<AttemptEnd, 'route' | 'waitedMs'> {
  const waitedMs = attempt === 1 ? Math.max(0, at - firstDueOf(task)) : undefined
  return { route: request?.routeOptions.url, waitedMs }
}

/** Says how an attempt has ended. */
function attemptEnd (
  { id, url }: Task, consumer: string, { task: { queue, attempt }, request, originReqId }: Dispatch, durationMs: number,
  outcome: Outcome, verdict: Verdict
): AttemptEnd {
  const { reason, delayMs } = verdict as { reason?: string, delayMs?: number }
  const { status, answer, cause } = outcome as Partial<Extract<Outcome, { kind: 'answered' }>>
  return {
    taskId: id,
    queue,
    consumer,
    url,
    route: undefined,
    attempt,
    verdict: verdict.kind,
    status,
    location: answer?.headers.location,
    retryAfter: answer?.headers['retry-after'],
    durationMs,
    waitedMs: undefined,
    reqId: request?.id,
    originReqId,
    unrouted: outcome.kind === 'unrouted' ? true : undefined,
    reason,
    delayMs,
    err: reason === undefined ? undefined : cause
  }
}
