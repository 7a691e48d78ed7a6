//     npm run build && npx vitest run build/example/testing/vitest.test.js
import { expect, onTestFinished, test } from 'vitest'
import { build, forTests } from './app.js'

test('who signs up is welcomed', async () => {
  const outbox: string[] = []
  const app = await build(forTests, outbox)
  onTestFinished(() => app.close())

  const { statusCode } = await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada@example.org' } })
  expect(statusCode).toBe(202)
  expect(app.taskqueue.added).toMatchObject([{ url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  expect(outbox).toEqual([])
  await app.taskqueue.drain()
  expect(outbox).toEqual(['ada@example.org'])
})

test('nobody is welcomed without an address', async () => {
  const app = await build(forTests)
  onTestFinished(() => app.close())
  await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada' } })
  expect(app.taskqueue.added).toEqual([])
  expect(await app.taskqueue.runOne()).toBe(false)
})
