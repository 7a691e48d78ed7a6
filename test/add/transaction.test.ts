import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { Savepoint, Transaction } from '../../lib/index.js'
import { RecordingStore } from '../support/recording-store.js'
import { serve } from '../support/serve.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

t.test('add()', async t => {
  t.test('returns the id under which the task is queued', async t => {
    let id: string | undefined
    const { url, store } = await start(t, app => app.get('/', async request => { id = request.taskqueue.add('/task'); return id }))
    t.equal(await (await fetch(url)).text(), id)
    t.same(store.ids, [id])
  })

  t.test('queues in order, and nothing before the request has ended', async t => {
    const { url, store } = await start(t, app => app.get('/', async request => {
      for (const id of ['a', 'b', 'c']) request.taskqueue.add('/task', { id })
      await sleep(1)
      return store.batches.length
    }))
    t.equal(await (await fetch(url)).text(), '0')
    t.same(store.batches.map(batch => batch.map(({ id }) => id)), [['a', 'b', 'c']])
  })

  t.test('throws after the reply, whether or not the transaction was used before', async t => {
    for (const isUsed of [true, false]) {
      const replied = gate()
      const code = gate<string>()
      const { app, url, store } = await start(t, app => {
        app.addHook('onResponse', async () => { replied.open() })
        app.get('/', (request, reply) => {
          if (isUsed) request.taskqueue.add('/task', { id: 'in-time' })
          reply.send('ok')
          replied.opened.then(() => code.open(codeOf(() => request.taskqueue.add('/task', { id: 'too-late' }))))
        })
      })
      await (await fetch(url)).text()
      t.equal(await code.opened, 'FST_TASKQUEUE_CLOSED')
      await app.close()
      t.same(store.ids, isUsed ? ['in-time'] : [])
    }
  })

  t.test('throws when the request has added 1,000 tasks, those committed by hand counted and those rolled back not', async t => {
    const codes: string[] = []
    const { app, url, store } = await start(t, app => app.get('/', async ({ taskqueue }) => {
      for (let i = 0; i < 600; i++) taskqueue.add('/task')
      await taskqueue.commit()
      for (let i = 0; i < 300; i++) taskqueue.add('/task')
      const savepoint = taskqueue.savepoint()
      for (let i = 0; i < 100; i++) taskqueue.add('/task')
      codes.push(codeOf(() => taskqueue.add('/task')))
      savepoint.rollback()
      for (let i = 0; i < 100; i++) taskqueue.add('/task')
      codes.push(codeOf(() => taskqueue.add('/task')))
      return {}
    }))
    t.equal((await fetch(url)).status, 200)
    t.same(codes, ['FST_TASKQUEUE_TOO_MANY', 'FST_TASKQUEUE_TOO_MANY'])
    t.equal(store.ids.length, 1000)
    await app.taskqueue.transaction(tx => { for (let i = 0; i < 1001; i++) tx.add('/task') })
    t.equal(store.ids.length, 2001, 'and outside of requests there is no such limit')
  })

  t.test('throws in a handler that goes on after its handlerTimeout', async t => {
    const replied = gate()
    const codes = gate<string[]>()
    const { url, store } = await start(t, app => app.get('/', { handlerTimeout: 30 }, async request => {
      request.taskqueue.add('/task')
      await replied.opened
      codes.open([codeOf(() => request.taskqueue.add('/task')), codeOf(() => request.taskqueue.join(participant()))])
      return 'too late'
    }))
    t.equal((await fetch(url)).status, 503)
    replied.open()
    t.same(await codes.opened, ['FST_TASKQUEUE_CLOSED', 'FST_TASKQUEUE_CLOSED'])
    t.same(store.ids, [])
  })
})

