import { createHash } from 'node:crypto'
import { PassThrough, Readable, Transform } from 'node:stream'
import { text } from 'node:stream/consumers'
import { finished, pipeline } from 'node:stream/promises'
import { createGzip, gzipSync } from 'node:zlib'
import formbody from '@fastify/formbody'
import multipart from '@fastify/multipart'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import t from 'tap'
import { compare, type Case, type Sight } from './ways.js'

const MIB = 2 ** 20
const json = { 'content-type': 'application/json' }
const closesLate = 'a request closes after its answer, and not as soon as it is read, so that request.signal says nothing before'
const closes = 'a request closes after its answer'

t.test('a request is the same', async t => {
  compare(t, [
    { title: 'without a body', app: look('/at/:place'), url: '/at/home?a=1&b=x%20y&a=2' },
    { title: 'with a path and a query that are encoded', app: look('/at/:place'), url: "/at/%C3%A9%2Fx;y='*'?%C3%A9=%26&c=a+b&d" },
    { title: 'with headers of its own', app: look('/it'), headers: { accept: '*/*', cookie: 'a=1; b=2', authorization: 'Bearer x', host: 'example.org:8080', 'x-two': 'a, b', 'x-empty': '' } },
    { title: 'with headers whose values are not ASCII', app: look('/it'), headers: { 'x-latin': 'caf\u00e9', 'x-quoted': '"a\tb"' } },
    { title: 'with headers named like what every object has', app: look('/it'), headers: { constructor: 'a', tostring: 'b', valueof: 'c' } },
    { title: 'behind a proxy that is trusted', app: look('/it'), server: { trustProxy: true }, headers: { 'x-forwarded-for': '10.0.0.1, 10.0.0.2', 'x-forwarded-proto': 'https', 'x-forwarded-host': 'shop.example:8443' } },
    { title: 'behind proxies of which one hop is trusted', app: look('/it'), server: { trustProxy: (_address, hop) => hop < 1 }, headers: { 'x-forwarded-for': '10.0.0.1, 10.0.0.2' } },
    { title: 'behind a proxy that is not trusted', app: look('/it'), headers: { 'x-forwarded-for': '10.0.0.1', 'x-forwarded-proto': 'https' } },
    { title: 'behind a proxy at an address that is trusted', app: look('/it'), server: { trustProxy: '127.0.0.1' }, headers: { 'x-forwarded-for': '10.0.0.1' } },
    { title: 'with an id of its own', app: look('/it'), server: { requestIdHeader: 'x-request-id' }, headers: { 'x-request-id': 'mine' } },
    { title: 'rewritten', app: look('/it'), url: '/old?a=1', server: { rewriteUrl: ({ url }) => url!.replace('old', 'it') } },
    { title: 'to a route of a version', url: '/v', headers: { 'accept-version': '2.x' }, app: (app, { see }) => { app.get('/v', { constraints: { version: '2.1.0' } }, async ({ headers }) => { see(headers['accept-version']) }) } },
    { title: 'to a route of a host', url: '/h', headers: { host: 'a.example' }, app: (app, { see }) => { app.get('/h', { constraints: { host: 'a.example' } }, async ({ hostname }) => { see(hostname) }) } },
    { title: 'to no route', url: '/nowhere', app: (app, { see }) => { app.setNotFoundHandler((request, reply) => { see(request.url, request.is404); reply.code(404).send() }) } },
    { title: 'to a path that cannot be decoded', url: '/it/%zz', app: look('/it') },
    ...(['PUT', 'PATCH', 'DELETE'] as const).map((method): Case => ({ title: `by ${method}`, app: look('/it'), method, payload: 'text' }))
  ])
})

