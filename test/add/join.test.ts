import { Readable } from 'node:stream'
import type { FastifyInstance } from 'fastify'
import t, { type Test } from 'tap'
import type { Participant, QueueOptions, Transaction } from '../../lib/index.js'
import { RecordingStore } from '../support/recording-store.js'
import { serve } from '../support/serve.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

// The tests write down in one list what stores and participants are asked to do, in order.

const oneStore = { default: 'store' }

t.test('a request that succeeds', async t => {
  t.test('has stores prepare, participants prepare, participants commit, and stores commit', async t => {
    const { url, events, join } = await start(t, oneStore, tx => {
      tx.join(join('db'))
      tx.add('/task', { id: 'a' })
      tx.join(join('bank'))
      tx.add('/task', { id: 'b' })
    })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['store prepares a, b', 'db prepares', 'bank prepares', 'db commits', 'bank commits', 'store commits a, b'])
  })

  t.test('waits for each step of a participant before the next', async t => {
    const { url, events } = await start(t, oneStore, tx => {
      const slow = (what: string) => async () => {
        await new Promise(setImmediate)
        events.push(what)
      }
      tx.join({ prepare: slow('prepared'), commit: slow('committed'), rollback: slow('rolled back') })
      tx.add('/task', { id: 'a' })
    })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['store prepares a', 'prepared', 'committed', 'store commits a'])
  })

  t.test('commits a participant though no task was added, and one that need not prepare', async t => {
    const { url, events, join } = await start(t, oneStore, tx => {
      const { commit, rollback } = join('db')
      tx.join({ commit, rollback })
    })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['db commits'])
  })

  t.test('calls the methods of a participant as methods', async t => {
    const db = { state: 'open', commit () { this.state = 'committed' }, rollback () { this.state = 'rolled back' } }
    const { url } = await start(t, oneStore, tx => { tx.join(db) })
    await fetch(url)
    t.equal(db.state, 'committed')
  })

  t.test('stores what it adds to several queues of one store in one call', async t => {
    const { url, events } = await start(t, { mail: 'store', reports: 'store' }, tx => {
      tx.add('/task', { id: 'a', queue: 'mail' })
      tx.add('/task', { id: 'b', queue: 'reports' })
      tx.add('/task', { id: 'c', queue: 'mail' })
    })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['store prepares a, b, c', 'store commits a, b, c'])
  })

  t.test('has all of several stores prepare before any of them commits', async t => {
    const { url, events } = await start(t, { mail: 'first', reports: 'second' }, tx => {
      tx.add('/task', { id: 'a', queue: 'mail' })
      tx.add('/task', { id: 'b', queue: 'reports' })
    })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['first prepares a', 'second prepares b', 'first commits a', 'second commits b'])
  })

  t.test('asks only the stores that it adds tasks to', async t => {
    const { url, events } = await start(t, { mail: 'first', reports: 'second' }, tx => { tx.add('/task', { id: 'b', queue: 'reports' }) })
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['second prepares b', 'second commits b'])
  })

  t.test('has committed participants by the time of a commit by hand, and leaves them alone afterwards', async t => {
    const { url, events, join } = await start(t, oneStore, async tx => {
      tx.join(join('db'))
      tx.add('/task', { id: 'a' })
      await tx.commit()
      throw new Error('no')
    })
    t.equal((await fetch(url)).status, 500)
    t.same(events, ['store prepares a', 'db prepares', 'db commits', 'store commits a'])
  })
})

