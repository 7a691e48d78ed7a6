import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import formbody from '@fastify/formbody'
import multipart from '@fastify/multipart'
import type { FastifyInstance, FastifyRequest, InjectOptions } from 'fastify'
import t from 'tap'
import type { AddOptions, TaskMethod } from '../../lib/index.js'
import { startEcho } from '../support/echo-app.js'

const JSON_TYPE = 'application/json'
const FORM_TYPE = 'application/x-www-form-urlencoded'
const MULTIPART = {
  method: 'POST',
  headers: { 'content-type': 'multipart/form-data; boundary=b' },
  payload: '--b\r\ncontent-disposition: form-data; name="a"\r\n\r\n1\r\n--b--\r\n'
} as const

t.test('a payload arrives byte for byte, under the content type of its kind', async t => {
  const { run } = await startEcho(t)
  class Order { id = 1; toJSON () { return { order: this.id } } }
  for (const [payload, expected, contentType] of [
    [{ a: 1, b: undefined, c: 'ü' }, '{"a":1,"c":"ü"}', JSON_TYPE],
    [{}, '{}', JSON_TYPE],
    [[1, null, 'x'], '[1,null,"x"]', JSON_TYPE],
    [Object.assign(Object.create(null), { a: 1 }), '{"a":1}', JSON_TYPE],
    [new Order(), '{"order":1}', JSON_TYPE],
    [{ order: new Order(), at: new Date(0), pipe: 1, toJSON: 2 }, '{"order":{"order":1},"at":"1970-01-01T00:00:00.000Z","pipe":1,"toJSON":2}', JSON_TYPE],
    [new Date(0), '"1970-01-01T00:00:00.000Z"', JSON_TYPE],
    ['grüße', 'grüße', 'text/plain; charset=utf-8'],
    ['{"a":1}', '{"a":1}', 'text/plain; charset=utf-8'],
    [Buffer.from([0, 255, 128, 10]), Buffer.from([0, 255, 128, 10]), 'application/octet-stream'],
    [new Uint8Array([1, 2, 3, 4]).subarray(1, 3), Buffer.from([2, 3]), 'application/octet-stream'],
    [new URLSearchParams([['a', '1'], ['a', 'x y'], ['ü', '&']]), 'a=1&a=x+y&%C3%BC=%26', FORM_TYPE]
  ] as Array<[object | string, string | Buffer, string]>) {
    const { body, headers } = await run('/task', { payload })
    t.strictSame(body, Buffer.from(expected as string), inspect(payload))
    t.match(headers, { 'content-type': contentType, 'content-length': String(body?.length) })
  }
})

t.test('a payload is taken by PUT, PATCH and DELETE, too, and its content type may be another one', async t => {
  const { run } = await startEcho(t)
  for (const method of ['PUT', 'PATCH', 'DELETE'] as TaskMethod[]) {
    t.match(await run('/task', { method, payload: { a: 1 } }), { method, body: Buffer.from('{"a":1}'), headers: { 'content-type': JSON_TYPE } })
  }
  t.match(await run('/task', { payload: '<a/>', headers: { 'Content-Type': 'application/xml' } }), { body: Buffer.from('<a/>'), headers: { 'content-type': 'application/xml' } })
})

t.test('an empty payload is one, null is none', async t => {
  const { run } = await startEcho(t)
  for (const payload of ['', Buffer.alloc(0), new URLSearchParams()]) {
    const { method, body, headers } = await run('/task', { payload })
    t.equal(method, 'POST')
    t.notOk(body?.length, 'no bytes')
    t.match(headers, { 'content-length': '0', 'content-type': /^[a-z]+\/[a-z-]+/ })
  }
  const { body, headers } = await run('/task', { method: 'POST', payload: null }, { method: 'POST', payload: { a: 1 } })
  t.equal(body, undefined)
  t.equal(headers['content-type'], undefined)
})

t.test('a payload is taken as it is when it is added', async t => {
  const { request, waitFor } = await startEcho(t)
  const bytes = Buffer.from('before')
  const object = { state: 'before' }
  await request(({ taskqueue }) => {
    taskqueue.add('/task', { id: 'bytes', payload: bytes })
    taskqueue.add('/task', { id: 'object', payload: object })
    bytes.write('behind')
    object.state = 'behind'
  })
  t.equal(String((await waitFor('bytes')).body), 'before')
  t.equal(String((await waitFor('object')).body), '{"state":"before"}')
})

