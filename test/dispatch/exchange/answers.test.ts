import { AsyncLocalStorage } from 'node:async_hooks'
import { tracingChannel } from 'node:diagnostics_channel'
import { PassThrough, Readable, finished } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { ServerResponse } from 'node:http'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t from 'tap'
import { compare, type Case, type See, type Sight } from './ways.js'

const twice = 'light-my-request finishes before the bytes are gone, and twice'
const drains = 'light-my-request drains when its reader reads'

t.test('hooks run in the same order', async t => {
  const all = (app: FastifyInstance, { see }: Sight) => {
    for (const name of ['onRequest', 'preValidation', 'preHandler', 'onResponse', 'onTimeout'] as const) app.addHook(name as 'onRequest', async () => { see(name) })
    app.addHook('onRequestAbort', async _request => { see('onRequestAbort') })
    app.addHook('preParsing', async (_request, _reply, payload) => {
      see('preParsing')
      return payload
    })
    app.addHook('preSerialization', async (_request, _reply, payload) => {
      see('preSerialization')
      return payload
    })
    app.addHook('onSend', async (_request, { statusCode, sent, raw }, payload) => {
      see('onSend', statusCode, sent, raw.headersSent)
      return payload
    })
    app.addHook('onResponse', async (_request, { statusCode, sent, raw, elapsedTime }) => { see('sent', statusCode, sent, raw.headersSent, raw.writableEnded, elapsedTime >= 0) })
  }
  const answers: Array<[string, Case['handler'], string?]> = [
    ['of an answer', async () => ({ well: true })],
    ['of an answer that is sent', (_request, reply) => { reply.send('well') }],
    ['of an answer that is sent later', (_request, reply) => { setImmediate(() => { reply.send('well') }) }],
    ['of an answer without a body', (_request, reply) => { reply.code(204).send() }],
    ['of a stream', async () => Readable.from(['a', 'b'])],
    ['of an error', async () => { throw new Error('broken') }],
    ['of an error with a status', async () => { throw Object.assign(new Error('no'), { statusCode: 429 }) }],
    ['of an answer that is not a text', (_request, reply) => { reply.header('content-type', 'text/plain').send(1 as never) }],
    ['of two answers', (_request, reply) => { reply.code(201).send('first'); reply.code(500).send('second') }, twice],
    ['of an answer and an error', async (_request, reply) => { await reply.code(201).send('first'); throw new Error('late') }],
    ['of a redirection', (_request, reply) => reply.redirect('/there', 303)],
    ['of a reply that is hijacked', (_request, reply) => { reply.hijack(); reply.raw.end('by hand') }],
    ['of raw writes without hijacking', async (_request, reply) => { reply.raw.end('by hand') }]
  ]
  compare(t, answers.map(([title, handler, asServer]): Case => ({ title, handler, asServer, app: all, method: 'POST', payload: 'x' })))

  for (const name of ['onRequest', 'preParsing', 'preValidation', 'preHandler', 'preSerialization', 'onSend', 'onError', 'onResponse'] as const) {
    compare(t, [
      { title: `of an error in ${name}`, method: 'POST', payload: 'x', handler: async () => { if (name === 'onError') throw new Error('first'); return {} }, app: (app, sight) => { all(app, sight); app.addHook(name as 'onRequest', async () => { throw new Error(name) }) } },
      ...name === 'onError' || name === 'onResponse' ? [] : [{ title: `of an answer in ${name}`, handler: async () => ({}), app: (app: FastifyInstance, sight: Sight) => { all(app, sight); app.addHook(name as 'onRequest', async (_request, reply) => { if (!reply.sent) return reply.code(202).send() }) } }].slice(0, name === 'preSerialization' || name === 'onSend' ? 0 : 1)
    ])
  }
})

