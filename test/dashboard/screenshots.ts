// Makes the pictures in docs/images: npm run screenshots
import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import Fastify from 'fastify'
import dashboard from '../../lib/dashboard/dashboard.js'
import taskqueue, { type History } from '../../lib/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import { startBrowser } from '../support/browser.js'
import { until } from '../support/until.js'

const folder = join(import.meta.dirname, '../../../docs/images')
mkdirSync(folder, { recursive: true })

/** Tells a past that a queue would need an hour for. */
class StoreWithPast extends LocalStore {
  override async history (queues: readonly string[]): Promise<History[]> {
    return queues.map((name, index) => ({
      done: Array.from({ length: 60 }, (_, minute) => name === 'reports' ? Number(minute % 15 === 3) * 4 : Math.round(40 + 25 * Math.sin(minute / 7 + index) + (minute * 7919 % 13))),
      failed: Array.from({ length: 60 }, (_, minute) => name === 'webhooks' && minute > 41 ? 8 + minute % 5 : Number(minute % 23 === 7) * 2)
    }))
  }
}

const closings: Array<() => unknown> = []
const app = Fastify()
const store = new StoreWithPast()
const type = () => store
await app.register(taskqueue, {
  queues: { default: { type }, mail: { type, consumer: { concurrency: 10 } }, reports: { type, limits: { running: 50, rate: { max: 600, ms: 60_000, burst: 100 }, perKey: { running: 8 } } }, webhooks: { type, consumer: { concurrency: 4 } } },
  consumer: { maxRetries: 0, name: 'web-1:4711' },
  schedules: {
    'clean-up': { url: '/tasks/clean-up', cron: '30 3 * * *', tz: 'Europe/Berlin' },
    digest: { url: '/tasks/digest?week=last', method: 'GET', cron: '0 7 * * MON', tz: 'America/New_York', queue: 'mail' },
    sync: { url: '/held/sync', everyMs: 900_000, queue: 'webhooks' }
  }
})
await app.register(dashboard, { prefix: '/queues', public: true, show: { payload: true, answer: true } })
app.all('/held/*', async () => await new Promise(() => {}))
app.all('/tasks/*', async () => ({ sent: true }))
app.all('/hooks/*', async (_request, reply) => reply.code(410).send({ message: 'the endpoint is gone' }))
app.all('/charge/*', async (_request, reply) => reply.code(422).send({ message: 'the card is declined' }))
const origin = await app.listen({ host: '127.0.0.1', port: 0 })
const hooks = Array.from({ length: 31 }, (_, index) => ({ url: `/hooks/${4000 + index}`, queue: 'webhooks', payload: { order: 9000 + index } }))
const charges = Array.from({ length: 5 }, (_, index) => ({ url: `/charge/${77 + index}`, queue: 'webhooks', payload: { customer: `cus_${index}`, amount: 4200, cardToken: 'tok' } }))
await app.taskqueue.addAll([...hooks, ...charges])
await until(async () => (await app.taskqueue.queue('webhooks').counts()).dead === 36)
await app.taskqueue.addAll(Array.from({ length: 7 }, (_, index) => ({ url: `/held/mail/${index}`, queue: 'mail' })))
await app.taskqueue.addAll(Array.from({ length: 128 }, (_, index) => ({ url: `/tasks/reminder/${index}`, queue: 'mail', delayMs: 3_600_000 })))
await app.taskqueue.addAll(Array.from({ length: 23 }, (_, index) => ({ url: `/held/report/${index}`, queue: 'reports', key: `tenant-${index % 5}`, priority: index % 4 === 1 ? 'high' as const : 'normal' as const })))
await app.taskqueue.queue('reports').setKeyLimits('tenant-2', { running: 1, rate: { max: 1, ms: 90_000 } })
await until(async () => (await app.taskqueue.queue('reports').counts()).running === 1)
await app.taskqueue.queue('reports').rest(3_600_000, 'tenant-3')
await app.taskqueue.queue('reports').rest(1_800_000)
await app.taskqueue.queue('default').pause()
await app.taskqueue.addAll(Array.from({ length: 1840 }, (_, index) => ({ url: `/tasks/sync/${index}` })))

await app.taskqueue.schedule('tenant-4711:invoices', { url: '/tasks/invoices/4711', cron: '@monthly', queue: 'mail' })
await app.taskqueue.schedule('tenant-4712:invoices', { url: '/tasks/invoices/4712', cron: '@monthly', queue: 'mail', endAt: Date.now() + 90 * 86_400_000 })
await store.plan('reports', [{ id: 'tenant-9:from-a-newer-release', plan: 'what this process cannot read', next: Date.now() + 7_200_000 }])
await app.taskqueue.pauseSchedule('digest')
await app.taskqueue.runSchedule('clean-up')
await app.taskqueue.runSchedule('sync')
await app.taskqueue.runSchedule('sync')
const { last } = (await app.taskqueue.schedules()).find(({ id }) => id === 'sync')!

const open = await startBrowser({ teardown: (run: () => unknown) => { closings.push(run) } })
const [waiting] = await app.taskqueue.queue('reports').list('waiting')
const [dead] = await app.taskqueue.queue('webhooks').list('dead')
const shots: Array<[name: string, path: string, scheme: 'light' | 'dark', width: number]> = [
  ['queues-light', '', 'light', 1180], ['dead-dark', 'dead?name=webhooks', 'dark', 1180],
  // These are looked at, and do not stand in the docs.
  ...(['light', 'dark'] as const).flatMap(scheme => [1180, 390].flatMap(width => [['', 'queues'], ['queue?name=mail&state=delayed', 'list'], [`task?id=${dead!.id}`, 'task'], ['dead?name=webhooks', 'dead'], ['processes', 'processes'], ['queue?name=reports', 'bounds'], ['keys?name=reports', 'keys'], ['schedules', 'schedules'], [`schedules?${String(new URLSearchParams({ ran: 'sync', added: last!.taskId }))}`, 'ran'], [`task?id=${waiting!.id}`, 'waiting']]
    .map(([path, name]): typeof shots[number] => [`/tmp/shots/${name}-${scheme}-${width}`, path!, scheme, width])))
]
for (const [name, path, colorScheme, width] of shots) {
  if (name.startsWith('/') && process.argv[2] !== 'all') continue
  const { page, wrong } = await open({ colorScheme, viewport: { width, height: 500 }, deviceScaleFactor: name.startsWith('/') ? 1 : 1.5 })
  await page.goto(`${origin}/queues/${path}`)
  await page.screenshot({ path: name.startsWith('/') ? `${name}.png` : join(folder, `${name}.png`), fullPage: true })
  if (wrong.length > 0) console.error(name, wrong)
}
for (const close of closings) await close()
process.exit()