t.test('a hijacked reply', async t => {
  t.test('queues what is committed by hand', async t => {
    const { url, store, logs } = await start(t, app => app.get('/', async (request, reply) => {
      reply.hijack()
      request.taskqueue.add('/task', { id: 'a' })
      await request.taskqueue.commit()
      reply.raw.end(`${store.ids}`)
    }))
    t.equal(await (await fetch(url)).text(), 'a')
    t.same(logs, [])
  })

  t.test('learns that a commit has failed', async t => {
    const { url, store } = await start(t, app => app.get('/', async (request, reply) => {
      reply.hijack()
      request.taskqueue.add('/task')
      await request.taskqueue.commit().catch(error => reply.raw.end(`${error.code} ${error.statusCode}`))
    }))
    store.before.prepare = async () => { throw new Error('disk full') }
    t.equal(await (await fetch(url)).text(), 'FST_TASKQUEUE_COMMIT_FAILED 503')
  })

  const ends = { 'reply.hijack()': true, 'reply.raw.end() alone': false }
  for (const [title, isHijacked] of Object.entries(ends)) {
    t.test(`without a commit logs an error, queues nothing and rolls back: ${title}`, async t => {
      const joined = participant()
      const { url, store, logs } = await start(t, app => app.get('/', async (request, reply) => {
        if (isHijacked) reply.hijack()
        request.taskqueue.add('/task')
        request.taskqueue.join(joined)
        reply.raw.end('ok')
        return reply
      }))
      t.equal(await (await fetch(url)).text(), 'ok')
      await until(() => joined.events.length > 0)
      t.match(logs, [{ level: 50, tasks: 2, msg: /without committing .* request\.taskqueue\.commit\(\)/ }])
      t.same({ stored: store.ids, joined: joined.events }, { stored: [], joined: ['rollback'] })
    })
  }

  t.test('adds nothing after its end', async t => {
    const replied = gate()
    const code = gate<string>()
    const { url, logs } = await start(t, app => {
      app.addHook('onResponse', async () => { replied.open() })
      app.get('/', async (request, reply) => {
        reply.hijack()
        reply.raw.end('ok')
        await replied.opened
        code.open(codeOf(() => request.taskqueue.add('/task')))
      })
    })
    await fetch(url)
    t.equal(await code.opened, 'FST_TASKQUEUE_CLOSED')
    t.same(logs, [])
  })
})

t.test('a commit by hand', async t => {
  t.test('queues at once, and leaves the transaction open', async t => {
    const { url, store } = await start(t, app => app.get('/', async request => {
      request.taskqueue.add('/task', { id: 'a' })
      await request.taskqueue.commit()
      request.taskqueue.add('/task', { id: 'b' })
      return `${store.ids}`
    }))
    t.equal(await (await fetch(url)).text(), 'a')
    t.same(store.batches.map(batch => batch.map(({ id }) => id)), [['a'], ['b']])
  })

  t.test('keeps its tasks queued though the request fails, and only its own', async t => {
    const { url, store } = await start(t, app => app.get('/', async request => {
      request.taskqueue.add('/task', { id: 'a' })
      await request.taskqueue.commit()
      request.taskqueue.add('/task', { id: 'b' })
      throw new Error('no')
    }))
    t.equal((await fetch(url)).status, 500)
    t.same(store.ids, ['a'])
  })

  t.test('with nothing to commit asks no store', async t => {
    const { url, store } = await start(t, app => app.get('/', async request => { await request.taskqueue.commit() }))
    t.equal((await fetch(url)).status, 200)
    t.same(store.events, [])
  })
})

t.test('a rollback by hand drops what was added, rolls back who has joined, and leaves the transaction open', async t => {
  const joined = participant()
  const { url, store } = await start(t, app => app.get('/', async request => {
    request.taskqueue.add('/task', { id: 'a' })
    request.taskqueue.join(joined)
    await request.taskqueue.rollback()
    request.taskqueue.add('/task', { id: 'b' })
    return 'ok'
  }))
  t.equal((await fetch(url)).status, 200)
  t.same({ stored: store.ids, joined: joined.events }, { stored: ['b'], joined: ['rollback'] })
})

