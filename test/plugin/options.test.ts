import { inspect } from 'node:util'
import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t from 'tap'
import taskqueue, { type CreateStore, type TaskqueueOptions } from '../../lib/index.js'
import { readOptions } from '../../lib/plugin/settings.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { exponential } from '../../lib/task/backoff.js'
import { type Failure, startEcho } from '../support/echo-app.js'

/** Values that are not whole numbers, and how an error shows them. */
const wrongWholes: ReadonlyArray<readonly [unknown, string]> = [
  ['4', '"4"'], [1.5, '1.5'], [NaN, 'NaN'], [Infinity, 'Infinity'], [null, 'null'], [true, 'true'], [{}, 'an object'], [2 ** 53, String(2 ** 53)], [4n, '4n']
]

t.test('a wrong value of a plugin option is refused by name, with what was given and what is expected', async t => {
  const redis = 'a redis://, rediss:// or unix:// URL, options of ioredis or a client of it'
  const queues = 'an object with at least one queue'
  const name = 'named with 1 to 64 of A-Z a-z 0-9 . _ -'
  const prefix = '1 to 64 of A-Z a-z 0-9 . _ : -'
  const copyHeaders = 'true, false, a list of header names, or a function'
  await refuses(t, [
    [{ redis: 6379 }, 'redis', redis, 'another number'],
    [{ redis: null }, 'redis', redis, 'another object'],
    [{ redis: [] }, 'redis', redis, 'another object'],
    [{ redis: '' }, 'redis', redis, 'another string'],
    [{ redis: 'localhost:6379' }, 'redis', redis, 'another string'],
    [{ redis: 'http://localhost' }, 'redis', redis, 'another string'],
    ...['redis://:a/b#c@127.0.0.1', 'redis://127.0.0.1:undefined'].map((url): Row => [
      { redis: url }, 'redis', 'a URL that can be read; special characters in the user and the password are percent-encoded', 'another one'
    ]),
    [{ redis: 'redis://localhost/abc' }, 'redis', 'a URL whose path is the number of a database, or empty', 'one with another path'],
    [{ redis: { url: 'redis://localhost' } }, 'redis.url', "left out: 'redis' itself takes a URL", 'an option that ioredis does not have'],
    [{ redis: { hots: 'localhost' } }, 'redis.hots', 'left out', 'an option that ioredis does not have'],
    [{ redis: { constructor: 'localhost' } as never }, 'redis.constructor', 'left out', 'an option that ioredis does not have'],
    [{ redis: { cache: {}, queue: {} } }, 'redis.cache', 'left out', 'an option that ioredis does not have'],
    [{ redis: { sendCommand () {}, on () {} } }, 'redis', redis, 'a client of another package'],
    [{ redis: new Redis({ lazyConnect: true, stringNumbers: true }) }, 'redis', 'a client without stringNumbers', 'one that sets it'],
    [{ concurrency: 4 }, 'concurrency', "left out: its place is 'consumer.concurrency'", 'an option that does not exist'],
    [{ queues: { mail: { concurrency: 4 } } }, 'queues.mail.concurrency', "left out: its place is 'queues.mail.consumer.concurrency'", 'an option that does not exist'],
    [{ queues: {} }, 'queues', queues, 'an object'],
    [{ queues: [] }, 'queues', queues, 'an array'],
    [{ queues: null }, 'queues', queues, 'null'],
    [{ queues: 'mail' }, 'queues', queues, '"mail"'],
    [{ queues: { '': {} } }, 'queues.', name, '""'],
    [{ queues: { 'a b': {} } }, 'queues.a b', name, '"a b"'],
    [{ queues: { 'a:b': {} } }, 'queues.a:b', name, '"a:b"'],
    [{ queues: { 'a{b}': {} } }, 'queues.a{b}', name, '"a{b}"'],
    [{ queues: { pöst: {} } }, 'queues.pöst', name, '"pöst"'],
    [{ queues: { ['q'.repeat(65)]: {} } }, `queues.${'q'.repeat(65)}`, name, `"${'q'.repeat(65)}"`],
    [{ consumer: true }, 'consumer', 'an object, or false', 'true'],
    [{ consumer: null }, 'consumer', 'an object, or false', 'null'],
    [{ consumer: [] }, 'consumer', 'an object, or false', 'an array'],
    [{ user: null }, 'user', 'an object', 'null'],
    [{ user: (request: any) => request.user }, 'user', 'an object', 'a function'],
    [{ user: { id: 'id' } }, 'user.id', 'a function', '"id"'],
    [{ user: { id: null } }, 'user.id', 'a function', 'null'],
    [{ user: { load: {} } }, 'user.load', 'a function', 'an object'],
    [{ copyHeaders: 'cookie' }, 'copyHeaders', copyHeaders, '"cookie"'],
    [{ copyHeaders: null }, 'copyHeaders', copyHeaders, 'null'],
    [{ copyHeaders: { cookie: true } }, 'copyHeaders', copyHeaders, 'an object'],
    [{ copyHeaders: ['cookie', 1] }, 'copyHeaders', copyHeaders, 'an array'],
    [{ copyHeaders: ['cookie', 'X-Real-IP'] }, 'copyHeaders', 'a list of headers that can be inherited', '"X-Real-IP"'],
    [{ secrets: null }, 'secrets', 'one key or several, of 32 bytes or more', 'another value'],
    [{ secrets: [undefined] }, 'secrets', 'one key or several, of 32 bytes or more', 'another value'],
    [{ secrets: 'x'.repeat(31) }, 'secrets', 'one key or several, of 32 bytes or more', 'another value'],
    [{ secrets: new Uint8Array(31) }, 'secrets', 'one key or several, of 32 bytes or more', 'another value'],
    [{ secrets: ['x'.repeat(32), 'y'.repeat(31)] }, 'secrets', 'one key or several, of 32 bytes or more', 'another value'],
    [{ encrypt: 1 }, 'encrypt', 'true or false', '1'],
    [{ replicas: -1 }, 'replicas', 'a whole number, 0 or more', '-1'],
    [{ maxTasksPerRequest: 0 }, 'maxTasksPerRequest', 'a whole number, 1 or more', '0'],
    [{ maxDepth: 0 }, 'maxDepth', 'a whole number, 1 or more', '0'],
    [{ keep: -1 }, 'keep', 'a whole number, 0 to 1000000', '-1'],
    [{ keepMs: 0 }, 'keepMs', 'a whole number, 1 to 2592000000', '0'],
    [{ noteAdded: 1 }, 'noteAdded', 'true or false', '1'],
    [{ dispatch: 'socket' }, 'dispatch', "'direct' or 'inject'", '"socket"'],
    [{ dispatch: null }, 'dispatch', "'direct' or 'inject'", 'null'],
    [{ dispatch: 'toString' }, 'dispatch', "'direct' or 'inject'", '"toString"'],
    [{ prefix: '' }, 'prefix', prefix, '""'],
    [{ prefix: 1 }, 'prefix', prefix, '1'],
    [{ prefix: 'a{b}' }, 'prefix', prefix, '"a{b}"'],
    [{ prefix: 'p'.repeat(65) }, 'prefix', prefix, `"${'p'.repeat(65)}"`],
    ...wrongWholes.map(([value, shown]): Row => [{ commitTimeoutMs: value }, 'commitTimeoutMs', 'a whole number, 1 to 2147483647', shown]),
    [{ commitTimeoutMs: 0 }, 'commitTimeoutMs', 'a whole number, 1 to 2147483647', '0'],
    [{ commitTimeoutMs: 2 ** 31 }, 'commitTimeoutMs', 'a whole number, 1 to 2147483647', '2147483648'],
    ...wrongWholes.map(([value, shown]): Row => [{ maxPayloadBytes: value }, 'maxPayloadBytes', 'a whole number, 1 to 67108864', shown]),
    [{ maxPayloadBytes: 0 }, 'maxPayloadBytes', 'a whole number, 1 to 67108864', '0']
  ])
})