t.test('what Node says of a request is the same', async t => {
  compare(t, [
    { title: 'of its version', handler: async ({ raw: { httpVersion, httpVersionMajor, httpVersionMinor, aborted, destroyed } }, _reply, { see }) => { see(httpVersion, httpVersionMajor, httpVersionMinor, aborted, destroyed) } },
    { title: 'of its body before the handler', method: 'POST', payload: 'text', handler: async ({ raw: { readableEnded, readableAborted, readableDidRead, errored } }, _reply, { see }) => { see(readableEnded, readableAborted, readableDidRead, errored) } },
    { title: 'of headers that are kept apart', headers: { 'x-two': 'a, b' }, handler: async ({ raw }, _reply, { see }) => { see({ ...raw.headersDistinct }) }, asServer: 'light-my-request has no headersDistinct' },
    { title: 'of trailers', method: 'POST', payload: 'text', handler: async ({ raw }, _reply, { see }) => { see(raw.trailers, raw.rawTrailers) }, asServer: 'light-my-request has no trailers' },
    { title: 'that it is complete', method: 'POST', payload: 'text', handler: async ({ raw }, _reply, { see }) => { see(raw.complete) }, asServer: 'light-my-request does not say so' },
    {
      title: 'of a socket that is tuned',
      handler: async ({ socket }, _reply, { see }) => {
        see(typeof socket.address(), socket.setNoDelay() === socket, socket.setKeepAlive(true, 1000) === socket, socket.ref() === socket, socket.unref() === socket)
        see(socket.pause() === socket, socket.resume() === socket)
      },
      asServer: 'light-my-request has no such methods'
    },
    { title: 'of its socket', handler: async ({ socket, raw, raw: { socket: { remoteAddress, remoteFamily } } }, reply, { see }) => { see(remoteAddress, remoteFamily, socket.destroyed, raw.socket === reply.raw.socket) }, asServer: 'light-my-request has an event emitter with an address' },
    { title: 'of its encryption', handler: async ({ socket, protocol }, _reply, { see }) => { see((socket as { encrypted?: boolean }).encrypted, protocol) } }
  ])
})

t.test('a body is the same', async t => {
  const large = Buffer.alloc(MIB - 1, 'large ')
  const binary = Buffer.from(Array.from({ length: 4096 }, (_, index) => index % 251))
  const bodies: Array<[string, Partial<Case>]> = [
    ['JSON', { payload: '{"a":[1,"\u00e9"]}', headers: json }],
    ['JSON that is broken', { payload: '{"a":', headers: json }],
    ['JSON with a prototype', { payload: '{"__proto__":{}}', headers: json }],
    ['JSON that is empty', { payload: '', headers: json }],
    ['text', { payload: 'caf\u00e9' }],
    ['text that is empty', { payload: '' }],
    ['none', {}],
    ['none, of a type', { headers: json }],
    ['of a type that has no parser', { payload: 'x', headers: { 'content-type': 'image/png' } }],
    ['of no type', { payload: 'x', headers: { 'content-type': '' } }],
    ['of 1 MiB', { payload: large }],
    ['longer than may be', { payload: 'longer', server: { bodyLimit: 5 } }],
    ['binary', { payload: binary, headers: { 'content-type': 'application/octet-stream' }, app: app => { app.addContentTypeParser('application/octet-stream', { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) }) } }],
    ['a stream', { payload: large, headers: { 'content-type': 'application/stream' }, app: app => { app.addContentTypeParser('application/stream', (_request, body, done) => { text(body).then(body => { done(null, body) }, done) }) } }],
    ['a form', { payload: 'a=1&b=x+y&a=2', headers: { 'content-type': 'application/x-www-form-urlencoded' }, app: app => app.register(formbody) }]
  ]
  compare(t, bodies.map(([title, each]): Case => ({
    title, method: 'POST', ...each, handler: async ({ body, headers }, _reply, { see }) => { see(Buffer.isBuffer(body), digest(body), headers['content-length'], headers['content-type']) }
  })))

  const boundary = 'limit'
  const part = (name: string, content: string, more = '') => `--${boundary}\r\ncontent-disposition: form-data; name="${name}"${more}\r\n\r\n${content}\r\n`
  const form = { method: 'POST', headers: { 'content-type': `multipart/form-data; boundary=${boundary}` } } as const
  const payload = `${part('a', '1')}${part('file', 'x'.repeat(300_000), '; filename="f.txt"')}${part('b', '2')}--${boundary}--\r\n`
  compare(t, [
    { ...form, title: 'of several parts, as streams', payload, app: app => app.register(multipart), handler: async (request, _reply, { see }) => { for await (const part of request.parts()) see(part.fieldname, part.type === 'file' ? digest(await text(part.file)) : part.value) } },
    { ...form, title: 'of several parts, as fields', payload, app: app => app.register(multipart, { attachFieldsToBody: 'keyValues' }), handler: async ({ body }, _reply, { see }) => { see(Object.entries(body as object).map(([name, value]) => [name, digest(value)])) } },
    { ...form, title: 'of several parts, of which one is too long', payload, app: app => app.register(multipart, { limits: { fileSize: 1000 } }), handler: async (request, _reply, { see }) => { see(await request.file().then(async file => await file!.toBuffer()).then(digest, error => error.code)) } },
    { ...form, title: 'of several parts, of which the last breaks off', payload: payload.slice(0, 1000), app: app => app.register(multipart), handler: async (request, _reply, { see }) => { for await (const part of request.parts()) see(part.fieldname, part.type === 'file' ? await text(part.file).then(digest, error => error.message) : part.value) }, asInject: 'a body is there as a whole, and so is what is wrong with it' }
  ])
})

