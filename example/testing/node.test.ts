// With the test runner of Node:
//
//     npm run build && node --test build/example/testing/node.test.js
import assert from 'node:assert/strict'
import { afterEach, beforeEach, test } from 'node:test'
import type { FastifyInstance } from 'fastify'
import { build } from './app.js'

let app: FastifyInstance
let sent: string[]

beforeEach(async () => {
  sent = []
  app = await build({ consumer: { autoStart: false }, noteAdded: true }, to => { sent.push(to) })
})
afterEach(async () => { await app.close() })

const signUp = async (email: string) => (await app.inject({ method: 'POST', url: '/signup', payload: { email } })).statusCode

test('who signs up is answered at once, and gets a mail later', async () => {
  assert.equal(await signUp('ada@example.org'), 202)
  const added = app.taskqueue.added.map(({ queue, url, payload }) => ({ queue, url, payload }))
  assert.deepEqual(added, [{ queue: 'mail', url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  assert.deepEqual(sent, [])
  await app.taskqueue.drain()
  assert.deepEqual(sent, ['ada@example.org'])
})

test('who has no address gets no mail', async () => {
  assert.equal(await signUp('nobody'), 400)
  assert.deepEqual(app.taskqueue.added, [])
})

test('mails are sent one by one', async () => {
  for (const name of ['ada', 'grace']) await signUp(`${name}@example.org`)
  assert.equal(await app.taskqueue.runOne('mail'), true)
  assert.deepEqual(sent, ['ada@example.org'])
  assert.equal(await app.taskqueue.runOne('mail'), true)
  assert.equal(await app.taskqueue.runOne('mail'), false)
  assert.deepEqual(sent, ['ada@example.org', 'grace@example.org'])
})
