import { once } from 'node:events'
import { createReadStream } from 'node:fs'
import { connect } from 'node:net'
import { Readable } from 'node:stream'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import t, { type Test } from 'tap'
import { RecordingStore } from '../support/recording-store.js'
import { serve } from '../support/serve.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

// How a request may end, and what becomes of the task that its handler has added.

interface Ending {
  handler: (this: FastifyInstance, request: FastifyRequest, reply: FastifyReply) => unknown
  /** How the handler comes to be called; by a route GET / unless given. */
  declare?: (app: FastifyInstance, handler: Ending['handler']) => unknown
  /** Whether that is before the plugin is registered. */
  early?: boolean
  init?: RequestInit
  status?: number
  body?: string
}

const successes: Record<string, Ending> = {
  'an object': { handler: async () => ({ ok: true }), body: '{"ok":true}' },
  'a string': { handler: async () => 'ok', body: 'ok' },
  null: { handler: async () => null, body: 'null' },
  nothing: { handler: (_request, reply) => { reply.send() } },
  'a Buffer': { handler: async () => Buffer.from('bytes'), body: 'bytes' },
  'a stream': { handler: async () => Readable.from(['a', 'b']), body: 'ab' },
  'an empty stream': { handler: async () => Readable.from([]) },
  'a web stream': { handler: async () => new Response('web').body, body: 'web' },
  'a Response with 201': { handler: async () => new Response('made', { status: 201 }), status: 201, body: 'made' },
  204: { handler: async (_request, reply) => reply.code(204).send(), status: 204 },
  302: { handler: async (_request, reply) => reply.redirect('/elsewhere'), status: 302 },
  304: { handler: async (_request, reply) => reply.code(304).send(), status: 304 },
  'the head of a GET route': { handler: async () => ({ ok: true }), init: { method: 'HEAD' } },
  'reply.send() in an async handler that returns nothing': { handler: async (_request, reply) => { reply.send({ ok: true }) }, body: '{"ok":true}' },
  'reply.send() in a sync handler': { handler: (_request, reply) => { reply.send('ok') }, body: 'ok' },
  'the first of two reply.send()': { handler: (_request, reply) => { reply.send('first').send('second') }, body: 'first' },
  'a stream, and then another reply.send()': { handler: (_request, reply) => { reply.send(Readable.from(['first'])).send('second') }, body: 'first' },
  'a 200 of the 404 handler': { handler: async () => 'home', declare: (app, handler) => { app.setNotFoundHandler(handler) }, body: 'home' },
  'a route of a child plugin': { handler: async () => 'child', declare: (app, handler) => app.register(async child => { child.get('/', handler) }), body: 'child' },
  'a route declared before the plugin': { handler: async () => 'early', early: true, body: 'early' },
  'a payload replaced by an onSend hook': {
    handler: async () => 'plain',
    declare: (app, handler) => { app.get('/', { onSend: async (_request, _reply, payload) => payload === 'plain' ? '<plain>' : payload }, handler) },
    body: '<plain>'
  }
}

const fail = async () => { throw new Error('too late') }