t.test('a savepoint', async t => {
  const gone = 'FST_TASKQUEUE_INVALID_SAVEPOINT'
  const cases: Record<string, { run: (tx: Transaction) => unknown, stored: string[] }> = {
    'keeps what came before and drops what came after': {
      run: tx => {
        add(tx, 'a')
        const savepoint = tx.savepoint()
        add(tx, 'b', 'c')
        savepoint.rollback()
        add(tx, 'd')
      },
      stored: ['a', 'd']
    },
    'at the beginning drops everything': {
      run: tx => {
        const savepoint = tx.savepoint()
        add(tx, 'a', 'b')
        savepoint.rollback()
      },
      stored: []
    },
    'that is not rolled back changes nothing': { run: tx => { add(tx, 'a'); tx.savepoint(); add(tx, 'b') }, stored: ['a', 'b'] },
    'can be rolled back again': {
      run: tx => {
        add(tx, 'a')
        const savepoint = tx.savepoint()
        for (const id of ['b', 'c']) {
          add(tx, id)
          savepoint.rollback()
        }
      },
      stored: ['a']
    },
    'stands after one within it was rolled back': {
      run: tx => {
        const outer = tx.savepoint()
        add(tx, 'a')
        const inner = tx.savepoint()
        add(tx, 'b')
        inner.rollback()
        add(tx, 'c')
        outer.rollback()
        add(tx, 'd')
      },
      stored: ['d']
    },
    'is gone once an earlier one was rolled back': {
      run: tx => {
        const outer = tx.savepoint()
        add(tx, 'a')
        const inner = tx.savepoint()
        outer.rollback()
        t.equal(codeOf(inner.rollback), gone)
        // As many tasks as there were, but others.
        add(tx, 'b')
        t.equal(codeOf(inner.rollback), gone)
      },
      stored: ['b']
    },
    'is gone after a commit': {
      run: async tx => {
        add(tx, 'a')
        const savepoint = tx.savepoint()
        await tx.commit()
        add(tx, 'b')
        t.equal(codeOf(savepoint.rollback), gone)
      },
      stored: ['a', 'b']
    },
    'is gone after a rollback': {
      run: async tx => {
        add(tx, 'a')
        const savepoint = tx.savepoint()
        await tx.rollback()
        add(tx, 'b')
        t.equal(codeOf(savepoint.rollback), gone)
      },
      stored: ['b']
    }
  }
  for (const [title, { run, stored }] of Object.entries(cases)) {
    t.test(title, async t => {
      const { url, store } = await start(t, app => app.get('/', async request => { await run(request.taskqueue) }))
      t.equal((await fetch(url)).status, 200)
      t.same(store.ids, stored)
    })
  }

  t.test('of a request that was answered is gone', async t => {
    let savepoint: Savepoint | undefined
    const { url, store } = await start(t, app => app.get('/', async request => {
      add(request.taskqueue, 'a')
      savepoint = request.taskqueue.savepoint()
      return 'ok'
    }))
    await fetch(url)
    t.equal(codeOf(savepoint!.rollback), gone)
    t.same(store.ids, ['a'])
  })
})

