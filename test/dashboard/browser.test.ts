import cookie from '@fastify/cookie'
import helmet from '@fastify/helmet'
import Fastify, { type FastifyInstance } from 'fastify'
import { createServer, request as httpRequest } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import dashboard, { type DashboardOptions } from '../../lib/dashboard/dashboard.js'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'
import { gate } from '../support/gate.js'
import { startRedis } from '../support/redis-server.js'
import { startBrowser } from '../support/browser.js'
import { until } from '../support/until.js'

t.setTimeout(300_000)

const openPage = await startBrowser(t)

interface Options extends DashboardOptions {
  taskqueue?: TaskqueueOptions
  prefix?: string
}

/** Serves an app with a dashboard; `/held` lasts until the test ends. */
async function serve (t: Test, { taskqueue: options, prefix = '/admin/queues', ...rest }: Options = {}): Promise<{ app: FastifyInstance, origin: string, url: string }> {
  const app = Fastify({ forceCloseConnections: true })
  const { opened, open } = gate()
  t.teardown(async () => {
    open()
    await app.close()
  })
  await app.register(taskqueue, { consumer: { maxRetries: 0, concurrency: 2 }, ...options })
  await app.register(helmet)
  await app.register(cookie)
  await app.register(dashboard, { prefix, ...rest.authorize === undefined && { public: true }, ...rest })
  app.all('/ok', async () => ({ text: '<img src=x onerror=alert(3)>' }))
  app.get('/held', async () => { await opened })
  app.all('/fails/*', async request => { throw Object.assign(new Error(String(request.headers['x-say'] ?? 'no')), { statusCode: 422 }) })
  const origin = await app.listen({ host: '127.0.0.1', port: 0 })
  return { app, origin, url: `${origin}${prefix}/` }
}

const HOSTILE = ['"><img src=x onerror=alert(1)>', '</script><script>alert(2)</script>', '\u202egnp.exe', '\'-alert(1)-\'', '{{7*7}}']

t.test('whoever operates finds a dead letter, reads why it died, and redrives it', async t => {
  const { app, url } = await serve(t)
  await app.taskqueue.add('/fails/7', { id: 'broken' })
  await app.taskqueue.wait('broken')
  const { page, wrong } = await openPage()
  await page.goto(url)
  t.equal(await page.title(), 'Queues – task queue')
  await page.getByRole('row', { name: /default/ }).getByRole('link', { name: '1' }).click()
  t.match(await page.title(), /default: dead/)
  await page.getByRole('link', { name: 'broken' }).click()
  t.match(await page.getByRole('main').textContent(), /status 422/)
  await page.getByRole('button', { name: 'Redrive' }).click()
  await app.taskqueue.wait('broken')
  t.equal((await app.taskqueue.get('broken'))?.attempts.length, 2)
  await page.goto(`${url}dead?name=default`)
  t.match(await page.getByRole('main').textContent(), /GET \/fails\/:id/)
  await page.getByRole('button', { name: 'Remove', exact: true }).click()
  await page.getByText('No task of default is dead').waitFor()
  t.match(await app.taskqueue.queue('default').counts(), { dead: 0 })
  t.strictSame(wrong, [])
})

t.test('whoever operates pauses, resumes, reschedules, runs, cancels, searches and drops', async t => {
  const { app, url } = await serve(t)
  const queue = app.taskqueue.queue('default')
  const { page, wrong } = await openPage()
  await page.goto(url)
  await page.getByRole('button', { name: 'Pause' }).click()
  await page.getByText('paused', { exact: true }).waitFor()
  t.equal(await queue.isPaused(), true)
  await page.getByRole('button', { name: 'Resume' }).click()
  await page.getByRole('button', { name: 'Pause' }).waitFor()
  t.equal(await queue.isPaused(), false)

  await app.taskqueue.add('/held', { id: 'late', delayMs: 3_600_000 })
  await page.getByLabel('Task').fill('late')
  await page.getByRole('button', { name: 'Find' }).click()
  await page.getByLabel('Run in').fill('30')
  await page.getByRole('button', { name: 'Reschedule' }).click()
  await page.getByText(/in (29|30) min/).waitFor()
  await page.getByRole('button', { name: 'Run now' }).click()
  await until(async () => (await app.taskqueue.get('late'))?.state === 'running')
  await page.reload()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByText('cancelled', { exact: true }).waitFor()

  await queue.pause()
  await app.taskqueue.addAll([{ url: '/ok' }, { url: '/ok' }])
  await page.goto(`${url}queue?name=default`)
  await page.getByText('Drop all waiting').first().click()
  await page.getByLabel(/Write default/).fill('default')
  await page.getByRole('button', { name: 'Drop all waiting' }).click()
  await page.getByText('No task of default is waiting').waitFor()
  t.equal(await queue.length(), 0)
  t.strictSame(wrong, [])
})

