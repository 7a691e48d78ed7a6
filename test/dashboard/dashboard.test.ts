import cookie from '@fastify/cookie'
import helmet from '@fastify/helmet'
import formbody from '@fastify/formbody'
import multipart from '@fastify/multipart'
import Fastify, { type FastifyInstance, type FastifyServerOptions, type InjectOptions } from 'fastify'
import t, { type Test } from 'tap'
import dashboard, { type DashboardOptions } from '../../lib/dashboard/dashboard.js'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

interface Options extends DashboardOptions {
  taskqueue?: TaskqueueOptions
  server?: FastifyServerOptions
  prefix?: string
  setUp?: (app: FastifyInstance) => unknown
}

const HOST = 'localhost:80'

/** Opens an app with a dashboard at `/queues`. Its route `/fails` has its tasks die. */
async function open (t: Test, { taskqueue: options, server, prefix = '/queues', setUp, ...rest }: Options = {}) {
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: { maxRetries: 0 }, ...options })
  await setUp?.(app)
  await app.register(dashboard, { prefix, ...rest.authorize === undefined && { public: true }, ...rest })
  app.post('/ok', async () => ({ token: 'sh0wn', answer: 'forty-two' }))
  app.all('/fails/*', async (_request, reply) => reply.code(422).send({ message: 'no' }))
  await app.ready()
  const get = async (path: string, by: InjectOptions = {}) => await app.inject({ url: `${prefix}/${path}`, ...by })
  const json = async (path: string) => (await get(path, { headers: { accept: 'application/json' } })).json()
  const post = async (action: string, fields: Record<string, string>, headers: Record<string, string> = { 'sec-fetch-site': 'same-origin' }) => await app.inject({
    method: 'POST', url: `${prefix}/actions/${action}`, payload: String(new URLSearchParams({ queue: 'default', ...fields })), headers: { 'content-type': 'application/x-www-form-urlencoded', ...headers }
  })
  return { app, get, json, post, queue: app.taskqueue.queue(app.taskqueue.queues[0]!.name) }
}

/** Adds tasks that die, and waits until they have. */
async function bury (app: FastifyInstance, urls: string[]): Promise<string[]> {
  const ids = (await app.taskqueue.addAll(urls.map(url => ({ url })))) as string[]
  for (const id of ids) await app.taskqueue.wait(id)
  return ids
}

t.test('a dashboard is not registered without a word on who may see it', async t => {
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue)
  for (const options of [{}, { authorize: true }, { public: false }, { public: true, authorize: () => 'read' }, { public: true, show: 'all' }]) {
    await t.rejects(async () => await app.register(dashboard, options as unknown as DashboardOptions), { code: 'FST_TASKQUEUE_INVALID_OPTION' }, JSON.stringify(options))
  }
})

t.test('who may do nothing sees nothing, and who may look cannot act', async t => {
  const { app, get, post, queue } = await open(t, {
    authorize: async ({ headers }) => headers['x-role'] as 'read' | 'operate' | undefined ?? false
  })
  const [dead] = await bury(app, ['/fails/1'])
  const late = await app.taskqueue.add('/ok', { delayMs: 60_000, payload: {} })
  await queue.rest(60_000)
  await app.taskqueue.add('/ok', { key: 'ann', payload: {} })
  await app.taskqueue.schedule('nightly', { url: '/ok', cron: '@yearly' })
  const paths = ['', 'queue?name=default', 'dead?name=default', 'keys?name=default', `task?id=${dead}`, `task?id=${late}`, 'processes', 'schedules']
  const actions: Array<[string, Record<string, string>]> = [
    ['pause', { queue: 'default' }], ['resume', { queue: 'default' }], ['purge', { queue: 'default', confirm: 'default' }],
    ['redrive-all', { queue: 'default' }], ['remove-all', { queue: 'default', confirm: 'default' }], ['redrive-group', { queue: 'default', group: 'x' }],
    ['remove-group', { queue: 'default', group: 'x' }], ['cancel', { id: dead! }], ['run', { id: dead! }], ['reschedule', { id: dead!, minutes: '1' }],
    ['redrive', { id: dead!, queue: 'default' }], ['remove', { id: dead!, queue: 'default' }],
    ['rest', { minutes: '9' }], ['end-rest', {}], ['rest-key', { key: 'ann', minutes: '9' }], ['end-rest-key', { key: 'ann' }], ['prioritize', { id: late, priority: 'high' }],
    ...['run-schedule', 'pause-schedule', 'resume-schedule', 'remove-schedule'].map((name): [string, Record<string, string>] => [name, { schedule: 'nightly' }])
  ]
  for (const [role, page, action] of [[undefined, 403, 403], ['nonsense', 403, 403], ['read', 200, 403]] as const) {
    const headers: Record<string, string> = role === undefined ? {} : { 'x-role': role }
    for (const path of paths) {
      const { statusCode, body } = await get(path, { headers })
      t.equal(statusCode, page, `${role} ${path}`)
      t.notMatch(body, /method="post"/, 'no form that would be refused')
    }
    for (const [name, fields] of actions) t.equal((await post(name, fields, { ...headers, 'sec-fetch-site': 'same-origin' })).statusCode, action, `${role} ${name}`)
  }
  t.match(await queue.counts(), { dead: 1, delayed: 1, waiting: 1 })
  t.equal(await queue.isPaused(), false)
  t.notMatch(await queue.keys(), [{ restingUntil: Date }])
  t.match(await app.taskqueue.schedules(), [{ id: 'nightly', paused: false, last: undefined }])
  t.match((await get('schedules', { headers: { 'x-role': 'operate' } })).body, /method="post"/)
  t.match((await get('', { headers: { 'x-role': 'operate' } })).body, /method="post"/)
})

