import { subscribe, tracingChannel, unsubscribe, type TracingChannelSubscribers } from 'node:diagnostics_channel'
import t, { type Test } from 'tap'
import type { AttemptTrace, CommitTrace, Events } from '../../lib/index.js'
import { startEcho } from '../support/echo-app.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { withHeaders } from '../../lib/task/other-headers.js'
import type { Task } from '../../lib/task/task.js'

const NAMES = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'] as const

type Subscriber<Trace> = (name: typeof NAMES[number], trace: Trace) => void

/** Subscribes to all events of a tracing channel until the end of the test. */
function trace<Trace extends object> (t: Test, name: string, listen: Subscriber<Trace>): void {
  const subscribers = Object.fromEntries(NAMES.map(event => [event, (trace: unknown) => { listen(event, trace as Trace) }]))
  const channel = tracingChannel<unknown, Trace>(name)
  channel.subscribe(subscribers as unknown as TracingChannelSubscribers<Trace>)
  t.teardown(() => { channel.unsubscribe(subscribers as unknown as TracingChannelSubscribers<Trace>) })
}

const traceCommits = (t: Test, listen: Subscriber<CommitTrace>) => { trace(t, 'fastify-taskqueue.commit', listen) }
const traceAttempts = (t: Test, listen: Subscriber<AttemptTrace>) => { trace(t, 'fastify-taskqueue.attempt', listen) }

/** Collects what a channel tells until the end of the test. */
function hear<Name extends keyof Events> (t: Test, name: Name): Array<Events[Name]> {
  const told: Array<Events[Name]> = []
  const listen = (event: unknown) => { told.push(event as Events[Name]) }
  subscribe(`fastify-taskqueue:${name}`, listen)
  t.teardown(() => { unsubscribe(`fastify-taskqueue:${name}`, listen) })
  return told
}

t.test('a commit is traced from its first call to a store until all stores know, with its tasks', async t => {
  const { app, waitFor } = await startEcho(t)
  const told: Array<[string, CommitTrace]> = []
  traceCommits(t, (event, trace) => { told.push([event, trace]) })
  const [first] = await app.taskqueue.addAll([{ url: '/task/a', payload: { a: 1 } }, { url: '/task/b', id: 'b' }])
  t.strictSame(told.map(([event]) => event), ['start', 'end', 'asyncStart', 'asyncEnd'])
  t.equal(new Set(told.map(([, trace]) => trace)).size, 1)
  t.match(told[0]![1], {
    tasks: [
      { taskId: first, queue: 'default', method: 'POST', url: '/task/a', headers: { 'content-type': 'application/json' } },
      { taskId: 'b', queue: 'default', method: 'GET', url: '/task/b' }
    ],
    keptOut: []
  })
  await waitFor('b')
})

