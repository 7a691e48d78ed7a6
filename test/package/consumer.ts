// What a user of the package writes: compiled here against its source, and by `check.ts`
// against the packed package, as ESM and as CommonJS. It is never run.
import auth from '@fastify/auth'
import Fastify, { type FastifyPluginAsync } from 'fastify'
import taskqueue, {
  RECORD_LIMIT, errorCodes, taskqueue as byName,
  type AddOptions, type ConsumerOptions, type Counts,
  type CreateStore, type Participant, type Queue, type StoreType,
  type RequestTask, type Savepoint, type Store, type TaskConfig, type TaskqueueOptions, type TaskRoute, type Transaction, type Verdict
} from 'fastify-taskqueue'
import { storeConformance, type ConformanceTest } from 'fastify-taskqueue/conformance'

declare const store: Store

const custom: CreateStore = (queue, { heartbeatMs, log }) => {
  if (heartbeatMs < Infinity) log.info({ queue }, queue.toUpperCase())
  return store
}
const typed: StoreType = { name: 'typed', isVolatile: true, create: async () => store }
const consumer: ConsumerOptions = {
  name: 'one', concurrency: 4, maxRetries: 3, backoff: retry => retry * 1000, timeoutMs: 1000, leaseMs: 1000, closeGraceMs: 0
}
const options: TaskqueueOptions = {
  // What may be undefined comes from the environment.
  redis: process.env.REDIS_URL,
  queues: {
    default: {},
    local: { type: 'local', consumer },
    custom: { type: custom, consumer: false },
    typed: { type: typed },
    redis: { type: 'redis', redis: { host: 'localhost', port: 6379 } }
  },
  consumer,
  user: { id: async request => request.headers.from, load: (id, request) => ({ id, ip: request.ip }) },
  copyHeaders: request => request.method === 'GET' ? ['accept-language'] : false,
  secrets: process.env.TASK_SECRET,
  prefix: 'app',
  commitTimeoutMs: 1000,
  maxPayloadBytes: 1000
}

