import { type AddressInfo, connect } from 'node:net'
import { text } from 'node:stream/consumers'
import { inspect } from 'node:util'
import type { FastifyInstance, FastifyRequest } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { AddOptions, Participant, TaskRoute, TaskToAdd } from '../../lib/index.js'
import type { TaskqueueOptions } from '../../lib/plugin/options.js'
import { readOptions } from '../../lib/plugin/settings.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { gate } from '../support/gate.js'

// Each public function and option is given each of these values, which a client may choose or a handler may pass on by
// mistake: it works, or says with a code what is wrong, and then nothing has been queued. Nothing is changed that
// belongs to everybody, and the app goes on.

t.setTimeout(600_000)

/** What a value throws when it is asked for anything. */
class Own extends Error {}
const fail = () => { throw new Own('of the value itself') }

const NAMES = [
  '__proto__', 'constructor', 'prototype', 'toString', 'hasOwnProperty', 'then', 'error', 'newListener', 'removeListener', 'change', 'ended error', '*', ' ', ''
]
const TEXTS = [
  ...NAMES, '/', '//', '/../', 'a\0b', '\ud800', '\udfff\ud800', '😀', 'ü', '%', '%00', '%zz', '%s%d%j', '-1', '1e999', '{"a":1}', 'a\r\nx-task-id: 1',
  'x'.repeat(100_000), '/'.repeat(100_000), '@'.repeat(100_000), ' '.repeat(100_000), '\0'.repeat(100_000), '😀'.repeat(50_000), 'x'.repeat(10_000_000)
]
const polluting = () => JSON.parse('{"__proto__": {"polluted": true}, "constructor": {"prototype": {"polluted": true}}, "then": 1}')
const VALUES: unknown[] = [
  ...TEXTS, ...TEXTS.slice(0, 20).map(text => [text]), ['a', 'b'], [['a']], [], new Array(3), [null], Object.assign([], { a: 1 }),
  null, 0, -0, -1, 1, 1.5, 2 ** 53, NaN, Infinity, -Infinity, 0n, 10n ** 4000n, true, false, Symbol('error'), Symbol.iterator, () => 'a', async () => 'a',
  {}, Object.create(null), polluting(), [polluting()], { url: '/x' }, { length: 1e9 }, { url: ['/x'], id: ['a'] }, { pipe: fail },
  { toString: fail, valueOf: fail, toJSON: fail }, { toString: () => 'a' }, { toJSON: () => undefined }, Object.defineProperty({}, 'id', { get: fail, enumerable: true }),
  new Proxy({}, { get: fail, ownKeys: fail, getPrototypeOf: fail, has: fail }), new Proxy(() => {}, { get: fail, apply: fail }),
  new Date(NaN), new Date(8.64e15), new Map([['a', 1]]), new Set(['a']), Buffer.from('a'), new Uint8Array(100_000), new URLSearchParams('a=1'), /a/, new Error('x'),
  Promise.resolve('a'), new AbortController(), new (class Strange { get id () { return fail() } })()
]

type Call = (site: Site, value: any) => unknown

interface Site {
  readonly app: FastifyInstance
  readonly route: TaskRoute
  /** Has a request handled by a function, which says what comes of it. */
  request (work: (request: FastifyRequest) => unknown): Promise<unknown>
  user: unknown
  copy: unknown
}

const wait = { timeoutMs: 1 }
const OPTIONS: ReadonlyArray<keyof AddOptions> = [
  'method', 'query', 'headers', 'payload', 'queue', 'id', 'onDuplicate', 'dedupeMs', 'delayMs', 'runAt', 'expiresMs', 'maxRetries', 'timeoutMs'
]
const keyed = (name: unknown, value: unknown) => ({ [typeof name === 'symbol' ? 'symbol' : safely(name)]: value })
const safely = (value: unknown) => { try { return String(value) } catch { return 'no text' } }

/** What adds tasks, in a request and outside of one. */
const ADDING: Record<string, (value: any) => [target: any, options?: any]> = {
  'the url': value => [value],
  'a part of the url': value => [`/x/${safely(value)}`],
  'the query of the url': value => [`/x?a=${safely(value)}`],
  'the options': value => ['/x', value],
  'the name of an option': value => ['/x', keyed(value, 1)],
  ...Object.fromEntries(OPTIONS.map(name => [`the option ${name}`, (value: unknown) => ['/x', { [name]: value }]])),
  'dedupeMs with an id': value => ['/x', { id: 'a', dedupeMs: value }],
  'onDuplicate with an id': value => ['/x', { id: 'a', onDuplicate: value }],
  'a name in the query': value => ['/x', { query: keyed(value, 'a') }],
  'a value in the query': value => ['/x', { query: { a: value } }],
  'a value among others in the query': value => ['/x', { query: { a: ['a', value] } }],
  'the name of a header': value => ['/x', { headers: keyed(value, 'a') }],
  'the value of a header': value => ['/x', { headers: { 'x-a': value } }],
  'the content type': value => ['/x', { payload: 'a', headers: { 'content-type': value } }],
  'a part of the payload': value => ['/x', { payload: { a: value } }],
  'a name in the payload': value => ['/x', { payload: keyed(value, 'a') }]
}