t.test('whoever operates has a key rest, ends that, and lowers a task', async t => {
  const { app, url } = await serve(t, { taskqueue: { consumer: { autoStart: false } } })
  const queue = app.taskqueue.queue('default')
  for (const key of ['ann', 'bob']) await app.taskqueue.add('/ok', { id: `of-${key}`, key })
  const resting = async () => (await queue.keys()).filter(({ restingUntil }) => restingUntil !== undefined).map(({ key }) => key)
  const { page, wrong } = await openPage()
  await page.goto(`${url}queue?name=default`)
  await page.getByRole('link', { name: 'By key' }).click()
  const bob = page.getByRole('row', { name: /bob/ })
  await bob.getByLabel('Rest for').fill('120')
  await bob.getByRole('button', { name: 'Rest' }).click()
  await bob.getByText(/in (2 h|1.9 h)/).waitFor()
  t.strictSame(await resting(), ['bob'])
  await bob.getByRole('button', { name: 'End rest' }).click()
  await bob.getByRole('button', { name: 'End rest' }).waitFor({ state: 'detached' })
  t.strictSame(await resting(), [])
  await page.goto(`${url}task?id=of-ann`)
  await page.getByRole('button', { name: 'Lower to low' }).click()
  await page.getByRole('button', { name: 'Raise to normal' }).waitFor()
  t.equal((await app.taskqueue.get('of-ann'))?.priority, 'low')
  t.strictSame(wrong, [])
})

t.test('whoever operates runs, pauses, resumes and removes a schedule', async t => {
  const { app, url } = await serve(t, { taskqueue: { consumer: { autoStart: false }, schedules: { declared: { url: '/ok', cron: '@yearly' } } } })
  await app.taskqueue.schedule('report', { url: '/ok', everyMs: 86_400_000 })
  const { page, wrong } = await openPage()
  await page.goto(url)
  await page.getByRole('link', { name: 'Schedules' }).click()
  const report = page.getByRole('row', { name: /report/ })
  const button = (name: string) => report.getByRole('button', { name })
  await button('Pause').click()
  await report.getByText('paused', { exact: true }).waitFor()
  await button('Resume').click()
  await button('Pause').waitFor()
  await button('Run now').click()
  await page.getByText(/^Task report@\S+ was added\.$/).waitFor()
  await button('Run now').click()
  await page.getByText(/^No task was added: the last task report@\S+ had not ended\.$/).waitFor()
  await report.getByRole('link', { name: /ago/ }).click()
  t.match(await page.title(), /^Task report@/)
  await page.goBack()
  await button('Remove').click()
  await report.waitFor({ state: 'detached' })
  t.strictSame(await page.getByRole('row', { name: /declared/ }).getByRole('button').allTextContents(), ['Run now', 'Pause'])
  t.strictSame((await app.taskqueue.schedules()).map(({ id, paused }) => [id, paused]), [['declared', false]])
  t.strictSame(wrong, [])
})

t.test('whoever operates redrives and removes dead letters: one, those of a kind, and all', async t => {
  const { app, url } = await serve(t)
  const queue = app.taskqueue.queue('default')
  const die = async (...urls: string[]) => {
    const ids = await app.taskqueue.addAll(urls.map(url => ({ url })))
    for (const id of ids) await app.taskqueue.wait(id!)
  }
  const countOf = async (attempts: number) => (await queue.list('dead')).filter(task => task.attempts.length === attempts).length
  const { page, wrong } = await openPage()
  await die('/fails/1', '/fails/2', '/fails/other/x')
  await page.goto(`${url}dead?name=default`)
  await page.getByRole('row', { name: /fails\/:id/ }).getByRole('button', { name: 'Redrive' }).click()
  await until(async () => await countOf(2) === 2)
  await page.getByRole('button', { name: 'Redrive all 3' }).click()
  await until(async () => await countOf(3) === 2 && await countOf(2) === 1)
  await page.goto(`${url}queue?name=default&state=dead`)
  await page.locator('td.id a').first().click()
  await page.getByRole('button', { name: 'Remove' }).click()
  await until(async () => (await queue.counts()).dead === 2)
  await page.goto(`${url}dead?name=default`)
  await page.getByText('Remove all 2').first().click()
  await page.getByLabel(/Write default/).fill('default')
  await page.getByRole('button', { name: 'Remove all 2' }).click()
  await page.getByText('No task of default is dead').waitFor()
  t.match(await queue.counts(), { dead: 0 })
  t.strictSame(wrong, [])
})