t.test('outside a request', async t => {
  t.test('app.taskqueue.add() queues at once', async t => {
    const { app, store } = await start(t)
    const id = await app.taskqueue.add('/task')
    t.same(store.ids, [id])
  })

  t.test('app.taskqueue.add() rejects when the task cannot be stored, or is none', async t => {
    const { app, store } = await start(t)
    await t.rejects(app.taskqueue.add('task'), { code: 'FST_TASKQUEUE_INVALID_URL' })
    store.before.prepare = async () => { throw new Error('disk full') }
    await t.rejects(app.taskqueue.add('/task'), { code: 'FST_TASKQUEUE_COMMIT_FAILED', statusCode: 503, cause: { message: 'disk full' } })
    store.before.prepare = () => new Promise(() => {})
    await t.rejects(app.taskqueue.add('/task'), { code: 'FST_TASKQUEUE_COMMIT_FAILED', cause: { message: /100 ms/ } })
    t.same(store.ids, [])
  })

  t.test('app.taskqueue.transaction() queues what its function has added, and returns what it returns', async t => {
    const { app, store } = await start(t)
    const joined = participant()
    const result = await app.taskqueue.transaction(async tx => {
      add(tx, 'a')
      tx.join(joined)
      await sleep(1)
      add(tx, 'b')
      t.same(store.ids, [])
      return 'result'
    })
    t.equal(result, 'result')
    t.same(store.batches.map(batch => batch.map(({ id }) => id)), [['a', 'b']])
    t.same(joined.events, ['prepare', 'commit'])
  })

  t.test('app.taskqueue.addAll() adds tasks of 64 MiB together, and rejects, with none of them queued, when there is more', async t => {
    const { app } = await serve(t, { declare () {}, taskqueue: { consumer: false } })
    await app.ready()
    const tasks = (count: number) => Array.from({ length: count }, () => ({ url: '/task', payload: 'x'.repeat(1024 * 1023) }))
    await t.rejects(app.taskqueue.addAll(tasks(65)), {
      code: 'FST_TASKQUEUE_TOO_LARGE', message: /^The messages of one commit must be at most 67108864 characters together, got 680/
    })
    t.match(await app.taskqueue.queue('default').counts(), { waiting: 0 })
    await app.taskqueue.addAll(tasks(64))
    t.match(await app.taskqueue.queue('default').counts(), { waiting: 64 })
  })

  t.test('app.taskqueue.transaction() queues nothing when its function fails, and rejects with its error', async t => {
    const { app, store } = await start(t)
    const runs = [(tx: Transaction) => { add(tx, 'a'); throw new Error('no') }, async (tx: Transaction) => { add(tx, 'a'); throw new Error('no') }]
    for (const run of runs) {
      const joined = participant()
      await t.rejects(app.taskqueue.transaction(tx => { tx.join(joined); return run(tx) }), { message: 'no' })
      t.same(joined.events, ['rollback'])
    }
    t.same(store.ids, [])
  })

  t.test('app.taskqueue.transaction() keeps what its function has committed by hand', async t => {
    const { app, store } = await start(t)
    await t.rejects(app.taskqueue.transaction(async tx => {
      add(tx, 'a')
      await tx.commit()
      add(tx, 'b')
      throw new Error('no')
    }), { message: 'no' })
    t.same(store.ids, ['a'])
  })

  t.test('app.taskqueue.transaction() takes nothing more once its function has ended', async t => {
    const { app, store } = await start(t)
    let ended: Transaction | undefined
    await app.taskqueue.transaction(tx => { ended = tx })
    t.equal(codeOf(() => ended!.add('/task')), 'FST_TASKQUEUE_CLOSED')
    await t.rejects(app.taskqueue.transaction(tx => { ended = tx; throw new Error('no') }), { message: 'no' })
    t.equal(codeOf(() => ended!.join(participant())), 'FST_TASKQUEUE_CLOSED')
    t.same(store.events, [])
  })
})

/** An app that keeps its tasks in a store which records them, and runs none. */
async function start (t: Test, declare?: (app: FastifyInstance) => unknown) {
  const store = new RecordingStore()
  const served = await serve(t, {
    declare, taskqueue: { queues: { default: { type: () => store } }, consumer: false, commitTimeoutMs: 100 }
  })
  return { ...served, store }
}

function add (tx: Transaction, ...ids: string[]): void {
  for (const id of ids) tx.add('/task', { id })
}

function participant () {
  const events: string[] = []
  return {
    events,
    prepare () { events.push('prepare') },
    commit () { events.push('commit') },
    rollback () { events.push('rollback') }
  }
}

function codeOf (run: () => unknown): string {
  try {
    return `nothing thrown, but ${run()} returned`
  } catch (error) {
    return (error as { code: string }).code
  }
}
