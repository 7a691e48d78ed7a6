import t from 'tap'
import { backoffBy, exponential, isBackoffList } from '../../lib/task/backoff.js'
import { loggedApp } from '../support/logged-app.js'

t.test('the last delay of a list serves all further retries', async t => {
  const backoff = backoffBy([10, 20, 30])
  t.strictSame([1, 2, 3, 4, 100].map(backoff), [10, 20, 30, 30, 30])
})

t.test('a list holds 1 to 100 delays of 0 to 30 days', async t => {
  for (const list of [[0], [2_592_000_000], Array(100).fill(1)]) t.ok(isBackoffList(list))
  for (const list of [[], [-1], [2_592_000_001], [NaN], ['1'], Array(101).fill(1), Array(1), {}, null, 5, exponential]) t.notOk(isBackoffList(list))
})

t.test('the backoff of the task comes before that of its route, and that before the consumer\'s', async t => {
  const { app, log } = await loggedApp(t, { consumer: { backoff: [1000], autoStart: false } })
  const config = (backoff: readonly number[] | ((retry: number) => number)) => ({ config: { task: { backoff } } })
  const fail = async () => { throw new Error('no') }
  app.get('/plain', fail)
  app.get('/list', config([2000]), fail)
  app.get('/function/:n', config(retry => retry * 3000), fail)
  app.get('/broken', config(() => { throw new Error('broken') }), fail)
  app.get('/only', { constraints: { taskOnly: true }, ...config([4000]) }, fail)
  await app.ready()
  const delayOf = async (url: string, backoff?: number[]) => {
    const id = (await app.taskqueue.add(url, { ...backoff !== undefined && { backoff } }))!
    await app.taskqueue.runOne()
    return log.find(line => line.taskId === id)?.delayMs as number
  }
  t.equal(await delayOf('/plain'), 1000)
  t.equal(await delayOf('/plain', [5000, 1]), 5000)
  t.equal(await delayOf('/list'), 2000)
  t.equal(await delayOf('/list?n=1', [6000]), 6000)
  t.equal(await delayOf('/function/7'), 3000)
  t.equal(await delayOf('/only'), 4000)
  const byDefault = await delayOf('/broken')
  t.ok(byDefault >= 500 && byDefault <= 1000, 'a backoff that fails counts as the default')
})

t.test('tasks that are added by url have the queue, the retries and the time of their route', async t => {
  const { app, log } = await loggedApp(t, { queues: { default: {}, mail: {} }, consumer: { autoStart: false } })
  app.post('/send/:id', { config: { task: { queue: 'mail', maxRetries: 0, timeoutMs: 20 } } }, async () => await new Promise(() => {}))
  app.post('/other', async () => '')
  await app.ready()
  const id = (await app.taskqueue.add('/send/1?x=1', { payload: {} }))!
  const other = (await app.taskqueue.add('/send/1', { payload: {}, queue: 'default', maxRetries: 2 }))!
  await app.taskqueue.add('/other', { payload: {} })
  t.match(await app.taskqueue.get(id), { queue: 'mail' })
  t.match(await app.taskqueue.get(other), { queue: 'default' })
  t.equal(await app.taskqueue.queue('default').length(), 2)
  await app.taskqueue.runOne('mail')
  t.match(log.find(line => line.taskId === id), { msg: 'task failed for good', reason: 'no answer within 20 ms, after 0 retries' })
})

t.test('the config is that of the route which the task takes, however its url is written', async t => {
  const { app } = await loggedApp(t, { queues: { default: {}, mail: {}, other: {} }, consumer: { autoStart: false } }, { routerOptions: { caseSensitive: false, ignoreTrailingSlash: true, querystringParser: () => { throw new Error('no query') } } })
  const route = (url: string, queue: string | undefined, constraints: { taskOnly?: true, host?: string } = {}) =>
    app.get(url, { constraints: constraints as {}, config: queue === undefined ? {} : { task: { queue } } }, async () => '')
  route('/both', 'other')
  route('/both', 'mail', { taskOnly: true })
  route('/plain', undefined, { taskOnly: true })
  route('/plain', 'mail')
  route('/hosts', 'mail', { host: 'a.example' })
  route('/hosts', 'other', { host: 'b.example' })
  route('/p/:long', 'mail')
  route('/all/*', 'other')
  await app.register(async app => { app.get('/', { config: { task: { queue: 'mail' } } }, async () => '') }, { prefix: '/prefix' })
  await app.ready()
  const queueOf = async (url: string, host?: string) =>
    (await app.taskqueue.get((await app.taskqueue.add(url, { ...host !== undefined && { headers: { host } } }))!))!.queue
  for (const [url, queue, host] of [
    ['/both', 'mail'], ['/BOTH/', 'mail'], ['/plain', 'default'], ['/hosts', 'mail', 'a.example'], ['/hosts', 'other', 'b.example'],
    ['/hosts', 'default', 'c.example'], [`/p/${'x'.repeat(500)}`, 'mail'], ['/all/a/b', 'other'], ['/prefix', 'mail'], ['/nowhere', 'default']
  ] as Array<[string, string, string?]>) t.equal(await queueOf(url, host), queue, `${host} ${url}`)
})

t.test('a list that is none is refused wherever it is given', async t => {
  const { app } = await loggedApp(t, {})
  await app.ready()
  await t.rejects(app.taskqueue.add('/', { backoff: [-1] }), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: /^Option 'backoff' must be a list of 1 to 100 delays/ })
  // @ts-expect-error: a message carries no function
  await t.rejects(app.taskqueue.add('/', { backoff: () => 1 }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
})
