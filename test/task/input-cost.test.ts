import Fastify, { type FastifyInstance, type FastifyRequest, type InjectOptions } from 'fastify'
import t from 'tap'
import { build as buildIds } from '../../example/ids.js'
import { build as buildTime } from '../../example/time.js'
import { build as buildTypedTasks } from '../../example/typed-tasks.js'
import { inheritFrom } from '../../lib/add/inheritance.js'
import { rehearse } from '../../lib/add/rehearsal.js'
import taskqueue from '../../lib/index.js'
import { readOptions } from '../../lib/plugin/settings.js'
import { kindOf, show } from '../../lib/show.js'
import { makeCodec } from '../../lib/task/codec.js'
import { checkHeader } from '../../lib/task/headers.js'
import { checkId, checkUserId } from '../../lib/task/id.js'
import { checkMethod } from '../../lib/task/method.js'
import { makeTask, placeOf } from '../../lib/task/task.js'
import { dueOf } from '../../lib/task/time.js'
import { canonicalUrl } from '../../lib/task/url.js'
import { parseRetryAfter } from '../../lib/task/verdict.js'

// What a client chooses costs no more than its length: neither the time nor the memory of the app.

t.setTimeout(300_000)

const internals = rehearse(Fastify())

const SHORT = 2000
/** How many times as long the longer text is. Where the time grows with the square of that, it takes 256 times as long. */
const TIMES = 16
const MOST_TIMES = 80
/** What is faster than this is not compared: a thousand other things take as long. */
const FLOOR_MS = 1

const BEGINNINGS = ['', '/', '/x?q=', '//', 'http://', '2099-01-01T00:00:00.', 'Mon, ', 's1.', 'm1.12345678.', '{"url":"', '[']
const MIDDLES = ['a', '/', ' ', '@', '%', '%2f', '%zz', '.', '../', '0', '-', ',', ';', ':', '"', '\\', '\t', '\0', 'é', '😀', '\ud800', 'a/', 'a ', '/@', 'a@', '((', '[', '{"a":']
const ENDS = ['', 'x', ' ', '@', '\n', 'Z', '"']
const TEXTS = BEGINNINGS.flatMap(beginning => MIDDLES.flatMap(middle => ENDS.map(end =>
  (length: number) => beginning + middle.repeat(length / middle.length) + end
)))

const settings = readOptions({ secrets: 'x'.repeat(32) })
const codecs = [makeCodec(settings), makeCodec({ ...settings, encrypt: false }), makeCodec({ ...settings, secrets: [] })]

/** Whatever takes a text that somebody else has chosen. */
const TAKERS: Record<string, (text: string) => unknown> = {
  'a url': canonicalUrl,
  'a value in the query': text => canonicalUrl('/x', { a: text }),
  'a name in the query': text => canonicalUrl('/x', { [text]: 'a' }),
  'an id': checkId,
  'a method': checkMethod,
  'the name of a header': text => { checkHeader(text, '') },
  'the value of a header': text => { checkHeader('x-a', text) },
  'the id of a user': checkUserId,
  'a time': text => dueOf({ runAt: text }),
  'a delay': text => dueOf({ delayMs: text as unknown as number }),
  onDuplicate: text => placeOf({ id: 'a', onDuplicate: text as 'keep' }),
  'the name of an option': text => makeTask('/x', { [text]: 1 }),
  'a payload': text => makeTask('/x', { payload: text }),
  'a text in a payload': text => makeTask('/x', { payload: { text } }),
  'Retry-After': parseRetryAfter,
  'the name of a queue': text => readOptions({ queues: { [text]: {} } }),
  'the prefix': text => readOptions({ prefix: text }),
  'the address of Redis': text => readOptions({ redis: text }),
  'a text in an error': show,
  'a name in an error': text => kindOf(Object.create({ constructor: { name: text } })),
  ...Object.fromEntries(codecs.map((codec, index) => [`a message, ${index}`, (text: string) => codec.decode('default', 'a', text)])),
  ...Object.fromEntries(codecs.map((codec, index) => [`a record, ${index}`, (text: string) => codec.decodeRecord('default', 'a', text)]))
}

