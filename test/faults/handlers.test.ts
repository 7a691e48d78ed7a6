import { randomUUID } from 'node:crypto'
import { PassThrough, Readable } from 'node:stream'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import type { FastifyReply, FastifyRequest } from 'fastify'
import t from 'tap'
import type { AddOptions, ConsumerOptions, Store } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { appOn } from '../support/logged-app.js'

import { startAll } from '../support/processes.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

t.setTimeout(300_000)

interface Case {
  title: string
  handler (request: FastifyRequest, reply: FastifyReply): unknown
  consumer?: ConsumerOptions
  options?: AddOptions
  /** What is logged at the end of each attempt. */
  ends: object[]
  /** Whether the task is dead in the end, and not done. */
  dead?: boolean
}

const DISPATCHES = ['direct', 'inject'] as const

/** How many tasks have each outcome, all at once. */
const COUNT = 20

const hang = () => new Promise(() => {})
const done = { level: 30, msg: 'task done', status: 200 }
const fails = (status: number) => ({ level: 40, msg: 'task failed and will be tried again', status })
const failed = (status: number) => ({ level: 50, msg: 'task failed for good', status })
const timedOut = { level: 40, msg: 'task failed and will be tried again', reason: 'no answer within 100 ms' }

/** Fails at the first attempt and succeeds at the second. */
const once = (fail: Case['handler']): Case['handler'] => async (request, reply) => request.task!.attempt === 1 ? await fail(request, reply) : 'well'

const cases: Case[] = [
  ...[200, 201, 204].map((status): Case => ({
    title: `${status} is done`,
    handler: (_request, reply) => reply.code(status).send(),
    ends: [{ ...done, status }]
  })),
  {
    title: 'a redirection is done, and not followed',
    handler: (_request, reply) => reply.redirect('/elsewhere', 303),
    ends: [{ level: 40, msg: 'task done, its redirection not followed', status: 303, location: '/elsewhere' }]
  },
  ...[400, 401, 403, 404, 410, 422].map((status): Case => ({
    title: `${status} is a dead letter at once`,
    handler: (_request, reply) => reply.code(status).send(),
    ends: [{ ...failed(status), reason: `status ${status}` }],
    dead: true
  })),
  ...[408, 409, 425, 429, 500, 502, 599].map((status): Case => ({
    title: `${status} is tried again, after the backoff`,
    handler: once((_request, reply) => reply.code(status).send()),
    consumer: { backoff: retry => retry * 7 },
    ends: [{ ...fails(status), delayMs: 7 }, done]
  })),
  {
    title: 'a handler that throws is tried again, each time after the backoff for it, and is dead after the last retry',
    handler: () => { throw new Error('broken') },
    consumer: { backoff: retry => retry * 7, maxRetries: 3 },
    ends: [{ ...fails(500), delayMs: 7 }, { ...fails(500), delayMs: 14 }, { ...fails(500), delayMs: 21 }, { ...failed(500), reason: 'status 500: broken, after 3 retries' }],
    dead: true
  },
  {
    title: '503 is tried again when Retry-After says, whatever the backoff, and costs no retry',
    handler: once((_request, reply) => reply.code(503).header('retry-after', '1').send()),
    consumer: { backoff: () => 3_600_000, maxRetries: 0 },
    ends: [{ level: 30, msg: 'task is put off', status: 503, delayMs: 1000, retryAfter: '1' }, done]
  },
  {
    title: '500 is tried again when Retry-After says, whatever the backoff',
    handler: once((_request, reply) => reply.code(500).header('retry-after', '1').send()),
    consumer: { backoff: () => 3_600_000 },
    ends: [{ ...fails(500), delayMs: 1000, retryAfter: '1' }, done]
  },
  {
    title: 'a task may have more retries than its consumer gives',
    handler: (request, reply) => reply.code(request.task!.attempt < 4 ? 500 : 200).send(),
    consumer: { backoff: () => 0, maxRetries: 0 },
    options: { maxRetries: 3 },
    ends: [fails(500), fails(500), fails(500), done]
  },
  {
    title: 'a task may have fewer retries than its consumer gives',
    handler: (_request, reply) => reply.code(500).send(),
    options: { maxRetries: 0 },
    ends: [{ ...failed(500), reason: 'status 500, after 0 retries' }],
    dead: true
  },
  {
    title: 'a handler that hangs ends by the timeout of its consumer',
    handler: once(hang),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'a handler that hangs ends by the timeout of its task',
    handler: hang,
    consumer: { backoff: () => 0 },
    options: { timeoutMs: 100, maxRetries: 1 },
    ends: [timedOut, { level: 50, msg: 'task failed for good', reason: 'no answer within 100 ms, after 1 retries' }],
    dead: true
  },
  {
    title: 'a handler that hijacks its reply and never answers ends by the timeout',
    handler: once((_request, reply) => { reply.hijack() }),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'an answer by hand, after hijacking, counts',
    handler (_request, reply) {
      reply.hijack()
      reply.raw.writeHead(410)
      reply.raw.end('gone')
    },
    ends: [failed(410)],
    dead: true
  },
  {
    title: 'a handler that destroys its reply is tried again',
    handler: once((_request, reply) => {
      reply.raw.destroy()
      return hang()
    }),
    consumer: { backoff: () => 0, timeoutMs: 5000 },
    ends: [{ level: 40, msg: 'task failed and will be tried again', reason: /destroyed|reset|closed/i }, done]
  },
  {
    title: 'a handler that destroys its request is tried again',
    handler: once(request => {
      request.raw.destroy()
      return hang()
    }),
    consumer: { backoff: () => 0, timeoutMs: 200 },
    ends: [{ level: 40, msg: 'task failed and will be tried again' }, done]
  },
  {
    title: 'a handler that destroys its socket is tried again',
    handler: once(request => {
      request.socket.destroy()
      return hang()
    }),
    consumer: { backoff: () => 0, timeoutMs: 200 },
    ends: [{ level: 40, msg: 'task failed and will be tried again' }, done]
  },
  {
    title: 'of two replies the first counts',
    handler (_request, reply) {
      reply.code(410).send('first')
      reply.code(200).send('second')
    },
    ends: [failed(410)],
    dead: true
  },
  {
    title: 'of a reply and what is thrown after it the reply counts',
    handler (_request, reply) {
      reply.code(201).send('first')
      throw new Error('late')
    },
    ends: [{ ...done, status: 201 }]
  },
  {
    title: 'events without an end, after hijacking, end by the timeout, and their handler hears that nobody listens',
    handler: once((_request, reply) => {
      reply.hijack()
      reply.raw.writeHead(200, { 'content-type': 'text/event-stream' })
      // The process would not end if it went on.
      const timer = setInterval(() => { reply.raw.write('data: tick\n\n') }, 5)
      reply.raw.on('close', () => { clearInterval(timer) })
    }),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'writes without an end and without content, after hijacking, end by the timeout',
    handler: once((_request, reply) => {
      reply.hijack()
      const write = () => { if (!reply.raw.destroyed) reply.raw.write('', write) }
      write()
    }),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'a stream without an end, a byte at a time, ends by the timeout',
    handler: once(() => new Readable({ read () { this.push('x') } })),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'an answer that breaks off is tried again',
    handler: once(() => Readable.from((async function * () {
      yield 'half an ans'
      throw new Error('broken')
    })())),
    consumer: { backoff: () => 0, timeoutMs: 5000 },
    ends: [{ level: 40, msg: 'task failed and will be tried again' }, done]
  },
  {
    title: 'an answer that stops half-way ends by the timeout',
    handler: once(() => {
      const stream = new PassThrough()
      stream.write('half an ans')
      return stream
    }),
    consumer: { backoff: () => 0, timeoutMs: 100 },
    ends: [timedOut, done]
  },
  {
    title: 'a long answer is done when it has ended',
    handler: () => Readable.from(Array.from({ length: 100 }, () => Buffer.alloc(100_000))),
    ends: [done]
  }
]

