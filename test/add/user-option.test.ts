import t from 'tap'
import { loggedApp } from '../support/logged-app.js'

t.test('a task runs as the user that add was given, whoever makes the request', async t => {
  const { app } = await loggedApp(t, { consumer: { autoStart: false }, user: { load: id => ({ id, loaded: true }) } })
  app.addHook('onRequest', async request => { if (request.task === null) Object.assign(request, { user: { id: 'ada' } }) })
  const seen: unknown[] = []
  app.get('/as', async ({ task, headers }) => { seen.push([task?.userId, headers['x-task-user-id'], headers.cookie, headers.authorization, headers['x-kept']]) })
  app.get('/verified', { preHandler: app.verifyTask }, async request => { seen.push((request as { user?: unknown }).user) })
  app.get('/chain', async ({ taskqueue }) => { taskqueue.add('/as') })
  app.get('/add', async ({ taskqueue }) => {
    taskqueue.add('/as')
    taskqueue.add('/as', { user: 'bob' })
    taskqueue.add('/as', { user: 7 })
    taskqueue.add('/as', { user: null })
    taskqueue.add('/as', { user: 'bob', headers: { authorization: 'for bob' } })
    taskqueue.add('/verified', { user: 'bob' })
    taskqueue.add('/chain', { user: 'bob' })
  })
  await app.ready()
  await app.inject({ url: '/add', headers: { cookie: 'a=b', authorization: 'for ada', 'x-kept': '1' } })
  await app.taskqueue.add('/as', { user: 'eve' })
  await app.taskqueue.drain()
  t.strictSame(seen, [
    ['ada', 'ada', 'a=b', 'for ada', '1'],
    ['bob', 'bob', undefined, undefined, '1'],
    ['7', '7', undefined, undefined, '1'],
    [undefined, undefined, undefined, undefined, '1'],
    ['bob', 'bob', undefined, 'for bob', '1'],
    { id: 'bob', loaded: true },
    ['eve', 'eve', undefined, undefined, undefined],
    ['bob', 'bob', undefined, undefined, '1']
  ])
})

t.test('a user that is no id is refused', async t => {
  const { app } = await loggedApp(t, {})
  await app.ready()
  for (const user of ['', 'ä', ' x', 'x'.repeat(256), {}, true, NaN]) {
    await t.rejects(app.taskqueue.add('/', { user: user as string }), { code: 'FST_TASKQUEUE_INVALID_USER_ID' })
  }
})

t.test('what tests see of an added task says as whom it runs', async t => {
  const { app } = await loggedApp(t, { consumer: { autoStart: false }, noteAdded: true, user: { id: async request => request.headers['x-user'] as string } })
  app.get('/add', async ({ taskqueue }) => taskqueue.addAll([{ url: '/a' }, { url: '/b', user: 'bob' }, { url: '/c', user: null }]))
  await app.ready()
  await app.inject({ url: '/add', headers: { 'x-user': 'ada' } })
  t.strictSame(app.taskqueue.added.map(({ url, userId }) => [url, userId]), [['/a', 'ada'], ['/b', 'bob'], ['/c', undefined]])
})