const failures: Record<string, Ending> = {
  'a throw in an async handler': { handler: async () => { throw new Error('no') } },
  'a throw in a sync handler': { handler: () => { throw new Error('no') } },
  'reply.send(error)': { handler: (_request, reply) => { reply.send(new Error('no')) } },
  'an error with a status': { handler: async () => { throw Object.assign(new Error('no'), { statusCode: 409 }) }, status: 409 },
  'code(400)': { handler: async (_request, reply) => reply.code(400).send({ error: 'no' }), status: 400 },
  'a Response with 422': { handler: async () => new Response('no', { status: 422 }), status: 422 },
  'callNotFound()': { handler: (_request, reply) => { reply.callNotFound() }, status: 404 },
  'a route declared before the plugin that throws': { handler: fail, early: true },
  'a 404 handler that throws': { handler: fail, declare: (app, handler) => { app.setNotFoundHandler(handler) } },
  'a request that does not validate': {
    handler: async () => 'never',
    declare: (app, handler) => {
      const schema = { querystring: { type: 'object', required: ['q'], properties: { q: { type: 'string' } } } }
      app.get('/', { schema, preValidation: async (request, reply) => { handler.call(app, request, reply) } }, async () => 'never')
    },
    status: 400
  },
  'a response that its schema cannot serialise': {
    handler: async () => ({}),
    declare: (app, handler) => {
      app.get('/', { schema: { response: { 200: { type: 'object', required: ['id'], properties: { id: { type: 'string' } } } } } }, handler)
    }
  },
  'circular JSON': {
    handler: async () => {
      const payload: { self?: object } = {}
      payload.self = payload
      return payload
    }
  },
  'a preSerialization hook that throws': { handler: async () => ({}), declare: (app, handler) => { app.get('/', { preSerialization: fail }, handler) } },
  'an onSend hook of the app that throws': { handler: async () => 'ok', declare: declareAfter(app => app.addHook('onSend', fail)) },
  'an onSend hook declared after the route that throws': {
    handler: async () => 'ok',
    declare: (app, handler) => {
      app.get('/', handler)
      app.addHook('onSend', fail)
    }
  },
  'an onSend hook declared before the plugin that throws': { handler: async () => 'ok', early: true, declare: declareAfter(app => app.addHook('onSend', fail)) },
  'an onSend hook of a child plugin that throws': {
    handler: async () => 'ok',
    declare: (app, handler) => app.register(async child => {
      child.addHook('onSend', fail)
      child.get('/', handler)
    })
  },
  'an onSend hook of the route that throws': { handler: async () => 'ok', declare: (app, handler) => { app.get('/', { onSend: fail }, handler) } },
  'a header value that cannot be sent': { handler: async (_request, reply) => reply.header('x-bad', 'a\nb').send('ok') },
  'a header name that cannot be sent': { handler: async (_request, reply) => reply.header('x bad', 'a').send('ok') },
  'a payload that cannot be sent': { handler: async (_request, reply) => reply.type('text/plain').send(5) },
  'a Uint8Array from an onSend hook, which Fastify does not send': {
    handler: async () => 'ok',
    declare: (app, handler) => { app.get('/', { onSend: async (_request, _reply, payload) => payload === 'ok' ? new Uint8Array(2) : payload }, handler) }
  },
  'a stream that fails before its first byte': { handler: async () => createReadStream('/does/not/exist') },
  'a stream that has failed already': {
    handler: async () => {
      const stream = createReadStream('/does/not/exist')
      await once(stream, 'error')
      return stream
    }
  },
  'a web stream that fails before its first chunk': { handler: async () => failingWebStream() },
  'a locked web stream': { handler: async () => locked(new Response('ok').body!) },
  'a Response whose body fails before its first chunk': { handler: async () => new Response(failingWebStream()) },
  'a Response whose body is used': {
    handler: async () => {
      const response = new Response('ok')
      await response.text()
      return response
    }
  },
  'a Response whose body is locked': {
    handler: async () => {
      const response = new Response('ok')
      locked(response.body!)
      return response
    }
  },
  'a handler that takes longer than its handlerTimeout': {
    handler: () => new Promise(() => {}),
    declare: (app, handler) => { app.get('/', { handlerTimeout: 30 }, handler) },
    status: 503
  }
}

t.test('queues the task of a request that succeeds, before its answer leaves', async t => {
  for (const [title, ending] of Object.entries(successes)) {
    t.test(title, async t => {
      const { status, body, stored, counts, late, logs } = await request(t, ending)
      t.same({ status, body, stored, counts }, {
        status: ending.status ?? 200, body: ending.body ?? '', stored: ['task'], counts: { waiting: 1, delayed: 0, running: 0, dead: 0 }
      })
      t.equal(await late, 'FST_TASKQUEUE_CLOSED', 'nothing can be added any more')
      t.same(logs.filter(({ level }) => level >= 50), [])
    })
  }
})

t.test('queues what a route adds of a plugin that was there before, and answers its others', async t => {
  const { app, url } = await serve(t, {
    before: app => {
      app.register(async child => {
        child.get('/', async () => ({}))
        child.get('/add', async ({ taskqueue }) => ({ id: taskqueue.add('/task') }))
      })
    },
    taskqueue: { consumer: false }
  })
  t.equal((await fetch(url)).status, 200)
  t.equal((await fetch(`${url}/add`)).status, 200)
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 1 })
})

