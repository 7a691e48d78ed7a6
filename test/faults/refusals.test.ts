import { Redis } from 'ioredis'
import t from 'tap'
import { loggedApp } from '../support/logged-app.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

t.setTimeout(60_000)

t.test('an app that Redis turns away at its start says what Redis has said', async t => {
  const { path } = await startRedis(t)
  const operator = new Redis({ path })
  t.teardown(() => { operator.disconnect() })
  await operator.config('SET', 'maxclients', '1')
  const { app } = await loggedApp(t, { redis: { path } })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_TASKQUEUE_UNREACHABLE', message: /cannot be used as a task queue: ERR max number of clients/ })
})

t.test('a consumer that Redis turns away later logs what Redis has said', async t => {
  const { path } = await startRedis(t)
  const operator = new Redis({ path })
  t.teardown(() => { operator.disconnect() })
  const { app, log } = await loggedApp(t, { redis: { path }, consumer: { leaseMs: 500 } })
  app.get('/', async () => '')
  await app.ready()
  await operator.config('SET', 'maxclients', '1')
  for (const type of ['normal', 'pubsub']) await operator.call('CLIENT', 'KILL', 'TYPE', type)
  await until(() => log.some(({ level, msg }) => level === 50 && /^Redis at .* turns connections away: ERR max number of clients/.test(msg)))
  await operator.config('SET', 'maxclients', '100')
  const id = await until(() => app.taskqueue.add('/').catch(() => undefined))
  await until(async () => (await app.taskqueue.get(id!))?.state === 'done')
  t.equal(log.filter(({ msg }) => msg.includes('turns connections away')).length, 1)
})