export async function makeApp () {
  const app = Fastify()
  await app.register(auth)
  await app.register(taskqueue)
  await app.register(byName, options)
  await app.register(taskqueue, { copyHeaders: true, secrets: ['a', Buffer.from('b')] })
  // @ts-expect-error: no such option
  await app.register(taskqueue, { queue: 'default' })
  // @ts-expect-error: no such type of a queue
  await app.register(taskqueue, { queues: { default: { type: 'memory' } } })

  app.post<{ Body: { to: string } }>('/', async (request, reply) => {
    const { taskqueue, task } = request
    const savepoint: Savepoint = taskqueue.savepoint()
    const id: string = taskqueue.add('/task')
    savepoint.rollback()
    const all: AddOptions = {
      method: 'PUT',
      query: { text: 'a', number: 1, is: true, list: ['a', 1], none: undefined },
      headers: { 'x-a': 'a', cookie: null },
      payload: request.body,
      queue: 'mail',
      id,
      delayMs: 1,
      runAt: new Date(),
      maxRetries: 1,
      timeoutMs: 1
    }
    taskqueue.add('/task', all)
    for (const payload of ['a', Buffer.from('a'), new URLSearchParams(), [1], { a: 1 }, null]) taskqueue.add('/task', { payload })
    for (const runAt of [Date.now(), '2030-01-01T00:00:00Z']) taskqueue.add('/task', { runAt })
    // @ts-expect-error: no method of a task
    taskqueue.add('/task', { method: 'TRACE' })
    // @ts-expect-error: no such option
    taskqueue.add('/task', { delay: 1 })
    // @ts-expect-error: that is not a payload
    taskqueue.add('/task', { payload: 1 })

    const participant: Participant = { prepare: () => {}, commit: async () => {}, rollback: async () => {} }
    taskqueue.join(participant)
    // @ts-expect-error: it must be able to roll back
    taskqueue.join({ commit: () => {} })
    await taskqueue.rollback()
    await taskqueue.commit()

    const signal: AbortSignal | undefined = request.task?.signal
    if (task !== null) {
      const { id, queue, attempt, userId }: RequestTask = task
      const known: [string, string, number, string | undefined] = [id, queue, attempt, userId]
      reply.header('x-known', known.join())
    }
    // @ts-expect-error: it may be null
    console.log(request.task.id)
    // @ts-expect-error: only the package says what is a task
    request.task = null
    // @ts-expect-error: and which tasks belong to it
    request.taskqueue = taskqueue
    return { aborted: signal?.aborted }
  })

  app.post('/task', { constraints: { taskOnly: true }, preHandler: app.verifyTask }, async request => request.task?.id)
  app.post('/task', { constraints: { taskOnly: true, version: '1.0.0', host: 'localhost' } }, async () => 'both')
  app.route({ method: 'GET', url: '/task', constraints: { taskOnly: true }, handler: async () => 'get' })
  // @ts-expect-error: it is true, or left out
  app.get('/no', { constraints: { taskOnly: 'yes' } }, async () => 'no')
  // @ts-expect-error: it is true, or left out
  app.route({ method: 'GET', url: '/no', constraints: { taskOnly: false }, handler: async () => 'no' })

  const defaults: TaskConfig = { queue: 'mail', maxRetries: 1, timeoutMs: 1000 }
  const welcome = app.task<{ Body: { to: string }, Params: { id: string } }>({
    url: '/welcome/:id',
    preHandler: app.verifyTask,
    config: { task: defaults },
    handler: async request => [request.body.to, request.params.id, request.task.id]
  })
  const anyRoute: TaskRoute = welcome
  console.log(anyRoute.method, anyRoute.url)
  const cleanup = app.task({ method: 'DELETE', url: '/cleanup/:day', handler: async () => 'done' })
  app.get('/handles', async request => [
    request.taskqueue.add(welcome, { payload: { to: 'ada' }, params: { id: '1' }, queue: 'default', headers: { 'x-a': null } }),
    request.taskqueue.add(cleanup, { params: { day: 1 } }),
    await app.taskqueue.add(cleanup, { params: { day: '2' }, query: { all: true } })
  ])
  // @ts-expect-error: it must have a payload
  app.taskqueue.add(welcome, { params: { id: '1' } })
  // @ts-expect-error: it must have a day
  app.taskqueue.add(cleanup)
  await app.taskqueue.addAll([{ route: cleanup, params: { day: 1 } }, { route: cleanup, params: { day: '2' }, delayMs: 5 }])
  await app.taskqueue.addAll([{ url: '/task' }, { url: '/task', delayMs: 5 }])
  // @ts-expect-error: each must have a day
  await app.taskqueue.addAll([{ route: cleanup, params: { day: 1 } }, { route: cleanup }])

  app.addHook('onRequest', app.verifyTask)
  app.get('/either', { preHandler: app.auth([app.verifyTask, async () => {}]) }, async () => 'either')
  app.get('/both', { preHandler: app.auth([[app.verifyTask, async () => {}]], { relation: 'and' }) }, async () => 'both')
  app.get<{ Querystring: { a: string } }>('/typed', { preHandler: [app.verifyTask] }, async request => request.query.a)

  const ids: string[] = [await app.taskqueue.add('/task', { payload: { a: 1 } })]
  const added: string = await app.taskqueue.transaction((transaction: Transaction) => transaction.add('/task'))
  const answer: number = await app.taskqueue.transaction(async transaction => {
    transaction.savepoint().rollback()
    return ids.push(added)
  })
  const queue: Queue = app.taskqueue.queue('default')
  const { waiting, delayed, running, dead }: Counts = await queue.counts()
  const sum: number = answer + waiting + delayed + running + dead + await queue.length() + await queue.purge() + RECORD_LIMIT
  const names: string[] = app.taskqueue.queues.map(({ name }) => name)
  console.log(sum, names)

  app.setErrorHandler((error, _request, reply) => {
    if (!(error instanceof errorCodes.FST_TASKQUEUE_COMMIT_FAILED)) throw error
    const { code, statusCode }: { code: string, statusCode?: number } = error
    // @ts-expect-error: a member whose type were `any` would hide it
    const no: number = error.code
    reply.send({ code, statusCode, no })
  })
  return app
}

export const tests: ConformanceTest[] = storeConformance(async () => store)
for (const { title, run } of tests) console.log(title, run().then(() => {}))

export const verdict: Verdict = { kind: 'retry', delayMs: 1, reason: 'busy' }
// @ts-expect-error: it needs a reason
export const noVerdict: Verdict = { kind: 'dead' }

/** On every type of server. */
export const plugin: FastifyPluginAsync = async app => {
  await app.register(taskqueue, options)
  app.taskqueue.queue('default')
}
export async function makeOtherApps () {
  const http2 = Fastify({ http2: true })
  await http2.register(taskqueue, { redis: 'redis://localhost' })
  http2.get('/', { constraints: { taskOnly: true }, preHandler: http2.verifyTask }, async request => request.taskqueue.add('/'))
  const https = Fastify({ https: {}, logger: true })
  await https.register(taskqueue, { redis: 'redis://localhost' })
  https.get('/', { constraints: { taskOnly: true }, preHandler: https.verifyTask }, async request => request.task?.userId)
}
