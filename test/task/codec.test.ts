import { createHash } from 'node:crypto'
import t from 'tap'
import { makeCodec } from '../../lib/task/codec.js'
import type { Task } from '../../lib/task/task.js'

const MAX_BYTES = 4 * 1024 * 1024
const secret = (byte: number) => Buffer.alloc(32, byte)
const codecOf = (secrets: Buffer[], { prefix = 'taskqueue', encrypt = true, maxPayloadBytes = MAX_BYTES } = {}) => makeCodec({ prefix, secrets, encrypt, maxPayloadBytes })
const open = codecOf([])
const sealed = codecOf([secret(1)])
const signed = codecOf([secret(1)], { encrypt: false })

const task: Task = {
  id: 'one',
  method: 'POST',
  url: '/mail?to=a%20b',
  headers: { cookie: 'session=hunter2', 'content-type': 'text/plain' },
  inherited: 1,
  ip: '2001:db8::7',
  protocol: 'https',
  payload: 'hunter2 ünd €',
  userId: 'ada',
  depth: 2,
  addedAt: 1_795_999_062_415,
  dueAt: 1_795_999_062_915,
  originReqId: 'req-1',
  maxRetries: 3,
  backoff: [1000, 0.5],
  timeoutMs: 500,
  dedupeMs: 700,
  schedule: { id: 'report', slot: 1_795_999_020_000, missed: 2 }
}

const USUAL: readonly Task[] = [
  { id: 'x', method: 'GET', url: '/', headers: {}, depth: 1 },
  { id: 'x', method: 'POST', url: '/', headers: { 'content-type': 'application/json' }, payload: '{}', depth: 1 }
]

t.test('a task comes out of its message as it went in', async t => {
  for (const codec of [open, sealed, signed]) {
    for (const [title, payload] of [
      ['none', undefined],
      ['empty', Buffer.alloc(0)],
      ['text', Buffer.from('{"a":"ü€😀\\n"}')],
      ['a byte order mark', Buffer.from('\ufefftext')],
      ['what looks like an escape', Buffer.from('\\u0000 " \u2028')],
      ['a zero byte', Buffer.from([0])],
      ['every byte', Buffer.from(Array.from({ length: 256 }, (_, byte) => byte))],
      ['invalid UTF-8', Buffer.from([0x61, 0xff, 0xfe])],
      ['a lone surrogate in UTF-8', Buffer.from([0xed, 0xa0, 0x80])],
      ['the replacement character', Buffer.from('\ufffd')],
      ['1 MiB of text', Buffer.alloc(1024 * 1024, 'a')],
      ['1 MiB of bytes', randomBytes(1024 * 1024, 7)]
    ] as const) {
      t.strictSame(same(codec.decode('mail', 'one', codec.encode('mail', { ...task, payload }))), same({ ...task, payload }), title)
    }
    for (const payload of ['', 'hunter2 ünd €', '\ufefftext', '{"a":"b"}\n\n{}\r\n', '\n']) {
      t.equal(codec.decode('mail', 'one', codec.encode('mail', { ...task, payload })).payload, payload, `the text ${JSON.stringify(payload)}`)
    }
    for (const usual of USUAL) t.match(codec.decode('q', 'x', codec.encode('q', usual)), usual)
    const least: Task = { id: 'x', method: 'GET', url: '/', headers: {}, depth: 1 }
    t.match(codec.decode('q', 'x', codec.encode('q', least)), least)
    t.strictSame(Object.values(codec.decode('q', 'x', codec.encode('q', least))).filter(value => value !== undefined), ['x', 'GET', '/', {}, 1])
  }
})

t.test('without secrets an operator can read a message, and with them nobody can', async t => {
  const [head, ...payload] = open.encode('mail', { ...task, payload: 'hunter2\nünd €' }).split('\n')
  t.strictSame(JSON.parse(head!), {
    url: '/mail?to=a%20b',
    headers: { cookie: 'session=hunter2', 'content-type': 'text/plain' },
    inherited: 1,
    ip: '2001:db8::7',
    protocol: 'https',
    userId: 'ada',
    depth: 2,
    addedAt: 1_795_999_062_415,
    dueAt: 1_795_999_062_915,
    originReqId: 'req-1',
    maxRetries: 3,
    backoff: [1000, 0.5],
    timeoutMs: 500,
    dedupeMs: 700,
    schedule: { id: 'report', slot: 1_795_999_020_000, missed: 2 }
  })
  t.strictSame(payload, ['hunter2', 'ünd €'])
  t.match(open.encode('mail', { ...task, payload: Buffer.from([255]) }), /^\{.*"base64":true\}\n\/w==$/)
  t.strictSame(USUAL.map(usual => open.encode('mail', usual)), ['{"url":"/"}', '{"url":"/"}\n{}'], 'what most have in common is left out')
  const local = open.encode('mail', { ...USUAL[0]!, ip: '127.0.0.1', protocol: 'http' })
  t.equal(local, '{"url":"/"}', 'so is where most come from')
  const message = sealed.encode('mail', task)
  t.match(message, /^[\w.-]+\n[\w.-]+$/, 'in characters that any store keeps')
  for (const part of ['hunter2', 'mail', 'ada', 'cookie', secret(1).toString('base64url').slice(0, 20)]) {
    t.notOk(message.includes(part), part)
    for (const half of message.split('\n')) t.notOk(Buffer.from(half.split('.')[2]!, 'base64url').includes(part), part)
  }
  t.not(message, sealed.encode('mail', task), 'and the same task has never the same message')
})

