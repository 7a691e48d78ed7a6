import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import taskqueue, { errorCodes, type Events, type TaskqueueOptions, type TaskSchedule } from '../../lib/index.js'
import { gate } from '../support/gate.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

// Schedules as users declare and make them, in one app and over deploys.

t.setTimeout(300_000)

const HOUR_MS = 3_600_000
const MANUAL: TaskqueueOptions = { consumer: { autoStart: false } }

type Run = TaskSchedule & { taskId: string, body: unknown, userId: string | undefined }

/** Opens an app whose tasks note for which schedule and slot they run. */
async function open (t: Test, options: TaskqueueOptions, routes: (app: FastifyInstance) => void = () => {}) {
  const app = Fastify()
  const runs: Run[] = []
  t.teardown(() => app.close())
  await app.register(taskqueue, options)
  for (const method of ['GET', 'POST'] as const) {
    app.route({
      method,
      url: '/tasks/:name',
      constraints: { taskOnly: true },
      handler: async ({ task, body }) => {
        runs.push({ ...task!.schedule!, taskId: task!.id, body, userId: task!.userId })
      }
    })
  }
  routes(app)
  await app.ready()
  return { app, runs }
}

async function optionsFor (t: Test, type: string): Promise<TaskqueueOptions> {
  return type === 'redis' ? { redis: { path: (await startRedis(t)).path } } : {}
}

const names = (schedules: ReadonlyArray<{ id: string }>) => schedules.map(({ id }) => id).sort()