t.test('an error is answered in the same way', async t => {
  const throws = async () => { throw Object.assign(new Error('broken'), { statusCode: 503, headers: { 'retry-after': '7' } }) }
  compare(t, [
    { title: 'by a handler for errors', handler: throws, app: (app, { see }) => { app.setErrorHandler((error, _request, reply) => { see((error as Error).message); reply.code(409).header('retry-after', '3').send({}) }) } },
    { title: 'by a handler for errors that throws', handler: throws, app: app => { app.setErrorHandler(() => { throw new Error('again') }) } },
    { title: 'by its own status and headers', handler: throws },
    { title: 'of a body that is not valid', method: 'POST', payload: '{"a":"x"}', headers: { 'content-type': 'application/json' }, app: app => { app.post('/v', { schema: { body: { type: 'object', properties: { a: { type: 'number' } } } } }, async () => ({})) }, url: '/v' },
    { title: 'of an answer that cannot be serialised', url: '/s', app: app => { app.get('/s', { schema: { response: { 200: { type: 'object', properties: { a: { type: 'string' } }, required: ['a'] } } } }, async () => ({})) } },
    { title: 'of an answer that has no JSON', handler: async () => ({ big: 1n }) },
    { title: 'of a header that is not valid', handler: (_request, reply) => reply.header('x-a', 'a\nb').send('x') },
    { title: 'of a type that cannot be sent', handler: (_request, reply) => reply.type('text/plain').send(Symbol('x') as never) },
    { title: 'of what is undefined', handler: async () => undefined },
    { title: 'of what is null', handler: async () => null }
  ])
})

t.test('an answer has the same outcome', async t => {
  const answers: Array<[string, Case['handler']]> = [
    ...[200, 204, 205, 304, 410, 503, 599].map((status): [string, Case['handler']] => [`of status ${status}, with a body`, (_request, reply) => reply.code(status).send('body')]),
    ['with Retry-After', (_request, reply) => reply.code(429).header('retry-after', 5).send()],
    ['with Location', (_request, reply) => reply.code(201).header('Location', '/made/1').send({})],
    ['by writeHead with headers', (_request, reply) => { reply.hijack(); reply.raw.writeHead(503, { 'Retry-After': 9, Location: '/x' }).end() }],
    ['by writeHead with a list of headers', (_request, reply) => { reply.hijack(); reply.raw.writeHead(503, ['Retry-After', '9', 'Location', '/x'] as never).end() }],
    ['by writeHead with a message and headers', (_request, reply) => { reply.hijack(); reply.raw.writeHead(429, 'Slow down', { 'retry-after': '9' }).end('x') }],
    ['by setHeader', (_request, reply) => { reply.hijack(); reply.raw.setHeader('Retry-After', '4').statusCode = 503; reply.raw.end('x') }],
    ['whose status is changed too late', (_request, reply) => { reply.hijack(); reply.raw.writeHead(410); reply.raw.statusCode = 200; reply.raw.end() }],
    ['whose status is changed in the middle', async (_request, reply) => {
      reply.hijack()
      reply.raw.write('a')
      await new Promise(setImmediate)
      reply.raw.statusCode = 500
      reply.raw.end()
    }],
    ['that continues first', (_request, reply) => { reply.hijack(); reply.raw.writeContinue(); reply.raw.writeProcessing(); reply.raw.end('x') }],
    ['that gives hints first', (_request, reply) => { reply.raw.writeEarlyHints({ link: '</a.css>; rel=preload' }); reply.code(201).send() }],
    ['with trailers', (_request, reply) => { reply.trailer('etag', async () => 'abc'); reply.send('x') }],
    ['with trailers by hand', (_request, reply) => { reply.hijack(); reply.raw.writeHead(200, { trailer: 'x-end' }); reply.raw.write('a'); reply.raw.addTrailers({ 'x-end': 'b' }); reply.raw.end() }],
    ['of a Response', async () => new Response('body', { status: 201, headers: { location: '/made' } })],
    ['of a Response without a body', async () => new Response(null, { status: 204 })],
    ['of a web stream', async () => new ReadableStream({ start (controller) { controller.enqueue('a'); controller.close() } })],
    ['of a buffer of 1 MiB', async () => Buffer.alloc(2 ** 20)],
    ['of a text of 1 MiB', async () => '\u00e9'.repeat(2 ** 19)],
    ['of a stream of 4 MiB', async () => Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(65_536)))],
    ['of a stream that ends at once', async () => Readable.from([])],
    ['of cookies', (_request, reply) => reply.header('set-cookie', ['a=1', 'b=2']).send('x')],
    ['of a stream with a status and trailers', (_request, reply) => { reply.code(202).trailer('x-end', (_reply, _payload, done) => { done(null, 'end') }); return reply.send(Readable.from(['a', 'b'])) }]
  ]
  compare(t, answers.map(([title, handler]): Case => ({ title, handler })))
})

