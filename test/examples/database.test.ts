import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import { build } from '../../example/database.js'
import { RecordingStore } from '../support/recording-store.js'
import { until } from '../support/until.js'

t.test('an order is there by the time its task runs', async t => {
  const { order, orders, counts } = await start(t)
  t.same(await order('a lamp'), { status: 202, body: { id: 1 } })
  t.same(await until(async () => (await orders()).every(({ shipped }) => shipped === 1) && orders()), [{ id: 1, item: 'a lamp', shipped: 1 }])
  // No task found its order missing: it would have been dead at once.
  t.match(await counts(), { dead: 0 })
})

t.test('an order whose handler throws leaves neither a row nor a task', async t => {
  const { order, orders, store } = await start(t)
  t.match(await order('the moon'), { status: 500, body: { message: 'the moon is not for sale' } })
  t.same({ orders: await orders(), tasks: store.ids }, { orders: [], tasks: [] })
})

t.test('an order for which the store does not prepare leaves neither a row nor a task', async t => {
  const { order, orders, store } = await start(t)
  store.before.prepare = async () => { throw new Error('read only') }
  t.match(await order('a lamp'), { status: 503, body: { code: 'FST_TASKQUEUE_COMMIT_FAILED' } })
  t.same({ orders: await orders(), tasks: store.ids }, { orders: [], tasks: [] })
})

t.test('orders at the same time take turns, and each stands or falls by itself', async t => {
  const { order, orders, counts, store } = await start(t)
  const items = Array.from({ length: 20 }, (_, index) => index % 2 === 0 ? `lamp ${index}` : 'the moon')
  const answers = await Promise.all(items.map(item => order(item)))
  t.same(answers.map(({ status }) => status), items.map(item => item === 'the moon' ? 500 : 202))
  await until(async () => (await orders()).every(({ shipped }) => shipped === 1))
  t.same((await orders()).map(({ item }) => item).sort(), items.filter(item => item !== 'the moon').sort())
  t.equal(store.ids.length, 10)
  t.match(await counts(), { dead: 0 })
})

t.test('the example runs by itself', async t => {
  const { stdout } = await promisify(execFile)(process.execPath, [fileURLToPath(new URL('../../example/database.js', import.meta.url))], { env: {} })
  t.match(stdout, /not for sale/)
  t.match(stdout, /\[ \{ id: 1, item: 'a lamp', shipped: 1 \} \]/)
})

async function start (t: Test) {
  const store = new RecordingStore()
  const app = await build({ queues: { default: { type: () => store } }, consumer: { maxRetries: 0, concurrency: 5 } })
  t.teardown(() => app.close())
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  return {
    store,
    counts: () => app.taskqueue.queue('default').counts(),
    async order (item: string) {
      const response = await fetch(`${url}/orders`, {
        method: 'POST', headers: { 'content-type': 'application/json' }, body: JSON.stringify({ item })
      })
      return { status: response.status, body: await response.json() }
    },
    async orders () {
      return await (await fetch(`${url}/orders`)).json() as Array<{ id: number, item: string, shipped: number }>
    }
  }
}