const redis = await startRedis(t)
const stores: Record<'local' | 'redis', () => Store> = {
  local: () => new LocalStore(),
  redis: () => new RedisStore({ path: redis.path }, randomUUID(), 2000)
}

for (const [type, dispatch] of [['local', 'direct'], ['redis', 'direct'], ['local', 'inject']] as const) {
  const makeStore = stores[type]
  t.test(`${type} queue, dispatch ${dispatch}`, async t => {
    for (const { title, handler, consumer, options, ends, dead = false } of cases) {
      t.test(title, async t => {
        const store = makeStore()
        const { app, log } = await appOn(t, store, { dispatch, concurrency: COUNT, ...consumer })
        const times = new Map<string, number[]>()
        app.post('/tasks/:name', async (request, reply) => {
          const { id } = request.task!
          times.set(id, [...times.get(id) ?? [], performance.now()])
          return await handler(request, reply)
        })
        await app.ready()
        const ids = await app.taskqueue.transaction(tx => Array.from({ length: COUNT }, () => tx.add('/tasks/it?a=1', { method: 'POST', ...options })))
        const linesOf = (id: string) => log.filter(line => line.taskId === id && 'durationMs' in line)
        // Twenty streams that are never empty hold the event loop for 5 s at rest, with dispatch inject on Node 24.
        await until(() => ids.every(id => linesOf(id).length >= ends.length), 'their ends', 60_000)
        await until(async () => (await store.counts(['default']))[0]!.running === 0)
        t.match((await store.counts(['default']))[0], { ...NOTHING, dead: dead ? COUNT : 0 })
        const expected = ends.map((end, index) => ({ queue: 'default', url: '/tasks/it?a=1', attempt: index + 1, durationMs: Number, ...end }))
        for (const id of ids) {
          const logged = linesOf(id)
          t.match(logged, expected)
          t.equal(logged.length, ends.length, 'one line for each attempt')
          const begun = times.get(id)!
          t.equal(begun.length, ends.length)
          for (const [index, { delayMs = 0 }] of logged.slice(0, -1).entries()) t.ok(begun[index + 1]! - begun[index]! >= delayMs - 2, `retry ${index + 1} is not early`)
        }
      })
    }
  })

  t.test(`${type} queue, dispatch ${dispatch}: the timeout frees the slot and aborts the signal, although the handler goes on`, async t => {
    const { app, add, lines } = await appOn(t, makeStore(), { dispatch, timeoutMs: 100, backoff: () => 0 })
    const events: string[] = []
    const { opened, open } = gate()
    app.get('/slow', async request => {
      const { attempt, signal } = request.task!
      events.push(`slow ${attempt}`)
      if (attempt > 1) return 'well'
      signal.addEventListener('abort', () => { events.push(`aborted: ${signal.reason.message}`) })
      request.taskqueue.add('/child')
      await opened
      t.throws(() => request.taskqueue.add('/child'), { code: 'FST_TASKQUEUE_CLOSED' })
      return 'late'
    })
    app.get('/child', async () => { events.push('child') })
    app.get('/next', async () => {
      events.push('next')
      return {}
    })
    await app.ready()
    const slow = await add('/slow')
    const next = await add('/next')
    t.match(await lines(slow, 2), [{ attempt: 1, reason: /no answer within 100 ms/ }, { attempt: 2, status: 200 }])
    await lines(next, 1)
    t.strictSame(events, ['slow 1', 'aborted: no answer within 100 ms', 'next', 'slow 2'])
    open()
    const last = await add('/next')
    await lines(last, 1)
    t.strictSame(events.slice(4), ['next'], 'what it added is not run')
    t.equal((await lines(slow, 2)).length, 2)
  })
}