for (const type of ['local', 'redis']) {
  t.test(`${type} queue: a declared schedule adds its task at each slot, which the task knows`, async t => {
    const { app, runs } = await open(t, {
      ...await optionsFor(t, type),
      schedules: { report: { everyMs: 1000, url: '/tasks/report', payload: { a: 1 }, user: 'ada', key: 'k', queue: 'default' } }
    })
    const since = Date.now()
    await until(() => runs.length >= 2)
    const [first, second] = runs
    t.equal(second!.slot.getTime() - first!.slot.getTime(), 1000)
    t.equal(first!.slot.getTime() % 1000, 0)
    t.ok(first!.slot.getTime() >= since - 20 && first!.slot.getTime() <= since + 1020)
    t.match(first, { id: 'report', missed: 0, taskId: `report@${first!.slot.toISOString()}`, body: { a: 1 }, userId: 'ada' })
    const [status] = await app.taskqueue.schedules()
    t.match(status, {
      id: 'report',
      queue: 'default',
      everyMs: 1000,
      overlap: 'skip',
      catchUp: 'once',
      method: 'POST',
      url: '/tasks/report',
      declared: true,
      paused: false,
      skipped: 0,
      missed: 0,
      last: { taskId: /^report@/, at: Date },
      next: Date
    })
    t.ok(status!.next!.getTime() > Date.now() - 50)
  })

  t.test(`${type} queue: a route made with app.task declares its schedule, under its url or another id`, async t => {
    const seen: unknown[] = []
    const { app } = await open(t, await optionsFor(t, type), app => {
      app.register(async app => {
        app.task({
          url: '/clean/:what',
          schedule: { id: 'clean', cron: '0 3 * * *', tz: 'Europe/Berlin', params: { what: 'up' } },
          handler: async ({ params }) => { seen.push(params) }
        })
        app.task({ url: '/sync', schedule: { everyMs: HOUR_MS, payload: { n: 1 } }, handler: async ({ body }) => { seen.push(body) } })
      }, { prefix: '/nightly' })
    })
    t.match((await app.taskqueue.schedules()).map(({ id, url, cron, tz, everyMs }) => ({ id, url, cron, tz, everyMs })).sort((a, b) => a.id < b.id ? -1 : 1), [
      { id: '/nightly/sync', url: '/nightly/sync', everyMs: HOUR_MS },
      { id: 'clean', url: '/nightly/clean/up', cron: '0 3 * * *', tz: 'Europe/Berlin' }
    ])
    const ids = [await app.taskqueue.runSchedule('clean'), await app.taskqueue.runSchedule('/nightly/sync')]
    t.match(ids, [/^clean@/, /^\/nightly\/sync@/])
    for (const id of ids) await app.taskqueue.wait(id!)
    t.same(seen, [{ what: 'up' }, { n: 1 }])
  })

  t.test(`${type} queue: a schedule is made, changed, paused, resumed, run and removed while the app runs`, async t => {
    const { app, runs } = await open(t, { ...await optionsFor(t, type), ...MANUAL, queues: { a: {}, b: {} } })
    const { taskqueue } = app
    const get = async (id: string) => (await taskqueue.schedules()).filter(schedule => schedule.id === id)
    await taskqueue.schedule('tenant:1', { cron: '0 9 * * *', tz: 'Asia/Tokyo', url: '/tasks/digest', queue: 'a' })
    const [made] = await get('tenant:1')
    t.match(made, { declared: false, queue: 'a', cron: '0 9 * * *', tz: 'Asia/Tokyo' })
    t.equal(made!.next!.toISOString().slice(11), '00:00:00.000Z')
    await taskqueue.schedule('tenant:1', { everyMs: HOUR_MS, url: '/tasks/digest', queue: 'b' })
    t.match(await get('tenant:1'), [{ queue: 'b', everyMs: HOUR_MS }], 'it moves to the queue of its tasks')
    t.equal((await get('tenant:1')).length, 1)

    t.equal(await taskqueue.pauseSchedule('tenant:1'), true)
    t.match(await get('tenant:1'), [{ paused: true, next: undefined }])
    const id = await taskqueue.runSchedule('tenant:1')
    t.match(id, /^tenant:1@/)
    t.equal(await taskqueue.runSchedule('tenant:1'), null, 'its last task has not ended')
    const forced = await Promise.all([1, 2, 3].map(() => taskqueue.runSchedule('tenant:1', { force: true })))
    t.equal(new Set(forced).size, 3, 'each adds a task, also in the same millisecond')
    await taskqueue.drain()
    t.equal(runs.length, 4)
    t.equal(runs[0]!.taskId, id)
    t.ok(Math.abs(runs[0]!.slot.getTime() - Date.now()) < 60_000)
    t.equal(await taskqueue.resumeSchedule('tenant:1'), true)
    const [resumed] = await get('tenant:1')
    t.match(resumed, { paused: false, skipped: 0 })
    t.equal(resumed!.next!.getTime() % HOUR_MS, 0)

    t.equal(await taskqueue.unschedule('tenant:1'), true)
    t.strictSame(await taskqueue.schedules(), [])
    for (const method of ['unschedule', 'pauseSchedule', 'resumeSchedule'] as const) t.equal(await taskqueue[method]('tenant:1'), false)
    t.equal(await taskqueue.runSchedule('tenant:1'), null)
  })

  t.test(`${type} queue: a slot is skipped, allowed or replaced while the last task runs`, async t => {
    const gates = Array.from({ length: 9 }, () => gate())
    let begun = 0
    const aborted: string[] = []
    const { app } = await open(t, {
      ...await optionsFor(t, type),
      consumer: { concurrency: 9 },
      schedules: {
        skip: { everyMs: 1000, url: '/slow' },
        allow: { everyMs: 1000, url: '/slow', overlap: 'allow' },
        replace: { everyMs: 1000, url: '/slow', overlap: 'replace' }
      }
    }, app => {
      app.get('/slow', { constraints: { taskOnly: true } }, async ({ task }) => {
        const { id, signal } = task!
        signal.addEventListener('abort', () => { aborted.push(id) })
        await gates[begun++]?.opened
      })
    })
    const running = async () => (await app.taskqueue.queue('default').list('running')).map(({ id }) => id)
    await until(async () => (await running()).filter(id => id.startsWith('allow')).length >= 3)
    const ids = await running()
    t.equal(ids.filter(id => id.startsWith('skip')).length, 1)
    t.equal(ids.filter(id => id.startsWith('replace')).length, 1)
    await until(() => aborted.length >= 2)
    t.ok(aborted.every(id => id.startsWith('replace')))
    const skip = (await app.taskqueue.schedules()).find(({ id }) => id === 'skip')!
    t.ok(skip.skipped >= 2, `${skip.skipped} were skipped`)
    for (const { open } of gates) open()
  })

  t.test(`${type} queue: nothing is added while the queue is paused, and one task after it`, async t => {
    const { app, runs } = await open(t, { ...await optionsFor(t, type), schedules: { tick: { everyMs: 1000, url: '/tasks/tick' } } })
    const queue = app.taskqueue.queue('default')
    await queue.pause()
    const { length } = runs
    const next = (await app.taskqueue.schedules())[0]!.next!
    await until(() => Date.now() > next.getTime() + 2100)
    t.strictSame(await queue.counts(), { waiting: 0, delayed: 0, running: 0, dead: 0 })
    t.equal(runs.length, length)
    await queue.resume()
    await until(() => runs.length > length)
    t.ok(runs[length]!.missed >= 2, `it missed ${runs[length]!.missed}`)
  })

  t.test(`${type} queue: a consumer that has no room for tasks adds them all the same`, async t => {
    const hold = gate()
    const { app } = await open(t, { ...await optionsFor(t, type), schedules: { tick: { everyMs: 1000, url: '/tasks/tick', overlap: 'allow' } } }, app => {
      app.get('/hold', { constraints: { taskOnly: true } }, async () => { await hold.opened })
    })
    await app.taskqueue.add('/hold', { priority: 'high' })
    await app.taskqueue.addAll(Array.from({ length: 100 }, () => ({ url: '/hold' })))
    const queue = app.taskqueue.queue('default')
    await until(async () => (await queue.counts()).waiting >= 100 + 2)
    hold.open()
  })
}