t.test('a wrong value of a queue option is refused under the name of the queue', async t => {
  const type = "'local', 'redis', a store type or a function that creates a store"
  await refuses(t, ([
    [undefined, '', 'an object', 'undefined'],
    [null, '', 'an object', 'null'],
    [true, '', 'an object', 'true'],
    [[], '', 'an object', 'an array'],
    [{ type: 'postgres' }, '.type', type, '"postgres"'],
    [{ type: null }, '.type', type, 'null'],
    [{ type: new LocalStore() }, '.type', type, 'a LocalStore'],
    [{ type: 'redis' }, '.redis', 'given, here or to the plugin, since the type of the queue is redis', 'undefined'],
    [{ redis: 6379 }, '.redis', 'a redis://, rediss:// or unix:// URL, options of ioredis or a client of it', 'another number'],
    [{ type: 'local', redis: 'localhost' }, '.redis', 'a redis://, rediss:// or unix:// URL, options of ioredis or a client of it', 'another string'],
    [{ consumer: true }, '.consumer', 'an object, or false', 'true'],
    [{ consumer: 4 }, '.consumer', 'an object, or false', '4']
  ] as Row[]).map(([options, path, ...rest]): Row => [{ queues: { mail: options } }, `queues.mail${path}`, ...rest]))
})

