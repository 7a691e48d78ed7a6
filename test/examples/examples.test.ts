import { execFile, spawn } from 'node:child_process'
import { copyFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import t, { type Test } from 'tap'
import type { FastifyInstance } from 'fastify'
import { build as buildIds } from '../../example/ids.js'
import { build as buildOperate } from '../../example/operate.js'
import { build as buildSchedules } from '../../example/schedules.js'
import { build as buildStatus } from '../../example/status.js'
import { build as buildTenants } from '../../example/tenants.js'
import { build as buildTime } from '../../example/time.js'
import type { RedisLocation, TaskqueueOptions } from '../../lib/index.js'
import { endWithMe, startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

import { gate } from '../support/gate.js'

// The examples do what they say, on either queue, from a shell, and with the test runners that they show.

t.setTimeout(60_000)

const examples = fileURLToPath(new URL('../../example', import.meta.url))

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: a reminder is postponed, sent at once, and not sent when it is of no use`, async t => {
    const sent: string[] = []
    const app = await open(t, await buildTime(await optionsOf(t, type), text => { sent.push(text) }))
    const remind = async (text: string, inMs: number, uselessAfterMs?: number): Promise<string> => {
      const { statusCode, headers, body } = await post(app, '/reminders', { text, at: new Date(Date.now() + inMs).toISOString(), uselessAfterMs })
      t.match([statusCode, headers.location], [201, `/reminders/${JSON.parse(body).id}`])
      return JSON.parse(body).id
    }
    const change = async (id: string, what: string, payload?: object) => (await post(app, `/reminders/${id}/${what}`, payload)).statusCode

    const late = await remind('late', 60_000, 20)
    const id = await remind('plants', 3_600_000)
    const before = Date.now()
    t.equal(await change(id, 'postpone', { byMs: 7_200_000 }), 204)
    t.ok((await app.taskqueue.get(id))!.dueAt!.getTime() > before + 7_000_000)
    t.equal(await change(id, 'send'), 204)
    t.match(await app.taskqueue.wait(id), { state: 'done' })
    t.equal(await change(id, 'send'), 404)
    t.equal(await change(id, 'postpone', { byMs: 1 }), 404)

    await change(late, 'postpone', { byMs: 50 })
    t.match(await app.taskqueue.wait(late), { state: 'expired' })
    t.strictSame(sent, ['plants'])
    t.equal((await post(app, '/reminders', { text: 'never', at: 'soon' })).statusCode, 400)
  })

  t.test(`${type} queue: an article is indexed once, a payment made once, and one digest on its way`, async t => {
    const done: string[] = []
    const app = await open(t, await buildIds({ taskqueue: await optionsOf(t, type), quietMs: 60_000, did: what => { done.push(what) } }))
    for (const text of ['a draft', 'the last word']) {
      t.equal((await app.inject({ method: 'PUT', url: '/articles/news', payload: { text } })).statusCode, 204)
    }
    t.equal(await app.taskqueue.runNow('index:news'), true)
    t.match(await app.taskqueue.wait('index:news'), { state: 'done' })
    t.strictSame(done.splice(0), ['indexed news: the last word'])

    const pay = async (key: string) => await app.inject({ method: 'POST', url: '/payments', headers: { 'idempotency-key': key }, payload: { cents: 995 } })
    const codes = (await Promise.all(Array.from({ length: 5 }, async () => (await pay('a')).statusCode))).sort()
    t.strictSame(codes, [202, 409, 409, 409, 409])
    t.match(await app.taskqueue.wait('pay:a'), { state: 'done' })
    t.match([(await pay('a')).json().code, (await pay('b')).statusCode], ['FST_TASKQUEUE_DUPLICATE', 202], 'after it is done as well')
    await app.taskqueue.wait('pay:b')
    t.strictSame(done.splice(0), ['paid 995', 'paid 995'])
    t.equal((await pay('ü')).statusCode, 400)

    t.strictSame([(await post(app, '/digest')).statusCode, (await post(app, '/digest')).json()], [202, { message: 'one is on its way already' }])
    t.equal(await app.taskqueue.runNow('digest'), true)
    t.match(await app.taskqueue.wait('digest'), { state: 'done' })
    t.strictSame(done, ['sent the digest'])
  })

  t.test(`${type} queue: a report is waited for where it will be`, async t => {
    const { opened: released, open: release } = gate()
    const app = await open(t, await buildStatus(await optionsOf(t, type), async page => { if (page === 2) await released }))
    const { statusCode, headers } = await post(app, '/reports', { title: 'November', pages: 2 })
    t.equal(statusCode, 202)
    const look = async (query = '') => (await app.inject(`${headers.location}${query}`)).json()
    await until(async () => (await look()).progress?.percent === 50)
    t.strictSame(await look('?wait=0.02'), { state: 'running', progress: { percent: 50 } })
    const report = look('?wait=5')
    release()
    t.strictSame(await report, { state: 'done', report: { title: 'November', pages: 2 } })
    const other = await app.taskqueue.add('/elsewhere', { delayMs: 60_000 })
    for (const id of ['nobody', other]) t.equal((await app.inject(`/reports/${id}`)).statusCode, 404)
  })

  t.test(`${type} queue: an operator sees ten thousand letters, holds them, and deals with those that failed`, async t => {
    const sent: string[] = []
    let fails = true
    const app = await open(t, await buildOperate({
      taskqueue: { ...await optionsOf(t, type), consumer: { autoStart: false } },
      token: 'secret',
      send (to) {
        if (fails) throw new Error('no way')
        sent.push(to)
      }
    }))
    const call = async (method: 'GET' | 'POST', url: string, payload?: object, token = 'secret') => {
      const { statusCode, body } = await app.inject({ method, url: `/operate${url}`, payload, headers: { authorization: `Bearer ${token}` } })
      return { statusCode, json: body === '' ? undefined : JSON.parse(body) }
    }
    const list = async (state: string, limit = 3): Promise<Array<{ id: string }>> => (await call('GET', `/queues/letters/tasks?state=${state}&limit=${limit}`)).json

    t.equal((await call('POST', '/queues/letters/pause', undefined, 'guessed')).statusCode, 401)
    t.equal((await app.inject('/operate/queues')).statusCode, 401)
    t.equal((await call('POST', '/queues/letters/pause')).statusCode, 204)
    t.strictSame((await post(app, '/newsletter')).json(), { added: 10_000 })
    t.equal(await app.taskqueue.runOne(), false)
    t.match((await call('GET', '/queues')).json, [{ name: 'letters', isPaused: true, waiting: 10_000 }])
    const [first] = await list('waiting')
    t.equal((await call('POST', `/tasks/${first!.id}/cancel`)).statusCode, 204)
    t.equal((await call('POST', `/tasks/${first!.id}/cancel`)).statusCode, 404)
    t.match(await list('cancelled'), [{ id: first!.id }])

    t.equal((await call('POST', '/queues/letters/resume')).statusCode, 204)
    for (let n = 0; n < 3; n++) t.equal(await app.taskqueue.runOne(), true)
    const ids = (await list('dead')).map(({ id }) => id)
    t.equal(ids.length, 3)
    fails = false
    t.strictSame((await call('POST', '/queues/letters/remove', { ids: ids.slice(0, 1) })).json, { removed: 1 })
    t.strictSame((await call('POST', '/queues/letters/redrive', { ids: ids.slice(1) })).json, { redriven: 2 })
    t.match((await call('GET', '/queues')).json, [{ isPaused: false, waiting: 9998, dead: 0 }])
    t.equal(await app.taskqueue.runOne(), true)
    t.equal(sent.length, 1)

    for (const [url, payload] of [['/queues/other/pause'], ['/queues/letters/redrive', {}], ['/queues/letters/remove', {}]] as const) {
      t.equal((await call('POST', url, payload)).statusCode, 400, url)
    }
    t.equal((await call('GET', '/queues/letters/tasks?state=lost')).statusCode, 400)
  })

  t.test(`${type} queue: no tenant waits for the thousand messages of another, and one without room rests alone`, async t => {
    const sent: string[] = []
    let secondsForBo: number | undefined = 60
    const app = await open(t, await buildTenants({
      taskqueue: { ...await optionsOf(t, type), consumer: { autoStart: false } },
      send: async (tenant, text) => {
        if (tenant === 'bo' && secondsForBo !== undefined) return secondsForBo
        sent.push(`${tenant} ${text}`)
        return undefined
      }
    }))
    const add = async (tenant: string, texts: string[], urgent?: boolean) => (await post(app, `/tenants/${tenant}/messages`, { texts, urgent })).json()
    const look = async () => (await app.inject('/tenants')).json()
    const runSome = async (count: number) => { for (let n = 0; n < count; n++) t.equal(await app.taskqueue.runOne(), true) }

    t.strictSame(await add('acme', Array(1000).fill('news')), { added: 1000 })
    await add('ada', ['hello'])
    await add('bo', ['hello', 'again'])
    await add('acme', ['password'], true)
    t.match(await look(), [{ key: 'acme', waiting: 1001 }, { key: 'ada', waiting: 1 }, { key: 'bo', waiting: 2 }])

    await runSome(5)
    t.strictSame(sent, ['acme password', 'ada hello', 'acme news', 'acme news'])
    const [acme, bo] = await look()
    t.match([acme, bo], [{ key: 'acme', waiting: 998 }, { key: 'bo', waiting: 2, running: 0 }])
    const restMs = new Date(bo.restingUntil).getTime() - Date.now()
    t.ok(restMs > 50_000 && restMs <= 60_000, `it rests for ${restMs} ms`)

    secondsForBo = undefined
    await app.taskqueue.queue('messages').rest(0, 'bo')
    await runSome(4)
    t.strictSame(sent.filter(text => text.startsWith('bo')), ['bo hello', 'bo again'])

    const limit = async (limits: object) => (await app.inject({ method: 'PUT', url: '/tenants/acme/limits', payload: limits })).statusCode
    t.equal(await limit({ rate: { max: 1, ms: 60_000 } }), 204)
    t.match(await look(), [{ key: 'acme', limits: { rate: { max: 1, ms: 60_000 } } }])
    t.equal(await limit({ running: 0 }), 500)
    await runSome(1)
    t.equal(await app.taskqueue.runOne(), false, 'its rate allows one a minute')
    t.equal((await post(app, '/tenants/Acme!/messages', { texts: [] })).statusCode, 400)
  })

  t.test(`${type} queue: a tenant chooses the hour of its digest, and changes its mind`, async t => {
    const printed: string[] = []
    const app = await open(t, await buildSchedules({ taskqueue: await optionsOf(t, type), measureMs: 30 * 86_400_000, print: line => { printed.push(line) } }))
    const choose = async (payload: object) => (await app.inject({ method: 'PUT', url: '/tenants/acme/digest', payload })).statusCode
    const remove = async () => (await app.inject({ method: 'DELETE', url: '/tenants/acme/digest' })).statusCode
    const look = async () => (await app.taskqueue.schedules()).find(({ id }) => id === 'digest:acme')

    t.strictSame((await app.taskqueue.schedules()).map(({ id, declared }) => [id, declared]).sort(), [['measure', true], ['report', true]])
    t.equal(await choose({ hour: 8, tz: 'Asia/Tokyo' }), 204)
    t.match(await look(), { cron: '0 8 * * *', tz: 'Asia/Tokyo', declared: false })
    t.equal((await look())!.next!.getUTCHours(), 23)
    t.equal(await choose({ hour: 8 }), 204)
    t.equal((await look())!.next!.getUTCHours(), 8)
    for (const payload of [{ hour: 24 }, { hour: '*' }, { hour: 8, tz: 'Mars/Olympus' }]) t.equal(await choose(payload), 400)

    const id = await app.taskqueue.runSchedule('digest:acme')
    t.match(await app.taskqueue.wait(id!), { state: 'done' })
    t.strictSame(printed.filter(line => line.startsWith('digest')), [`digest of acme for ${id!.split('@')[1]}`])
    t.strictSame([await remove(), await remove(), await look()], [204, 404, undefined])
  })
}

t.test('each can be run, with the Redis that it is given', async t => {
  const { path } = await startRedis(t)
  const run = promisify(execFile)
  await Promise.all(Object.entries({
    time: 'postponed beyond its use: expired',
    ids: 'sent the digest',
    status: '{"state":"done","report":{"title":"November","pages":5}}',
    operate: '9998 letters sent',
    tenants: '1004 messages sent',
    schedules: '-- the digest is removed: 204'
  }).map(async ([name, lastLine]) => {
    const { stdout } = await run(process.execPath, [join(examples, `${name}.js`)], { env: { ...env, REDIS_URL: `unix://${path}` } })
    t.equal(stdout.trimEnd().split('\n').at(-1), lastLine, name)
  }))
})