t.test('nothing that is hostile runs or leads away, wherever it stands', async t => {
  const { app, url } = await serve(t, { show: { payload: true, answer: true }, taskqueue: { consumer: { maxRetries: 0, name: HOSTILE[0]! } } })
  const ids: string[] = []
  for (const [index, text] of HOSTILE.entries()) {
    const say = encodeURIComponent(text)
    ids.push(await app.taskqueue.add(`/fails/${say}?q=${say}`, { id: `"><img/src=x/onerror=alert(${index})>`, payload: { [text]: text }, headers: { 'x-say': text.replace(/[^\x20-\x7e]/g, '?') }, user: 'ann' }) as string)
    ids.push(await app.taskqueue.add('/ok', { payload: text, id: `javascript:alert(${index})` }) as string)
  }
  for (const id of ids) await app.taskqueue.wait(id)
  await app.taskqueue.queue('default').rest(3_600_000)
  for (const key of HOSTILE.filter(text => /^[ -~]+$/.test(text))) ids.push(await app.taskqueue.add('/ok', { key }))
  for (const text of HOSTILE) await app.taskqueue.schedule(text.replace(/[^!-~]/g, '/'), { url: `/ok?q=${encodeURIComponent(text)}`, cron: '@yearly' })
  const { page, wrong } = await openPage()
  await until(async () => (await app.taskqueue.processes()).length === 1)
  for (const path of ['', 'queue?name=default&state=dead', 'queue?name=default&state=done', 'dead?name=default', 'queue?name=default', 'keys?name=default', 'processes', 'schedules', `schedules?${String(new URLSearchParams({ ran: 'x', added: ids[0]! }))}`, ...ids.map(id => `task?id=${encodeURIComponent(id)}`)]) {
    const response = await page.goto(`${url}${path}`)
    t.equal(response?.status(), 200, path)
    t.equal(await page.locator('img').count(), 0, path)
    t.equal(await page.locator('script').count(), 1, path)
  }
  for (const path of [HOSTILE[0]!, `queue?name=${encodeURIComponent(HOSTILE[0]!)}`, `task?id=${encodeURIComponent('"><script>alert(1)</script>')}`]) {
    await page.goto(`${url}${path}`)
    t.equal(await page.locator('img, script:not([src])').count(), 0)
  }
  // The browser reports the status of each page that was not found.
  t.strictSame(wrong.filter(text => !/the server responded with a status of 40[04]/.test(text)), [])
})

t.test('a queue with a million tasks is looked at as any other', async t => {
  const { path } = await startRedis(t)
  const { app, url } = await serve(t, { taskqueue: { redis: { path }, consumer: false } })
  const model = await app.taskqueue.add('/ok')
  const admin = new Redis({ path })
  t.teardown(() => { admin.disconnect() })
  for (let n = 0; n < 1_000_000; n += 10_000) {
    await admin.eval(`
      local message = redis.call('HGET', KEYS[1], ARGV[1])
      for n = ARGV[2], ARGV[2] + 9999 do
        local id = string.sub(ARGV[1], 1, 24) .. string.format('%012d', n)
        redis.call('HSET', KEYS[1], id, message)
        redis.call('RPUSH', KEYS[2], id)
      end`, 2, 'taskqueue:{default}:message', 'taskqueue:{default}:waiting', model, n)
  }
  const { page, wrong } = await openPage()
  await page.goto(url)
  await page.getByRole('link', { name: '1,000,001' }).click()
  await page.getByRole('link', { name: 'Next' }).click()
  t.equal(await page.getByRole('row').count(), 51)
  await page.getByRole('link', { name: model.slice(0, 24) }).first().click()
  await page.getByRole('button', { name: 'Cancel' }).click()
  await page.getByText('cancelled', { exact: true }).waitFor()
  t.match(await app.taskqueue.queue('default').counts(), { waiting: 1_000_000 })
  t.strictSame(wrong, [])
})