t.test('a wrong value of a consumer option is refused, of the plugin and of a queue', async t => {
  const name = 'a string of 1 to 255 characters'
  const backoff = 'a function, or a list of 1 to 100 delays, each of 0 to 2592000000 milliseconds, which is 30 days'
  const rows: Row[] = [
    [{ name: '' }, 'name', name, '""'],
    [{ name: 1 }, 'name', name, '1'],
    [{ name: 'n'.repeat(256) }, 'name', name, `"${'n'.repeat(99)}…`],
    [{ backoff: 1000 }, 'backoff', backoff, '1000'],
    [{ backoff: [] }, 'backoff', backoff, 'an array'],
    [{ backoff: null }, 'backoff', backoff, 'null']
  ]
  for (const [option, range, ...wrong] of [
    ['concurrency', '1 to 1000', 0, 1001],
    ['maxRetries', '0 or more', -1],
    ['timeoutMs', '1 to 2147483647', 0, 2 ** 31],
    ['leaseMs', '100 to 2147483647', 99, 2 ** 31],
    ['closeGraceMs', '0 to 2147483647', -1, 2 ** 31]
  ] as Array<[string, string, ...number[]]>) {
    for (const [value, shown] of [...wrongWholes, ...wrong.map(value => [value, String(value)] as const)]) {
      rows.push([{ [option]: value }, option, `a whole number, ${range}`, shown])
    }
  }
  await refuses(t, rows.map(([consumer, path, ...rest]): Row => [{ consumer }, `consumer.${path}`, ...rest]))
  await refuses(t, rows.map(([consumer, path, ...rest]): Row => [{ queues: { q: { consumer } } }, `queues.q.consumer.${path}`, ...rest]))
})

t.test('an option that does not exist is refused at each level', async t => {
  const given = (options: object, path: string): Row => [options, path, 'left out', 'an option that does not exist']
  await refuses(t, [
    given({ conusmer: {} }, 'conusmer'),
    given({ user: { name: () => '' } }, 'user.name'),
    given({ consumer: { retries: 4 } }, 'consumer.retries'),
    given({ queues: { mail: { retries: 4 } } }, 'queues.mail.retries'),
    given({ queues: { mail: { consumer: { retries: 4 } } } }, 'queues.mail.consumer.retries')
  ])
})

t.test('what a custom type returns is refused by the names of the methods it lacks', async t => {
  const all = 'a type whose stores have open, prepare, turn, extend, watch, counts, history, consumers, find, list, keys, schedules, plan, tick, operate, setProgress, close'
  const half = { open () {}, prepare () {}, turn () {}, counts: 1 }
  await refuses(t, ([
    [() => undefined, all, 'undefined'],
    [() => null, all, 'null'],
    [() => 1, all, '1'],
    [() => Object.assign(new LocalStore(), { operate: undefined }), 'a type whose stores have operate', 'a LocalStore'],
    [() => half, 'a type whose stores have extend, watch, counts, history, consumers, find, list, keys, schedules, plan, tick, operate, setProgress, close', 'an object']
  ] as Array<[unknown, string, string]>).map(([type, ...rest]): Row => [{ queues: { mail: { type } } }, 'queues.mail.type', ...rest]))
})

t.test('a registration that is refused leaves nothing behind', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  // Without the port of the loader that tap puts in front of imports.
  const resourcesInUse = () => process.getActiveResourcesInfo().filter(kind => kind !== 'MessagePort')
  const resources = resourcesInUse()
  const path = '/nowhere/redis.sock'
  const { code } = await refusal(app, { redis: { path }, queues: { a: {}, b: { type: () => ({}) } } })
  t.equal(code, 'FST_TASKQUEUE_INVALID_OPTION')
  t.strictSame(resourcesInUse(), resources, 'no connection, no timer')
  t.notOk(app.hasDecorator('taskqueue') || app.hasDecorator('verifyTask') || app.hasConstraintStrategy('taskOnly'))
  t.notOk(app.hasRequestDecorator('task') || app.hasRequestDecorator('taskqueue'))
  app.get('/', async ({ headers }) => headers['x-task-id'])
  t.equal((await app.inject({ url: '/', headers: { 'x-task-id': '1' } })).body, '1', 'no hook')

  const second = Fastify()
  t.teardown(() => second.close())
  await refusal(second, { prefix: '' })
  await second.register(taskqueue)
  second.get('/', async request => request.taskqueue.add('/'))
  t.equal((await second.inject('/')).statusCode, 200, 'a correct registration may follow')
})