for (const [what, take] of Object.entries(TAKERS)) {
  t.test(`the time that ${what} takes does not grow with the square of its length`, async t => {
    let slow: string | undefined
    for (const textOf of TEXTS) {
      const [short, long] = await times(async length => {
        try { take(textOf(length)) } catch {}
      })
      if (long / Math.max(short, FLOOR_MS) <= MOST_TIMES) continue
      slow = `${JSON.stringify(textOf(10))}: ${short} ms and ${long} ms`
      break
    }
    t.equal(slow, undefined)
  })
}

t.test('the examples take long texts in their stride, too', async t => {
  const apps = { time: await buildTime({}, () => {}), ids: await buildIds({ did () {} }), 'typed-tasks': await buildTypedTasks({}, () => {}) }
  for (const app of Object.values(apps)) t.teardown(() => app.close())
  const requests: Record<string, (text: string) => readonly [FastifyInstance, InjectOptions]> = {
    'the time of a reminder': text => [apps.time, { method: 'POST', url: '/reminders', payload: { text: 'a', at: `2099-01-01T00:00:00.${text}Z` } }],
    'the text of a reminder': text => [apps.time, { method: 'POST', url: '/reminders', payload: { text, at: '2099-01-01' } }],
    'an address': text => [apps['typed-tasks'], { method: 'POST', url: '/signup', payload: { email: text } }],
    'an address with an @': text => [apps['typed-tasks'], { method: 'POST', url: '/signup', payload: { email: `a@${text}` } }],
    'an idempotency key': text => [apps.ids, { method: 'POST', url: '/payments', headers: { 'idempotency-key': text }, payload: { cents: 1 } }],
    'the name of an article': text => [apps.ids, { method: 'PUT', url: `/articles/${encodeURIComponent(text)}`, payload: { text: 'a' } }]
  }
  for (const [what, requestOf] of Object.entries(requests)) {
    for (const middle of ['0', 'a', '-', '.', 'a.', '@', ' ']) {
      const [short, long] = await times(async length => {
        const [app, request] = requestOf(middle.repeat(length / middle.length))
        await app.inject(request)
      })
      // A request by itself takes some milliseconds.
      t.ok(long / Math.max(short, 5 * FLOOR_MS) < MOST_TIMES, `${what}, of ${JSON.stringify(middle)}: ${short} ms and ${long} ms`)
    }
  }
})

t.test('a value is shown in an error by its beginning, or by its kind, and nothing that an object holds is', async t => {
  for (const [value, shown] of [
    ['a', '"a"'], ['a\0\n', '"a\\u0000\\n"'], ['\ud800', '"\\ud800"'], ['x'.repeat(1e7), `"${'x'.repeat(99)}…`],
    ['redis://user:hunter2@host', '"…@host"'], [`//${'x'.repeat(1e6)}hunter2@host`, '"…@host"'], ['user:hunter2@a b:c@d', '"…@d"'],
    [1, '1'], [NaN, 'NaN'], [-0, '0'], [4n, '4n'], [10n ** 5000n, 'a long bigint'], [true, 'true'], [undefined, 'undefined'], [null, 'null'],
    [Symbol('hunter2'), 'a symbol'], [() => 'hunter2', 'a function'], [{ password: 'hunter2' }, 'an object'], [Object.create(null), 'an object'],
    [['hunter2'], 'an array'], [new Map([['hunter2', 1]]), 'a Map'], [new Date(0), 'a Date'], [new (class Card {})(), 'a Card'],
    [new Proxy({}, { getPrototypeOf () { throw new Error('hunter2') } }), 'an object'], [{ constructor: { name: 'hunter2'.repeat(100) } }, 'an object']
  ] as const) {
    t.equal(show(value), shown, shown)
  }
})