t.test('a form on another site acts on nothing', async t => {
  const { app, url } = await serve(t)
  const evil = createServer((_request, response) => {
    response.setHeader('content-type', 'text/html')
    response.end(`<form method="post" action="${url}actions/pause"><input name="queue" value="default"><button>Win</button></form>`)
  })
  await new Promise<void>(resolve => { evil.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { evil.close() })
  const { page } = await openPage()
  for (const host of ['127.0.0.1', 'localhost']) {
    await page.goto(`http://${host}:${(evil.address() as AddressInfo).port}/`)
    const [response] = await Promise.all([page.waitForResponse(/actions/), page.getByRole('button').click()])
    t.equal(response.status(), 403)
  }
  t.equal(await app.taskqueue.queue('default').isPaused(), false)
})

t.test('who may only look finds no button but that of the search', async t => {
  const { app, url } = await serve(t, { authorize: () => 'read' })
  await app.taskqueue.add('/fails/1', { id: 'dead' })
  await app.taskqueue.wait('dead')
  await app.taskqueue.queue('default').rest(3_600_000)
  await app.taskqueue.add('/ok', { id: 'waiting', key: 'ann' })
  await app.taskqueue.schedule('nightly', { url: '/ok', cron: '@yearly' })
  const { page, wrong } = await openPage()
  for (const path of ['', 'queue?name=default&state=dead', 'dead?name=default', 'task?id=dead', 'queue?name=default', 'keys?name=default', 'task?id=waiting', 'processes', 'schedules']) {
    await page.goto(`${url}${path}`)
    t.strictSame(await page.getByRole('button').allTextContents(), ['Find'], path)
  }
  t.strictSame(wrong, [])
})

t.test('the pages work without JavaScript, by the keyboard, and on a phone', async t => {
  const { app, url } = await serve(t)
  await app.taskqueue.add('/fails/1', { id: 'dead' })
  await app.taskqueue.wait('dead')
  const { page, wrong } = await openPage({ javaScriptEnabled: false, viewport: { width: 360, height: 700 } })
  await page.goto(`${url}task?id=dead`)
  await page.getByRole('button', { name: 'Redrive' }).focus()
  await Promise.all([page.waitForEvent('load'), page.keyboard.press('Enter')])
  await until(async () => (await app.taskqueue.get('dead'))?.attempts.length === 2)
  await app.taskqueue.queue('default').rest(3_600_000)
  await app.taskqueue.add('/ok', { id: 'waiting', key: 'k'.repeat(255) })
  await app.taskqueue.schedule('s'.repeat(200), { url: '/ok', cron: '@yearly' })
  for (const path of ['', 'queue?name=default&state=dead', 'dead?name=default', 'task?id=dead', 'queue?name=default', 'keys?name=default', 'task?id=waiting', 'processes', 'schedules']) {
    await page.goto(`${url}${path}`)
    const width = await page.locator('html').evaluate((element: { scrollWidth: number }) => element.scrollWidth)
    t.ok(width <= 360, `${path} is ${width} wide`)
  }
  t.strictSame(wrong, [])
})

t.test('a page shows what has changed, by itself, unless somebody is about to use it', async t => {
  const { app, url } = await serve(t)
  const { page, wrong } = await openPage()
  await page.clock.install()
  await page.goto(url)
  await app.taskqueue.add('/fails/1', { id: 'dead' })
  await app.taskqueue.wait('dead')
  const dead = page.getByRole('row', { name: /default/ }).locator('td').nth(3)
  t.equal(await dead.textContent(), '0')
  await until(async () => {
    await page.clock.runFor(5000)
    return await dead.textContent() === '1'
  })
  await page.goto(`${url}queue?name=default`)
  await page.getByText('Drop all waiting').first().click()
  await page.getByLabel(/Write default/).fill('def')
  await page.clock.runFor(20_000)
  t.equal(await page.getByLabel(/Write default/).inputValue(), 'def')
  t.strictSame(wrong, [])
})

t.test('behind a proxy that takes the prefix away, links lead to the right place', async t => {
  const { app, origin } = await serve(t, { prefix: '' })
  const proxy = createServer((request, response) => {
    if (!request.url!.startsWith('/behind/')) {
      response.writeHead(404).end()
      return
    }
    const target = new URL(request.url!.slice('/behind'.length), origin)
    request.pipe(httpRequest(target, { method: request.method!, headers: request.headers }, answer => {
      response.writeHead(answer.statusCode!, answer.headers)
      answer.pipe(response)
    }))
  })
  await new Promise<void>(resolve => { proxy.listen(0, '127.0.0.1', resolve) })
  t.teardown(() => { proxy.close() })
  const { page, wrong } = await openPage()
  await page.goto(`http://127.0.0.1:${(proxy.address() as AddressInfo).port}/behind/`)
  await page.getByRole('button', { name: 'Pause' }).click()
  await page.getByText('paused', { exact: true }).waitFor()
  t.equal(await app.taskqueue.queue('default').isPaused(), true)
  await page.getByRole('link', { name: 'default' }).click()
  await page.getByRole('link', { name: 'dead', exact: true }).click()
  await page.getByRole('link', { name: 'Processes' }).click()
  t.match(page.url(), /\/behind\/processes$/)
  t.strictSame(wrong, [])
})

t.test('while Redis is away the pages say so, and recover by themselves', async t => {
  const server = await startRedis(t)
  const { url } = await serve(t, { taskqueue: { redis: { path: server.path }, commitTimeoutMs: 300 } })
  const { page } = await openPage()
  await page.clock.install()
  await page.goto(`${url}queue?name=default`)
  await server.stop()
  await until(async () => {
    await page.clock.runFor(5000)
    return await page.getByText('The store does not answer').count() > 0
  })
  await server.start()
  await until(async () => {
    await page.clock.runFor(5000)
    return await page.getByText('No task of default is waiting').count() > 0
  })
})