t.test('a body that a hook replaces is the same', async t => {
  const replaceBy = (make: (request: FastifyRequest, payload: Readable) => Readable): Pick<Case, 'app' | 'handler'> => ({
    app: app => { app.addHook('preParsing', async (request, _reply, payload) => make(request, payload as unknown as Readable) as never) },
    handler: async ({ body }, _reply, { see }) => { see(digest(body)) }
  })
  compare(t, [
    { title: 'by another stream', method: 'POST', payload: 'text', ...replaceBy(() => Object.assign(Readable.from(['other']), { receivedEncodedLength: 4 })) },
    { title: 'by what it is transformed to', method: 'POST', payload: 'text', ...replaceBy((_request, payload) => Object.assign(payload.pipe(new Transform({ transform (chunk, _encoding, done) { done(null, String(chunk).toUpperCase()) } })), { receivedEncodedLength: 4 })) },
    { title: 'by what it is compressed to, of 1 MiB', method: 'POST', payload: Buffer.alloc(MIB - 1, 'x'), ...replaceBy((request, payload) => Object.assign(payload.pipe(createGzip()), { receivedEncodedLength: Number(request.headers['content-length']) })), handler: async (request, _reply, { see }) => { see(typeof request.body) } },
    { title: 'by a stream that fails', method: 'POST', payload: 'text', ...replaceBy(() => new Readable({ read () { this.destroy(new Error('broken')) } })) },
    { title: 'by nothing, since the hook fails', method: 'POST', payload: 'text', ...replaceBy(() => { throw Object.assign(new Error('no'), { statusCode: 418 }) }) }
  ])
})