t.test('a second registration is refused, also one in a context of its own', async t => {
  const message = /^The plugin is registered in this app already/
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  t.match(await refusal(app, {}), { code: 'FST_TASKQUEUE_ALREADY_REGISTERED', message })
  const contexts = Fastify()
  for (let i = 0; i < 2; i++) contexts.register(async context => { await context.register(taskqueue) })
  await t.rejects(async () => { await contexts.ready() }, { code: 'FST_TASKQUEUE_ALREADY_REGISTERED' })
})

t.test('no password and no secret is ever in an error', async t => {
  const url = 'redis://user:hunter2@127.0.0.1:1'
  for (const options of [
    { redis: 'http://user:hunter2@127.0.0.1' },
    { redis: 'redis://:hunter2/x#y@127.0.0.1' },
    { redis: { url: 'redis://:hunter2@127.0.0.1' } },
    { redis: [{ password: 'hunter2' }] },
    { redis: url, unknown: 1 },
    { secrets: 'hunter2' },
    { secrets: Buffer.from('hunter2') },
    { secrets: ['x'.repeat(32), 'hunter2'] },
    { secrets: { key: 'hunter2' } },
    { queues: { q: { redis: 'user:hunter2@127.0.0.1' } } },
    { queues: { q: { type: url } } },
    { queues: { q: { type: 'redis://user:a/hunter2@127.0.0.1' } } },
    { queues: { q: url } },
    { queues: url },
    { queues: [{ name: 'q', redis: url }] },
    { queues: [{ name: 'q', redis: { password: 'hunter2' } }] },
    { queues: { q: { type: () => ({ url }) } } },
    { queues: { q: { type: () => ({ options: { password: 'hunter2' } }) } } },
    { redis: url },
    { redis: { host: '127.0.0.1', port: 1, username: 'user', password: 'hunter2' } },
    { queues: { q: { redis: url.replace('redis', 'rediss') } } }
  ]) {
    const app = Fastify()
    const error = await refusal(app, options).catch(() => app.ready().then(() => undefined, (error: Failure) => error))
    t.match(error?.code, /^FST_TASKQUEUE_(INVALID_OPTION|UNREACHABLE)$/, inspect(options))
    t.notMatch(inspect(error, { depth: 10, showHidden: true }), 'hunter2')
    await app.close()
  }
})

t.test('options that are left out have the documented defaults', async t => {
  const { queues: [queue, ...others], user, ...settings } = readOptions({})
  t.strictSame(settings, {
    copyHeaders: true, secrets: [], encrypt: true, prefix: 'taskqueue', commitTimeoutMs: 2000, replicas: 0, maxPayloadBytes: 1024 * 1024, maxTasksPerRequest: 1000, maxDepth: 16, keep: { count: 1000, ms: 3_600_000 }, keepDead: undefined, onDead: undefined, schedules: undefined, scheduleRevision: undefined, noteAdded: false, dispatch: 'direct'
  })
  t.strictSame(others, [])
  const { consumer, ...rest } = queue!
  t.strictSame(rest, { name: 'default', type: 'local', redis: undefined, limits: undefined })
  const { name, ...limits } = consumer as Exclude<typeof consumer, false>
  t.strictSame(limits, { autoStart: true, concurrency: 1, maxRetries: 10, backoff: exponential, timeoutMs: 60_000, missingRouteMs: 3_600_000, leaseMs: 10_000, closeGraceMs: 10_000 })
  t.match(name, new RegExp(`^.+:${process.pid}:[0-9a-f]+$`))
  t.not(name, (readOptions({}).queues[0]!.consumer as typeof consumer & object).name, 'a unique name')

  for (const [given, id] of [[{ id: 'a', sub: 'b' }, 'a'], [{ sub: 'b' }, 'b'], [{ id: null, sub: 'b' }, 'b'], [{}, undefined], [null, undefined], [undefined, undefined]]) {
    t.equal(user.id({ user: given } as never), id)
  }
  t.strictSame(user.load('ada', {} as never), { id: 'ada' })
})