t.test('queues nothing for a request that fails, however late', async t => {
  for (const [title, ending] of Object.entries(failures)) {
    t.test(title, async t => {
      const { app, status, stored, counts, late, store } = await request(t, ending)
      t.same({ status, stored, counts }, { status: ending.status ?? 500, stored: [], counts: { waiting: 0, delayed: 0, running: 0, dead: 0 } })
      t.equal(await late, 'FST_TASKQUEUE_CLOSED', 'nothing can be added any more')
      await app.close()
      t.same(store.ids, [], 'and nothing is queued later')
    })
  }
})

t.test('answers 503 in place of a success that cannot be stored', async t => {
  const stores = { 'rejects the tasks': async () => { throw new Error('disk full') }, 'never answers': () => new Promise<void>(() => {}) }
  for (const [how, add] of Object.entries(stores)) {
    for (const [title, ending] of Object.entries(successes)) {
      t.test(`a store that ${how}, ${title}`, async t => {
        const store = new RecordingStore()
        store.before.prepare = add
        const own = { location: '/made', etag: '"1"', 'x-order': '1', 'set-cookie': 'paid=1' }
        const { status, headers, body, stored, late } = await request(t, {
          ...ending,
          handler (request, reply) {
            reply.headers(own)
            return ending.handler.call(this, request, reply)
          }
        }, store)
        t.same({ status, stored }, { status: 503, stored: [] })
        if (ending.init?.method !== 'HEAD') t.match(JSON.parse(body), { statusCode: 503, code: 'FST_TASKQUEUE_COMMIT_FAILED' })
        for (const name of Object.keys(own)) t.notOk(headers.has(name), `without the header ${name} of the reply it replaces`)
        t.equal(headers.get('access-control-allow-origin'), '*', 'with that of a hook')
        t.equal(headers.get('content-type'), 'application/json; charset=utf-8')
        t.equal(await late, 'FST_TASKQUEUE_CLOSED')
      })
    }
  }
})

t.test('lets go of what it does not send when the commit fails', async t => {
  const cancelled = gate<string>()
  const web = () => new ReadableStream({ pull (c) { c.enqueue('x') }, cancel () { cancelled.open('cancelled') } })
  const endings: Record<string, { payload: unknown, closed: Promise<unknown> }> = {
    'a stream': (() => {
      const payload = new Readable({ read () { this.push('x') } })
      return { payload, closed: once(payload, 'close') }
    })(),
    'a web stream': { payload: web(), closed: cancelled.opened },
    'a Response': { payload: new Response(web()), closed: cancelled.opened }
  }
  for (const [title, { payload, closed }] of Object.entries(endings)) {
    t.test(title, async t => {
      const store = new RecordingStore()
      store.before.prepare = fail
      t.equal((await request(t, { handler: async () => payload }, store)).status, 503)
      await t.resolves(closed)
    })
  }
})

t.test("leaves a failed commit to the app's error handler", async t => {
  const store = new RecordingStore()
  store.before.prepare = fail
  const { status, body, stored } = await request(t, {
    handler: async () => 'ok',
    declare: (app, handler) => {
      app.setErrorHandler(async (error: Error & { code: string }, _request, reply) => reply.code(507).send(`sorry: ${error.code}`))
      app.get('/', handler)
    }
  }, store)
  t.same({ status, body, stored }, { status: 507, body: 'sorry: FST_TASKQUEUE_COMMIT_FAILED', stored: [] })
})

t.test('queues what the error handler adds once a commit has failed', async t => {
  const store = new RecordingStore()
  store.before.prepare = fail
  const { status, stored } = await request(t, {
    handler: async () => 'ok',
    declare: (app, handler) => {
      app.setErrorHandler(async (_error, request) => {
        store.before = {}
        return request.taskqueue.add('/task', { id: 'recovered' })
      })
      app.get('/', handler)
    }
  }, store)
  t.same({ status, stored }, { status: 200, stored: ['recovered'] })
})