t.test('a request is read in the same way', async t => {
  const raw: Partial<Case> = { method: 'POST', payload: Buffer.alloc(200_000, 'x'), headers: { 'content-type': 'application/raw' }, app: app => { app.addContentTypeParser('application/raw', (_request, _payload, done) => { done(null) }) } }
  const total = async (source: AsyncIterable<Buffer>) => {
    let length = 0
    for await (const chunk of source) length += chunk.length
    return length
  }
  compare(t, [
    {
      title: 'by its events',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        let length = 0
        raw.on('data', chunk => { length += chunk.length })
        await new Promise(resolve => { raw.on('end', resolve) })
        see(length, raw.readableEnded, raw.complete || raw.complete === undefined, raw.aborted)
      }
    },
    { title: 'by iteration', ...raw, handler: async ({ raw }, _reply, { see }) => { see(await total(raw)) } },
    {
      title: 'by read()',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        let length = 0
        raw.on('readable', () => { for (let chunk; (chunk = raw.read()) !== null;) length += chunk.length })
        await new Promise(resolve => { raw.on('end', resolve) })
        see(length)
      }
    },
    {
      title: 'as text',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        raw.setEncoding('utf8')
        see((await text(raw)).length)
      }
    },
    {
      title: 'by a pipeline',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        const hash = createHash('sha256')
        await pipeline(raw, hash)
        see(hash.digest('hex'))
      }
    },
    { title: 'as a web stream', ...raw, handler: async ({ raw }, _reply, { see }) => { see(await total(Readable.toWeb(raw) as unknown as AsyncIterable<Buffer>)) } },
    {
      title: 'until it is finished',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        raw.resume()
        await finished(raw)
        see('finished', raw.readableEnded)
      }
    },
    {
      title: 'with pauses',
      ...raw,
      handler: async ({ raw }, _reply, { see }) => {
        let length = 0
        raw.on('data', chunk => {
          length += chunk.length
          raw.pause()
          setImmediate(() => { raw.resume() })
        })
        await new Promise(resolve => { raw.on('end', resolve) })
        see(length)
      }
    },
    {
      title: 'by sending it back',
      ...raw,
      handler: ({ raw }, reply) => reply.send(raw.pipe(new PassThrough())),
      app: (app, sight) => {
        raw.app!(app, sight)
        app.addHook('onResponse', async (_request, { statusCode }) => { sight.see(statusCode) })
      }
    },
    {
      title: 'by a pipeline into its own answer',
      ...raw,
      handler: async ({ raw }, reply, { see }) => {
        reply.hijack()
        see(await pipeline(raw, reply.raw).then(() => 'whole', error => error.code))
      }
    },
    { title: 'not at all', ...raw, handler: async ({ raw }, _reply, { see }) => { see(raw.readableEnded, raw.readableFlowing) } },
    { title: 'through another compression', ...raw, payload: gzipSync('x'.repeat(100_000)), handler: async ({ raw }, _reply, { see }) => { see(digest(await text(raw))) } }
  ])
})

t.test('a request ends in the same way', async t => {
  const watch = (app: FastifyInstance, { see }: Sight) => {
    app.addHook('onRequest', async ({ raw }, { raw: answer }) => {
      for (const event of ['end', 'aborted', 'close', 'error']) raw.on(event, () => { see(`request ${event}`) })
      for (const event of ['finish', 'close', 'error']) answer.on(event, () => { see(`answer ${event}`) })
    })
  }
  compare(t, [
    { title: 'that has no body', app: watch, handler: async () => 'well', asServer: closes },
    { title: 'whose body nobody reads', app: (app, sight) => { watch(app, sight); app.addContentTypeParser('application/raw', (_request, _payload, done) => { done(null) }) }, method: 'POST', payload: 'x', headers: { 'content-type': 'application/raw' }, handler: async () => 'well', asServer: closes },
    {
      title: 'whose signal is asked for',
      method: 'POST',
      payload: 'x',
      handler: async ({ signal }, _reply, { see }) => {
        await new Promise(setImmediate)
        see(signal.aborted)
      },
      asInject: closesLate
    }
  ])
})

/** Notes what a request says of itself in a handler. */
function look (path: string): NonNullable<Case['app']> {
  return (app, { see }) => {
    app.all(path, async ({ id, method, url, originalUrl, query, params, body, headers, raw, ip, ips, host, hostname, port, protocol, socket, is404, routeOptions }) => {
      see({ id, method, url, originalUrl, query: { ...query as object }, params: { ...params as object }, body, headers: { ...headers }, rawHeaders: raw.rawHeaders, ip, ips, host, hostname, port, protocol, is404 })
      see(raw.url, raw.method, raw.headers === headers, socket.remoteAddress, routeOptions.url)
    })
  }
}

function digest (value: unknown): unknown {
  if (typeof value !== 'string' && !Buffer.isBuffer(value)) return value
  return value.length < 100 ? String(value) : createHash('sha256').update(value).digest('hex')
}
