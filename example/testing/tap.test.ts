// With tap:
//
//     npm run build && npx tap --disable-coverage build/example/testing/tap.test.js
import t, { type Test } from 'tap'
import { build } from './app.js'

async function start (t: Test) {
  const sent: string[] = []
  const app = await build({ consumer: { autoStart: false }, noteAdded: true }, to => { sent.push(to) })
  t.teardown(async () => await app.close())
  const signUp = async (email: string) => (await app.inject({ method: 'POST', url: '/signup', payload: { email } })).statusCode
  return { taskqueue: app.taskqueue, sent, signUp }
}

t.test('who signs up is answered at once, and gets a mail later', async t => {
  const { taskqueue, sent, signUp } = await start(t)
  t.equal(await signUp('ada@example.org'), 202)
  t.match(taskqueue.added, [{ queue: 'mail', url: '/tasks/welcome', payload: { to: 'ada@example.org' } }])
  t.strictSame(sent, [])
  await taskqueue.drain()
  t.strictSame(sent, ['ada@example.org'])
})

t.test('who has no address gets no mail', async t => {
  const { taskqueue, signUp } = await start(t)
  t.equal(await signUp('nobody'), 400)
  t.strictSame(taskqueue.added, [])
})

t.test('mails are sent one by one', async t => {
  const { taskqueue, sent, signUp } = await start(t)
  for (const name of ['ada', 'grace']) await signUp(`${name}@example.org`)
  t.equal(await taskqueue.runOne('mail'), true)
  t.strictSame(sent, ['ada@example.org'])
  t.equal(await taskqueue.runOne('mail'), true)
  t.equal(await taskqueue.runOne('mail'), false)
  t.strictSame(sent, ['ada@example.org', 'grace@example.org'])
})
