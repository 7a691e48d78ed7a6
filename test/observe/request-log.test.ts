import Fastify, { type FastifyInstance, type FastifyServerOptions, LogController } from 'fastify'
import t, { type Test } from 'tap'
import taskqueue from '../../lib/index.js'
import type { LogLine } from '../support/logged-app.js'
import { until } from '../support/until.js'

async function open (t: Test, routes: (app: FastifyInstance) => void, isQuiet = false): Promise<{ app: FastifyInstance, log: LogLine[] }> {
  const log: LogLine[] = []
  const app: FastifyInstance = Fastify({ logController: new LogController({ disableRequestLogging: isQuiet }), logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } } } as FastifyServerOptions)
  t.teardown(() => app.close())
  await app.register(taskqueue)
  routes(app)
  await app.ready()
  return { app, log }
}

t.test('every line in the log of a task says which task it is, and one id finds the whole chain', async t => {
  const { app, log } = await open(t, app => {
    app.get('/add', async ({ taskqueue }) => taskqueue.add('/first', { id: 'one' }))
    app.get('/first', { constraints: { taskOnly: true } }, async ({ taskqueue, log }) => {
      log.info('in the first')
      taskqueue.add('/second', { id: 'two', delayMs: 1 })
    })
    app.get('/second', async ({ log }, reply) => {
      log.info('in the second')
      reply.log.info('of its reply')
    })
  })
  await app.inject('/add')
  await app.taskqueue.wait('two')
  await until(() => log.some(({ taskId, msg }) => taskId === 'two' && msg === 'task done'))
  for (const msg of ['in the first', 'in the second', 'of its reply']) {
    const [id, url] = msg === 'in the first' ? ['one', '/first'] : ['two', '/second']
    const lines = log.filter(({ taskId }) => taskId === id)
    const { reqId } = lines.find(line => line.msg === msg)!
    t.match(lines.find(line => line.msg === msg), { taskId: id, queue: 'default', attempt: 1, originReqId: 'req-1' })
    t.match(lines.find(line => line.msg === 'incoming request'), { reqId, attempt: 1 })
    t.match(lines.find(line => line.msg === 'request completed'), { reqId, attempt: 1 })
    t.match(lines.find(line => line.msg === 'task done'), { reqId, originReqId: 'req-1', url })
  }
  t.match(await app.taskqueue.get('two'), { originReqId: 'req-1' })
  const ordinary = log.filter(({ reqId }) => reqId === 'req-1')
  t.equal(ordinary.length, 2)
  for (const line of ordinary) for (const name of ['taskId', 'queue', 'attempt', 'originReqId']) t.notOk(name in line, name)
})

t.test('what a task has thrown is in its line, also in an app that logs no requests', async t => {
  const { app, log } = await open(t, app => {
    app.get('/fails', async () => { throw new Error('boom') })
    app.get('/refuses', (_request, reply) => reply.code(410).send())
  }, true)
  await app.taskqueue.add('/fails', { id: 'a', maxRetries: 0 })
  await app.taskqueue.add('/refuses', { id: 'b' })
  for (const id of ['a', 'b']) await app.taskqueue.wait(id)
  await until(() => log.filter(({ msg }) => msg === 'task failed for good').length === 2)
  t.match(log.find(({ taskId }) => taskId === 'a'), { level: 50, reason: 'status 500: boom, after 0 retries', err: { message: 'boom', stack: /request-log\.test/ } })
  t.notOk('err' in log.find(({ taskId }) => taskId === 'b')!)
})

t.test('the id of a request that a client has made up is bounded', async t => {
  const log: LogLine[] = []
  const app = Fastify({ requestIdHeader: 'request-id', logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } } })
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.get('/add', async ({ taskqueue }) => taskqueue.add('/task', { id: 'a' }))
  app.get('/task', async () => '')
  await app.inject({ url: '/add', headers: { 'request-id': 'x'.repeat(5000) } })
  t.match(await app.taskqueue.wait('a'), { state: 'done', originReqId: 'x'.repeat(255) })
})

t.test('a factory that the app had set makes the loggers of tasks as well, and an app without a log keeps its own', async t => {
  const made: object[] = []
  const app = Fastify({ logger: { stream: { write () {} } }, childLoggerFactory: (logger, bindings, options) => { made.push(bindings); return logger.child(bindings, options) } })
  t.teardown(() => app.close())
  await app.register(taskqueue)
  app.get('/task', async () => '')
  await app.taskqueue.add('/task', { id: 'a' })
  await app.ready()
  await app.taskqueue.wait('a')
  t.match(made, [{ reqId: String, taskId: 'a', queue: 'default', attempt: 1 }])

  const silent = Fastify()
  t.teardown(() => silent.close())
  const { childLoggerFactory } = silent
  await silent.register(taskqueue)
  t.equal(silent.childLoggerFactory, childLoggerFactory)
})

t.test('a consumer says what it consumes', async t => {
  const log: LogLine[] = []
  const app = Fastify({ logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } } })
  t.teardown(() => app.close())
  await app.register(taskqueue, { queues: { a: {}, b: { consumer: { concurrency: 5, name: 'me' } }, c: { consumer: false }, d: { consumer: { autoStart: false } } } })
  await app.ready()
  await until(() => log.some(({ queue }) => queue === 'b'))
  t.match(log.filter(({ msg }) => msg === 'consumer has started'), [
    { level: 30, queue: 'a', concurrency: 1, location: 'this process', consumer: String },
    { level: 30, queue: 'b', concurrency: 5, location: 'this process', consumer: 'me' }
  ])
})
