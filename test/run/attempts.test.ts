import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import { LocalStore } from '../../lib/store/local/store.js'
import { appOn, loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(120_000)

type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown

/** As no style allows it. */
const throwIt = (value: unknown) => { throw value }

/** Takes the answer over, and does something to it that no answer expects. */
const taken = (act: (raw: FastifyReply['raw'], request: FastifyRequest) => unknown): Handler => (request, reply) => {
  reply.hijack()
  return act(reply.raw, request)
}

const hostile: Record<string, Handler> = {
  'emits an error that is none': taken(raw => { raw.emit('error', undefined) }),
  'emits null as an error': taken(raw => { raw.emit('error', null) }),
  'emits a text as an error': taken(raw => { raw.emit('error', 'text') }),
  'emits an error whose message throws': taken(raw => { raw.emit('error', { get message () { throw new Error('no') } }) }),
  'emits finish without having sent anything': taken(raw => { raw.emit('finish') }),
  'emits finish later, without having sent anything': taken(raw => { setImmediate(() => { raw.emit('finish') }) }),
  'emits close': taken(raw => { raw.emit('close') }),
  'emits close and an error, twice': taken(raw => { for (let i = 0; i < 2; i++) { raw.emit('close'); raw.emit('error', undefined) } }),
  'destroys the answer with nothing': taken(raw => { raw.destroy(); raw.destroy() }),
  'destroys the answer with an error that is none': taken(raw => { raw.destroy('text' as never) }),
  'destroys the socket with an error that is none': taken(raw => { raw.socket?.destroy(7 as never) }),
  'emits an error on the socket that is none': taken(raw => { raw.socket?.emit('error', undefined) }),
  'takes every listener from the answer': taken(raw => { raw.removeAllListeners(); raw.end() }),
  'takes every listener from the answer, and breaks it off': taken(raw => { raw.removeAllListeners().on('error', () => {}); raw.destroy(new Error('no')) }),
  'has a listener that throws when it is halted': taken((_raw, { raw }) => {
    for (const event of ['aborted', 'close']) raw.on(event, () => { throw new Error('listener') })
  }),
  'throws nothing': () => { throwIt(undefined) },
  'rejects with nothing': async () => { throwIt(null) },
  'throws what has no text': () => { throwIt(Object.create(null)) },
  'sends an error that is none': (_request, reply) => { reply.code(500).send(Object.create(null)) },
  'never answers': () => new Promise(() => {}),
  'ends the answer, and emits an error afterwards': taken(raw => { raw.statusCode = 500; raw.end(); raw.emit('error', undefined) })
}

for (const dispatch of ['direct', 'inject'] as const) {
  for (const [what, handler] of Object.entries(hostile)) {
    t.test(`${dispatch}: an attempt whose handler ${what} ends in time, and the next one runs`, async t => {
      const store = new LocalStore()
      const { app, add } = await appOn(t, store, { dispatch, maxRetries: 0, timeoutMs: 300, backoff: () => 1 })
      app.get('/hostile', handler)
      app.get('/next', async () => ({}))
      await app.ready()
      await add('/hostile', { id: 'hostile' })
      await add('/next', { id: 'next' })
      await until(async () => (await app.taskqueue.get('next'))?.state === 'done')
      const { state, reason } = (await app.taskqueue.get('hostile'))!
      t.equal(state, 'dead')
      t.type(reason, 'string')
    })
  }

  t.test(`${dispatch}: a logger that throws changes nothing about what becomes of a task`, async t => {
    const { app, add } = await appOn(t, new LocalStore(), { dispatch, maxRetries: 0 })
    app.get('/', async () => ({}))
    app.get('/dead', (_request, reply) => reply.code(410).send())
    await app.ready()
    for (const level of ['info', 'warn', 'error'] as const) app.log[level] = () => { throw new Error('no log') }
    for (const [url, id] of [['/', 'done'], ['/dead', 'dead']] as const) {
      await add(url, { id })
      await until(async () => (await app.taskqueue.get(id))?.state === id)
    }
  })

  t.test(`${dispatch}: a task that cannot even be made into a request has failed`, async t => {
    const { app, add } = await appOn(t, new LocalStore(), { dispatch, maxRetries: 0 })
    app.get('/', async () => ({}))
    await app.ready()
    await add('/', { id: 'a', delayMs: 20 })
    const { routing } = app
    Object.defineProperty(app, 'routing', { value: () => { throwIt(undefined) } })
    t.teardown(() => { Object.defineProperty(app, 'routing', { value: routing }) })
    await until(async () => (await app.taskqueue.get('a'))?.state === 'dead')
    t.equal((await app.taskqueue.get('a'))!.reason, 'undefined, after 0 retries')
  })
}

t.test('a listener of a halted task that throws is reported, and neither stops the process nor the heartbeat', async t => {
  const { app, log } = await loggedApp(t, { consumer: { timeoutMs: 20, maxRetries: 0 } })
  app.get('/', ({ raw }) => { raw.on('aborted', () => { throw new Error('mine') }); return new Promise(() => {}) })
  await app.ready()
  await app.taskqueue.add('/', { id: 'a' })
  await until(async () => (await app.taskqueue.get('a'))?.state === 'dead')
  t.match(log.filter(({ msg }) => msg.includes('listener')), [{ level: 50, taskId: 'a', err: { message: 'mine' } }])
})

t.test('429 with Retry-After costs a task behind a rate limit no retry', async t => {
  const redis = await startRedis(t)
  for (const options of [{}, { redis: { path: redis.path } }]) {
    const { app, log } = await loggedApp(t, { ...options, consumer: { maxRetries: 0, concurrency: 5 } })
    let turnedAway = 0
    app.get('/', async ({ task }, reply) => {
      if (turnedAway === 10) return task!.attempt
      turnedAway++
      return reply.code(turnedAway % 2 === 0 ? 429 : 503).header('retry-after', 1).send()
    })
    await app.ready()
    await app.taskqueue.addAll(Array.from({ length: 10 }, (_, index) => ({ url: '/', id: `${index}` })))
    for (let index = 0; index < 10; index++) t.match(await app.taskqueue.wait(`${index}`), { state: 'done', attempts: [{ status: Number }, { status: 200 }] })
    const lines = log.filter(({ msg }) => msg === 'task is put off')
    t.match(lines, Array.from({ length: 10 }, () => ({ level: 30, delayMs: 1000, retryAfter: '1' })))
    t.match(await app.taskqueue.queue('default').counts(), { dead: 0, delayed: 0 })
  }
})