t.test('a request that fails', async t => {
  t.test('rolls participants back and asks no store', async t => {
    const { url, events, join } = await start(t, oneStore, tx => {
      tx.join(join('db'))
      tx.join(join('bank'))
      tx.add('/task')
      throw new Error('no')
    })
    t.equal((await fetch(url)).status, 500)
    t.same(events, ['db rolls back', 'bank rolls back'])
  })

  t.test('rolls participants back when it is answered with an error status', async t => {
    const { url, events, join } = await start(t, oneStore, (tx, reply) => {
      tx.join(join('db'))
      tx.add('/task')
      reply.code(409)
    })
    t.equal((await fetch(url)).status, 409)
    t.same(events, ['db rolls back'])
  })

  t.test('rolls participants back though the error handler recovers, before that joins others', async t => {
    const { url, events, join } = await start(t, oneStore, tx => {
      tx.join(join('db'))
      throw new Error('no')
    }, app => app.setErrorHandler(async (_error, request) => {
      request.taskqueue.join(join('log'))
      return 'recovered'
    }))
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['db rolls back', 'log prepares', 'log commits'])
  })

  t.test('rolls participants back when its client leaves before a stream has begun to answer', async t => {
    const begun = gate()
    const { url, events, join } = await start(t, oneStore, tx => {
      tx.join(join('db'))
      tx.add('/task')
      begun.open()
      return new Readable({ read () {} })
    })
    const controller = new AbortController()
    const response = fetch(url, { signal: controller.signal })
    await begun.opened
    setImmediate(() => setImmediate(() => { controller.abort() }))
    await t.rejects(response)
    await until(() => events.length > 0)
    t.same(events, ['db rolls back'])
  })

  t.test('may take its time to roll back while its handler goes on', async t => {
    const ended = gate()
    const { url, events } = await start(t, oneStore, async tx => {
      tx.add('/task')
      tx.join({
        commit () {},
        async rollback () {
          events.push('rolls back')
          await ended.opened
        }
      })
      // Goes on when the timeout has begun to roll back.
      await until(() => events.length > 0)
      setImmediate(() => setImmediate(ended.open))
    }, undefined, { handlerTimeout: 30 })
    t.equal((await fetch(url)).status, 503)
    t.same(events, ['rolls back'])
  })

  t.test('logs a rollback that throws, and hides neither its own error nor other rollbacks', async t => {
    const { url, events, join, logs } = await start(t, oneStore, tx => {
      tx.join(join('db', { rollback: 'connection lost' }))
      tx.join(join('bank'))
      throw new Error('no')
    })
    const response = await fetch(url)
    t.match(await response.json(), { statusCode: 500, message: 'no' })
    t.same(events, ['db rolls back', 'bank rolls back'])
    t.match(logs.filter(({ err }) => err?.message !== 'no'), [{ level: 50, err: { message: 'connection lost' } }])
  })
})

t.test('a commit that fails', async t => {
  const cases: Record<string, {
    before?: RecordingStore['before'], db?: Failing, bank?: Failing, status: number, answer: object, events: string[]
  }> = {
    'because a store does not prepare rolls everybody back and answers 503': {
      before: { prepare: async () => { throw new Error('read only') } },
      status: 503,
      answer: { code: 'FST_TASKQUEUE_COMMIT_FAILED', message: 'The tasks could not be queued' },
      events: ['store prepares a', 'db rolls back', 'bank rolls back']
    },
    'because a store does not prepare in time rolls everybody back and answers 503': {
      before: { prepare: () => new Promise(() => {}) },
      status: 503,
      answer: { code: 'FST_TASKQUEUE_COMMIT_FAILED' },
      events: ['store prepares a', 'db rolls back', 'bank rolls back']
    },
    'because a participant cannot prepare rolls everybody back and answers its error': {
      bank: { prepare: 'no money' },
      status: 500,
      answer: { message: 'no money' },
      events: ['store prepares a', 'db prepares', 'bank prepares', 'store rolls back a', 'db rolls back', 'bank rolls back']
    },
    'in the first participant rolls both back': {
      db: { commit: 'constraint' },
      status: 500,
      answer: { message: 'constraint' },
      events: ['store prepares a', 'db prepares', 'bank prepares', 'db commits', 'store rolls back a', 'db rolls back', 'bank rolls back']
    },
    'in the second participant rolls that back, and not the first, which has committed': {
      bank: { commit: 'constraint' },
      status: 500,
      answer: { message: 'constraint' },
      events: ['store prepares a', 'db prepares', 'bank prepares', 'db commits', 'bank commits', 'store rolls back a', 'bank rolls back']
    },
    'in the store, after it has prepared, rolls back nobody, since all have committed': {
      before: { commit: async () => { throw new Error('disk full') } },
      status: 503,
      answer: { code: 'FST_TASKQUEUE_COMMIT_FAILED' },
      events: ['store prepares a', 'db prepares', 'bank prepares', 'db commits', 'bank commits', 'store commits a']
    }
  }
  for (const [title, { before = {}, db, bank, status, answer, events: expected }] of Object.entries(cases)) {
    t.test(title, async t => {
      const { url, events, join, stores } = await start(t, oneStore, tx => {
        tx.join(join('db', db))
        tx.join(join('bank', bank))
        tx.add('/task', { id: 'a' })
      })
      stores.store!.before = before
      const response = await fetch(url)
      t.equal(response.status, status)
      t.match(await response.json(), answer)
      t.same(events, expected)
      t.same(stores.store!.ids, [])
    })
  }

  t.test('because one of several stores does not prepare rolls the other back', async t => {
    const { url, events, stores } = await start(t, { mail: 'first', reports: 'second' }, tx => {
      tx.add('/task', { id: 'a', queue: 'mail' })
      tx.add('/task', { id: 'b', queue: 'reports' })
    })
    stores.second!.before.prepare = async () => { throw new Error('read only') }
    t.equal((await fetch(url)).status, 503)
    t.same(events, ['first prepares a', 'second prepares b', 'first rolls back a'])
  })

  t.test('by hand leaves nothing to be committed later', async t => {
    const { url, events, join, stores } = await start(t, oneStore, async tx => {
      tx.join(join('db'))
      tx.add('/task', { id: 'a' })
      await tx.commit().catch(() => {})
      tx.add('/task', { id: 'b' })
      delete stores.store!.before.prepare
    })
    stores.store!.before.prepare = async () => { throw new Error('read only') }
    t.equal((await fetch(url)).status, 200)
    t.same(events, ['store prepares a', 'db rolls back', 'store prepares b', 'store commits b'])
  })

  t.test('outside a request rolls everybody back and rejects', async t => {
    const { app, events, join, stores } = await start(t, oneStore, () => {})
    stores.store!.before.prepare = async () => { throw new Error('read only') }
    await t.rejects(app.taskqueue.transaction(tx => {
      tx.join(join('db'))
      tx.add('/task', { id: 'a' })
    }), { code: 'FST_TASKQUEUE_COMMIT_FAILED' })
    t.same(events, ['store prepares a', 'db rolls back'])
  })
})