t.test('the report comes on weekdays, and measurements come all the time', async t => {
  const printed: string[] = []
  const app = await open(t, await buildSchedules({ taskqueue: { consumer: { autoStart: false } }, measureMs: 21_600_000, print: line => { printed.push(line) } }))
  await app.taskqueue.drain({ advanceMs: 7 * 86_400_000 })
  const reports = printed.filter(line => line.startsWith('report')).map(line => new Date(line.split(' ')[2]!))
  const inNewYork = new Intl.DateTimeFormat('en', { timeZone: 'America/New_York', weekday: 'short', hour: 'numeric', hourCycle: 'h23' })
  const days = reports.map(slot => Object.fromEntries(inNewYork.formatToParts(slot).map(({ type, value }) => [type, value])))
  t.ok(days.length >= 4 && days.length <= 6, `it came ${days.length} times in a week`)
  for (const { weekday, hour } of days) t.ok(!weekday!.startsWith('S') && hour === '07', `${weekday} ${hour}`)
  t.equal(printed.filter(line => /^measured for .*T(?:00|06|12|18):00:00\.000Z$/.test(line)).length, 28)
})

// That of vitest runs after this suite (`posttest`): beside it, what vitest makes of the source is mixed into the coverage.
const runners: Array<[name: string, args: string[]]> = [['node', ['--test']], ['tap', []]]

