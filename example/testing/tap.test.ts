//     npm run build && npx tap run --disable-coverage build/example/testing/tap.test.js
import t from 'tap'
import { build, forTests } from './app.js'

t.test('who signs up is welcomed', async t => {
  const outbox: string[] = []
  const app = await build(forTests, outbox)
  t.teardown(() => app.close())

  const { statusCode } = await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada@example.org' } })
  t.equal(statusCode, 202)
  t.match(app.taskqueue.added, [{ url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  t.strictSame(outbox, [])
  await app.taskqueue.drain()
  t.strictSame(outbox, ['ada@example.org'])
})

t.test('nobody is welcomed without an address', async t => {
  const app = await build(forTests)
  t.teardown(() => app.close())
  await app.inject({ method: 'POST', url: '/signup', payload: { email: 'ada' } })
  t.strictSame(app.taskqueue.added, [])
  t.equal(await app.taskqueue.runOne(), false)
})