t.test('what a task adds in an attempt that fails in the end is not run', async t => {
  const { app, add, lines } = await appOn(t, new LocalStore(), { backoff: () => 0 })
  const children: string[] = []
  app.get('/', async request => {
    const { attempt } = request.task!
    request.taskqueue.add(`/child/${attempt}`)
    // The reply is on its way, and the tasks are committed, when it breaks off.
    return Readable.from((async function * () {
      yield 'half an ans'
      if (attempt === 1) throw new Error('broken')
    })())
  })
  app.get('/child/:attempt', async ({ url }) => {
    children.push(url)
    return {}
  })
  await app.ready()
  await lines(await add('/'), 2)
  await lines(await add('/child/0'), 1)
  t.strictSame(children, ['/child/2', '/child/0'])
})

t.test('twenty answers without an end take less than 80 MiB of memory, and keep no process alive that closes', async t => {
  const { start, add, counts } = await startAll(t)
  const consumer = await start({ concurrency: COUNT, closeGraceMs: 0 })
  // What it takes to run a task at all is loaded before.
  await add(['/task'])
  await until(() => consumer.ended.length === 1)
  const before = await consumer.measure()
  await add(Array.from({ length: COUNT }, () => '/endless'))
  const grown: number[] = []
  await until(async () => {
    const { rss, answered } = await consumer.measure()
    grown.push(Math.round(rss - before.rss))
    return answered > 200
  }, '200 MiB of answers', 60_000)
  t.ok(Math.max(...grown) < 80, `${Math.max(...grown)} MiB more memory`)
  t.strictSame(await consumer.end('SIGTERM'), [0, null])
  t.same(await counts(), { ...NOTHING, waiting: COUNT })
})

const MIB = 2 ** 20

const paces = [['at once', (push: () => void) => { push() }], ['bit by bit', setImmediate]] as const
for (const [title, provide, dispatch] of DISPATCHES.flatMap(dispatch => paces.map(pace => [...pace, dispatch] as const))) {
  t.test(`dispatch ${dispatch}: an answer without an end that comes ${title} takes no memory, and is over when its task is cancelled`, async t => {
    const { app, add } = await appOn(t, new LocalStore(), { dispatch })
    let length = 0
    let most = 0
    await until(() => buffered() < MIB, 'what the tests before have left is gone')
    const answer = new Readable({
      read () {
        length += MIB
        if (length % (32 * MIB) === 0) most = Math.max(most, buffered())
        // An end after all, lest a failure of this test take all memory.
        provide(() => { this.push(most > 256 * MIB ? null : Buffer.alloc(MIB, length)) })
      }
    })
    app.get('/', async () => answer)
    await app.ready()
    const id = await add('/')
    await until(() => length > 200 * MIB, '200 MiB of answer', 60_000)
    t.equal(await app.taskqueue.cancel(id), true)
    await until(() => answer.destroyed, 'its end')
    // As much as streams and sockets hold back on their ways, and not what was sent.
    t.ok(most < 100 * MIB, `${Math.round(most / MIB)} MiB in memory`)
  })
}

/** How many bytes of answers are kept, garbage apart. */
function buffered (): number {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
  return process.memoryUsage().arrayBuffers
}
