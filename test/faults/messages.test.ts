import { createHash } from 'node:crypto'
import type { Redis } from 'ioredis'
import t from 'tap'
import { makeCodec } from '../../lib/task/codec.js'
import { loggedApp } from '../support/logged-app.js'

import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { adminOf } from './adder-and-consumer.js'
import { NOTHING } from '../support/nothing.js'

// What is in Redis that was not put there by an app, or is no longer as it was put there.

t.setTimeout(300_000)

const COUNT = 1000
const QUEUE = 'mail'
const PREFIX = 'taskqueue'
const SECRET = Buffer.alloc(32, 1)

const modes = {
  'in clear': { secrets: [], encrypt: true },
  encrypted: { secrets: [SECRET], encrypt: true },
  signed: { secrets: [SECRET], encrypt: false }
}

/** Makes something unreadable of the message of a task; `seed` makes each another one. */
type Damage = (message: Buffer, seed: number, id: string) => Buffer

const damages: Record<string, Damage> = {
  'random bytes': (_message, seed) => randomBytes(seed % 500, seed),
  // In clear, up to the payload: how long that has to be nobody knows.
  'the beginning': (message, seed) => message.subarray(0, seed % ((message.indexOf('\n') + 1 || message.length) - 1)),
  'another beginning': (message, seed) => Buffer.concat([randomBytes(1 + seed % 3, seed), message]),
  nothing: () => Buffer.alloc(0),
  'a newer version': message => Buffer.from(message.toString().replace('{', '{"v":2,').replace(/^([sm])1/, '$12')),
  'no task': (_message, seed) => Buffer.from(['null', '{}', '[]', '"task"', '{"v":1}', '{"v":1,"method":"TRACE","url":"/task","headers":{}}'][seed % 6]!)
}

/** What matters only where somebody could have made a message that is to be believed. */
const forgeries: Record<string, Damage> = {
  'another bit': (message, seed) => {
    const changed = Buffer.from(message)
    // The last character of base64 has bits that mean nothing.
    changed[seed % (message.length - 1)]! ^= 1 << seed % 8
    return changed
  },
  'in clear': (_message, _seed, id) => messageOf(id, { secrets: [] }),
  'by another secret': (_message, _seed, id) => messageOf(id, { secrets: [Buffer.alloc(32, 2)] }),
  'of another queue': (_message, _seed, id) => messageOf(id, { queue: 'other' }),
  'of another prefix': (_message, _seed, id) => messageOf(id, { prefix: 'other' }),
  'of another task': (_message, seed) => messageOf(`another ${seed}`)
}

for (const [title, { secrets, encrypt }] of Object.entries(modes)) {
  t.test(`of messages ${title} a thousand are damaged or forged: they are dead letters, kept as they are, and the others run`, async t => {
    const { path } = await startRedis(t)
    const admin = adminOf(t, { path })
    const options = { redis: { path }, queues: { [QUEUE]: {} }, prefix: PREFIX, ...secrets.length > 0 && { secrets, encrypt } }
    const { app: adder } = await loggedApp(t, { ...options, consumer: false })
    await adder.ready()
    const ids = Array.from({ length: 2 * COUNT }, (_, index) => `task-${index}`)
    for (let i = 0; i < ids.length; i += 100) {
      await adder.taskqueue.transaction(tx => { for (const id of ids.slice(i, i + 100)) tx.add('/task', { id, payload: `payload of ${id}` }) })
    }
    const bad = await damage(admin, ids.filter((_, index) => index % 2 === 1), Object.values({ ...damages, ...secrets.length > 0 && forgeries }))

    const { app, log } = await loggedApp(t, { ...options, consumer: { concurrency: 10 } })
    const runs: string[] = []
    app.post('/task', async ({ task, body }) => { runs.push(`${task!.id} ${body as string}`) })
    await app.ready()
    await until(async () => JSON.stringify(await app.taskqueue.queue(QUEUE).counts()) === JSON.stringify({ ...NOTHING, dead: COUNT }), 'the end of all tasks')
    t.strictSame(runs.sort(), ids.filter((_, index) => index % 2 === 0).map(id => `${id} payload of ${id}`).sort())
    const kept = await admin.hgetallBuffer(`${PREFIX}:{${QUEUE}}:message`)
    t.strictSame(new Set(Object.keys(kept)), new Set(bad.keys()))
    t.strictSame([...bad].filter(([id, message]) => !kept[id]!.equals(message)), [])
    t.equal(log.filter(({ level }) => level >= 50).length, COUNT, 'one line for each')
    const dead = await admin.hvals(`${PREFIX}:{${QUEUE}}:attempts`)
    t.strictSame(dead.filter(progress => !progress.includes('is unreadable')), [])
  })
}

t.test('what is no task at all is a dead letter too: an id without a message, an id that is none, ten megabytes', async t => {
  const { path } = await startRedis(t)
  const admin = adminOf(t, { path })
  const { app, log } = await loggedApp(t, { redis: { path } })
  const runs: string[] = []
  app.get('/task', async ({ task }) => { runs.push(task!.id) })
  await app.ready()
  const notAnId = Buffer.from([0xff, 0x00, 0x80])
  const large = Buffer.alloc(10_000_000, '{')
  await admin.hset('taskqueue:{default}:message', notAnId, 'message', 'large', large)
  await admin.rpush('taskqueue:{default}:waiting', 'stray', notAnId, 'large')
  await app.taskqueue.add('/task', { id: 'last' })
  await until(() => runs.length === 1)
  await until(async () => JSON.stringify(await app.taskqueue.queue('default').counts()) === JSON.stringify({ ...NOTHING, dead: 3 }))
  t.strictSame(runs, ['last'])
  t.strictSame(new Set(await admin.zrangeBuffer('taskqueue:{default}:dead', '0', '-1')), new Set([Buffer.from('stray'), notAnId, Buffer.from('large')]))
  t.ok(large.equals((await admin.hgetBuffer('taskqueue:{default}:message', 'large'))!))
  t.ok(log.filter(({ level }) => level >= 50).length <= 3)
})

/** Damages the messages of tasks, each in another way, and returns what they are now. */
async function damage (admin: Redis, ids: readonly string[], ways: readonly Damage[]): Promise<Map<string, Buffer>> {
  const key = `${PREFIX}:{${QUEUE}}:message`
  const messages = await admin.hgetallBuffer(key)
  const damaged = new Map(ids.map((id, seed) => [id, ways[seed % ways.length]!(messages[id]!, seed, id)]))
  await admin.hset(key, damaged)
  return damaged
}

/** The message of a task that would run, as an app with these settings makes it. */
function messageOf (id: string, { queue = QUEUE, prefix = PREFIX, secrets = [SECRET] } = {}): Buffer {
  const codec = makeCodec({ prefix, secrets, encrypt: true, maxPayloadBytes: 1000 })
  return Buffer.from(codec.encode(queue, { id, method: 'POST', url: '/task', headers: {}, depth: 1 }))
}

/** Bytes in an order that a seed decides. */
function randomBytes (length: number, seed: number): Buffer {
  const blocks = Array.from({ length: Math.ceil(length / 32) }, (_, index) => createHash('sha256').update(`${seed} ${index}`).digest())
  return Buffer.concat(blocks).subarray(0, length)
}