t.test('drops the task of a handler from which the error handler recovers, and queues those of the error handler', async t => {
  const { status, body, stored } = await request(t, {
    handler: fail,
    declare: (app, handler) => {
      app.setErrorHandler(async (_error, request) => request.taskqueue.add('/task', { id: 'recovered' }))
      app.get('/', handler)
    }
  })
  t.same({ status, body, stored }, { status: 200, body: 'recovered', stored: ['recovered'] })
})

t.test('queues what hooks of the reply have added', async t => {
  const { status, stored } = await request(t, {
    handler: async () => ({}),
    declare: (app, handler) => {
      app.addHook('onSend', async request => { request.taskqueue.add('/task', { id: 'onSend' }) })
      app.get('/', { preSerialization: async request => { request.taskqueue.add('/task', { id: 'preSerialization' }) } }, handler)
    }
  })
  t.same({ status, stored }, { status: 200, stored: ['task', 'preSerialization', 'onSend'] })
})

t.test('queues the task of a request whose client has gone away meanwhile', async t => {
  const handled = gate<FastifyRequest>()
  const gone = gate()
  const { app, socket, store } = await converse(t, {
    handler: async request => {
      handled.open(request)
      await gone.opened
      return 'nobody listens'
    }
  })
  const { raw } = await handled.opened
  raw.socket.once('close', gone.open)
  socket.destroy()
  await until(() => store.ids.length > 0)
  t.same(store.ids, ['task'])
  t.equal(await app.taskqueue.queue('default').length(), 1)
})

t.test('queues the task of a stream that fails after its first byte, and breaks off the answer', async t => {
  const sent = gate()
  const streams: Record<string, () => unknown> = {
    'once that is sent': () => Readable.from((async function * () {
      yield 'x'
      await sent.opened
      throw new Error('broken')
    })()),
    'during the commit': () => {
      let reads = 0
      return new Readable({ read () { if (reads++ === 0) this.push('x'); else this.destroy(new Error('broken')) } })
    }
  }
  for (const [title, stream] of Object.entries(streams)) {
    t.test(title, async t => {
      const { url, store } = await start(t, { handler: async () => stream() })
      await t.rejects(fetch(url).then(async response => {
        sent.open()
        t.equal(response.status, 200)
        await response.text()
      }))
      t.same(store.ids, ['task'])
    })
  }
})

t.test('answers as its tasks fare when an error comes while they are committed', async t => {
  const late: Record<string, Ending> = {
    'a throw': { handler: (_request, reply) => { reply.send('ok'); throw new Error('too late') } },
    'a throw of an async handler': { handler: async (_request, reply) => { reply.send('ok'); throw new Error('too late') } },
    'an error that is sent': { handler: (_request, reply) => { reply.send('ok').send(new Error('too late')) } },
    'a handlerTimeout': { handler: async () => 'ok', declare: (app, handler) => { app.get('/', { handlerTimeout: 50 }, handler) } }
  }
  for (const [title, ending] of Object.entries(late)) {
    t.test(`${title}, and the commit succeeds`, async t => {
      const store = new RecordingStore()
      store.before.prepare = () => sleep(75)
      const { status, body, stored } = await request(t, ending, store)
      t.same({ status, body, stored }, { status: 200, body: 'ok', stored: ['task'] })
    })
    t.test(`${title}, and the commit fails`, async t => {
      const store = new RecordingStore()
      store.before.prepare = async () => { await sleep(75); throw new Error('disk full') }
      const { status, body, stored } = await request(t, ending, store)
      t.ok(status >= 500, 'an error')
      t.not(body, 'ok')
      t.same(stored, [])
    })
  }
})

t.test('lets go of a stream that has sent nothing when a handlerTimeout answers, and queues nothing', async t => {
  const stream = new Readable({ read () {} })
  const { status, stored } = await request(t, {
    handler: async () => stream,
    declare: (app, handler) => { app.get('/', { handlerTimeout: 50 }, handler) }
  })
  t.equal(status, 503)
  stream.push('too late')
  await until(() => stream.destroyed)
  t.same(stored, [])
})