t.test('a payload that has no bytes of its own, or no place, is refused', async t => {
  const { refusal, queued } = await startEcho(t)
  const circular: { self?: object } = {}
  circular.self = circular
  for (const payload of [
    0, 1, NaN, true, false, 1n, Symbol('a'), () => ({}), { a: 1n }, circular, { toJSON: () => undefined }, { toJSON () { throw new Error('no') } },
    new Map([['a', 1]]), new Set([1]), new FormData(), new Blob(['a']), new ArrayBuffer(1), Readable.from(['a']), new ReadableStream(), Promise.resolve({}), new Response('a')
  ]) {
    const failure = await refusal('/task', { payload })
    t.match(failure, { code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: 'an object that has JSON, a string, a Buffer, a URLSearchParams or null, got ' }, inspect(payload))
  }
  for (const [part, shown] of [[new Map(), 'a Map'], [new Set(), 'a Set'], [Promise.resolve(), 'a Promise'], [NaN, 'NaN'], [-Infinity, '-Infinity'], [Readable.from([]), 'a Readable']] as const) {
    for (const payload of [{ a: part }, [part], { a: [{ b: part }] }]) {
      const failure = await refusal('/task', { payload })
      t.match(failure, { code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: `or null, got one with ${shown} in it` }, inspect(payload))
    }
  }
  for (const payload of [{}, '', 'a', Buffer.alloc(0)]) {
    t.match(await refusal('/task', { method: 'GET', payload }), { code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: 'left out or null with the method GET' })
  }
  t.equal(await queued(), 0)
})

t.test('a task inherits the body of the current request, as it came or encoded again', async t => {
  const { run } = await startEcho(t, { setUp: parsers })
  for (const [given, body, expected, contentType = given] of [
    [JSON_TYPE, '{ "a": [1, "ü"] }', '{"a":[1,"ü"]}'],
    ['application/json; charset=utf-8', '{"a":1}', '{"a":1}'],
    ['APPLICATION/JSON', '[]', '[]'],
    [JSON_TYPE, '5', '5'],
    [JSON_TYPE, '"a"', '"a"'],
    [JSON_TYPE, '"{\\"a\\":1}"', '"{\\"a\\":1}"'],
    [JSON_TYPE, 'false', 'false'],
    [JSON_TYPE, 'null', 'null'],
    ['application/vnd.api+json; profile="a; charset=b"', '{"a":1}', '{"a":1}'],
    ['text/plain', 'grüße\r\n', 'grüße\r\n'],
    ['text/plain; charset=UTF-8; format=flowed', 'grüße', 'grüße'],
    ['text/plain; charset=iso-8859-1; format=flowed', 'a', 'a', 'text/plain; charset=utf-8; format=flowed'],
    ['text/plain; x="charset=latin1"; charset="latin1"', 'a', 'a', 'text/plain; x="charset=latin1"; charset=utf-8'],
    ['text/csv; header=present', 'a,b', 'a,b'],
    ['multipart/mixed; boundary="x y"', '--x y--', '--x y--'],
    [FORM_TYPE, 'a=1&a=x+y&b=%26%C3%BC&c=', 'a=1&a=x+y&b=%26%C3%BC&c='],
    ['image/png', Buffer.from([0, 255, 1]), Buffer.from([0, 255, 1])],
    ['application/x-raw; a="b"', Buffer.from([255]), Buffer.from([255])],
    ['application/x-raw', Buffer.alloc(0), Buffer.alloc(0)],
    ['text/plain', '', '']
  ] as Array<[string, string | Buffer, string | Buffer, string?]>) {
    for (const method of ['POST', 'PUT', 'PATCH'] as const) {
      const task = await run('/task', { method }, { method, headers: { 'content-type': given }, payload: body })
      t.strictSame(task.body, Buffer.from(expected as string), `${method} ${given}`)
      t.equal(task.headers['content-type'], contentType)
    }
  }
})

t.test('where there is no body, or the method takes none, nothing is inherited', async t => {
  const { run } = await startEcho(t)
  const json: InjectOptions = { method: 'POST', payload: { a: 1 } }
  for (const [options, by] of [
    [{ method: 'GET' }, json],
    [{ method: 'DELETE' }, json],
    [{}, json],
    [{ method: 'POST' }, { method: 'GET' }],
    [{ method: 'POST' }, { method: 'POST' }],
    [{ method: 'POST', payload: null }, json]
  ] as Array<[AddOptions, InjectOptions]>) {
    const { body, headers } = await run('/task', options, by)
    t.equal(body, undefined)
    t.equal(headers['content-type'], undefined)
  }
  t.match(await run('/task', { payload: 'mine' }, json), { body: Buffer.from('mine'), headers: { 'content-type': 'text/plain; charset=utf-8' } }, 'what is given comes first')
})