t.test('the trace of a commit tells which tasks were kept out, and why it failed', async t => {
  const store = new LocalStore()
  const { app } = await startEcho(t, { taskqueue: { queues: { default: { type: () => store } }, consumer: false } })
  await app.taskqueue.add('/task', { id: 'a' })
  const ended: CommitTrace[] = []
  traceCommits(t, (event, trace) => { if (event === 'asyncEnd') ended.push(trace) })
  await app.taskqueue.addAll([{ url: '/task', id: 'a' }, { url: '/task', id: 'b' }])
  store.prepare = () => { throw new Error('it is full') }
  await t.rejects(app.taskqueue.add('/task'), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
  t.match(ended, [{ keptOut: ['a'] }, { keptOut: undefined, error: { code: 'FST_TASKQUEUE_COMMIT_FAILED' } }])
})

t.test('what a subscriber sets of the headers as a commit starts is stored with the tasks, in place of what they inherit', async t => {
  const { run } = await startEcho(t)
  traceCommits(t, (event, { tasks }) => {
    if (event !== 'start') return
    for (const { headers } of tasks) {
      headers.traceparent = 'ours'
      headers['x-new'] = 'new'
      delete headers['x-old']
    }
  })
  const { headers } = await run('/task', {}, { headers: { traceparent: 'theirs', 'x-old': 'old', 'x-kept': 'kept' } })
  t.match(headers, { traceparent: 'ours', 'x-new': 'new', 'x-kept': 'kept' })
  t.notOk('x-old' in headers)
})

t.test('a task whose headers a subscriber leaves alone is not written once more', async t => {
  const task: Task = { id: 'a', method: 'GET', url: '/', headers: { a: 'x', b: 'y' }, inherited: 1, depth: 1 }
  t.equal(withHeaders(task, { b: 'y', a: 'x' }), task)
  const changes: Array<Record<string, string>> = [{ a: 'x' }, { a: 'x', b: 'z' }, { a: 'x', b: 'y', c: 'z' }]
  for (const headers of changes) t.strictSame(withHeaders(task, headers).headers, headers)
  t.equal(withHeaders(task, { b: 'y' }).inherited, undefined, 'none of those is left that were inherited')
})

t.test('so it is with the headers of a commit if the user of a task has to be awaited', async t => {
  const { run } = await startEcho(t, { taskqueue: { user: { id: async () => 'ann' } } })
  traceCommits(t, (event, { tasks }) => { if (event === 'start') tasks[0]!.headers.traceparent = 'ours' })
  const { headers, task } = await run('/task')
  t.match(headers, { traceparent: 'ours', 'x-task-user-id': 'ann' })
  t.equal(task.userId, 'ann')
})

t.test('a header that is none, or is not to be chosen, or makes a task too large is ignored', async t => {
  const { run } = await startEcho(t, { taskqueue: { maxPayloadBytes: 1000 } })
  let set: (headers: Record<string, unknown>) => void
  traceCommits(t, (event, { tasks }) => { if (event === 'start') set(tasks[0]!.headers) })
  traceAttempts(t, (event, { headers }) => { if (event === 'start') set(headers) })
  const changes: Array<typeof set> = [
    headers => { headers['a b'] = 'x' }, headers => { headers.a = 'x\ny' }, headers => { headers['x-task-id'] = 'x' },
    headers => { headers.a = 1 }, headers => { headers['content-length'] = '9' }
  ]
  for (set of changes) {
    const { headers, task } = await run('/task', { headers: { b: 'y' } })
    t.match(headers, { b: 'y', 'x-task-id': task.id })
    t.notOk('a' in headers)
  }
  set = headers => { headers.long = 'x'.repeat(2000) }
  const { body, headers } = await run('/task', { payload: 'whole' })
  t.equal(body?.toString(), 'whole')
  t.equal(headers.long?.length, 2000, 'those of an attempt are not stored')
})

t.test('an attempt is traced until its verdict is known, and takes the headers that a subscriber sets', async t => {
  const { run, app } = await startEcho(t, { taskqueue: { consumer: { name: 'ours', maxRetries: 0 } } })
  const told: Array<[string, AttemptTrace]> = []
  const ended = new Promise<void>(resolve => {
    traceAttempts(t, (event, trace) => {
      told.push([event, trace])
      if (event === 'start') trace.headers.traceparent = 'ours'
      if (event === 'asyncEnd') resolve()
    })
  })
  const { headers, task } = await run('/task/42', {}, { headers: { traceparent: 'theirs' } })
  t.equal(headers.traceparent, 'ours')
  await ended
  t.strictSame(told.map(([event]) => event), ['start', 'end', 'asyncStart', 'asyncEnd'])
  t.match(told[0]![1], {
    taskId: task.id,
    queue: 'default',
    consumer: 'ours',
    attempt: 1,
    method: 'GET',
    url: '/task/42',
    end: { verdict: 'done', status: 200, route: '/task*', consumer: 'ours' }
  })
  await app.taskqueue.wait(task.id)
})

t.test('who subscribes hears of the tasks that are claimed, and of those whose ends the store knows', async t => {
  const claimed = hear(t, 'tasks:claimed')
  const settled = hear(t, 'tasks:settled')
  const { run, app } = await startEcho(t, { taskqueue: { consumer: { name: 'ours' } } })
  const { task: { id } } = await run('/task')
  await app.taskqueue.wait(id)
  await app.close()
  t.strictSame(claimed, [{ queue: 'default', consumer: 'ours', taskIds: [id], suspects: 0 }])
  t.strictSame(settled, [{ queue: 'default', consumer: 'ours', taskIds: [id] }])
})
