import type { Channel } from 'node:diagnostics_channel'
import {
  context, isSpanContextValid, type Link, propagation, ROOT_CONTEXT, type Span, SpanKind, SpanStatusCode, trace,
  type Tracer, type TracerProvider
} from '@opentelemetry/api'
import type { FastifyInstance } from 'fastify'
import fp from 'fastify-plugin'
import { FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { attempts, type AttemptTrace, commits, type CommitTrace } from '../observe/tracing.js'
import { show } from '../show.js'

export interface OtelOptions {
  /**
   * How an attempt relates to the commit that has added its task: `link` makes it a trace of its own that links to the
   * commit; `child` makes the first attempt a part of the commit's trace, while later ones link; `none` does neither.
   * @default link
   */
  relation?: 'link' | 'child' | 'none'
  /** Where spans come from. @default the global one */
  tracerProvider?: TracerProvider
}

/** The names of https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/, which is in development. */
const SYSTEM = { 'messaging.system': 'fastify_taskqueue' }

/** Makes the spans of one process. */
class Spans {
  readonly #tracer: Tracer
  readonly #relation: NonNullable<OtelOptions['relation']>
  readonly #commits = new WeakMap<CommitTrace, Span>()
  /** The spans of the attempts that are under way, by their names. */
  readonly #attempts = new Map<string, Span>()
  readonly #subscriptions: ReadonlyArray<readonly [channel: Channel, listener: (event: unknown) => void]> = [
    [commits.start, event => { this.#startCommit(event as CommitTrace) }],
    [commits.asyncEnd, event => { this.#endCommit(event as CommitTrace) }],
    [attempts.start, event => { this.#startAttempt(event as AttemptTrace) }],
    [attempts.asyncEnd, event => { this.#endAttempt(event as AttemptTrace) }]
  ]

  constructor ({ relation = 'link', tracerProvider = trace.getTracerProvider() }: OtelOptions) {
    this.#relation = relation
    this.#tracer = tracerProvider.getTracer('fastify-taskqueue')
  }

  begin (): void {
    for (const [channel, listener] of this.#subscriptions) channel.subscribe(listener)
  }

  end (): void {
    for (const [channel, listener] of this.#subscriptions) channel.unsubscribe(listener)
  }

  /** Returns the span of the attempt that a request is; undefined if there is none. */
  of (task: { readonly queue: string, readonly id: string, readonly attempt: number }): Span | undefined {
    return this.#attempts.get(nameOf({ ...task, taskId: task.id }))
  }

  #startCommit (event: CommitTrace): void {
    const { tasks } = event
    const queues = [...new Set(tasks.map(({ queue }) => queue))]
    const span = this.#tracer.startSpan(`add ${queues.join(', ')}`, {
      kind: SpanKind.PRODUCER,
      attributes: {
        ...SYSTEM,
        'messaging.operation.name': 'add',
        'messaging.operation.type': 'send',
        ...queues.length === 1 && { 'messaging.destination.name': queues[0]! },
        ...tasks.length === 1
          ? { 'messaging.message.id': tasks[0]!.taskId }
          : { 'messaging.batch.message_count': tasks.length }
      }
    })
    this.#commits.set(event, span)
    for (const { headers } of tasks) carry(span, headers)
  }

  #endCommit (event: CommitTrace): void {
    const span = this.#commits.get(event)
    if (span === undefined) return
    if (event.error !== undefined) fail(span, event.error)
    span.end()
  }

  #startAttempt (event: AttemptTrace): void {
    const { queue, taskId, attempt, headers } = event
    const added = propagation.extract(ROOT_CONTEXT, headers)
    const origin = trace.getSpanContext(added)
    const isChild = this.#relation === 'child' && attempt === 1
    const links: Link[] = origin === undefined || isChild || this.#relation === 'none' ? [] : [{ context: origin }]
    const span = this.#tracer.startSpan(`process ${queue}`, {
      kind: SpanKind.CONSUMER,
      links,
      attributes: {
        ...SYSTEM,
        'messaging.operation.name': 'process',
        'messaging.operation.type': 'process',
        'messaging.destination.name': queue,
        'messaging.message.id': taskId,
        'messaging.client.id': event.consumer,
        'taskqueue.attempt': attempt
      }
    }, isChild ? added : ROOT_CONTEXT)
    this.#attempts.set(nameOf(event), span)
    carry(span, headers)
  }

  #endAttempt (event: AttemptTrace): void {
    const name = nameOf(event)
    const span = this.#attempts.get(name)
    if (span === undefined) return
    this.#attempts.delete(name)
    const { route, status, verdict = 'withdrawn', reason, err } = event.end ?? {}
    span.setAttributes({
      'taskqueue.verdict': verdict,
      ...route !== undefined && { 'http.route': route },
      ...status !== undefined && { 'http.response.status_code': status }
    })
    if (verdict === 'retry' || verdict === 'dead') fail(span, err ?? new Error(reason), String(status ?? 'no answer'))
    span.end()
  }
}

/** Has headers carry the context of a span, in place of the one that they carry. */
function carry (span: Span, headers: Record<string, string>): void {
  if (!isSpanContextValid(span.spanContext())) return
  for (const name of propagation.fields()) delete headers[name]
  propagation.inject(trace.setSpan(ROOT_CONTEXT, span), headers)
}

/** @param type the kind of the error, of which there are few */
function fail (span: Span, error: unknown, type?: string): void {
  const { name, code, message }: NodeJS.ErrnoException = error instanceof Error ? error : new Error(String(error))
  span.setStatus({ code: SpanStatusCode.ERROR, message })
  span.setAttribute('error.type', type ?? code ?? name)
  if (error instanceof Error) span.recordException(error)
}

const nameOf = ({ queue, taskId, attempt }: Pick<AttemptTrace, 'queue' | 'taskId' | 'attempt'>) =>
  `${queue} ${taskId} ${attempt}`

/** The spans of this process, and how many open apps use them: channels are the process's. */
let shared: { readonly spans: Spans, apps: number } | undefined

/**
 * Makes spans of commits and attempts, and has tasks carry their context. Register it after `fastify-taskqueue`. If
 * several apps of a process register it, the options of the first hold for all.
 */
const otel = async (app: FastifyInstance, options: OtelOptions): Promise<void> => {
  const { relation = 'link' } = options
  if (!['link', 'child', 'none'].includes(relation)) {
    throw new FST_TASKQUEUE_INVALID_OPTION('relation', "'link', 'child' or 'none'", show(relation))
  }
  shared ??= { spans: new Spans(options), apps: 0 }
  const { spans } = shared
  if (shared.apps++ === 0) spans.begin()
  app.addHook('onClose', async () => {
    if (--shared!.apps > 0) return
    spans.end()
    shared = undefined
  })
  // So spans of a handler become part of the attempt, also where nothing else makes a span of the request.
  app.addHook('onRequest', ({ task }, _reply, done) => {
    const span = task === null || trace.getActiveSpan() !== undefined ? undefined : spans.of(task)
    if (span === undefined) return done()
    context.with(trace.setSpan(context.active(), span), done)
  })
}

export default fp(otel, { fastify: '5.x', name: 'fastify-taskqueue-otel', dependencies: ['fastify-taskqueue'] })