t.test('a body that cannot be copied faithfully is an error that says so', async t => {
  for (const [title, setUp, by] of [
    ['multipart', (app: FastifyInstance) => app.register(multipart), MULTIPART],
    ['multipart in the body', (app: FastifyInstance) => app.register(multipart, { attachFieldsToBody: true }), MULTIPART],
    ['multipart as values', (app: FastifyInstance) => app.register(multipart, { attachFieldsToBody: 'keyValues' }), MULTIPART],
    ['a stream', parsers, { method: 'POST', headers: { 'content-type': 'application/x-stream' }, payload: 'a' }],
    ['parsed XML', parsers, { method: 'POST', headers: { 'content-type': 'application/xml' }, payload: '<a/>' }],
    ['a form with nested fields', (app: FastifyInstance) => app.register(formbody, { parser: () => ({ a: { b: '1' } }) }), { method: 'POST', headers: { 'content-type': FORM_TYPE }, payload: 'a[b]=1' }]
  ] as Array<[string, (app: FastifyInstance) => unknown, InjectOptions]>) {
    const { refusal, queued, run } = await startEcho(t, { setUp })
    const failure = await refusal('/task', { method: 'POST' }, by)
    t.match(failure, { code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: 'passed to add, since the body of this request cannot be copied faithfully, got a body of type ' }, title)
    t.equal(await queued(), 0)
    t.match(await run('/task', { method: 'POST', payload: 'mine' }, by), { body: Buffer.from('mine') }, 'a payload of its own helps')
  }
})

/** Parsers of JSON, and whether they leave it as text. */
const jsonParsers: Record<string, [keepsText: boolean, setUp: (app: FastifyInstance) => void]> = {
  'the default parser': [false, () => {}],
  'a parser that leaves text': [true, app => {
    app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, (_request, body, done) => { done(null, body) })
  }],
  'a parser that makes text of bytes': [true, app => {
    app.addContentTypeParser(JSON_TYPE, { parseAs: 'buffer' }, (_request, body, done) => { done(null, String(body)) })
  }],
  'a parser that parses': [false, app => {
    app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, (_request, body, done) => { done(null, JSON.parse(String(body))) })
  }],
  'an asynchronous parser that leaves text': [true, app => {
    app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, async (_request: FastifyRequest, body: string) => body)
  }],
  'an asynchronous parser that parses': [false, app => {
    app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, async (_request: FastifyRequest, body: string) => JSON.parse(body))
  }]
}

/** Texts whose body may be taken for another one, by who does not know whether it is parsed. */
const TEXTS = ['{"a":1.0}', '"{\\"a\\":1.0}"', '1', '"1"', 'null', '"null"', '"text"']

for (const [name, [keepsText, setUp]] of Object.entries(jsonParsers)) {
  const isKnown = !name.startsWith('an asynchronous')

  t.test(`a JSON text is the same body for the task, with ${name}`, async t => {
    const { run } = await startEcho(t, { setUp })
    const headers = { 'content-type': JSON_TYPE }
    for (const text of TEXTS) {
      const expected = keepsText ? text : JSON.stringify(JSON.parse(text))
      const task = await run('/task', { method: 'POST' }, { method: 'POST', headers, payload: text })
      t.equal(String(task.body), expected, text)
    }
  })

  t.test(`a JSON text of unknown length is the same body for the task${isKnown ? '' : ', or refused'}, with ${name}`, async t => {
    const { run, refusal } = await startEcho(t, { setUp })
    const headers = { 'content-type': JSON_TYPE }
    for (const text of TEXTS) {
      const by: InjectOptions = { method: 'POST', headers, payload: Readable.from([text.slice(0, 1), text.slice(1)]) }
      const isString = keepsText || typeof JSON.parse(text) === 'string'
      if (!isKnown && isString) {
        t.match(await refusal('/task', { method: 'POST' }, by), {
          code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: 'got a string, which may be a JSON text or have been one'
        }, text)
      } else {
        const task = await run('/task', { method: 'POST' }, by)
        t.equal(String(task.body), keepsText ? text : JSON.stringify(JSON.parse(text)), text)
      }
    }
  })
}

t.test('a parser is tried once, on a request of its own', async t => {
  const texts: string[] = []
  const { run } = await startEcho(t, {
    setUp: app => {
      app.decorateRequest('rawBody', '')
      app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, (request, body, done) => {
        texts.push(String(body))
        Object.assign(request, { rawBody: body })
        done(null, body)
      })
      app.addHook('onResponse', async request => {
        if (request.method === 'POST' && !request.url.startsWith('/task')) t.equal((request as { rawBody?: unknown }).rawBody, '{"a":1}')
      })
    }
  })
  for (let i = 0; i < 2; i++) await run('/task', { method: 'POST' }, { method: 'POST', payload: { a: 1 } })
  t.equal(texts.filter(text => text === '""').length, 1)
})

/** The kinds of parsers that an app may have. */
async function parsers (app: FastifyInstance): Promise<void> {
  await app.register(formbody)
  app.addContentTypeParser(/^application\/.*\+json/, { parseAs: 'string' }, app.getDefaultJsonParser('error', 'error'))
  app.addContentTypeParser(['image/png', 'application/x-raw'], { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) })
  app.addContentTypeParser(['text/csv', 'multipart/mixed'], { parseAs: 'string' }, async (_request: FastifyRequest, body: string) => body)
  app.addContentTypeParser('application/x-stream', (_request, payload, done) => { done(null, payload) })
  app.addContentTypeParser('application/xml', { parseAs: 'string' }, (_request, _body, done) => { done(null, { a: '' }) })
}