t.test('a commit that becomes too large is refused by the add that makes it so, and not when all of it is there', async t => {
  const app = Fastify({ bodyLimit: 4 * 1024 * 1024 })
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: false })
  let added = 0
  app.post('/notify', async ({ taskqueue, body }) => {
    for (let user = 0; user < 1000; user++) {
      taskqueue.add(`/tasks/notify/${user}`, { method: 'POST' })
      added++
    }
    return body
  })
  app.post('/again', async ({ taskqueue }) => {
    for (let round = 0; round < 5; round++) {
      const savepoint = taskqueue.savepoint()
      for (let user = 0; user < 60; user++) taskqueue.add('/tasks/notify', { method: 'POST' })
      savepoint.rollback()
    }
    await taskqueue.rollback()
    for (let user = 0; user < 60; user++) taskqueue.add('/tasks/notify', { method: 'POST' })
    await taskqueue.commit()
    for (let user = 0; user < 60; user++) taskqueue.add('/tasks/notify', { method: 'POST' })
  })
  const payload = { text: 'x'.repeat(1024 * 1000) }
  const refused = await app.inject({ method: 'POST', url: '/notify', payload })
  t.match(refused.json(), { code: 'FST_TASKQUEUE_TOO_LARGE', message: /^The messages of one commit must be at most 67108864 characters together, got 6[78]/ })
  t.equal(added, 65)
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 0 })
  t.equal((await app.inject({ method: 'POST', url: '/again', payload })).statusCode, 200, 'what is dropped or committed is not counted')
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 120 })
})

t.test('tasks that inherit a body share one copy of it, and what is changed between two is in the second', async t => {
  const bodies: Record<string, [body: any, change: (body: any) => void]> = {
    'an object': [{ a: { b: [1, 'x'] } }, body => { body.a.b[1] = 'y' }],
    'a name that is added': [{ a: 1 }, body => { body.b = 2 }],
    'a name that is removed': [{ a: 1, b: 2 }, body => { delete body.b }],
    'an order of names': [{ a: 1, b: 2 }, body => { delete body.a; body.a = 1 }],
    'an array': [[1, 2], body => { body.push(3) }],
    'an array that was an object': [{ a: [] }, body => { body.a = {} }],
    'null that was an object': [{ a: {} }, body => { body.a = null }],
    'a date': [{ at: new Date(0) }, body => { body.at.setTime(1) }],
    'what says itself what its JSON is': [{ a: { n: 1, toJSON () { return this.n } } }, body => { body.a.n++ }],
    bytes: [Buffer.from('abc'), body => { body[0]++ }],
    'a name that is everybody\'s': [JSON.parse('{"__proto__": 1}'), body => { Object.defineProperty(body, '__proto__', { value: 2, enumerable: true }) }]
  }
  for (const [what, [body, change]] of Object.entries(bodies)) {
    const type = Buffer.isBuffer(body) ? 'application/octet-stream' : 'application/json'
    const { payload } = inheritFrom(requestWith(body, type), true, internals)
    const contentOf = () => String(payload()!.content)
    const before = contentOf()
    const expected = () => Buffer.isBuffer(body) ? String(body) : JSON.stringify(body)
    t.equal(before, expected())
    t.equal(payload(), payload(), `${what}: one copy`)
    t.equal(contentOf(), before)
    change(body)
    t.not(contentOf(), before, `${what}: another one`)
    for (let round = 0; round < 3; round++) t.equal(contentOf(), expected())
  }
})

t.test('a body is encoded once, however many tasks inherit it', async t => {
  let encoded = 0
  const { stringify } = JSON
  const body = { text: 'x'.repeat(1000) }
  const { payload } = inheritFrom(requestWith(body, 'application/json'), true, internals)
  JSON.stringify = ((...args: Parameters<typeof stringify>) => {
    if (args[0] === body) encoded++
    return stringify(...args)
  }) as typeof stringify
  try {
    for (let task = 0; task < 1000; task++) payload()
  } finally {
    JSON.stringify = stringify
  }
  t.equal(encoded, 1)
})

/** What work takes with a short text and with a long one. */
async function times (work: (length: number) => Promise<void>): Promise<[short: number, long: number]> {
  return [await timeOf(async () => { await work(SHORT) }), await timeOf(async () => { await work(SHORT * TIMES) })]
}

/** The shortest of several times, in milliseconds. */
async function timeOf (work: () => Promise<void>): Promise<number> {
  let shortest = Infinity
  for (let round = 0; round < 4 && (round < 2 || shortest > FLOOR_MS); round++) {
    const start = performance.now()
    await work()
    shortest = Math.min(shortest, performance.now() - start)
  }
  return shortest
}

function requestWith (body: unknown, type: string): FastifyRequest {
  const from = { ip: '127.0.0.1', host: 'localhost', protocol: 'http' }
  return { ...from, body, headers: { 'content-type': type } } as unknown as FastifyRequest
}
