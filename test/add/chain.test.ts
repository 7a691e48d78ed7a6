import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { TaskqueueOptions, Transaction } from '../../lib/index.js'
import { RecordingStore } from '../support/recording-store.js'
import { startRedis } from '../support/redis-server.js'
import { serve } from '../support/serve.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

let prefix = 0

for (const type of ['local', 'redis']) {
  t.test(`a task that adds tasks, with a ${type} queue`, async t => {
    const redis = type === 'redis' ? { path: (await startRedis(t)).path } : undefined

    t.test('queues them when it succeeds, in order', async t => {
      const { app, ran } = await start(t, { redis }, app => app.get('/parent', async request => {
        add(request.taskqueue, 'a', 'b')
        return {}
      }))
      await app.taskqueue.add('/parent')
      await until(() => ran.length === 2)
      t.same(ran, ['a', 'b'])
    })

    t.test('queues none when it fails, and each once when its retry succeeds', async t => {
      const { app, ran } = await start(t, { redis }, app => app.get('/parent', async (request, reply) => {
        const { attempt } = request.task!
        add(request.taskqueue, `of-attempt-${attempt}`)
        if (attempt === 1) throw new Error('no')
        return reply.code(attempt === 2 ? 500 : 200).send()
      }))
      await app.taskqueue.add('/parent')
      await until(() => ran.length > 0)
      await idle(app)
      t.same(ran, ['of-attempt-3'])
    })

    t.test('queues none when it is refused for good', async t => {
      const { app, ran } = await start(t, { redis }, app => app.get('/parent', async (request, reply) => {
        add(request.taskqueue, 'a')
        return reply.code(422).send()
      }))
      await app.taskqueue.add('/parent')
      await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
      await idle(app)
      t.same(ran, [])
    })

    t.test('queues none of an attempt that has timed out, though its handler ends later', async t => {
      const timedOut = gate()
      const ended = gate()
      const { app, ran } = await start(t, { redis, consumer: { timeoutMs: 100 } }, app => {
        app.get('/parent', async request => {
          const { attempt, signal } = request.task!
          add(request.taskqueue, `of-attempt-${attempt}`)
          if (attempt === 1) {
            signal.addEventListener('abort', () => { timedOut.open() })
            await timedOut.opened
            await sleep(1)
            setImmediate(ended.open)
          }
          return {}
        })
      })
      await app.taskqueue.add('/parent')
      await ended.opened
      await until(() => ran.length > 0)
      await idle(app)
      t.same(ran, ['of-attempt-2'])
    })

    t.test('queues them once when its answer breaks off and its retry succeeds', async t => {
      const { app, ran } = await start(t, { redis }, app => app.get('/parent', async request => {
        const { attempt } = request.task!
        add(request.taskqueue, `of-attempt-${attempt}`)
        return Readable.from((async function * () {
          yield 'x'
          if (attempt === 1) throw new Error('broken')
        })())
      }))
      await app.taskqueue.add('/parent')
      await until(() => ran.length > 0)
      await idle(app)
      t.same(ran, ['of-attempt-2'])
    })

    t.test('queues none when a participant cannot prepare, and each once when it can', async t => {
      const { app, ran } = await start(t, { redis }, app => app.get('/parent', async request => {
        const { attempt } = request.task!
        add(request.taskqueue, `of-attempt-${attempt}`)
        request.taskqueue.join({ prepare () { if (attempt === 1) throw new Error('no') }, commit () {}, rollback () {} })
        return {}
      }))
      await app.taskqueue.add('/parent')
      await until(() => ran.length > 0)
      await idle(app)
      t.same(ran, ['of-attempt-2'])
    })

    t.test('is a dead letter when it is the 16th that was added by the one before', async t => {
      const depths: number[] = []
      const codes: string[] = []
      const { app } = await start(t, { redis, secrets: 'x'.repeat(32) }, app => {
        app.setErrorHandler((error: { code: string }, _request, reply) => { codes.push(error.code); reply.send(error) })
        app.get<{ Querystring: { n: number } }>('/endless', async ({ query, taskqueue }) => {
          depths.push(Number(query.n))
          // The second one could double for ever as well.
          for (const id of [1, 2]) taskqueue.add('/endless', { query: { n: Number(query.n) + 1 }, id: `${query.n}-${id}`, ...id === 2 && { delayMs: 1_000_000 } })
          return {}
        })
      })
      await app.taskqueue.add('/endless?n=1')
      await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
      t.same(depths, Array.from({ length: 16 }, (_, index) => index + 1))
      t.same(codes, ['FST_TASKQUEUE_TOO_DEEP'])
      t.match(await app.taskqueue.queue('default').counts(), { waiting: 0, delayed: 15, running: 0, dead: 1 })
    })

    t.test('goes on for ever when it waits each time', async t => {
      let runs = 0
      const { app } = await start(t, { redis }, app => app.get('/nightly', async ({ taskqueue }) => {
        const due = [{ delayMs: 5 }, { runAt: Date.now() + 5 }][runs++ % 2]!
        if (runs < 40) taskqueue.add('/nightly', { id: 'nightly', ...due })
        return {}
      }))
      await app.taskqueue.add('/nightly', { id: 'nightly' })
      await until(async () => runs === 40)
      await until(async () => (await app.taskqueue.get('nightly'))?.state === 'done')
    })

    t.test('runs away when it is due at once, though it says when', async t => {
      for (const due of [{ delayMs: 0 }, { runAt: Date.now() - 1000 }]) {
        let runs = 0
        const { app } = await start(t, { redis }, app => app.get('/endless', async ({ taskqueue }) => {
          runs++
          taskqueue.add('/endless', due)
          return {}
        }))
        await app.taskqueue.add('/endless')
        await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
        t.equal(runs, 16)
      }
    })

    t.test('keeps what it has committed by hand, though it fails', async t => {
      const { app, ran } = await start(t, { redis, consumer: { maxRetries: 0 } }, app => app.get('/parent', async request => {
        add(request.taskqueue, 'by-hand')
        await request.taskqueue.commit()
        add(request.taskqueue, 'dropped')
        throw new Error('no')
      }))
      await app.taskqueue.add('/parent')
      await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
      await idle(app)
      t.same(ran, ['by-hand'])
    })
  })
}

