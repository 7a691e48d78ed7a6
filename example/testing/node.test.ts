//     npm run build && node --test build/example/testing/node.test.js
import assert from 'node:assert/strict'
import test from 'node:test'
import { build, forTests } from './app.js'

test('who signs up is welcomed', async t => {
  const outbox: string[] = []
  const app = await build(forTests, outbox)
  t.after(() => app.close())

  const { statusCode } = await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada@example.org' } })
  assert.equal(statusCode, 202)
  assert.deepEqual(app.taskqueue.added.map(({ url, payload }) => ({ url, payload })), [{ url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  assert.deepEqual(outbox, [])
  await app.taskqueue.drain()
  assert.deepEqual(outbox, ['ada@example.org'])
})

test('nobody is welcomed without an address', async t => {
  const app = await build(forTests)
  t.after(() => app.close())
  await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada' } })
  assert.deepEqual(app.taskqueue.added, [])
  assert.equal(await app.taskqueue.runOne(), false)
})