t.test('an option that is undefined is as good as left out', async t => {
  const undefinedConsumer = { name: undefined, concurrency: undefined, maxRetries: undefined, backoff: undefined, timeoutMs: undefined, missingRouteMs: undefined, leaseMs: undefined, closeGraceMs: undefined }
  const consumerOf = (options: TaskqueueOptions) => ({ ...readOptions(options).queues[0]!.consumer || {}, name: '' })
  t.strictSame(consumerOf({ consumer: undefinedConsumer }), consumerOf({}))
  t.strictSame(consumerOf({ consumer: { concurrency: 4 }, queues: { q: { consumer: undefinedConsumer } } }), consumerOf({ consumer: { concurrency: 4 } }))
  const { queues: [queue], ...settings } = readOptions({
    redis: undefined, queues: { default: { type: undefined, redis: undefined, consumer: undefined, limits: undefined } }, user: { id: undefined, load: undefined }, copyHeaders: undefined, secrets: undefined, prefix: undefined, commitTimeoutMs: undefined, maxPayloadBytes: undefined, encrypt: undefined, replicas: undefined, maxTasksPerRequest: undefined, maxDepth: undefined, keep: undefined, keepMs: undefined, keepDead: undefined, keepDeadMs: undefined, noteAdded: undefined, dispatch: undefined
  })
  t.match(queue, { type: 'local', consumer: { concurrency: 1 } })
  t.match(settings, {
    copyHeaders: true, secrets: [], encrypt: true, prefix: 'taskqueue', commitTimeoutMs: 2000, replicas: 0, maxPayloadBytes: 1024 * 1024, maxTasksPerRequest: 1000, maxDepth: 16, keep: { count: 1000, ms: 3_600_000 }, keepDead: undefined, onDead: undefined, noteAdded: false, dispatch: 'direct'
  })
})

t.test('the largest and the smallest values are taken', async t => {
  for (const consumer of [
    { name: 'n', concurrency: 1, maxRetries: 0, timeoutMs: 1, missingRouteMs: 0, leaseMs: 100, closeGraceMs: 0 },
    { name: 'n'.repeat(255), concurrency: 1000, maxRetries: Number.MAX_SAFE_INTEGER, timeoutMs: 0x7fffffff, leaseMs: 0x7fffffff, closeGraceMs: 0x7fffffff }
  ]) {
    t.match(readOptions({ queues: { ['q'.repeat(64)]: { consumer } } }).queues[0], { consumer })
  }
  t.match(readOptions({ prefix: 'a.B_c:d-1', commitTimeoutMs: 1, maxPayloadBytes: 1 }), { prefix: 'a.B_c:d-1', commitTimeoutMs: 1, maxPayloadBytes: 1 })
  for (const [given, keepDead] of [
    [{ keepDead: 0 }, { count: 0, ms: Infinity }], [{ keepDeadMs: 1 }, { count: Infinity, ms: 1 }], [{ keepDead: 5, keepDeadMs: 90 * 86_400_000 }, { count: 5, ms: 90 * 86_400_000 }]
  ] as const) {
    t.strictSame(readOptions(given).keepDead, keepDead)
  }
  for (const secrets of ['x'.repeat(32), 'ü'.repeat(16), Buffer.alloc(32), ['x'.repeat(32), new Uint8Array(33)]]) t.ok(readOptions({ secrets }).secrets.length > 0)
})

t.test("a queue's consumer differs from the plugin's only in what it says", async t => {
  const { queues: [mail, other] } = readOptions({
    consumer: { concurrency: 2, maxRetries: 3 },
    queues: { mail: { consumer: { concurrency: 4 } }, other: {} }
  })
  t.match(mail!.consumer, { concurrency: 4, maxRetries: 3, timeoutMs: 60_000 })
  t.match(other!.consumer, { concurrency: 2, maxRetries: 3, timeoutMs: 60_000 })
})

t.test('where consumer is false tasks are added and stay', async t => {
  const { request, app, waitFor } = await startEcho(t, { taskqueue: { queues: { a: { consumer: false }, b: {} } } })
  let last = ''
  await request(({ taskqueue }) => {
    taskqueue.add('/task', { queue: 'a' })
    last = taskqueue.add('/task', { queue: 'b' })
  })
  await waitFor(last)
  t.equal(await app.taskqueue.queue('a').length(), 1)
  const { queues } = readOptions({ consumer: false, queues: { a: { consumer: {} }, b: { consumer: { concurrency: 9 } }, c: {} } })
  t.strictSame(queues.map(({ consumer }) => consumer), [false, false, false], 'the false of the plugin wins')
})

