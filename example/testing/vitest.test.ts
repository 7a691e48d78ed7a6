// With vitest:
//
//     npm run build && npx vitest run build/example/testing/vitest.test.js
import type { FastifyInstance } from 'fastify'
import { afterEach, beforeEach, expect, test } from 'vitest'
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
  expect(await signUp('ada@example.org')).toBe(202)
  expect(app.taskqueue.added).toMatchObject([{ queue: 'mail', url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  expect(sent).toEqual([])
  await app.taskqueue.drain()
  expect(sent).toEqual(['ada@example.org'])
})

test('who has no address gets no mail', async () => {
  expect(await signUp('nobody')).toBe(400)
  expect(app.taskqueue.added).toEqual([])
})

test('mails are sent one by one', async () => {
  for (const name of ['ada', 'grace']) await signUp(`${name}@example.org`)
  expect(await app.taskqueue.runOne('mail')).toBe(true)
  expect(sent).toEqual(['ada@example.org'])
  expect(await app.taskqueue.runOne('mail')).toBe(true)
  expect(await app.taskqueue.runOne('mail')).toBe(false)
  expect(sent).toEqual(['ada@example.org', 'grace@example.org'])
})