t.test('refuses what is no participant, by an error that names what is missing', async t => {
  const noop = () => {}
  const wrong: Record<string, unknown> = {
    'join prepare': { prepare: true, commit: noop, rollback: noop },
    'join commit': { rollback: noop },
    'join rollback': { commit: noop, rollback: null }
  }
  const { app } = await start(t, oneStore, () => {})
  for (const [option, participant] of [...Object.entries(wrong), ['join commit', undefined], ['join commit', null], ['join commit', 'db']] as const) {
    await t.rejects(app.taskqueue.transaction(tx => { tx.join(participant as Participant) }), {
      code: 'FST_TASKQUEUE_INVALID_OPTION', message: new RegExp(`'${option}' must be a function`)
    })
  }
})

/** What a step of a participant fails with. */
type Failing = Partial<Record<keyof Participant, string>>

/** An app with a route GET / that uses its transaction as told, and queues in stores of these names. */
async function start (
  t: Test,
  queues: Record<string, string>,
  handler: (tx: Transaction, reply: { code (status: number): unknown }) => unknown,
  declare?: (app: FastifyInstance) => unknown,
  route: { handlerTimeout?: number } = {}
) {
  const events: string[] = []
  const stores: Record<string, RecordingStore> = {}
  const queueOf = (name: string): QueueOptions => {
    const store = stores[name] ??= new RecordingStore(name, events)
    return { type: () => store }
  }
  const served = await serve(t, {
    declare: async app => {
      await declare?.(app)
      app.get('/', route, async (request, reply) => {
        return await handler(request.taskqueue, reply) ?? 'ok'
      })
    },
    taskqueue: {
      queues: Object.fromEntries(Object.entries(queues).map(([queue, name]) => [queue, queueOf(name)])),
      consumer: false,
      commitTimeoutMs: 100
    }
  })
  const join = (name: string, failing: Failing = {}) => {
    const step = (what: keyof Participant, done: string) => async () => {
      events.push(`${name} ${done}`)
      if (failing[what] !== undefined) throw new Error(failing[what])
    }
    return { prepare: step('prepare', 'prepares'), commit: step('commit', 'commits'), rollback: step('rollback', 'rolls back') }
  }
  return { ...served, events, stores, join }
}