for (const [name, args] of runners) {
  t.test(`the app's tests with ${name} pass, and fail where the app is broken`, async t => {
    const good = join(examples, 'testing')
    // Beside the other, so that what both import is found.
    const broken = mkdtempSync(join(examples, 'broken-'))
    t.teardown(() => { rmSync(broken, { recursive: true }) })
    const run = async (dir: string) => await outcomeOf([...args, join(dir, `${name}.test.js`)], dir)
    copyFileSync(join(good, `${name}.test.js`), join(broken, `${name}.test.js`))
    const source = readFileSync(join(good, 'app.js'), 'utf8')
    const wrong = source.replace('to: body.email', "to: 'eve@example.org'")
    t.not(wrong, source)
    writeFileSync(join(broken, 'app.js'), wrong)

    const passed = await run(good)
    t.equal(passed.code, 0, passed.output)
    const failed = await run(broken)
    t.equal(failed.code, 1)
    t.match(failed.output, 'eve@example.org')
    for (const title of ['who signs up is answered at once', 'mails are sent one by one']) t.match(failed.output, title)
  })
}

/** Without what this test's own runner adds, and would have from its children. */
const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^(?:NODE_|TAP|_TAPJS|REDIS_URL$)/.test(name)))

async function outcomeOf (args: string[], cwd: string): Promise<{ code: number | null, output: string }> {
  const child = endWithMe(spawn(process.execPath, args, { env, cwd, stdio: ['ignore', 'pipe', 'pipe'] }))
  let output = ''
  for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', text => { output += text })
  const code = await new Promise<number | null>(resolve => { child.once('close', resolve) })
  return { code, output }
}

async function optionsOf (t: Test, type: string): Promise<TaskqueueOptions> {
  if (type === 'local') return {}
  const redis: RedisLocation = { path: (await startRedis(t)).path }
  return { redis }
}

async function open (t: Test, app: FastifyInstance): Promise<FastifyInstance> {
  t.teardown(async () => { await app.close() })
  await app.ready()
  return app
}

async function post (app: FastifyInstance, url: string, payload?: object) {
  return await app.inject({ method: 'POST', url, payload })
}