t.test('lets go of a stream that opens while an error is answered, and queues nothing', async t => {
  const stream = new Readable({ read () {} })
  const { status, body, stored } = await request(t, {
    handler: async (_request, reply) => {
      reply.send(stream)
      throw new Error('after all')
    },
    declare: (app, handler) => {
      app.setErrorHandler(async (_error, _request, reply) => {
        stream.push('too late')
        await until(() => stream.destroyed)
        return reply.code(500).send('an error')
      })
      app.get('/', handler)
    }
  })
  t.strictSame([status, body, stored], [500, 'an error', []])
})

t.test('sends nothing of a success that a handlerTimeout has overtaken', async t => {
  const store = new RecordingStore()
  store.before.prepare = () => new Promise(() => {})
  const { socket, received } = await converse(t, {
    handler: async () => 'the success',
    declare: (app, handler) => {
      app.get('/', { handlerTimeout: 50 }, handler)
      app.get('/next', async () => 'the next answer')
    }
  }, store)
  await until(() => received().includes('503'))
  socket.write('GET /next HTTP/1.1\r\nhost: x\r\n\r\n')
  await until(() => received().includes('the next answer'))
  t.same(received().match(/(?<=HTTP\/1.1 )\d+/g), ['503', '200'])
  t.notMatch(received(), /the success/)
  t.same(store.ids, [])
})

t.test('sends the head that was decided on, whatever is done to it during the commit', async t => {
  const changes: Record<string, (reply: FastifyReply) => unknown> = {
    'an error status': reply => reply.code(500),
    'a status message of two lines': reply => { reply.raw.statusMessage = 'a\nb' },
    'a bad header': reply => reply.header('x-own', 'a\nb'),
    'a bad header in a list': reply => reply.header('set-cookie', 'a\nb'),
    'a bad header of the raw response': reply => reply.raw.setHeader('trailer', 'x-t'),
    'a header that is removed': reply => reply.removeHeader('x-own').removeHeader('x-raw'),
    'a trailer': reply => reply.trailer('x-t', async () => 'abc')
  }
  for (const [title, change] of Object.entries(changes)) {
    t.test(title, async t => {
      const store = new RecordingStore()
      const { status, headers, body, stored } = await request(t, {
        handler: (_request, reply) => {
          store.before.prepare = async () => { change(reply) }
          reply.raw.setHeader('x-raw', 'raw')
          reply.header('x-own', 'own').header('set-cookie', ['a=1']).send('ok')
        }
      }, store)
      t.same({ status, body, stored }, { status: 200, body: 'ok', stored: ['task'] })
      t.match(Object.fromEntries(headers), { 'x-own': 'own', 'x-raw': 'raw', 'set-cookie': 'a=1', trailer: undefined })
    })
  }
})

t.test('leaves nothing of the head of a success to the reply of the error that takes its place', async t => {
  const own = (reply: FastifyReply) => {
    reply.raw.setHeader('x-raw', 'raw')
    reply.raw.statusMessage = 'Very fine'
    reply.header('x-own', 'own').trailer('x-t', async () => 'abc')
  }
  const store = new RecordingStore()
  store.before.prepare = fail
  for (const [title, status, ending, kept] of [
    ['a head that cannot be sent', 500, (reply: FastifyReply) => reply.header('x-bad', 'a\nb'), undefined],
    ['a commit that fails', 503, () => {}, store]
  ] as Array<[string, number, (reply: FastifyReply) => unknown, RecordingStore?]>) {
    const answer = await request(t, {
      handler: async (_request, reply) => {
        own(reply)
        ending(reply)
        return 'ok'
      }
    }, kept)
    t.same([answer.status, answer.stored], [status, []], title)
    for (const name of ['x-raw', 'x-own', 'x-bad', 'trailer', 'transfer-encoding']) {
      t.notOk(answer.headers.has(name), `${title}: no ${name}`)
    }
    t.equal(answer.headers.get('access-control-allow-origin'), '*')
  }
})

t.test("leaves a head that cannot be sent to the app's error handler", async t => {
  const { status, body, stored } = await request(t, {
    handler: async (_request, reply) => {
      reply.raw.statusMessage = 'a\nb'
      return 'ok'
    },
    declare: (app, handler) => {
      app.setErrorHandler(async (error: Error & { code: string }, _request, reply) => {
        return reply.code(507).send(`sorry: ${error.code}`)
      })
      app.get('/', handler)
    }
  })
  t.same({ status, body, stored }, { status: 507, body: 'sorry: ERR_INVALID_CHAR', stored: [] })
})