t.test('an action is refused unless a page of the app has asked for it', async t => {
  const { queue, post } = await open(t)
  const refused: Array<Record<string, string>> = [
    { 'sec-fetch-site': 'cross-site' }, { 'sec-fetch-site': 'same-site' }, { 'sec-fetch-site': 'none' }, {}, { origin: 'null' },
    { origin: 'https://evil.example' }, { origin: 'http://localhost:81' }, { 'sec-fetch-site': 'cross-site', origin: `http://${HOST}` }
  ]
  for (const headers of refused) {
    const response = await post('pause', { queue: 'default' }, headers)
    t.match([response.statusCode, response.json().code], [403, 'FST_TASKQUEUE_CROSS_SITE'], JSON.stringify(headers))
  }
  t.equal(await queue.isPaused(), false)
  t.equal((await post('pause', { queue: 'default' }, { origin: `http://${HOST}`, host: HOST })).statusCode, 303)
  t.equal(await queue.isPaused(), true)
})

t.test('an action takes a form and nothing else', async t => {
  const { app, queue } = await open(t, { setUp: async app => { await app.register(formbody); await app.register(multipart) } })
  for (const [type, payload] of [['application/json', '{"queue":"default"}'], ['text/plain', 'queue=default'], ['multipart/form-data; boundary=x', '--x--']]) {
    const { statusCode } = await app.inject({ method: 'POST', url: '/queues/actions/pause', payload: payload!, headers: { 'content-type': type!, 'sec-fetch-site': 'same-origin' } })
    t.equal(statusCode, 415, type!)
  }
  t.equal(await queue.isPaused(), false)
})

t.test('every action does what its button says, once more as well', async t => {
  const { app, post, queue } = await open(t, { taskqueue: { consumer: { autoStart: false, maxRetries: 0 } } })
  const fields = { queue: 'default' }
  t.match(await post('pause', fields), { statusCode: 303, headers: { location: '.././' } })
  t.equal(await queue.isPaused(), true)
  for (let time = 0; time < 2; time++) await post('resume', fields)
  t.equal(await queue.isPaused(), false)
  const id = await app.taskqueue.add('/ok', { delayMs: 60_000, payload: {} })
  t.match(await post('run', { id, ...fields }), { statusCode: 303, headers: { location: `../task?id=${id}` } })
  t.match(await queue.counts(), { waiting: 1 })
  await post('reschedule', { id, minutes: '10' })
  t.match(await queue.counts(), { waiting: 0, delayed: 1 })
  t.equal((await post('reschedule', { id, minutes: 'soon' })).statusCode, 400, 'which is no time')
  for (let time = 0; time < 2; time++) await post('cancel', { id })
  t.equal((await app.taskqueue.get(id))?.state, 'cancelled')

  for (let n = 0; n < 6; n++) await app.taskqueue.add(`/fails/${n}`, { id: `${n}` })
  await app.taskqueue.add('/fails/other/x', { id: 'other' })
  await app.taskqueue.drain()
  await post('redrive', { id: '0', ...fields })
  await post('remove', { id: '1', ...fields })
  t.match(await queue.counts(), { waiting: 1, dead: 5 })
  const groups = async () => (await app.inject({ url: '/queues/dead?name=default', headers: { accept: 'application/json' } })).json().groups
  const [group] = await groups()
  t.match(group, { request: 'GET /fails/:id', reason: /^status 422/, ids: { length: 4 } })
  await post('redrive-group', { ...fields, group: group.key })
  t.match(await queue.counts(), { waiting: 5, dead: 1 })
  await post('redrive-group', { ...fields, group: group.key })
  t.match(await queue.counts(), { waiting: 5, dead: 1 })
  await post('remove-group', { ...fields, group: (await groups())[0].key })
  t.match(await queue.counts(), { waiting: 5, dead: 0 })
  t.match([(await post('purge', fields)).json().code, (await post('purge', { ...fields, confirm: 'other' })).statusCode], ['FST_TASKQUEUE_NOT_CONFIRMED', 400])
  await app.taskqueue.drain()
  await post('redrive-all', fields)
  t.match(await queue.counts(), { waiting: 5, dead: 0 })
  await post('purge', { ...fields, confirm: 'default' })
  t.match(await queue.counts(), { waiting: 0 })
  await bury(app, []).catch(() => {})
  await app.taskqueue.add('/fails/1')
  await app.taskqueue.drain()
  t.equal((await post('remove-all', fields)).statusCode, 400)
  await post('remove-all', { ...fields, confirm: 'default' })
  t.match(await queue.counts(), { dead: 0 })
})