t.test('a response says the same of itself', async t => {
  const state = ({ headersSent, writableEnded, writableFinished, destroyed, finished, statusCode, writableNeedDrain }: ServerResponse) => ({ headersSent, writableEnded, writableFinished, destroyed, finished, statusCode, writableNeedDrain })
  const hand = (title: string, work: (raw: ServerResponse, see: See) => unknown, more: Partial<Case> = {}): Case => ({
    title, ...more, handler: async (_request, reply, { see }) => { reply.hijack(); await work(reply.raw, see) }
  })
  const byteLater = async (raw: ServerResponse) => { await new Promise<void>(resolve => { raw.write('x', () => { resolve() }) }) }
  compare(t, [
    hand('before and after its end', (raw, see) => {
      see(state(raw))
      raw.write('a')
      see({ ...state(raw), writableLength: raw.writableLength > 0 })
      raw.once('finish', () => { see('finish', state(raw)) })
      raw.end()
      see(raw.headersSent, raw.writableEnded)
    }, { asServer: twice }),
    hand('when it has closed', (raw, see) => {
      raw.once('close', () => { see(raw.writableEnded, raw.destroyed, raw.errored ?? null) })
      raw.end('x')
    }),
    hand('when it has closed, that all of it is gone', (raw, see) => {
      raw.once('close', () => { see(raw.writableFinished) })
      raw.end('x')
    }, { asServer: twice }),
    hand('that it is closed', (raw, see) => {
      raw.once('close', () => { see(raw.closed) })
      raw.end('x')
    }, { asServer: 'light-my-request does not say so' }),
    hand('by events', (raw, see) => {
      for (const event of ['prefinish', 'finish', 'close', 'error', 'drain', 'pipe', 'unpipe']) raw.on(event, () => { see(event) })
      raw.end('x')
    }, { asServer: twice }),
    hand('by events of a stream', async (raw, see) => {
      for (const event of ['finish', 'close', 'error', 'pipe']) raw.on(event, () => { see(event) })
      Readable.from(['a', 'b', 'c']).pipe(raw)
    }),
    hand('once its prototype is another one, as with Express', async raw => {
      Object.setPrototypeOf(raw, Object.create(ServerResponse.prototype))
      raw.write('a')
      raw.end('b')
    }),
    hand('by the callback of its end', async (raw, see) => {
      await new Promise<void>(resolve => { raw.end('x', () => { resolve() }) })
      see('ended')
    }),
    hand('by the callbacks of its writes', async (raw, see) => {
      await byteLater(raw)
      see('first')
      await byteLater(raw)
      raw.end()
    }),
    hand('of its headers', (raw, see) => {
      raw.setHeader('X-A', '1').setHeader('x-b', ['2', '3'])
      raw.appendHeader('x-b', '4')
      see(raw.getHeaders(), raw.getHeaderNames(), raw.hasHeader('x-a'))
      raw.removeHeader('x-a')
      raw.flushHeaders()
      see(raw.headersSent, raw.hasHeader('x-a'))
      try {
        raw.setHeader('x-c', '1')
      } catch (error) {
        see((error as { code: string }).code)
      }
      raw.end()
    }),
    hand('when it has more than can be taken', async (raw, see) => {
      see(raw.write(Buffer.alloc(2 ** 20)), raw.writableNeedDrain)
      await new Promise(resolve => { raw.once('drain', resolve) })
      see('drain', raw.writableNeedDrain)
      raw.end()
    }, { asServer: drains }),
    hand('when it is piped into after it has drained', async (raw, see) => {
      raw.write(Buffer.alloc(2 ** 20))
      await new Promise(resolve => { raw.once('drain', resolve) })
      const piped = pipeline(Readable.from(['a', 'b']), raw).then(() => 'piped', () => 'not piped')
      see(await Promise.race([piped, new Promise(resolve => { setTimeout(resolve, 500, 'stuck') })]))
      raw.destroy()
    }, { asServer: 'light-my-request stays in need to drain' }),
    hand('in 100 writes with their callbacks', async (raw, see) => {
      let called = 0
      for (let count = 0; count < 100; count++) raw.write('x'.repeat(1000), () => { called++ })
      await new Promise<void>(resolve => { raw.end(() => { resolve() }) })
      see(called)
    }, { asServer: twice }),
    hand('by a pipeline', async (raw, see) => {
      await pipeline(Readable.from(Array.from({ length: 64 }, () => Buffer.alloc(65_536))), raw)
      see('piped', raw.writableFinished)
    }, { asServer: twice }),
    hand('by a pipeline that fails', async (raw, see) => {
      const closed = new Promise(resolve => { raw.once('close', resolve) })
      const parts = async function * () {
        yield 'a'
        throw new Error('broken')
      }
      const reason = await pipeline(Readable.from(parts()), raw).catch(error => error.message)
      await closed
      see(reason, raw.writableEnded, raw.destroyed)
    }, { last: 'broken' }),
    hand('when it is finished', async (raw, see) => {
      finished(raw, error => { see('finished', error?.code) })
      raw.end('x')
    }),
    hand('when it is finished by being destroyed', async (raw, see) => {
      finished(raw, error => { see('finished', error?.code) })
      raw.write('x')
      raw.destroy()
    }),
    hand('when it is destroyed', (raw, see) => {
      raw.once('close', () => { see('close', state(raw)) })
      raw.write('x')
      raw.destroy()
      see(raw.destroyed)
      see(raw.write('y'))
    }, { asServer: 'light-my-request takes writes to what is destroyed' }),
    hand('when it is written to after its end', async (raw, see) => {
      raw.on('error', error => { see('error', (error as { code?: string }).code) })
      raw.end(Buffer.alloc(2 ** 20))
      raw.write('more', error => { see('written', (error as { code?: string } | undefined)?.code) })
    }, { asServer: 'light-my-request is destroyed by its end' }),
    hand('when it is ended twice', async (raw, see) => {
      raw.end('x')
      await new Promise<void>(resolve => { raw.end(() => { resolve() }) })
      see('ended again')
    }),
    hand('when it times out', async (raw, see) => {
      raw.setTimeout(20, () => {
        see('timeout')
        raw.end('late')
      })
    }, { last: 'timeout' }),
    hand('when it times out, and is not asked', async (raw, see) => {
      raw.once('close', () => { see('close', raw.writableEnded) })
      try {
        raw.setTimeout(20)
      } catch {
        raw.destroy()
        see('not asked')
      }
    }, { asServer: 'light-my-request cannot time out without a listener' }),
    hand('when it could time out, and has ended', async (raw, see) => {
      raw.setTimeout(20, () => { see('timeout') })
      raw.end()
      await new Promise(resolve => { setTimeout(resolve, 60) })
      see('later')
    }, { last: 'later', asServer: 'light-my-request times out after the end' }),
    hand('when its time out is taken back', async (raw, see) => {
      raw.setTimeout(20, () => { see('timeout') })
      raw.setTimeout(0, () => {})
      await new Promise(resolve => { setTimeout(resolve, 60) })
      see('later')
      raw.end()
    }, { last: 'later', asServer: 'light-my-request takes none back' })
  ])
})