t.test('a task that has timed out queues nothing elsewhere either', async t => {
  const elsewhere = new RecordingStore()
  const late = gate<boolean>()
  const { app } = await start(t, {
    queues: { default: {}, other: { type: () => elsewhere, consumer: false } }, consumer: { timeoutMs: 50, maxRetries: 0 }
  }, app => {
    app.get('/parent', (request, reply) => {
      const { signal } = request.task!
      request.taskqueue.add('/task', { queue: 'other' })
      signal.addEventListener('abort', () => {
        reply.send('too late')
        setImmediate(() => late.open(signal.aborted))
      })
    })
  })
  await app.taskqueue.add('/parent')
  t.equal(await late.opened, true)
  await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
  t.same(elsewhere.events, [])
})

/** An app that runs tasks; those of /task are recorded by their id. */
async function start (t: Test, { consumer, ...options }: TaskqueueOptions, declare: (app: FastifyInstance) => unknown) {
  const ran: unknown[] = []
  const served = await serve(t, {
    declare: app => {
      app.get('/task', async request => { ran.push(request.task?.id); return {} })
      declare(app)
    },
    taskqueue: { ...options, prefix: `test-${++prefix}`, consumer: { backoff: () => 5, ...consumer } },
    fastify: { logger: false }
  })
  return { ...served, ran }
}

async function idle (app: FastifyInstance): Promise<void> {
  await until(async () => {
    const { waiting, delayed, running } = await app.taskqueue.queue('default').counts()
    return waiting + delayed + running === 0
  })
}

function add (tx: Transaction, ...ids: string[]): void {
  for (const id of ids) tx.add('/task', { id })
}