t.test('actions are logged with who has acted, on what, and how much that has changed', async t => {
  const log: Array<Record<string, unknown>> = []
  const { app, post } = await open(t, {
    server: { logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } } },
    setUp: app => { app.addHook('onRequest', async request => { Object.assign(request, { user: { id: 'ann' } }) }) }
  })
  await post('pause', { queue: 'default', level: '99', msg: 'forged', userId: 'bob' })
  await post('rest-key', { key: 'ann', minutes: '9' })
  await post('prioritize', { id: 'a', priority: 'low' })
  await app.taskqueue.schedule('nightly', { url: '/ok', cron: '@yearly' })
  for (const name of ['run-schedule', 'pause-schedule', 'resume-schedule', 'remove-schedule', 'pause-schedule']) await post(name, { schedule: 'nightly', userId: 'bob', taskId: 'forged' })
  t.match(log.filter(({ action }) => /schedule$/.test(String(action))), [
    { action: 'run-schedule', queue: 'default', schedule: 'nightly', taskId: /^nightly@/, changed: 1, userId: 'ann', level: 30, msg: 'an operator acts on a queue' },
    ...['pause-schedule', 'resume-schedule', 'remove-schedule'].map(action => ({ action, schedule: 'nightly', taskId: undefined, changed: 1, userId: 'ann' })),
    { action: 'pause-schedule', changed: 0 }
  ])
  t.match(log.filter(({ action }) => action === 'pause'), [{ queue: 'default', changed: 1, userId: 'ann', reqId: String, level: 30, msg: 'an operator acts on a queue' }])
  t.match(log.filter(({ action }) => action === 'rest-key'), [{ key: 'ann', minutes: '9', changed: 1 }])
  t.match(log.filter(({ action }) => action === 'prioritize'), [{ taskId: 'a', priority: 'low', changed: 0 }])
})

t.test('a queue says in words what limits it, and when its rest ends', async t => {
  const { get, json, queue } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  t.notMatch((await get('queue?name=default')).body, /Limits|rests/)
  const cases: Array<[Parameters<typeof queue.setLimits>[0], string[]]> = [
    [{ running: 1 }, ['<dt>Limits</dt><dd>At most 1 task runs at once.</dd>']],
    [{ running: 1200, rate: { max: 100, ms: 60_000 } }, ['At most 1,200 tasks run at once. At most 100 tasks begin per min, evenly spaced.']],
    [{ rate: { max: 1, ms: 90_000, burst: 5 } }, ['At most 1 task begins per 90 s. After a pause 5 can begin at once.']],
    [{ rate: { max: 7, ms: 1999 }, perKey: { running: 2 } }, ['7 tasks begin per 1,999 ms', '<dt>Limits of each key</dt><dd>At most 2 tasks run at once.</dd>']]
  ]
  for (const [limits, texts] of cases) {
    await queue.setLimits(limits)
    for (const path of ['queue?name=default', 'queue?name=default&state=dead', 'keys?name=default']) {
      const { body } = await get(path)
      for (const text of texts) t.ok(body.includes(text), `${path} ${text}`)
    }
    t.match(await json('queue?name=default'), { limits })
  }
  await queue.setLimits({ perKey: { rate: { max: 2, ms: 3_600_000 } } })
  const { body } = await get('queue?name=default')
  t.match(body, /<dt>Limits of each key<\/dt><dd>At most 2 tasks begin per h, evenly spaced/)
  t.notMatch(body, /<dt>Limits<\/dt>/, 'it has none of its own')
  await queue.rest(3_600_000)
  const { restingUntil } = await json('keys?name=default')
  t.ok(Math.abs(Date.parse(restingUntil) - Date.now() - 3_600_000) < 60_000)
  for (const path of ['queue?name=default', 'keys?name=default']) t.match((await get(path)).body, /rests, ends <time[^>]*>in (1 h|59 min)/)
})

t.test('the keys of a queue come in pages, each once, and only a queue that has some leads there', async t => {
  const { app, get, json, queue } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  await app.taskqueue.add('/ok', { payload: {} })
  t.notMatch((await get('queue?name=default')).body, /href="keys/)
  t.match((await get('keys?name=default')).body, /No task of default that waits or runs has a key/)
  const keys = Array.from({ length: 230 }, (_, index) => `k &${String(index).padStart(3, '0')}`)
  await app.taskqueue.addAll(keys.map(key => ({ url: '/ok', key, payload: {} })))
  t.match((await get('queue?name=default')).body, /href="keys\?name=default"/)
  const seen: string[] = []
  let path: string | undefined = 'keys?name=default'
  for (let pages = 0; path !== undefined && pages < 5; pages++) {
    const { keys: page } = await json(path) as { keys: Array<{ key: string }> }
    seen.push(...page.map(({ key }) => key))
    const { body }: { body: string } = await get(path)
    t.equal(body.includes('rel="first"'), pages > 0)
    path = /rel="next" href="([^"]+)"/.exec(body)?.[1]!.replaceAll('&amp;', '&')
  }
  t.strictSame(seen, keys)
  t.match((await get('keys?name=default&after=zzz')).body, /No key is left here/)
  for (const after of ['', '%20a', '%00', 'x'.repeat(256), 'a&after=b']) t.match(await json(`keys?name=default&after=${after}`), { after: '', keys: { length: 100 } }, after)

  await queue.setKeyLimits('k &000', { running: 3 })
  await queue.setKeyLimits('k &001', {})
  await queue.rest(3_600_000, 'k &002')
  t.match((await json('keys?name=default')).keys, [{ waiting: 1, running: 0, limits: { running: 3 } }, { limits: {} }, { restingUntil: String }])
  const { body } = await get('keys?name=default')
  t.match(body, /k &amp;000<\/th>[^]*At most 3 tasks run at once[^]*k &amp;001<\/th>[^]*No limit holds for it[^]*k &amp;002<\/th>[^]*in (1 h|59 min)/)
})

