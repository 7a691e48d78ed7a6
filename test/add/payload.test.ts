import { Readable } from 'node:stream'
import { inspect } from 'node:util'
import formbody from '@fastify/formbody'
import multipart from '@fastify/multipart'
import type { FastifyInstance, InjectOptions } from 'fastify'
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
  for (const payload of [{}, '', 'a', Buffer.alloc(0)]) {
    t.match(await refusal('/task', { method: 'GET', payload }), { code: 'FST_TASKQUEUE_INVALID_PAYLOAD', message: 'left out or null with the method GET' })
  }
  t.equal(await queued(), 0)
})

t.test('a task inherits the body of the current request, as it came or encoded again', async t => {
  const { run } = await startEcho(t, { setUp: parsers })
  for (const [given, body, expected, contentType = given] of [
    [JSON_TYPE, '{ "a": [1, "ü"] }', '{"a":[1,"ü"]}'],
    ['application/json; charset=utf-8', '{"a":1}', '{"a":1}', JSON_TYPE],
    ['APPLICATION/JSON', '[]', '[]', JSON_TYPE],
    [JSON_TYPE, '5', '5'],
    [JSON_TYPE, '"a"', '"a"'],
    [JSON_TYPE, 'false', 'false'],
    ['application/vnd.api+json', '{"a":1}', '{"a":1}'],
    ['text/plain', 'grüße\r\n', 'grüße\r\n', 'text/plain; charset=utf-8'],
    ['text/plain; charset=UTF-8', 'grüße', 'grüße', 'text/plain; charset=utf-8'],
    [FORM_TYPE, 'a=1&a=x+y&b=%26%C3%BC&c=', 'a=1&a=x+y&b=%26%C3%BC&c='],
    ['image/png', Buffer.from([0, 255, 1]), Buffer.from([0, 255, 1])],
    ['application/x-raw; a="b"', Buffer.from([255]), Buffer.from([255])],
    ['application/x-raw', Buffer.alloc(0), Buffer.alloc(0)],
    ['text/plain', '', '', 'text/plain; charset=utf-8']
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

t.test('JSON that a parser leaves as text stays the same text', async t => {
  const { run } = await startEcho(t, {
    setUp: app => {
      app.removeContentTypeParser(JSON_TYPE)
      app.addContentTypeParser(JSON_TYPE, { parseAs: 'string' }, (_request, body, done) => { done(null, body) })
    }
  })
  t.equal(String((await run('/task', { method: 'POST' }, { method: 'POST', payload: { a: 1 } })).body), '{"a":1}')
})

/** The kinds of parsers that an app may have. */
async function parsers (app: FastifyInstance): Promise<void> {
  await app.register(formbody)
  app.addContentTypeParser(/^application\/.*\+json$/, { parseAs: 'string' }, app.getDefaultJsonParser('error', 'error'))
  app.addContentTypeParser(['image/png', 'application/x-raw'], { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) })
  app.addContentTypeParser('application/x-stream', (_request, payload, done) => { done(null, payload) })
  app.addContentTypeParser('application/xml', { parseAs: 'string' }, (_request, _body, done) => { done(null, { a: '' }) })
}