t.test('queues the task of a reply whose trailer fails, since its head was sent', async t => {
  const rejects = async () => { throw new Error('no') }
  const fails = (_reply: unknown, _payload: unknown, done: (error: Error) => void) => { done(new Error('no')) }
  for (const trailer of [rejects, fails] as Array<() => Promise<string>>) {
    const handler = async (_request: FastifyRequest, reply: FastifyReply) => reply.trailer('x-t', trailer).send('ok')
    const { status, body, stored } = await request(t, { handler })
    t.same({ status, body, stored }, { status: 200, body: 'ok', stored: ['task'] })
  }
})

t.test('queues the task of a reply whose trailer throws, and breaks off the answer', async t => {
  const { url, store } = await start(t, {
    handler: async (_request, reply) => reply.trailer('x-t', () => { throw new Error('no') }).send('ok')
  })
  await t.rejects(fetch(url).then(async response => await response.text()))
  t.same(store.ids, ['task'])
})

t.test('calls the functions of trailers once', async t => {
  let calls = 0
  const { stored } = await request(t, {
    handler: async (_request, reply) => reply.trailer('x-t', async () => `${++calls}`).send('ok')
  })
  t.same([calls, stored], [1, ['task']])
})

t.test('runs each hook of a reply once', async t => {
  const runs: string[] = []
  const { stored } = await request(t, {
    handler: async () => ({}),
    declare: (app, handler) => {
      for (const name of ['onSend', 'preSerialization'] as const) app.addHook(name, async () => { runs.push(name) })
      app.get('/', { onSend: async () => { runs.push('onSend of the route') } }, handler)
    }
  })
  t.same([runs, stored], [['preSerialization', 'onSend', 'onSend of the route'], ['task']])
})

/** An app in which a request to / adds the task "task" and ends as told. */
async function start (t: Test, { handler, declare = (app, handler) => app.get('/', handler), early = false }: Ending, store = new RecordingStore()) {
  const late = gate<string>()
  const declareEnding = (app: FastifyInstance) => declare(app, function (request, reply) {
    request.taskqueue.add('/task', { id: 'task' })
    return handler.call(this, request, reply)
  })
  const served = await serve(t, {
    before: app => {
      app.addHook('onRequest', async (_request, reply) => { reply.header('access-control-allow-origin', '*') })
      if (early) declareEnding(app)
    },
    declare: async app => {
      app.addHook('onResponse', async request => {
        try {
          late.open(request.taskqueue.add('/late', { id: 'late' }))
        } catch (error) {
          late.open((error as { code: string }).code)
        }
      })
      if (!early) await declareEnding(app)
    },
    taskqueue: { queues: { default: { type: () => store } }, consumer: false, commitTimeoutMs: 100 }
  })
  return { ...served, store, late: late.opened }
}

/** Makes the request, and tells how it ended. */
async function request (t: Test, ending: Ending, store?: RecordingStore) {
  const started = await start(t, ending, store)
  const response = await fetch(started.url, { redirect: 'manual', ...ending.init })
  const body = await response.text()
  const counts = await started.app.taskqueue.queue('default').counts()
  return { ...started, status: response.status, headers: response.headers, body, counts, stored: started.store.ids }
}

/** Makes the request on a socket of its own. */
async function converse (t: Test, ending: Ending, store?: RecordingStore) {
  const started = await start(t, ending, store)
  const { hostname, port } = new URL(started.url)
  const socket = connect(Number(port), hostname)
  t.teardown(() => socket.destroy())
  let received = ''
  socket.on('data', chunk => { received += chunk })
  socket.write('GET / HTTP/1.1\r\nhost: x\r\n\r\n')
  return { ...started, socket, received: () => received }
}

function declareAfter (prepare: (app: FastifyInstance) => unknown): Ending['declare'] {
  return (app, handler) => {
    prepare(app)
    app.get('/', handler)
  }
}

const failingWebStream = () => new ReadableStream({ pull: fail })

function locked (stream: ReadableStream): ReadableStream {
  stream.getReader()
  return stream
}
