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
  const paths = ['', 'queue?name=default', 'dead?name=default', 'keys?name=default', `task?id=${dead}`, `task?id=${late}`, 'processes']
  const actions: Array<[string, Record<string, string>]> = [
    ['pause', { queue: 'default' }], ['resume', { queue: 'default' }], ['purge', { queue: 'default', confirm: 'default' }],
    ['redrive-all', { queue: 'default' }], ['remove-all', { queue: 'default', confirm: 'default' }], ['redrive-group', { queue: 'default', group: 'x' }],
    ['remove-group', { queue: 'default', group: 'x' }], ['cancel', { id: dead! }], ['run', { id: dead! }], ['reschedule', { id: dead!, minutes: '1' }],
    ['redrive', { id: dead!, queue: 'default' }], ['remove', { id: dead!, queue: 'default' }],
    ['rest', { minutes: '9' }], ['end-rest', {}], ['rest-key', { key: 'ann', minutes: '9' }], ['end-rest-key', { key: 'ann' }], ['prioritize', { id: late, priority: 'high' }]
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
  const { post } = await open(t, {
    server: { logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } } },
    setUp: app => { app.addHook('onRequest', async request => { Object.assign(request, { user: { id: 'ann' } }) }) }
  })
  await post('pause', { queue: 'default', level: '99', msg: 'forged', userId: 'bob' })
  await post('rest-key', { key: 'ann', minutes: '9' })
  await post('prioritize', { id: 'a', priority: 'low' })
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
  for (const path of ['queue?name=default', 'dead?name=default', 'keys?name=default', 'task?id=a', 'processes']) {
    const { statusCode, body } = await get(path)
    t.equal(statusCode, 503, path)
    t.match(body, /The store does not answer/)
    t.notMatch(body, server.path, 'its address is nobody\'s business')
  }
  t.match(await json('processes'), { code: 'FST_TASKQUEUE_UNREACHABLE' })
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