t.test('a key or the whole queue rests for as long as an operator says, and until an operator ends that', async t => {
  const { app, get, post, queue } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  for (const key of ['ann', 'bob']) await app.taskqueue.add('/ok', { key, payload: {} })
  const rests = async () => (await queue.keys()).map(({ restingUntil }) => restingUntil === undefined ? 0 : Math.round((restingUntil.getTime() - Date.now()) / 60_000))
  const queueRests = async () => (await get('queue?name=default')).body.includes('rests, ends')
  for (let time = 0; time < 2; time++) t.match(await post('rest-key', { key: 'bob', minutes: '60', after: 'a b' }), { statusCode: 303, headers: { location: '../keys?name=default&after=a%20b' } })
  t.strictSame([await rests(), await queueRests()], [[0, 60], false])
  for (let time = 0; time < 2; time++) t.match(await post('rest', { minutes: '1.5' }), { statusCode: 303, headers: { location: '../queue?name=default&state=waiting' } })
  t.strictSame([await rests(), await queueRests()], [[0, 60], true])
  for (let time = 0; time < 2; time++) t.match(await post('end-rest-key', { key: 'bob' }), { statusCode: 303, headers: { location: '../keys?name=default' } })
  t.strictSame([await rests(), await queueRests()], [[0, 0], true])
  for (let time = 0; time < 2; time++) t.equal((await post('end-rest', {})).statusCode, 303)
  t.strictSame([await rests(), await queueRests()], [[0, 0], false])
})

t.test('a value that no form sends is refused, and changes nothing', async t => {
  const { app, get, post, queue } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  await app.taskqueue.add('/ok', { id: 'a', key: 'ann', payload: {} })
  const refused: Array<[string, Record<string, string>]> = [
    ['rest', {}], ['rest', { minutes: '' }], ['rest', { minutes: 'soon' }], ['rest', { minutes: '-1' }], ['rest', { minutes: '43201' }],
    ['rest-key', { minutes: '5' }], ['rest-key', { minutes: '5', key: '' }], ['rest-key', { minutes: '5', key: 'é' }], ['rest-key', { key: 'ann' }],
    ['end-rest-key', {}], ['prioritize', { id: 'a' }], ['prioritize', { id: 'a', priority: 'highest' }], ['prioritize', { priority: 'high' }], ['reschedule', { id: 'a', minutes: '' }]
  ]
  for (const [name, fields] of refused) t.equal((await post(name, fields)).statusCode, 400, `${name} ${JSON.stringify(fields)}`)
  t.notMatch((await get('queue?name=default')).body, /rests, ends/)
  t.strictSame(await queue.keys(), [{ key: 'ann', waiting: 1, running: 0 }])
  t.equal((await app.taskqueue.get('a'))?.priority, undefined)
})

t.test('a task that has not ended shows its level and its key, and takes the level that an operator gives it', async t => {
  let end = () => {}
  const held = new Promise<void>(resolve => { end = resolve })
  const { app, get, post } = await open(t, { setUp: app => { app.get('/held', async () => await held) } })
  t.teardown(() => { end() })
  await app.taskqueue.add('/held', { id: 'running' })
  await until(async () => (await app.taskqueue.get('running'))?.state === 'running')
  await app.taskqueue.add('/held', { id: 'waiting', key: 'ann', priority: 'low' })
  await app.taskqueue.add('/held', { id: 'delayed', delayMs: 60_000 })
  for (const [id, labels] of Object.entries({ running: ['Raise to high', 'Lower to low'], waiting: ['Raise to high', 'Raise to normal'], delayed: ['Raise to high', 'Lower to low'] })) {
    const { body } = await get(`task?id=${id}`)
    t.match(body, id === 'waiting' ? /<dt>Priority<\/dt><dd>low<\/dd><dt>Key<\/dt><dd><span class="name">ann</ : /<dt>Priority<\/dt><dd>normal<\/dd><dt>Added/, id)
    t.strictSame([...body.matchAll(/>((?:Raise|Lower) [^<]+)</g)].map(([, label]) => label), labels, id)
    for (let time = 0; time < 2; time++) t.match(await post('prioritize', { id, priority: 'high' }), { statusCode: 303, headers: { location: `../task?id=${id}` } })
    t.equal((await app.taskqueue.get(id))?.priority, 'high', id)
    t.match((await get(`task?id=${id}`)).body, /Lower to normal[^]*Lower to low[^]*<dd>high</, id)
    t.match((await get(`queue?name=default&state=${id}`)).body, /<span class="badge">high</, id)
  }
  t.match((await get('queue?name=default')).body, /key <span class="name">ann</)
  await post('prioritize', { id: 'waiting', priority: 'normal' })
  t.notMatch((await get('queue?name=default')).body, /class="badge"/, 'what is usual is not said')
  end()
  await app.taskqueue.wait('running')
  t.notMatch((await get('task?id=running')).body, /Priority|Raise|Lower/)
})

