import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import t from 'tap'
import type { AttemptEnd } from '../../lib/observe/events.js'
import { publishTo } from '../../lib/observe/events.js'
import { startEcho } from '../support/echo-app.js'

t.test('how an attempt ends is logged, and told to whoever has subscribed to its channel', async t => {
  const { run } = await startEcho(t)
  const told: AttemptEnd[] = []
  const listen = (event: unknown) => { told.push(event as AttemptEnd) }
  subscribe('fastify-taskqueue:attempt:end', listen)
  t.teardown(() => unsubscribe('fastify-taskqueue:attempt:end', listen))
  const { task } = await run('/task')
  t.match(told, [{ taskId: task.id, queue: 'default', attempt: 1, verdict: 'done', status: 200, unrouted: undefined }])
  t.ok(told[0]!.durationMs >= 0)
})

t.test('a first subscriber that throws keeps nobody else from hearing of an event, and nobody hears of it as an error', async t => {
  const publish = publishTo(() => { throw new Error('a logger') })
  const told: unknown[] = []
  const listen = (event: unknown) => { told.push(event) }
  subscribe('fastify-taskqueue:heartbeat:failed', listen)
  publish('heartbeat:failed', { err: 'one' })
  unsubscribe('fastify-taskqueue:heartbeat:failed', listen)
  publish('heartbeat:failed', { err: 'two' })
  t.strictSame(told, [{ err: 'one' }])
})