t.test('an address is any that a socket has, or none', async t => {
  for (const ip of ['', '10.0.0.1', '::1', '2001:db8::7', '::ffff:10.0.0.1', 'fe80::1%eth0']) {
    t.equal(open.decode('mail', 'one', open.encode('mail', { ...task, ip })).ip, ip)
  }
})

t.test('a message larger than allowed is refused when it is made', async t => {
  const size = Buffer.byteLength(open.encode('mail', task))
  for (const secrets of [[], [secret(1)]]) {
    t.doesNotThrow(() => codecOf(secrets, { maxPayloadBytes: size }).encode('mail', task))
    t.throws(() => codecOf(secrets, { maxPayloadBytes: size - 1 }).encode('mail', task), {
      code: 'FST_TASKQUEUE_PAYLOAD_TOO_LARGE', message: `at most ${size - 1} bytes (maxPayloadBytes), got ${size}`
    })
  }
})

t.test('any of the secrets opens a message, the first one makes it', async t => {
  for (const encrypt of [true, false]) {
    const old = codecOf([secret(1)], { encrypt })
    const both = codecOf([secret(2), secret(1)], { encrypt })
    const young = codecOf([secret(2)], { encrypt })
    t.match(both.decode('mail', 'one', old.encode('mail', task)), task)
    t.match(young.decode('mail', 'one', both.encode('mail', task)), task)
    unreadable(t, young, old.encode('mail', task), 'by a secret that is no longer there')
    unreadable(t, old, both.encode('mail', task), 'by a secret that is not there yet')
  }
})

t.test('a sealed or signed message is worth nothing in another queue, under another id or prefix', async t => {
  for (const codec of [sealed, signed]) {
    const message = codec.encode('mail', task)
    unreadable(t, codec, message, 'queue', 'other', 'one')
    unreadable(t, codec, message, 'id', 'mail', 'two')
    unreadable(t, codecOf([secret(1)], { prefix: 'other' }), message, 'prefix')
    for (const border of ['', ',', '","', ':', '\n']) {
      unreadable(t, codec, codec.encode('a', { ...task, id: `b${border}c` }), 'the border between queue and id', `a${border}b`, 'c')
    }
  }
})

t.test('a signed message is legible, and unreadable if anything in it is changed, added or cut off', async t => {
  const message = signed.encode('mail', task)
  const SIGNATURE = /^m1\.[\w-]{8}\.[\w-]{43}\./
  t.equal(message.split('\n').map(half => half.replace(SIGNATURE, '')).join('\n'), open.encode('mail', task))
  t.ok(message.split('\n').every(half => SIGNATURE.test(half)))
  for (let at = 0; at < message.length; at++) {
    const index = ALPHABET.indexOf(message[at]!)
    for (const changed of [index === -1 ? '~' : ALPHABET[index ^ 32]!, index === -1 ? '' : ALPHABET[index ^ 1]!, '\n']) {
      if (changed !== message[at]) unreadable(t, signed, message.slice(0, at) + changed + message.slice(at + 1), `character ${at}`)
    }
  }
  const head = message.slice(0, message.indexOf('{'))
  const json = message.slice(head.length)
  for (let length = 0; length < message.length; length++) unreadable(t, signed, message.slice(0, length), `the first ${length} characters`)
  for (const [title, other] of [
    ['one more character', `${message} `],
    ['no signature', head.replace(/[\w-]{43}/, '') + json],
    ['the signature of another message', `${signed.encode('mail', { ...task, userId: 'bob' }).slice(0, head.length)}${json}`],
    ['the name of the other kind', message.replace('m1', 's1')]
  ] as const) unreadable(t, signed, other, title)
})