t.test('a stream is sent in the same way', async t => {
  const broken = (first: string[]) => Readable.from((async function * () {
    yield * first
    throw Object.assign(new Error('broken'), { statusCode: 502 })
  })())
  const watched = (stream: Readable, { see }: Sight) => stream.on('close', () => { see('stream closed', stream.destroyed) })
  const web = (first: string[]) => new ReadableStream({
    pull (controller) {
      const next = first.shift()
      if (next === undefined) controller.error(new Error('broken'))
      else controller.enqueue(next)
    }
  })
  const streams: Array<[string, Case['handler']]> = [
    ['that is whole', async (_request, _reply, sight) => watched(Readable.from(['a', 'b']), sight)],
    ['that fails before its first byte', async (_request, _reply, sight) => watched(broken([]), sight)],
    ['that fails after its first byte', async (_request, _reply, sight) => watched(broken(['a']), sight)],
    ['of the web that fails before its first byte', async () => web([])],
    ['of the web that fails after its first byte', async () => web(['a'])],
    ['of a Response that fails', async () => new Response(web(['a']), { status: 201 })],
    ['that was destroyed before', async () => new PassThrough().destroy()],
    ['that comes slowly', async (_request, _reply, sight) => watched(Readable.from((async function * () { for (let count = 0; count < 5; count++) yield await new Promise(resolve => { setTimeout(resolve, 5, 'x') }) })()), sight)],
    ['that has no body by its status', (_request, reply, sight) => reply.code(204).send(watched(Readable.from(['a']), sight))],
    ['that has headers', (_request, reply) => reply.header('retry-after', 3).code(503).send(Readable.from(['a']))]
  ]
  const hooks = (app: FastifyInstance, { see }: Sight) => { app.addHook('onResponse', async (_request, { statusCode, raw }) => { see('onResponse', statusCode, raw.writableEnded) }) }
  compare(t, streams.map(([title, handler]): Case => ({ title, handler, app: hooks })))
})