t.test('the type of a queue follows from redis, and queues with the same one share a store', async t => {
  const client = new Redis({ lazyConnect: true })
  const custom = new LocalStore()
  const seen: Array<Parameters<CreateStore>> = []
  const type: CreateStore = (...args) => {
    seen.push(args)
    return custom
  }
  const app = Fastify()
  t.teardown(() => app.close())
  const redis = { path: '/nowhere' }
  await app.register(taskqueue, {
    redis,
    queues: { a: {}, b: { redis }, c: { redis: 'redis://127.0.0.1:1' }, d: { redis: client }, e: { type: 'local' }, f: { type: 'local' }, g: { type }, h: { type: { name: 'h', create: type } } }
  })
  const [a, b, c, d, e, f, g, h] = app.taskqueue.queues.map(({ store }) => store)
  for (const store of [a, b, c, d]) t.ok(store instanceof RedisStore)
  t.ok(e instanceof LocalStore && e === f && e !== custom)
  t.ok(g === custom && h === custom)
  t.ok(a === b && a !== c && c !== d)
  t.strictSame(seen.map(([queue, { heartbeatMs, clock, log }]) => [queue, heartbeatMs, clock, log]), [
    ['g', 2000, Date, app.log], ['h', 2000, Date, app.log]
  ], 'a custom type is told the name, the period of the heartbeat, the clock and the logger')
  t.strictSame(readOptions({ queues: { a: {}, b: { redis: 'redis://x' } } }).queues.map(({ type }) => type), ['local', 'redis'])
  for (const redis of ['redis://x', 'rediss://x', 'unix:///x', '/x.sock']) t.equal(readOptions({ redis }).queues[0]!.type, 'redis', redis)
})

t.test('the default queue is the alphabetically first, and one that is not there is an error that lists those that are', async t => {
  const { run, refusal, app, queued } = await startEcho(t, { taskqueue: { queues: { mail: {}, images: {}, 'zz.top': {} } } })
  t.equal((await run('/task')).task.queue, 'images')
  t.equal((await run('/task', { queue: 'mail' })).task.queue, 'mail')
  t.strictSame(app.taskqueue.queues.map(({ name }) => name), ['images', 'mail', 'zz.top'])
  const before = await queued()
  for (const [queue, shown] of [['nope', '"nope"'], ['constructor', '"constructor"'], ['', '""'], [1, '1'], [{}, 'an object']] as const) {
    const expected = { code: 'FST_TASKQUEUE_UNKNOWN_QUEUE', message: `Queue ${shown} is not registered, these are: images, mail, zz.top` }
    t.match(await refusal('/task', { queue }), expected)
    t.throws(() => app.taskqueue.queue(queue as string), expected)
    await t.rejects(app.taskqueue.add('/task', { queue: queue as string }), expected)
  }
  t.equal(await queued(), before)
})

t.test('a second registration is refused, and the first one goes on', async t => {
  const { app, request } = await startEcho(t, {
    setUp: async app => {
      const error = await refusal(app, {})
      t.match(error.message, /already/)
      await app.register(async child => { t.match((await refusal(child, {})).message, /already/, 'in a child, too') })
    }
  })
  t.equal((await request(({ taskqueue }) => taskqueue.add('/task'))).statusCode, 200)
  t.equal(app.taskqueue.queues.length, 1)
})

type Row = [options: unknown, option: string, expected: string, given: string]

async function refuses (t: { equal: Function, ok: Function }, rows: Row[]): Promise<void> {
  for (const [options, option, expected, given] of rows) {
    const app = Fastify()
    const { code, message } = await refusal(app, options)
    t.equal(code, 'FST_TASKQUEUE_INVALID_OPTION', inspect(options))
    t.ok(message.startsWith(`Option '${option}' must be ${expected}, got ${given}`), message)
    await app.close()
  }
}

/** Registers with options that are to be refused; returns the error, without which the app boots on. */
async function refusal (app: FastifyInstance, options: unknown): Promise<Failure> {
  let failure: Failure | null = null
  app.register(taskqueue, options as TaskqueueOptions).after(error => { failure = error })
  await app.after()
  if (failure === null) throw new Error(`not refused: ${inspect(options)}`)
  return failure
}
