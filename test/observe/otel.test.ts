import { context, ROOT_CONTEXT, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api'
import { FastifyOtelInstrumentation } from '@fastify/otel'
import { InMemorySpanExporter, NodeTracerProvider, type ReadableSpan, SimpleSpanProcessor } from '@opentelemetry/sdk-trace-node'
import type { FastifyInstance } from 'fastify'
import Fastify from 'fastify'
import t, { type Test } from 'tap'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import otel, { type OtelOptions } from '../../lib/otel/otel.js'
import { until } from '../support/until.js'

const exporter = new InMemorySpanExporter()
const provider = new NodeTracerProvider({ spanProcessors: [new SimpleSpanProcessor(exporter)] })
provider.register()
t.afterEach(() => { exporter.reset() })

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const traceparent = (flags = '01') => `00-${TRACE}-b7ad6b7169203331-${flags}`

interface Options extends OtelOptions {
  taskqueue?: TaskqueueOptions
  /** Whether requests have spans of their own. */
  instrumented?: boolean
}

/** Opens an app whose tasks note the `traceparent` that they have got. */
async function open (t: Test, { taskqueue: options, instrumented = false, ...rest }: Options = {}): Promise<{ app: FastifyInstance, got: string[], states: unknown[] }> {
  const app = Fastify()
  t.teardown(() => app.close())
  if (instrumented) {
    const instrumentation = new FastifyOtelInstrumentation()
    instrumentation.setTracerProvider(provider)
    await app.register(instrumentation.plugin())
  }
  await app.register(taskqueue, { consumer: { maxRetries: 2, backoff: () => 1 }, ...options })
  await app.register(otel, rest)
  const got: string[] = []
  const states: unknown[] = []
  const note = (headers: Record<string, unknown>) => {
    got.push(String(headers.traceparent))
    states.push(headers.tracestate)
  }
  app.get('/add', async ({ taskqueue }) => taskqueue.add('/task'))
  app.get('/task', async ({ headers }) => {
    note(headers)
    trace.getTracer('handler').startSpan('work').end()
    return {}
  })
  app.get('/fails', async ({ headers, task }, reply) => {
    note(headers)
    if (task!.attempt < 3) reply.code(500)
    return {}
  })
  await app.ready()
  return { app, got, states }
}

const spans = (name?: string): ReadableSpan[] => exporter.getFinishedSpans().filter(span => name === undefined || span.name === name)
const ended = async (name: string, count = 1) => await until(() => spans(name).length === count && spans(name), `${count} × ${name}`) as ReadableSpan[]
const parentOf = ({ parentSpanContext }: ReadableSpan) => parentSpanContext?.spanId
const idOf = (span: ReadableSpan) => span.spanContext().spanId
const traceOf = (span: ReadableSpan) => span.spanContext().traceId
const linksOf = ({ links }: ReadableSpan) => links.map(({ context: { spanId } }) => spanId)

t.test('a commit has a span, which its tasks carry, and each attempt one in a trace of its own that links to it', async t => {
  const { app, got } = await open(t)
  const id = await app.taskqueue.add('/task')
  const [attempt] = await ended('process default')
  const [commit] = spans('add default')
  t.equal(commit!.kind, SpanKind.PRODUCER)
  t.match(commit!.attributes, { 'messaging.system': 'fastify_taskqueue', 'messaging.operation.name': 'add', 'messaging.operation.type': 'send', 'messaging.destination.name': 'default', 'messaging.message.id': id })
  t.equal(attempt!.kind, SpanKind.CONSUMER)
  t.match(attempt!.attributes, { 'messaging.operation.name': 'process', 'messaging.operation.type': 'process', 'messaging.destination.name': 'default', 'messaging.message.id': id, 'taskqueue.attempt': 1, 'taskqueue.verdict': 'done', 'http.route': '/task', 'http.response.status_code': 200 })
  t.strictSame(linksOf(attempt!), [idOf(commit!)])
  t.equal(parentOf(attempt!), undefined)
  t.not(traceOf(attempt!), traceOf(commit!))
  t.strictSame(got, [`00-${traceOf(attempt!)}-${idOf(attempt!)}-01`])
  const [work] = spans('work')
  t.equal(parentOf(work!), idOf(attempt!), 'what a handler traces is a part of the attempt')
})

t.test('the context of the commit takes the place of the one that a task would inherit', async t => {
  const { app, states } = await open(t, { relation: 'child' })
  const caller = trace.setSpanContext(ROOT_CONTEXT, { traceId: TRACE, spanId: 'b7ad6b7169203331', traceFlags: 1, isRemote: true })
  await context.with(caller, async () => await app.inject({ url: '/add', headers: { traceparent: traceparent(), tracestate: 'a=b' } }))
  const [attempt] = await ended('process default')
  const [commit] = spans('add default')
  t.strictSame([traceOf(commit!), parentOf(commit!)], [TRACE, 'b7ad6b7169203331'])
  t.strictSame([traceOf(attempt!), parentOf(attempt!), linksOf(attempt!)], [TRACE, idOf(commit!), []])
  t.strictSame(states, [undefined], 'the state of another context is gone')
})

for (const relation of ['link', 'child', 'none'] as const) {
  t.test(`attempts of a task that is tried again, with relation ${relation}`, async t => {
    const { app } = await open(t, { relation })
    await app.taskqueue.add('/fails')
    const attempts = await ended('process default', 3)
    const [commit] = spans('add default')
    t.strictSame(attempts.map(({ attributes }) => attributes['taskqueue.verdict']), ['retry', 'retry', 'done'])
    t.strictSame(attempts.map(({ status: { code } }) => code), [SpanStatusCode.ERROR, SpanStatusCode.ERROR, SpanStatusCode.UNSET])
    t.equal(attempts[0]!.attributes['error.type'], '500')
    t.equal(new Set(attempts.map(traceOf)).size, 3)
    t.strictSame(attempts.map(span => parentOf(span) === idOf(commit!)), [relation === 'child', false, false])
    const links = attempts.map(linksOf)
    if (relation === 'none') t.strictSame(links, [[], [], []])
    else t.strictSame(links, [relation === 'child' ? [] : [idOf(commit!)], [idOf(commit!)], [idOf(commit!)]])
  })
}

t.test('with @fastify/otel the span of the request lies between that of the attempt and what a handler traces', async t => {
  const { app } = await open(t, { instrumented: true })
  await app.inject('/add')
  const [attempt] = await ended('process default')
  const [work] = await ended('work')
  const [commit] = spans('add default')
  const byId = new Map(spans().map(span => [idOf(span), span]))
  const above = (span: ReadableSpan): string[] => {
    const parent = byId.get(parentOf(span) ?? '')
    return parent === undefined ? [] : [parent.name, ...above(parent)]
  }
  t.equal(above(work!).at(-1), 'process default')
  t.ok(above(work!).length > 1, `below ${above(work!)}`)
  t.ok(parentOf(commit!) !== undefined, 'the commit is a part of the request that adds')
  t.strictSame(linksOf(attempt!), [idOf(commit!)])
})

t.test('a task carries the context also if it copies no headers', async t => {
  const { app } = await open(t, { relation: 'child', taskqueue: { copyHeaders: false } })
  await app.inject({ url: '/add', headers: { traceparent: traceparent() } })
  const [attempt] = await ended('process default')
  t.equal(parentOf(attempt!), idOf(spans('add default')[0]!))
})

t.test('a context that is malformed, or says not to sample, does no harm', async t => {
  const { app, got } = await open(t, { relation: 'child' })
  await app.taskqueue.add('/task', { headers: { traceparent: 'nonsense' } })
  await ended('process default')
  exporter.reset()
  const caller = trace.setSpanContext(ROOT_CONTEXT, { traceId: TRACE, spanId: 'b7ad6b7169203331', traceFlags: 0, isRemote: true })
  await context.with(caller, async () => await app.taskqueue.add('/task'))
  await until(() => got.length === 2)
  t.match(got[1], new RegExp(`^00-${TRACE}-.*-00$`))
  t.strictSame(spans(), [])
})

t.test('a commit that fails says so, and one of several tasks how many there are', async t => {
  const { app } = await open(t, { taskqueue: { queues: { a: {}, b: {} }, consumer: false } })
  await app.taskqueue.addAll([{ url: '/task', queue: 'a' }, { url: '/task', queue: 'b' }])
  t.match(spans('add a, b')[0]!.attributes, { 'messaging.batch.message_count': 2, 'messaging.destination.name': undefined })
  await app.taskqueue.add('/task', { id: 'x' })
  await t.rejects(app.taskqueue.add('/task', { id: 'x', onDuplicate: 'reject' }))
  const failed = spans('add a').find(({ status }) => status.code === SpanStatusCode.ERROR)
  t.equal(failed?.attributes['error.type'], 'FST_TASKQUEUE_DUPLICATE')
})

t.test('an attempt does not belong to the trace of whoever has it run', async t => {
  const { app } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  await app.taskqueue.add('/task')
  const caller = provider.getTracer('test').startSpan('caller')
  await context.with(trace.setSpan(ROOT_CONTEXT, caller), async () => await app.taskqueue.drain())
  t.not(traceOf(spans('process default')[0]!), caller.spanContext().traceId)
})

t.test('two apps in one process make each span once, and the last that closes ends it', async t => {
  const one = await open(t)
  const two = await open(t)
  for (const { app } of [one, two]) await app.taskqueue.wait(await app.taskqueue.add('/task'))
  t.strictSame([spans('add default').length, (await ended('process default', 2)).length], [2, 2])
  await one.app.close()
  await two.app.taskqueue.wait(await two.app.taskqueue.add('/task'))
  await ended('process default', 3)
  await two.app.close()
  exporter.reset()
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.get('/task', async () => ({}))
  await app.ready()
  await app.taskqueue.wait(await app.taskqueue.add('/task'))
  t.strictSame(spans(), [])
})

t.test('an unknown relation is refused', async t => {
  const app = Fastify()
  await app.register(taskqueue, { consumer: false })
  await t.rejects(async () => await app.register(otel, { relation: 'parent' as 'child' }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
  await app.close()
})