t.test('what surrounds a request is the same', async t => {
  const storage = new AsyncLocalStorage<string>()
  const storing = (hook: 'onRequest' | 'preHandler'): Case['app'] => (app, { see }) => {
    app.addHook(hook, (_request: unknown, _reply: unknown, done: () => void) => { storage.run('mine', done) })
    app.addHook('onSend', async () => { see('onSend', storage.getStore()) })
    app.addHook('onResponse', async () => { see('onResponse', storage.getStore()) })
  }
  const waiting: Case['handler'] = async (_request, _reply, { see }) => {
    await new Promise(setImmediate)
    see('handler', storage.getStore())
    return Buffer.alloc(200_000)
  }
  const breaks = async () => Readable.from((async function * () {
    yield 'a'
    throw new Error('broken')
  })())
  compare(t, [
    { title: 'in storage that is entered as it comes', app: storing('onRequest'), handler: waiting },
    { title: 'in storage that is entered as it comes, with a body', app: storing('onRequest'), handler: waiting, method: 'POST', payload: 'x' },
    { title: 'in storage that is entered before its handler', app: storing('preHandler'), handler: waiting, method: 'POST', payload: 'x' },
    { title: 'on diagnostic channels', handler: async () => ({}), app: trace },
    { title: 'on diagnostic channels, of an error', handler: async () => { throw new Error('broken') }, app: trace },
    { title: 'on diagnostic channels, of a handler that sends', handler: (_request, reply) => { reply.send({}) }, app: trace },
    { title: 'in the log', log: true, handler: async ({ log }) => { log.info('mine') } },
    { title: 'in the log, of an error', log: true, handler: async () => { throw new Error('broken') } },
    { title: 'in the log, of a stream that fails', log: true, handler: breaks },
    { title: 'in the log, by a serialiser', log: true, server: { logSerializers: { req: ({ method, url, headers, socket }: FastifyRequest) => ({ method, url, headers, ip: socket.remoteAddress }) } } as never, handler: async () => ({}) }
  ])
})

function trace (_app: FastifyInstance, { see, teardown }: Sight): void {
  const channel = tracingChannel('fastify.request.handler')
  const subscribers = Object.fromEntries(['start', 'end', 'asyncStart', 'asyncEnd', 'error'].map(event => [event, () => { see(event) }])) as never
  channel.subscribe(subscribers)
  teardown(() => { channel.unsubscribe(subscribers) })
}