t.test('the first line says what a task is, and no half of a message is believed beside one of another', async t => {
  const withoutPayload = { ...task, payload: undefined }
  for (const codec of [open, sealed, signed]) {
    const message = codec.encode('mail', task)
    const halves = message.split('\n')
    t.equal(halves.length, 2)
    const head = `${halves[0]}\n`
    for (const text of [head, message]) t.strictSame(codec.decodeHead('mail', 'one', text), { ...codec.decode('mail', 'one', message), payload: undefined })
    t.match(codec.decodeHead('mail', 'one', codec.encode('mail', withoutPayload)), withoutPayload)
    t.match(codec.decodeHead('q', 'x', codec.encode('q', USUAL[1]!).replace(/\n.*/s, '\n')), { method: 'POST' })
    if (codec === open) continue
    const again = codec.encode('mail', { ...task, userId: 'bob' }).split('\n')
    const another = codec.encode('mail', { ...task, payload: 'hunter3' }).split('\n')
    const alone = codec.encode('mail', withoutPayload)
    for (const [title, other] of [
      ['the payload of another user', `${halves[0]}\n${again[1]}`],
      // Signed it is another message of that task, whose head is the same.
      ...codec === sealed ? [['another payload of the same task', `${halves[0]}\n${another[1]}`] as const] : [],
      ['no payload', halves[0]!],
      ['an empty payload', head],
      ['one that had none', `${alone}\n${halves[1]}`],
      ['a head in place of the payload', `${halves[0]}\n${halves[0]}`],
      ['a payload in place of the head', `${halves[1]}\n${halves[1]}`],
      ['the payload alone', halves[1]!]
    ] as const) {
      unreadable(t, codec, other, title)
    }
    for (const text of [halves[0]!, `${alone}\n`, `${halves[1]}\n`]) t.throws(() => codec.decodeHead('mail', 'one', text), { code: 'FST_TASKQUEUE_UNREADABLE' })
    t.throws(() => codec.decodeHead('mail', 'two', head), { code: 'FST_TASKQUEUE_UNREADABLE' })
  }
})

t.test('what waits can be read when encryption is switched on or off', async t => {
  t.match(signed.decode('mail', 'one', sealed.encode('mail', task)), task)
  t.match(sealed.decode('mail', 'one', signed.encode('mail', task)), task)
})

t.test('a sealed message that is changed anywhere is unreadable', async t => {
  const message = sealed.encode('mail', task)
  for (let at = 0; at < message.length; at++) {
    // Another character of the same alphabet, which changes a bit that counts even at the end.
    const changed = ALPHABET[(ALPHABET.indexOf(message[at]!) + 32) % 64]!
    unreadable(t, sealed, message.slice(0, at) + changed + message.slice(at + 1), `character ${at}`)
  }
  for (let length = 0; length < message.length; length++) unreadable(t, sealed, message.slice(0, length), `the first ${length} characters`)
  for (const [title, other] of [
    ['one more part', `${message}.x`],
    ['a longer body', `${message}AAAA`],
    ['another version', message.replace('s1', 's2')],
    ['an empty key id', message.replace(/\..*\./, '..')],
    ['two messages', `${message}${message}`]
  ] as const) unreadable(t, sealed, other, title)
})

t.test('with secrets nothing is read that is not sealed, and the other way round', async t => {
  for (const codec of [sealed, signed]) {
    unreadable(t, codec, open.encode('mail', task), 'legible where secrets are set')
    unreadable(t, open, codec.encode('mail', task), 'sealed or signed where none are')
  }
})

t.test('a message of a newer release is unreadable and says so', async t => {
  for (const v of [2, 99, 0, -1, '1', null, true, [1], {}]) {
    t.match(unreadable(t, open, JSON.stringify({ v, ...legible() }), `version ${JSON.stringify(v)}`), /version/)
  }
})

t.test('random bytes are unreadable', async t => {
  for (let seed = 0; seed < 1000; seed++) {
    const bytes = randomBytes(seed % 97, seed)
    const text = bytes.toString(seed % 2 === 0 ? 'latin1' : 'utf8')
    unreadable(t, open, text, `seed ${seed}`)
    unreadable(t, sealed, text, `seed ${seed}, sealed`)
    unreadable(t, sealed, [...sealed.encode('mail', task).split('.').slice(0, 2), bytes.toString('base64url')].join('.'), `seed ${seed}, under a true key`)
  }
})