const ROUTED: Record<string, (value: any) => object> = {
  'the options': value => value,
  'the payload': value => ({ payload: value, params: { id: 'a' } }),
  'the parameters': value => ({ payload: {}, params: value }),
  'the value of a parameter': value => ({ payload: {}, params: { id: value } }),
  'the name of a parameter': value => ({ payload: {}, params: { id: 'a', ...keyed(value, 'a') } }),
  'the content type': value => ({ payload: '{"a":1}', params: { id: 'a' }, headers: { 'content-type': value } }),
  'the query': value => ({ payload: {}, params: { id: 'a' }, query: value })
}

const CALLS: Record<string, Call> = {
  ...Object.fromEntries(Object.entries(ADDING).flatMap(([what, argsOf]): Array<[string, Call]> => [
    [`request.taskqueue.add: ${what}`, async ({ request }, value) => await request(({ taskqueue }) => taskqueue.add(...argsOf(value)))],
    [`app.taskqueue.add: ${what}`, async ({ app }, value) => await app.taskqueue.add(...argsOf(value))]
  ])),
  ...Object.fromEntries(Object.entries(ROUTED).map(([what, optionsOf]): [string, Call] => [
    `add with a route: ${what}`, async ({ app, route }, value) => await app.taskqueue.add(route as TaskRoute<object>, optionsOf(value))
  ])),
  'request.taskqueue.addAll: the tasks': async ({ request }, value) => await request(({ taskqueue }) => taskqueue.addAll(value)),
  'app.taskqueue.addAll: the tasks': async ({ app }, value) => await app.taskqueue.addAll(value),
  'app.taskqueue.addAll: a task among others': async ({ app }, value) => await app.taskqueue.addAll([{ url: '/x' }, value]),
  'app.taskqueue.addAll: the id of one among others': async ({ app }, value) => await app.taskqueue.addAll([{ url: '/x' }, { url: '/x', id: value }] as TaskToAdd[]),
  'app.taskqueue.transaction: the function': async ({ app }, value) => { await app.taskqueue.transaction(value) },
  'request.taskqueue.join: the participant': async ({ request }, value) => await request(({ taskqueue }) => { taskqueue.join(value) }),
  'request.taskqueue.join: a function': async ({ request }, value) => await request(({ taskqueue }) => { taskqueue.join({ commit: value, rollback () {} } as Participant) }),
  'app.taskqueue.queue: the name': ({ app }, value) => { app.taskqueue.queue(value) },
  'app.taskqueue.get: the id': async ({ app }, value) => { await app.taskqueue.get(value) },
  'app.taskqueue.wait: the id': async ({ app }, value) => { await app.taskqueue.wait(value, wait) },
  'app.taskqueue.wait: the options': async ({ app }, value) => { await app.taskqueue.wait('nobody', value) },
  'app.taskqueue.wait: timeoutMs': async ({ app }, value) => { await app.taskqueue.wait('nobody', { timeoutMs: value }) },
  'app.taskqueue.wait: signal': async ({ app }, value) => { await app.taskqueue.wait('nobody', { signal: value }) },
  'app.taskqueue.cancel: the id': async ({ app }, value) => { await app.taskqueue.cancel(value) },
  'app.taskqueue.reschedule: the id': async ({ app }, value) => { await app.taskqueue.reschedule(value, { delayMs: 600_000 }) },
  'app.taskqueue.reschedule: the time': async ({ app }, value) => { await app.taskqueue.reschedule('nobody', value) },
  'app.taskqueue.reschedule: delayMs': async ({ app }, value) => { await app.taskqueue.reschedule('nobody', { delayMs: value }) },
  'app.taskqueue.reschedule: runAt': async ({ app }, value) => { await app.taskqueue.reschedule('nobody', { runAt: value }) },
  'app.taskqueue.runNow: the id': async ({ app }, value) => { await app.taskqueue.runNow(value) },
  'app.taskqueue.runOne: the queue': async ({ app }, value) => { if (value !== 'error') await app.taskqueue.runOne(value) },
  'queue.list: the state': async ({ app }, value) => { await app.taskqueue.queue('error').list(value) },
  'queue.list: the page': async ({ app }, value) => { await app.taskqueue.queue('error').list('waiting', value) },
  'queue.list: offset': async ({ app }, value) => { await app.taskqueue.queue('error').list('dead', { offset: value }) },
  'queue.list: limit': async ({ app }, value) => { await app.taskqueue.queue('error').list('done', { limit: value }) },
  'queue.redrive: the ids': async ({ app }, value) => { await app.taskqueue.queue('error').redrive(value) },
  'queue.redrive: an id': async ({ app }, value) => { await app.taskqueue.queue('error').redrive([value]) },
  'queue.remove: the ids': async ({ app }, value) => { await app.taskqueue.queue('error').remove(value) },
  'queue.remove: an id': async ({ app }, value) => { await app.taskqueue.queue('error').remove(['a', value]) },
  'what user.id returns': async (site, value) => {
    site.user = value
    return await site.request(({ taskqueue }) => taskqueue.add('/x')).finally(() => { site.user = undefined })
  },
  'what copyHeaders returns': async (site, value) => {
    site.copy = value
    return await site.request(({ taskqueue }) => taskqueue.add('/x')).finally(() => { site.copy = true })
  }
}

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: whatever its functions are given, they work or say with a code what is wrong, and the app goes on`, async t => {
    const { site, queued, add, admin } = await start(t, type)
    const before = Object.getOwnPropertyNames(Object.prototype)
    const values = type === 'local' ? VALUES : VALUES.filter(value => typeof value !== 'string' || value.length < 1_000_000)
    for (const [what, call] of Object.entries(CALLS)) {
      const wrong: string[] = []
      for (const value of values) {
        const count = await queued()
        const shown = inspect(value, { depth: 1, maxStringLength: 20, maxArrayLength: 3 }).slice(0, 100)
        try {
          await call(site, value)
        } catch (error) {
          const reason = reasonOf(error)
          if (reason !== undefined) wrong.push(`${shown}: ${reason}`)
          else if (await queued() !== count) wrong.push(`${shown}: refused, and something is queued`)
        }
      }
      t.strictSame(wrong, [], what)
    }
    t.strictSame(Object.getOwnPropertyNames(Object.prototype), before)
    t.equal(({} as { polluted?: true }).polluted, undefined)
    for (const id of NAMES.filter(name => /^[!-~]+$/.test(name))) {
      await site.app.taskqueue.cancel(id)
      await add(id)
      const waits = [site.app.taskqueue.wait(id), site.app.taskqueue.wait(id)]
      for (const news of [`ended ${id}`, 'ended', 'ended  ', `change ${id}`, ' '.repeat(1_000_000), '__proto__ constructor']) await admin?.publish('taskqueue:{error}', news)
      await site.app.taskqueue.cancel(id)
      t.match(await Promise.all(waits), [{ id, state: 'cancelled' }, { id, state: 'cancelled' }])
    }
    await site.app.taskqueue.queue('error').purge()
    const last = await site.app.taskqueue.add('/x')
    await site.app.taskqueue.drain()
    t.match(await site.app.taskqueue.get(last!), { state: 'done' })
  })
}

t.test('a task that says a strange thing of its progress is told so, and has no other progress', async t => {
  const { app } = await loggedApp(t, { consumer: { autoStart: false, maxRetries: 0 } })
  let wrong: string[] = []
  app.get('/x', async ({ task }) => {
    for (const value of VALUES) {
      try {
        await task!.progress(value)
      } catch (error) {
        const reason = reasonOf(error)
        if (reason !== undefined) wrong.push(`${inspect(value).slice(0, 100)}: ${reason}`)
      }
    }
    await task!.progress('the last one')
    for (const value of [1n, () => {}, 'x'.repeat(65_535)]) await t.rejects(task!.progress(value), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: /^Option 'progress' must be / })
    t.match(await app.taskqueue.get(task!.id), { progress: 'the last one' })
  })
  await app.ready()
  const id = await app.taskqueue.add('/x')
  await app.taskqueue.drain()
  t.match(await app.taskqueue.get(id), { state: 'done' })
  t.strictSame(wrong, [])
  wrong = []
})

t.test('whatever an option of the plugin is, it is taken or refused by name', async t => {
  const names = [
    'redis', 'queues', 'consumer', 'user', 'copyHeaders', 'secrets', 'encrypt', 'prefix', 'commitTimeoutMs', 'replicas', 'maxPayloadBytes', 'maxTasksPerRequest',
    'keep', 'keepMs', 'noteAdded', 'maxDepth', 'dispatch'
  ]
  const optionsOf: Record<string, (value: unknown) => object> = {
    ...Object.fromEntries(names.map(name => [name, (value: unknown) => ({ [name]: value })])),
    'the name of an option': value => keyed(value, 1),
    'the name of a queue': value => ({ queues: keyed(value, {}) }),
    'a queue': value => ({ queues: { a: value } }),
    ...Object.fromEntries(['type', 'redis', 'consumer'].map(name => [`${name} of a queue`, (value: unknown) => ({ queues: { a: { [name]: value } } })])),
    ...Object.fromEntries(['name', 'autoStart', 'concurrency', 'maxRetries', 'backoff', 'timeoutMs', 'leaseMs', 'closeGraceMs'].map(name => [
      `${name} of a consumer`, (value: unknown) => ({ consumer: { [name]: value } })
    ])),
    'user.id': value => ({ user: { id: value } }),
    'user.load': value => ({ user: { load: value } })
  }
  for (const [what, options] of Object.entries(optionsOf)) {
    const wrong: string[] = []
    for (const value of VALUES) {
      try {
        readOptions(options(value) as TaskqueueOptions)
      } catch (error) {
        const reason = reasonOf(error)
        if (reason !== undefined) wrong.push(`${inspect(value, { maxStringLength: 20 }).slice(0, 100)}: ${reason}`)
      }
    }
    t.strictSame(wrong, [], what)
  }
  const queues = JSON.parse('{"__proto__": {}, "constructor": {}}')
  t.strictSame(readOptions({ queues }).queues.map(({ name }) => name), ['__proto__', 'constructor'])
})

t.test('headers of a request may have any name, and a task inherits them as they are', async t => {
  const { app } = await loggedApp(t, {})
  const { opened, open } = gate()
  let headers: object = {}
  app.post('/add', async ({ taskqueue }) => taskqueue.add('/task', { method: 'POST', payload: null }))
  app.post('/task', { constraints: { taskOnly: true } }, async request => {
    headers = request.headers
    open()
  })
  await app.listen({ port: 0, host: '127.0.0.1' })
  const socket = connect((app.server.address() as AddressInfo).port, '127.0.0.1')
  const names = ['__proto__', 'constructor', 'toString', 'x-ok']
  socket.end(`POST /add HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\nContent-Type: application/json\r\n${names.map(name => `${name}: 1\r\n`).join('')}\r\n{}`)
  t.match(await text(socket), /^HTTP\/1\.1 200 /)
  await opened
  t.match(headers, { constructor: '1', tostring: '1', 'x-ok': '1' })
  t.equal(Object.getPrototypeOf(headers), Object.prototype)
})

/** What is wrong with an error; undefined if it is one that is to be expected. */
function reasonOf (error: unknown): string | undefined {
  if (error instanceof Own) return undefined
  const { code, message, stack } = error as Error & { code?: string }
  if (!/^FST_TASKQUEUE_[A-Z_]+$/.test(code ?? '')) return `${code} ${stack}`
  if (message.length > 2000) return `its message has ${message.length} characters`
  return undefined
}

async function start (t: Test, type: string) {
  const path = type === 'redis' ? (await startRedis(t)).path : undefined
  let work: (request: FastifyRequest) => unknown
  const site: Site = {
    user: undefined,
    copy: true,
    async request (given) {
      work = given
      const response = await app.inject({ method: 'POST', url: '/request', payload: { a: 1 } })
      if (response.statusCode === 200) return undefined
      throw failed
    },
    get app () { return app },
    get route () { return route as unknown as TaskRoute }
  }
  const { app } = await loggedApp(t, {
    ...path !== undefined && { redis: { path } },
    queues: { error: {}, ['__proto__']: {} },
    consumer: { autoStart: false, maxRetries: 0 },
    user: { id: () => site.user as string },
    copyHeaders: () => site.copy as boolean
  })
  let failed: unknown
  app.setErrorHandler(async (error, _request, reply) => {
    failed = error
    return await reply.code(500).send({})
  })
  const route = app.task({
    url: '/route/:id',
    schema: { body: { type: 'object' }, params: { type: 'object', properties: { id: { type: 'string', maxLength: 50 } } } },
    handler: async () => {}
  })
  app.post('/request', async request => { await work(request) })
  app.all('/*', { constraints: { taskOnly: true } }, async (_request, reply) => await reply.code(204).send())
  await app.ready()
  const admin = path === undefined ? undefined : new Redis({ path })
  t.teardown(() => { admin?.disconnect() })
  return {
    site,
    admin,
    add: async (id: string) => await app.taskqueue.add('/x', { id, queue: 'error', delayMs: 600_000 }),
    async queued () {
      const counts = await Promise.all(app.taskqueue.queues.map(queue => queue.counts()))
      return counts.reduce((sum, { waiting, delayed, running, dead }) => sum + waiting + delayed + running + dead, 0)
    }
  }
}