t.test('a hostile key is shown as text, and its forms act on it and nothing else', async t => {
  const hostile = ['"><img src=x onerror=alert(1)>', '&after=x&name=y#z', "'%22%3Cb%3E+%", '</th><script>alert(2)</script>', '{{7*7}}  x']
  const { app, get, post, json, queue } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  for (const [index, key] of hostile.entries()) await app.taskqueue.add('/ok', { id: `${index}`, key, payload: {} })
  for (const path of ['keys?name=default', 'queue?name=default', ...hostile.flatMap((key, index) => [`task?id=${index}`, `keys?name=default&after=${encodeURIComponent(key)}`])]) {
    const { statusCode, body } = await get(path)
    t.equal(statusCode, 200, path)
    t.notMatch(body, /<img|<script>|<b>\+|="[^"]*<[^"]*"/, path)
  }
  const { body } = await get('keys?name=default')
  const unescape = (text: string) => text.replace(/&(lt|gt|quot|#39|amp);/g, (_, name: string) => ({ lt: '<', gt: '>', quot: '"', '#39': "'", amp: '&' })[name]!)
  const inputs = [...body.matchAll(/name="key" value="([^"]*)"/g)].map(([, value]) => unescape(value!))
  t.strictSame(inputs, [...hostile].sort())
  for (const key of hostile) {
    const { headers } = await post('rest-key', { key, minutes: '60', after: key })
    t.match(await json(headers.location!.toString().slice(3)), { queue: 'default', after: key })
    t.strictSame((await queue.keys()).filter(({ restingUntil }) => restingUntil !== undefined).map(({ key }) => key), [key])
    await post('end-rest-key', { key })
  }
})

t.test('contents of tasks are hidden unless they are to be shown, and secrets are masked even then', async t => {
  const payload = { password: 'p4ss', nested: [{ apiKey: 'k3y', name: 'lovelace' }], text: 'x'.repeat(5000) }
  for (const show of [undefined, { payload: true, answer: true }, { payload: true, redact: () => 'redacted' }]) {
    const { app, get, json } = await open(t, { ...show && { show } })
    const id = await app.taskqueue.add('/ok?token=t0k', { payload })
    await app.taskqueue.wait(id)
    await app.taskqueue.add('/fails/1?access_token=t0k&a=b', { id: 'dead', payload })
    await app.taskqueue.wait('dead')
    const pages = [await get(`task?id=${id}`), await get('task?id=dead'), await get('queue?name=default&state=dead'), await get('dead?name=default')].map(({ body }) => body)
    const models = [await json(`task?id=${id}`), await json('task?id=dead'), await json('queue?name=default&state=dead')].map(model => JSON.stringify(model))
    for (const text of [...pages, ...models]) t.notMatch(text, /p4ss|k3y|sh0wn|t0k/)
    t.match(pages[1], /a=b/)
    t.equal(pages[1]!.includes('lovelace'), show?.payload === true && show.redact === undefined)
    t.equal(pages[0]!.includes('forty-two'), show?.answer === true)
    t.equal(pages[1]!.includes('redacted'), show?.redact !== undefined)
    t.equal(/more characters/.test(pages[1]!), show?.payload === true && show.redact === undefined)
  }
})

t.test('pages say what they are about as JSON to those who accept only that', async t => {
  const { app, json, get } = await open(t, { taskqueue: { queues: { a: {}, b: {} }, consumer: { maxRetries: 0 } } })
  await bury(app, ['/fails/1'])
  t.match(await json(''), { queues: [{ name: 'a', dead: 1, history: { failed: Array } }, { name: 'b', dead: 0 }] })
  t.match(await json('queue?name=a&state=dead'), { queue: 'a', state: 'dead', tasks: [{ url: '/fails/1' }] })
  t.match(await json('processes'), { processes: Array })
  await app.taskqueue.schedule('nightly', { url: '/ok?token=t0k', cron: '@yearly', queue: 'b' })
  t.strictSame(await json('schedules'), {
    offset: 0,
    schedules: [{ id: 'nightly', queue: 'b', cron: '@yearly', tz: 'UTC', overlap: 'skip', catchUp: 'once', method: 'GET', declared: false, next: `${new Date().getUTCFullYear() + 1}-01-01T00:00:00.000Z`, paused: false, skipped: 0, missed: 0, url: '/ok?token=[hidden]' }],
    isMore: false
  })
  const { headers } = await get('', { headers: { accept: 'text/html,application/json;q=0.9' } })
  t.match(headers['content-type'], /^text\/html/)
})

t.test('a list comes in pages, each task once', async t => {
  const { app, json, get } = await open(t, { taskqueue: { consumer: false } })
  const all = await app.taskqueue.addAll(Array.from({ length: 120 }, () => ({ url: '/ok', payload: {} })))
  const seen: string[] = []
  for (const offset of [0, 50, 100]) {
    const { tasks } = await json(`queue?name=default&state=waiting&offset=${offset}`) as { tasks: Array<{ id: string }> }
    seen.push(...tasks.map(({ id }) => id))
  }
  t.strictSame(seen, all)
  t.match((await get('queue?name=default')).body, /rel="next" href="queue\?name=default&amp;state=waiting&amp;offset=50"/)
  t.notMatch((await get('queue?name=default&offset=100')).body, /rel="next"/)
  for (const offset of ['-1', 'x', '1e400', '99999999999999999999']) t.equal((await get(`queue?name=default&offset=${offset}`)).statusCode, 200, offset)
})

const YEARLY = { url: '/ok', cron: '@yearly', payload: {} }

t.test('each schedule says when, what comes next, what was last, and what it is', async t => {
  const store = new LocalStore()
  const { app, get } = await open(t, {
    taskqueue: { queues: { default: { type: () => store }, other: {} }, consumer: { autoStart: false }, schedules: { declared: { ...YEARLY, cron: '0 3 * * 1', tz: 'Europe/Berlin', queue: 'other' } } }
  })
  const rowOf = async (id: string) => {
    const { body }: { body: string } = await get('schedules')
    return body.split('<tr>').find(row => row.startsWith(`<th scope="row" class="url">${id}\n`))?.replace(/<\/tr>[^]*/, '') ?? ''
  }
  t.match(await rowOf('declared'), /<small>POST \/ok<br>declared<[^]*href="queue\?name=other&amp;state=waiting">other<[^]*<code class="name">0 3 \* \* 1<\/code><br><small>Europe\/Berlin<[^]*<time[^>]*>in [\d.]+ (d|h|min)<[^]*<td>–</)
  t.notMatch(await rowOf('declared'), /paused|unreadable|remove-schedule|resume-schedule/)
  const periods: Array<[number, string]> = [[1000, 'second'], [1500, '1,500 milliseconds'], [60_000, 'minute'], [90_000, '90 seconds'], [900_000, '15 minutes'], [3_600_000, 'hour'], [172_800_000, '2 days']]
  for (const [everyMs] of periods) await app.taskqueue.schedule(`every-${everyMs}`, { url: '/ok?token=t0k', everyMs, payload: {} })
  await app.taskqueue.schedule('once', { ...YEARLY, startAt: Date.now(), endAt: Date.now() + 400 * 86_400_000 })
  await store.plan('default', [{ id: 'odd', plan: 'nonsense', next: Date.now() + 60_000 }])
  const taskId = await app.taskqueue.runSchedule('once') as string
  const slot = (await app.taskqueue.schedules()).find(({ id }) => id === 'once')!.next!.getTime()
  await store.tick('default', [{ id: 'once', slot, next: slot, missed: 0, overlap: 'skip', task: { queue: 'default', id: 'other', message: '' } }], { count: 1, ms: 1 })
  await new Promise(resolve => setTimeout(resolve, 1100))
  for (const [everyMs, words] of periods) t.match(await rowOf(`every-${everyMs}`), new RegExp(`token=\\[hidden\\]<br>made at run time<[^]*<td>every ${words}</td>[^]*remove-schedule`))
  t.ok((await rowOf('once')).includes(`<td><a href="task?id=${encodeURIComponent(taskId)}"><time`), 'a link to the last task')
  t.match(await rowOf('once'), /<td class="number ">1<\/td><td class="number none">0<\/td>/, 'skipped once, and never missed')
  t.match(await rowOf('odd'), /<span class="badge bad">unreadable<[^]*<td>–<\/td>\n<td><time[^]*pause-schedule[^]*remove-schedule/)
  t.notMatch(await rowOf('odd'), /run-schedule|resume-schedule|declared|run time/)
  await app.taskqueue.pauseSchedule('declared')
  await app.taskqueue.pauseSchedule('odd')
  await until(async () => /<span class="badge">paused<[^]*<td>–<\/td>\n<td>–<[^]*run-schedule[^]*resume-schedule/.test(await rowOf('declared')))
  t.notMatch(await rowOf('declared'), /pause-schedule|none is left/)
  t.notMatch(await rowOf('odd'), /(run|pause|resume)-schedule/)
  await store.tick('default', [{ id: 'once', slot, missed: 3, overlap: 'skip' }], { count: 1, ms: 1 })
  await until(async () => /<td>none is left<[^]*<td class="number ">3</.test(await rowOf('once')))
})

t.test('an operator runs, pauses, resumes and removes a schedule, and reads what came of it', async t => {
  const { app, get, json, post } = await open(t, { taskqueue: { consumer: { autoStart: false }, schedules: { declared: YEARLY } } })
  t.match((await get('schedules')).body, /declared/)
  await app.taskqueue.schedule('a&b', YEARLY)
  const status = async (id: string) => (await app.taskqueue.schedules()).find(schedule => schedule.id === id)
  const ran = await post('run-schedule', { schedule: 'a&b', offset: '0' })
  const taskId = (await status('a&b'))!.last!.taskId
  t.match(ran, { statusCode: 303, headers: { location: `../schedules?${new URLSearchParams({ ran: 'a&b', added: taskId })}` } })
  const follow = async ({ headers }: typeof ran) => (await get(headers.location!.toString().slice(3))).body.replaceAll('&amp;', '&')
  const link = `href="task?id=${encodeURIComponent(taskId)}">${taskId}</a>`
  t.ok((await follow(ran)).includes(`${link} was added.`))
  t.ok((await get(`task?id=${encodeURIComponent(taskId)}`)).body.includes('waiting'))
  const again = await post('run-schedule', { schedule: 'a&b' })
  t.ok((await follow(again)).includes(`No task was added: the last task <a class="name" ${link} had not ended.`))
  const accept = { accept: 'application/json', 'sec-fetch-site': 'same-origin' }
  t.strictSame((await post('run-schedule', { schedule: 'a&b' }, accept)).json(), { changed: 0 })
  await app.taskqueue.cancel(taskId)
  const other = (await post('run-schedule', { schedule: 'a&b' }, accept)).json()
  t.strictSame(other, { changed: 1, taskId: (await status('a&b'))!.last!.taskId })
  t.notSame(other.taskId, taskId)

  for (let time = 0; time < 2; time++) t.match(await post('pause-schedule', { schedule: 'declared', offset: '100' }), { statusCode: 303, headers: { location: '../schedules?offset=100' } })
  t.match([(await status('declared'))?.paused, (await json('schedules')).schedules], [true, [{ id: 'a&b' }, { id: 'declared', paused: true }]])
  for (let time = 0; time < 2; time++) t.match(await post('resume-schedule', { schedule: 'declared', offset: '-1' }), { statusCode: 303, headers: { location: '../schedules' } })
  t.match([(await status('declared'))?.paused, (await json('schedules')).schedules], [false, [{ id: 'a&b' }, { id: 'declared', paused: false }]])
  t.match((await post('remove-schedule', { schedule: 'declared' })).json(), { statusCode: 400, code: 'FST_TASKQUEUE_INVALID_SCHEDULE' })
  for (let time = 0; time < 2; time++) t.equal((await post('remove-schedule', { schedule: 'a&b' })).statusCode, 303)
  t.match(await json('schedules'), { schedules: [{ id: 'declared' }] })
  t.match(await follow(await post('run-schedule', { schedule: 'a&b' })), /No task was added: there is no such schedule/)
  for (const name of ['run-schedule', 'pause-schedule', 'resume-schedule', 'remove-schedule']) {
    for (const schedule of ['', 'a b']) t.equal((await post(name, { schedule })).statusCode, 400, `${name} ${schedule}`)
    t.equal((await post(name, { schedule: 'declared' }, { 'sec-fetch-site': 'cross-site' })).statusCode, 403, name)
  }
  for (const query of ['added=a%20b&ran=a', 'ran=a&added=a&added=b', 'ran=a&added=']) t.equal((await get(`schedules?${query}`)).statusCode, 400, query)
  t.match(await status('declared'), { paused: false, last: undefined })
})

t.test('schedules come in pages in the order of their ids, each once, however soon their slots are', async t => {
  const { app, json, get } = await open(t, { taskqueue: { queues: { a: {}, b: {} }, consumer: false } })
  t.match((await get('schedules')).body, /No queue has a schedule/)
  const ids = Array.from({ length: 230 }, (_, index) => `s${String(index).padStart(3, '0')}`)
  for (const [index, id] of ids.entries()) await app.taskqueue.schedule(id, { url: '/ok', queue: 'ab'[index % 2]!, everyMs: 3_600_000 * (1 + index * 7 % 11), payload: {} })
  const seen: string[] = []
  let path: string | undefined = 'schedules'
  await until(async () => (await json('schedules')).isMore)
  for (let pages = 0; path !== undefined && pages < 5; pages++) {
    const { schedules } = await json(path) as { schedules: Array<{ id: string }> }
    seen.push(...schedules.map(({ id }) => id))
    const { body }: { body: string } = await get(path)
    t.equal(/rel="prev" href="([^"]+)"/.exec(body)?.[1], [undefined, 'schedules', 'schedules?offset=100'][pages])
    path = /rel="next" href="([^"]+)"/.exec(body)?.[1]
  }
  t.strictSame(seen, ids)
  t.match((await get('schedules?offset=200')).body, /name="offset" value="200"[^]*201 to 230/)
  t.match((await get('schedules?offset=300')).body, /No schedule is left here/)
  for (const offset of ['-1', 'x', '1e400', '0&offset=1', 'NaN']) t.equal((await get(`schedules?offset=${offset}`)).statusCode, 200, offset)
  t.match(await json('schedules?offset=130'), { schedules: { length: 100 }, isMore: false }, 'the last of all are no reason for another page')
})