t.test('JSON that is no task is unreadable, and its error quotes nothing of it', async t => {
  for (const json of ['', 'null', '1', '"hunter2"', '[]', '{}', 'true', '{"v":1}', '{"v":1,"hunter2":', '[{"v":1}]', '\n{"url":"/"}', '{"url":"/"}{}', '{"url":\n"/"}', '{"__proto__":{"v":1}}']) unreadable(t, open, json, json)
  for (const [field, ...values] of [
    ['method', 'HEAD', 'OPTIONS', 'TRACE', 'CONNECT', 'post', 'hunter2', '', null, 1, ['GET'], {}],
    ['url', '//hunter2', 'http://hunter2/', '/hunter2/../x', '/hunter2\\x', '/hunter2\r\nx', 'hunter2', '', null, 1, ['/hunter2'], {}],
    ['headers', null, 'hunter2', 1, true, ['hunter2'], [], { hunter2: 1 }, { hunter2: null }, { hunter2: ['x'] }, { 'x\r\nhunter2': 'x' }, { '': 'x' },
      { x: 'a\r\nhunter2: b' }, { 'x-task-id': 'hunter2' }, { 'X-Task-User-Id': 'hunter2' }, { 'user-agent': 'hunter2' }, { 'content-length': '7' }, { 'transfer-encoding': 'chunked' }, { connection: 'close' }, { ':path': '/hunter2' }],
    ['inherited', 0, -1, 1.5, '1', null, true, {}, ['hunter2'], 'hunter2'],
    ['ip', null, 1, {}, ['127.0.0.1'], 'hunter2', 'localhost', '127.0.0.1 ', '127.0.0.1:80', '127.1', '256.0.0.1',
      '::1/128', '[::1]', `fe80::1%${'x'.repeat(100)}`],
    ['protocol', null, '', 'HTTPS', 'ftp', 'hunter2', 1, true, ['https'], {}],
    ['base64', 1, null, {}, ['hunter2'], false, 'hunter2'],
    ['userId', '', 'hunter2\n', ' hunter2', 'ü', ['hunter2'], {}, true, 'x'.repeat(256)],
    ['schedule', null, 7, [], {}, { id: 7, slot: 1, missed: 0 }, { id: 'a', slot: 9e15, missed: 0 }, { id: 'a', slot: 1, missed: 0.5 }],
    ['depth', 0, -1, 1.5, '3', null, {}, 'hunter2'],
    ['maxRetries', -1, 1.5, '3', null, {}, 1e300, 'hunter2'],
    ['depth', 0, -1, 1.5, '2', null, {}],
    ['timeoutMs', 0, -1, 1.5, '3', null, {}, 2 ** 31, 'hunter2']
  ] as Array<[string, ...unknown[]]>) {
    for (const value of values) unreadable(t, open, JSON.stringify({ ...legible(), [field]: value }), `${field} ${JSON.stringify(value)}`)
  }
})

t.test('what is read has the types that a task has', async t => {
  for (const fields of ['"userId":null', '"userId":5', '"base64":true', '"__proto__":{"userId":"root"}', '"constructor":{"prototype":{"polluted":true}}', '"headers":{"__proto__":"x"}']) {
    const message = `{"v":1,"method":"POST","url":"/","headers":{},${fields}}`
    let read: Task | undefined
    try {
      read = open.decode('mail', 'one', message)
    } catch (error) {
      t.match(error, { code: 'FST_TASKQUEUE_UNREADABLE' }, fields)
      continue
    }
    t.match(typeof read.userId, /^(string|undefined)$/, fields)
    t.ok(read.payload === undefined || typeof read.payload === 'string' || Buffer.isBuffer(read.payload), fields)
    t.ok(Object.values(read.headers).every(value => typeof value === 'string'), fields)
    t.not(read.userId, 'root')
  }
  t.equal(({} as { polluted?: true }).polluted, undefined)
  t.equal(open.decode('mail', 'one', JSON.stringify({ ...legible(), id: 'two' })).id, 'one', 'the id is the one under which the message is kept')
})

const ALPHABET = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_'

function legible (): Record<string, unknown> {
  return JSON.parse(open.encode('mail', { ...task, payload: undefined }))
}

/** Expects the error that says that a message is unreadable and nothing of what is in it; returns what it says. */
function unreadable (t: { fail: Function, ok: Function }, codec: typeof open, message: string, title: string, queue = 'mail', id = 'one'): string {
  try {
    codec.decode(queue, id, message)
  } catch (error) {
    const { code, message } = error as { code: string, message: string }
    t.ok(code === 'FST_TASKQUEUE_UNREADABLE' && !/hunter2|session|€/.test(message), `${title}: ${message}`)
    return message
  }
  t.fail(`was read: ${title}`)
  return ''
}

/** Bytes in an order that a seed decides. */
function randomBytes (length: number, seed: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, index) => createHash('sha256').update(`${seed} ${index}`).digest())
  return Buffer.concat(blocks).subarray(0, length)
}

/** A task that is compared fast, its payload as text. */
function same ({ payload, ...rest }: Task): object {
  return { ...rest, payload: payload === undefined ? undefined : Buffer.from(payload as string).toString('base64') }
}