t.test('a schedule that nobody could carry out is refused, and the error says why', async t => {
  const { FST_TASKQUEUE_INVALID_SCHEDULE, FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_INVALID_URL } = errorCodes
  const refused: ReadonlyArray<readonly [object, unknown, RegExp]> = [
    [{}, FST_TASKQUEUE_INVALID_SCHEDULE, /give it cron or everyMs/],
    [{ cron: '* * * * *', everyMs: 1000 }, FST_TASKQUEUE_INVALID_SCHEDULE, /not both/],
    [{ everyMs: 999 }, FST_TASKQUEUE_INVALID_SCHEDULE, /everyMs.*1000/],
    [{ everyMs: '1h' }, FST_TASKQUEUE_INVALID_SCHEDULE, /everyMs.*1000/],
    [{ everyMs: 1000, tz: 'UTC' }, FST_TASKQUEUE_INVALID_SCHEDULE, /tz/],
    [{ everyMs: null }, FST_TASKQUEUE_INVALID_SCHEDULE, /everyMs/],
    [{ cron: '* * * * *', tz: null }, FST_TASKQUEUE_INVALID_SCHEDULE, /time zone/],
    [{ cron: '* * * * *', tz: ['UTC'] }, FST_TASKQUEUE_INVALID_SCHEDULE, /time zone/],
    [{ cron: '* * * * *', startAt: 9e15 }, FST_TASKQUEUE_INVALID_SCHEDULE, /startAt/],
    [{ everyMs: 1000, jitterMs: 8e15 }, FST_TASKQUEUE_INVALID_SCHEDULE, /jitterMs/],
    [{ cron: '* 2 * 3 SUN#2', tz: 'America/New_York' }, FST_TASKQUEUE_INVALID_SCHEDULE, /no slot/],
    [{ cron: '0 0 30 2 *' }, FST_TASKQUEUE_INVALID_SCHEDULE, /no slot/],
    [{ cron: 'often' }, FST_TASKQUEUE_INVALID_SCHEDULE, /is no pattern/],
    [{ cron: '* * * * * * 2030' }, FST_TASKQUEUE_INVALID_SCHEDULE, /is no pattern/],
    [{ cron: '2030-01-01T00:00:00' }, FST_TASKQUEUE_INVALID_SCHEDULE, /is no pattern/],
    [{ cron: '? * * * *' }, FST_TASKQUEUE_INVALID_SCHEDULE, /is no pattern/],
    [{ cron: '* '.repeat(200) }, FST_TASKQUEUE_INVALID_SCHEDULE, /255/],
    [{ cron: 7 }, FST_TASKQUEUE_INVALID_SCHEDULE, /cron must be a text/],
    [{ cron: '* * * * *', tz: 'Mars/Olympus' }, FST_TASKQUEUE_INVALID_SCHEDULE, /time zone/],
    [{ cron: '* * * * *', tz: 7 }, FST_TASKQUEUE_INVALID_SCHEDULE, /time zone/],
    [{ everyMs: 1000, startAt: 'tomorrow' }, FST_TASKQUEUE_INVALID_SCHEDULE, /startAt/],
    [{ everyMs: 1000, endAt: NaN }, FST_TASKQUEUE_INVALID_SCHEDULE, /endAt/],
    [{ everyMs: 1000, startAt: 2000, endAt: 1999 }, FST_TASKQUEUE_INVALID_SCHEDULE, /no slot/],
    [{ everyMs: 8.64e15 + 1 }, FST_TASKQUEUE_INVALID_SCHEDULE, /no slot/],
    [{ everyMs: 1000, overlap: 'forbid' }, FST_TASKQUEUE_INVALID_SCHEDULE, /overlap/],
    [{ everyMs: 1000, catchUp: 'some' }, FST_TASKQUEUE_INVALID_SCHEDULE, /catchUp/],
    [{ everyMs: 1000, jitterMs: -1 }, FST_TASKQUEUE_INVALID_SCHEDULE, /jitterMs/],
    [{ everyMs: 1000, delayMs: 1 }, FST_TASKQUEUE_INVALID_OPTION, /delayMs/],
    [{ everyMs: 1000, url: 'https://example.com' }, FST_TASKQUEUE_INVALID_URL, /path of this app/],
    [{ everyMs: 1000, payload: 'x'.repeat(17_000) }, FST_TASKQUEUE_INVALID_SCHEDULE, /longer than 16384/]
  ]
  const { app } = await open(t, MANUAL)
  for (const [given, type, message] of refused) {
    const options: { url: string } = { url: '/tasks/x', ...given }
    await t.rejects(app.taskqueue.schedule('x', options), { constructor: type, message } as never, JSON.stringify(given).slice(0, 60))
    const declaring = Fastify()
    await declaring.register(taskqueue, { schedules: { x: options } } as TaskqueueOptions)
    await t.rejects(async () => { await declaring.ready() }, { message })
    await declaring.close()
  }
  for (const id of ['', 'a b', 'é', 'x'.repeat(201), 7]) {
    await t.rejects(app.taskqueue.schedule(id as string, { everyMs: 1000, url: '/tasks/x' }), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE', statusCode: 400 })
    await t.rejects(app.taskqueue.pauseSchedule(id as string), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE' })
  }
  t.strictSame(await app.taskqueue.schedules(), [])
})

t.test('a schedule that is declared cannot be made, removed or declared twice', async t => {
  const { app } = await open(t, { ...MANUAL, schedules: { report: { everyMs: HOUR_MS, url: '/tasks/x' } } })
  await t.rejects(app.taskqueue.schedule('report', { everyMs: 1000, url: '/tasks/x' }), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE', message: /declared/ })
  await t.rejects(app.taskqueue.unschedule('report'), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE', message: /declared/ })
  t.match(await app.taskqueue.schedules(), [{ everyMs: HOUR_MS }])
  const twice = Fastify()
  await twice.register(taskqueue, { schedules: { '/x': { everyMs: HOUR_MS, url: '/x' } } })
  t.throws(() => twice.task({ url: '/x', schedule: { everyMs: HOUR_MS }, handler: async () => {} }), { message: /declared twice/ })
  await twice.close()
})

t.test('a route with a schema refuses the schedule that would give it bad input', async t => {
  const app = Fastify()
  await app.register(taskqueue)
  app.task({
    url: '/typed',
    schema: { body: { type: 'object', required: ['n'], properties: { n: { type: 'integer' } } } },
    schedule: { everyMs: 1000, payload: {} },
    handler: async () => {}
  })
  await t.rejects(async () => { await app.ready() }, { code: 'FST_TASKQUEUE_INVALID_INPUT' })
  await app.close()
})

t.test('over deploys a schedule that has not changed stays as it is, and others follow what is declared', async t => {
  const redis = { path: (await startRedis(t)).path }
  const admin = new Redis(redis)
  t.teardown(() => { admin.disconnect() })
  const deploy = async (schedules: TaskqueueOptions['schedules'], rest: TaskqueueOptions = {}) => {
    const { app } = await open(t, { redis, ...MANUAL, ...schedules !== undefined && { schedules }, ...rest })
    const found = await app.taskqueue.schedules()
    await app.close()
    return Object.fromEntries(found.map(schedule => [schedule.id, schedule]))
  }
  const url = '/tasks/x'
  const first = await deploy({ kept: { everyMs: HOUR_MS, url }, changed: { everyMs: HOUR_MS, url }, gone: { everyMs: HOUR_MS, url } })
  t.strictSame(Object.keys(first).sort(), ['changed', 'gone', 'kept'])
  const { app: other } = await open(t, { redis, ...MANUAL })
  await other.taskqueue.schedule('dynamic', { everyMs: HOUR_MS, url })

  // All are overdue, as after a time in which nothing ran.
  const overdue = Date.now() - 3 * HOUR_MS
  await admin.zadd('taskqueue:{default}:schedules', overdue, 'kept', overdue, 'changed', overdue, 'dynamic')
  const second = await deploy({ kept: { everyMs: HOUR_MS, url, payload: { new: true } }, changed: { everyMs: 2 * HOUR_MS, url } })
  t.strictSame(Object.keys(second).sort(), ['changed', 'dynamic', 'kept'], 'what is declared no longer is gone')
  t.equal(second.kept!.next!.getTime(), overdue, 'only its task has changed, so it will be caught up')
  t.equal(second.kept!.method, 'POST')
  t.ok(second.changed!.next!.getTime() > Date.now() && second.changed!.next!.getTime() % (2 * HOUR_MS) === 0, 'its times have changed: it begins anew')
  t.equal(second.dynamic!.next!.getTime(), overdue)

  t.strictSame(Object.keys(await deploy(undefined)).length, 3, 'an app that declares nothing changes nothing')
  t.strictSame(Object.keys(await deploy({}, { consumer: false })).length, 3, 'an app that does not consume the queue removes nothing')
  t.strictSame(Object.keys(await deploy({ added: { everyMs: HOUR_MS, url } }, { consumer: false })).sort(), ['added', 'changed', 'dynamic', 'kept'])
  t.strictSame(Object.keys(await deploy({})), ['dynamic'], 'an app that declares an empty set removes all that were declared')
})

t.test('an old version that starts again during a deploy changes nothing back', async t => {
  const redis = { path: (await startRedis(t)).path }
  const logged: string[] = []
  const start = async (scheduleRevision: number, schedules: TaskqueueOptions['schedules']) => {
    const app = Fastify({ logger: { level: 'warn', stream: { write: line => { logged.push(line) } } } })
    t.teardown(() => app.close())
    await app.register(taskqueue, { redis, ...MANUAL, secrets: 's'.repeat(32), schedules: schedules!, scheduleRevision })
    app.get('/tasks/x', async () => {})
    await app.ready()
    return app
  }
  const url = '/tasks/x'
  await start(6, { old: { everyMs: HOUR_MS, url }, both: { everyMs: HOUR_MS, url } })
  const app = await start(7, { both: { everyMs: 2 * HOUR_MS, url }, new: { everyMs: HOUR_MS, url } })
  t.strictSame(logged, [])
  await start(6, { old: { everyMs: HOUR_MS, url }, both: { everyMs: HOUR_MS, url } })
  t.match(JSON.parse(logged[0]!), { msg: /higher scheduleRevision/, scheduleRevision: 6, queue: 'default' })
  t.strictSame(names(await app.taskqueue.schedules()), ['both', 'new'])
  t.match((await app.taskqueue.schedules()).find(({ id }) => id === 'both'), { everyMs: 2 * HOUR_MS })
  await start(7, { both: { everyMs: 2 * HOUR_MS, url }, new: { everyMs: HOUR_MS, url } })
  t.equal(logged.length, 1)
})

t.test('many processes that start at once declare the same schedules, and each slot has one task', async t => {
  const redis = { path: (await startRedis(t)).path }
  const schedules = Object.fromEntries(Array.from({ length: 50 }, (_, index) => [`s${index}`, { everyMs: 1000, url: '/tasks/x', overlap: 'allow' as const }]))
  const apps = await Promise.all(Array.from({ length: 5 }, () => open(t, { redis, schedules, consumer: { concurrency: 10 }, keep: 10_000 })))
  const all = () => apps.flatMap(({ runs }) => runs.map(({ taskId }) => taskId))
  await until(() => all().length >= 150)
  t.equal(new Set(all()).size, all().length, 'no slot had two tasks')
  for (let index = 0; index < 50; index++) {
    const slots = all().filter(id => id.startsWith(`s${index}@`)).map(id => Date.parse(id.slice(id.indexOf('@') + 1))).sort((a, b) => a - b)
    t.ok(slots.every((slot, index) => index === 0 || slot - slots[index - 1]! === 1000), `s${index} has a gap: ${slots.join(' ')}`)
  }
})

t.test('a schedule that a process cannot read is left to others, told once, and holds up none of the others', async t => {
  const redis = { path: (await startRedis(t)).path }
  const foreign = await open(t, { redis, ...MANUAL, secrets: 'a'.repeat(32), schedules: { secret: { everyMs: 1000, url: '/tasks/x' } } })
  const told: Array<Events['schedule:unreadable']> = []
  const listen = (event: unknown) => { told.push(event as Events['schedule:unreadable']) }
  subscribe('fastify-taskqueue:schedule:unreadable', listen)
  t.teardown(() => unsubscribe('fastify-taskqueue:schedule:unreadable', listen))
  const { app, runs } = await open(t, { redis, secrets: 'b'.repeat(32) })
  await app.taskqueue.schedule('mine', { everyMs: 1000, url: '/tasks/x' })
  const admin = new Redis(redis)
  t.teardown(() => { admin.disconnect() })
  await until(() => runs.length >= 2)
  t.match(told, [{ queue: 'default', schedule: 'secret' }])
  const before = await calls(admin)
  await until(() => runs.length >= 4)
  const made = await calls(admin) - before
  t.ok(made < 60, `it does not look again and again: ${made} calls`)
  t.ok(runs.every(({ id }) => id === 'mine'))
  t.match((await app.taskqueue.schedules()).find(({ id }) => id === 'secret'), { id: 'secret', everyMs: undefined, url: undefined })
  t.equal(await app.taskqueue.pauseSchedule('secret'), true)
  await t.rejects(app.taskqueue.runSchedule('secret'), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE' })
  await t.rejects(app.taskqueue.resumeSchedule('secret'), { code: 'FST_TASKQUEUE_INVALID_SCHEDULE' })
  t.equal(await foreign.app.taskqueue.resumeSchedule('secret'), true)
  await foreign.app.taskqueue.drain()
  await until(async () => {
    await foreign.app.taskqueue.drain()
    return foreign.runs.length > 0
  })
  t.equal(foreign.runs[0]!.id, 'secret')
})

async function calls (admin: Redis): Promise<number> {
  return Number(/cmdstat_evalsha:calls=(\d+)/.exec(await admin.info('commandstats'))![1])
}

t.test('what stands in Redis for a schedule can be anything, and the process goes on', async t => {
  const redis = { path: (await startRedis(t)).path }
  const admin = new Redis(redis)
  t.teardown(() => { admin.disconnect() })
  const { app, runs } = await open(t, { redis })
  await app.taskqueue.schedule('mine', { everyMs: 1000, url: '/tasks/x' })
  const plan = (await admin.hget('taskqueue:{default}:schedule', '=mine'))!
  const bad = ['', '{}', '[]', 'null', '\u0000', plan.replace('1000', '1'), plan.replace('1000', '"x"'), plan.replace('"once"', '7'), plan.replace('"lane":{}', '"lane":null'), plan.slice(0, -9)]
  for (const [index, text] of bad.entries()) {
    await admin.hset('taskqueue:{default}:schedule', `=bad${index}`, text, `+bad${index}`, text)
    await admin.zadd('taskqueue:{default}:schedules', 1, `bad${index}`)
  }
  await admin.zadd('taskqueue:{default}:schedules', '-inf', 'no plan', 'inf', 'never', 1.5, 'half')
  await admin.zadd('taskqueue:{default}:schedules', ...Array.from({ length: 2500 }, (_, index) => [2, `one-of-many-${index}`]).flat())
  const { length } = runs
  await until(() => runs.length >= length + 2)
  t.ok(runs.every(({ id }) => id === 'mine'))
  t.equal((await app.taskqueue.schedules()).length, bad.length + 4 + 2500)
})

t.test('as secrets are changed, schedules are written with the new one as they are declared, made or add a task', async t => {
  const redis = { path: (await startRedis(t)).path }
  const [old, young] = ['o'.repeat(32), 'y'.repeat(32)]
  const schedules = { declared: { everyMs: HOUR_MS, url: '/tasks/x' } }
  const first = await open(t, { redis, ...MANUAL, secrets: old, schedules })
  await first.app.taskqueue.schedule('made', { everyMs: HOUR_MS, url: '/tasks/x' })
  await first.app.taskqueue.schedule('running', { everyMs: 1000, url: '/tasks/x' })
  await first.app.taskqueue.schedule('idle', { everyMs: HOUR_MS, url: '/tasks/x' })
  const second = await open(t, { redis, secrets: [young, old], schedules })
  const { next } = (await second.app.taskqueue.schedules()).find(({ id }) => id === 'made')!
  await second.app.taskqueue.schedule('made', { everyMs: HOUR_MS, url: '/tasks/x' })
  await until(() => second.runs.length >= 2)
  await second.app.close()
  const third = await open(t, { redis, ...MANUAL, secrets: young })
  const found = new Map((await third.app.taskqueue.schedules()).map(status => [status.id, status]))
  t.strictSame([...found].filter(([, { url }]) => url !== undefined).map(([id]) => id).sort(), ['declared', 'made', 'running'])
  t.strictSame(found.get('made')!.next, next)
})

t.test('a restart among many schedules that tick removes none that is declared', async t => {
  const redis = { path: (await startRedis(t)).path }
  const schedules = Object.fromEntries(Array.from({ length: 20 }, (_, index) => [`declared${index}`, { everyMs: 1000, url: '/tasks/x' }]))
  const { app } = await open(t, { redis, schedules, consumer: { concurrency: 20 } })
  await Promise.all(Array.from({ length: 1200 }, (_, index) => app.taskqueue.schedule(`d${index}`, { everyMs: 2000, url: '/tasks/x' })))
  for (let restart = 0; restart < 5; restart++) {
    const again = await open(t, { redis, schedules })
    const declared = (await again.app.taskqueue.schedules()).filter(({ declared }) => declared === true)
    t.equal(new Set(names(declared)).size, 20)
    await again.app.close()
  }
})

t.test('of calls that move a schedule to several queues at the same time one wins', async t => {
  const { app } = await open(t, { ...MANUAL, redis: { path: (await startRedis(t)).path }, queues: { a: {}, b: {}, c: {} } })
  const { taskqueue } = app
  const set = (queue: string) => taskqueue.schedule('x', { everyMs: HOUR_MS, url: '/tasks/x', queue })
  for (let round = 0; round < 20; round++) {
    await set('a')
    if (round === 10) await taskqueue.pauseSchedule('x')
    await Promise.all([set('b'), set('c')])
    const [found, ...none] = await taskqueue.schedules()
    t.strictSame(none, [])
    t.equal(found?.paused, round >= 10, 'it stays paused as it moves')
    t.not(found?.queue, 'a')
  }
})

t.test('while Redis is full a schedule can be paused and removed, and an app can start again', async t => {
  const redis = { path: (await startRedis(t)).path }
  const admin = new Redis(redis)
  t.teardown(() => { admin.disconnect() })
  const options = { redis, ...MANUAL, schedules: { a: { everyMs: HOUR_MS, url: '/tasks/x' } }, scheduleRevision: 1 }
  const { app } = await open(t, options)
  await app.taskqueue.schedule('b', { everyMs: HOUR_MS, url: '/tasks/x' })
  await admin.config('SET', 'maxmemory', '1')
  t.equal(await app.taskqueue.pauseSchedule('a'), true)
  t.equal(await app.taskqueue.unschedule('b'), true)
  const again = await open(t, options)
  t.match(await again.app.taskqueue.schedules(), [{ id: 'a', paused: true }])
  await t.rejects(app.taskqueue.schedule('c', { everyMs: HOUR_MS, url: '/tasks/x' }), { code: 'FST_TASKQUEUE_UNREACHABLE' })
  await admin.config('SET', 'maxmemory', '0')
})

t.test('a process that cannot reach Redis goes on with its schedules when it can, and says what it missed', async t => {
  const server = await startRedis(t)
  const { app, runs } = await open(t, { redis: { path: server.path }, commitTimeoutMs: 500, schedules: { tick: { everyMs: 1000, url: '/tasks/x' } } })
  await until(() => runs.length >= 1)
  const { length } = runs
  server.freeze()
  await sleep(3500)
  server.thaw()
  await until(() => runs.length > length + 1)
  t.ok(runs[length]!.missed + runs[length + 1]!.missed >= 1, 'slots were missed')
  t.equal(new Set(runs.map(({ taskId }) => taskId)).size, runs.length)
  t.ok((await app.taskqueue.schedules())[0]!.missed >= 1)
})

t.test('drain moves the clock of local queues: delays, retries and schedules come in their order, at once', async t => {
  const ran: string[] = []
  const app = Fastify()
  t.teardown(() => app.close())
  await app.register(taskqueue, { ...MANUAL, queues: { default: {}, other: {} }, schedules: { hourly: { cron: '0 * * * *', url: '/note/hourly' } } })
  app.get<{ Params: { name: string } }>('/note/:name', async ({ params: { name }, task, taskqueue }, reply) => {
    ran.push(task!.schedule === undefined ? name : `${name} ${task!.schedule.slot.toISOString().slice(14)}`)
    if (name === 'adds') taskqueue.add('/note/added', { delayMs: 10 * 60_000, queue: 'other' })
    if (name === 'fails' && task!.attempt === 1) reply.code(500)
  })
  await app.ready()
  const since = performance.now()
  await app.taskqueue.add('/note/late', { delayMs: 30 * 60_000 })
  await app.taskqueue.add('/note/adds', { delayMs: 5 * 60_000 })
  await app.taskqueue.add('/note/fails', { backoff: [60_000] })
  await app.taskqueue.drain()
  t.strictSame(ran, ['fails'])
  await app.taskqueue.drain({ advanceMs: 59_000 })
  t.strictSame(ran.filter(name => !name.startsWith('hourly')), ['fails'], 'nothing is due yet')
  await app.taskqueue.drain({ advanceMs: 2 * HOUR_MS })
  t.strictSame(ran.filter(name => !name.startsWith('hourly')), ['fails', 'fails', 'adds', 'added', 'late'])
  const hourly = ran.filter(name => name.startsWith('hourly'))
  t.ok(hourly.length === 2 || hourly.length === 3, hourly.join())
  t.ok(hourly.every(name => name === 'hourly 00:00.000Z'))
  t.ok(performance.now() - since < 60_000)
  await t.rejects(app.taskqueue.drain({ advanceMs: -1 }), { code: 'FST_TASKQUEUE_INVALID_OPTION' })
})

t.test('drain moves no clock but that of local queues, and says so', async t => {
  const { app } = await open(t, { ...MANUAL, redis: { path: (await startRedis(t)).path } })
  await t.rejects(app.taskqueue.drain({ advanceMs: 1 }), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: /local.*default/ })
  await app.taskqueue.drain({ advanceMs: 0 })
})

t.test('a schedule with jitter adds its tasks at their slots, and has them run a little later', async t => {
  const { app } = await open(t, { ...MANUAL, schedules: { a: { cron: '0 * * * *', jitterMs: 10 * 60_000, url: '/tasks/x' } } })
  const next = (await app.taskqueue.schedules())[0]!.next!
  await app.taskqueue.drain({ advanceMs: next.getTime() - Date.now() })
  await app.taskqueue.drain()
  const [task] = await app.taskqueue.queue('default').list('delayed')
  t.equal(task?.id, `a@${next.toISOString()}`)
  const jitterMs = task!.dueAt!.getTime() - next.getTime()
  t.ok(jitterMs > 0 && jitterMs < 10 * 60_000, `${jitterMs} ms`)
})