t.test('a hostile schedule is shown as text, and its forms act on it and nothing else', async t => {
  const hostile = ['"><img/src=x/onerror=alert(1)>', '</th><script>alert(2)</script>', "'%22%3Cb%3E+%", '&ran=x&added=y#z', '../x?y']
  const { app, get, post } = await open(t, { taskqueue: { consumer: { autoStart: false } } })
  for (const id of hostile) await app.taskqueue.schedule(id, { ...YEARLY, url: `/ok?q=${encodeURIComponent(id)}` })
  const check = (body: string) => { t.notMatch(body, /<img|<script>|<b>\+|="[^"]*<[^"]*"/) }
  const unescape = (text: string) => text.replace(/&(lt|gt|quot|#39|amp);/g, (_, name: string) => ({ lt: '<', gt: '>', quot: '"', '#39': "'", amp: '&' })[name]!)
  const { body } = await get('schedules')
  check(body)
  t.strictSame([...new Set([...body.matchAll(/name="schedule" value="([^"]*)"/g)].map(([, value]) => unescape(value!)))], [...hostile].sort())
  for (const id of hostile) {
    const { headers } = await post('run-schedule', { schedule: id })
    const { body } = await get(headers.location!.toString().slice(3))
    check(body)
    const added = unescape(/Task <a class="name" href="([^"]*)"/.exec(body)![1]!)
    t.match(await get(added, { headers: { accept: 'application/json' } }), { statusCode: 200, body: /"state":"waiting"/ })
    await post('pause-schedule', { schedule: id })
    t.strictSame((await app.taskqueue.schedules()).filter(({ paused }) => paused).map(({ id }) => id), [id])
    await post('resume-schedule', { schedule: id })
  }
  check((await get(`schedules?${new URLSearchParams({ ran: hostile[0]!, added: hostile[1]! })}`)).body)
  for (const [index, id] of hostile.entries()) {
    await post('remove-schedule', { schedule: id })
    t.strictSame((await app.taskqueue.schedules()).map(({ id }) => id).sort(), hostile.slice(index + 1).sort())
  }
})

t.test('however many look at the schedules, the stores are asked once a second', async t => {
  const { app, get, post } = await open(t)
  let asked = 0
  const { schedules } = app.taskqueue
  Object.assign(app.taskqueue, { schedules: async () => { asked++; return await schedules() } })
  await app.taskqueue.schedule('nightly', YEARLY)
  await Promise.all(Array.from({ length: 50 }, async () => await get('schedules')))
  t.equal(asked, 1)
  await post('pause-schedule', { schedule: 'nightly' })
  t.match((await get('schedules')).body, />paused</)
})

t.test('what is not there is a 404', async t => {
  const { app, get, post, queue } = await open(t)
  for (const path of ['queue?name=nope', 'queue', 'dead?name=nope', 'task?id=nope', 'keys?name=nope', 'keys']) t.equal((await get(path)).statusCode, 404, path)
  for (const queue of ['nope', '']) t.equal((await post('pause', { queue })).statusCode, 404)
  const { statusCode } = await app.inject({ method: 'POST', url: '/queues/actions/pause', headers: { 'sec-fetch-site': 'same-origin' } })
  t.equal(statusCode, 404, 'a form without a queue pauses none')
  t.equal(await queue.isPaused(), false)
  t.equal((await get('task?id=a%20b')).statusCode, 400, 'which is no id')
})

t.test('links work below any prefix, and with the headers of other plugins', async t => {
  for (const prefix of ['/queues', '/a/b', '']) {
    const { app } = await open(t, { prefix, setUp: async app => { await app.register(helmet); await app.register(cookie) } })
    if (prefix !== '') {
      const { statusCode, headers } = await app.inject({ url: prefix })
      t.match([statusCode, headers.location], [308, `${prefix.split('/').at(-1)}/`])
    }
    const { body, headers } = await app.inject({ url: `${prefix}/` })
    t.match(headers, { 'content-security-policy': /^default-src 'none'; script-src 'self'/, 'x-content-type-options': 'nosniff', 'cache-control': 'no-store', 'referrer-policy': 'same-origin' })
    for (const [, file] of body.matchAll(/(?:href|src)="((?:style|script|icon)-[^"]+)"/g)) {
      const asset = await app.inject({ url: `${prefix}/${file}` })
      t.match([asset.statusCode, asset.headers['cache-control']], [200, 'public, max-age=31536000, immutable'])
    }
    t.notMatch(body, /(?:href|src|action)="\//, 'every link is relative')
  }
})

t.test('a page says that the store does not answer, and is as usual once it does', async t => {
  const server = await startRedis(t)
  const { get, json } = await open(t, { taskqueue: { redis: { path: server.path }, commitTimeoutMs: 300 } })
  t.equal((await get('')).statusCode, 200)
  await server.stop()
  const overview = await until(async () => {
    const response = await get('')
    return response.body.includes('does not answer') && response
  }) as Awaited<ReturnType<typeof get>>
  t.equal(overview.statusCode, 200, 'other queues may have another store')
  for (const path of ['queue?name=default', 'dead?name=default', 'keys?name=default', 'task?id=a', 'processes', 'schedules']) {
    const { statusCode, body } = await get(path)
    t.equal(statusCode, 503, path)
    t.match(body, /The store does not answer/)
    t.notMatch(body, server.path, 'its address is nobody\'s business')
  }
  for (const path of ['processes', 'schedules']) t.match(await json(path), { code: 'FST_TASKQUEUE_UNREACHABLE' })
  await server.start()
  await until(async () => (await get('queue?name=default')).statusCode === 200)
})

t.test('a page says so as well of a store that cannot tell the limits of a queue, and not why', async t => {
  const store = Object.assign(new LocalStore(), { counts: async () => { throw new Error('secret:6379') } })
  const { get, json } = await open(t, { taskqueue: { queues: { default: { type: () => store } } } })
  for (const path of ['queue?name=default', 'keys?name=default']) {
    const { statusCode, body } = await get(path)
    t.match([statusCode, body], [503, /The store does not answer/], path)
    t.notMatch(JSON.stringify(await json(path)), /secret/)
  }
})

t.test('however many look at the overview, the store is asked once a second', async t => {
  const { app, get, post } = await open(t)
  let asked = 0
  const { health } = app.taskqueue
  Object.assign(app.taskqueue, { health: async () => { asked++; return await health() } })
  await Promise.all(Array.from({ length: 50 }, async () => await get('')))
  t.equal(asked, 1)
  await post('pause', { queue: 'default' })
  t.match((await get('')).body, /paused/, 'but after an action, which whoever has taken it should see')
})
