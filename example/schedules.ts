// Schedules: a measurement every second, a report every morning in New York, and for each tenant a digest at the hour
// that it has chosen.
//
//     npm run build && node build/example/schedules.js   REDIS_URL=redis://localhost … on Redis
import { pathToFileURL } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type ScheduleStatus, type TaskqueueOptions } from 'fastify-taskqueue'

export interface ExampleOptions {
  taskqueue?: TaskqueueOptions
  measureMs?: number
  print?: (line: string) => void
}

export async function build ({ taskqueue: options = {}, measureMs = 1000, print = console.log }: ExampleOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, {
    queues: { timed: {} },
    schedules: {
      report: { cron: '0 7 * * MON-FRI', tz: 'America/New_York', url: '/tasks/report', method: 'POST' }
    },
    ...options
  })

  app.post('/tasks/report', { constraints: { taskOnly: true } }, async ({ task }) => {
    // The time that the report is about, and not that at which it happens to be made.
    print(`report of ${task!.schedule!.slot.toISOString()}`)
  })

  app.task({
    url: '/tasks/measure',
    schedule: { id: 'measure', everyMs: measureMs },
    handler: async ({ task }) => {
      const { slot, missed } = task.schedule!
      print(`measured for ${slot.toISOString()}${missed > 0 ? ', after missing some' : ''}`)
    }
  })

  const digest = app.task<{ Body: { tenant: string } }>({
    url: '/tasks/digest',
    handler: async ({ body, task }) => { print(`digest of ${body.tenant} for ${task.schedule!.slot.toISOString()}`) }
  })

  // A tenant chooses an hour. A pattern of its own could ask for a task every second.
  app.put<OfTenant & { Body: { hour: number, tz: string } }>('/tenants/:tenant/digest', { schema: { params: ofTenant, body: time } }, async ({ params: { tenant }, body: { hour, tz } }, reply) => {
    await app.taskqueue.schedule(`digest:${tenant}`, { cron: `0 ${hour} * * *`, tz, route: digest, payload: { tenant }, key: tenant })
    return reply.code(204).send()
  })

  app.delete<OfTenant>('/tenants/:tenant/digest', { schema: { params: ofTenant } }, async ({ params: { tenant } }, reply) => {
    const wasThere = await app.taskqueue.unschedule(`digest:${tenant}`)
    return reply.code(wasThere ? 204 : 404).send()
  })

  return app
}

interface OfTenant { Params: { tenant: string } }

const ofTenant = { type: 'object', properties: { tenant: { type: 'string', pattern: '^[a-z0-9-]{1,64}$' } } }
const time = {
  type: 'object',
  required: ['hour'],
  properties: { hour: { type: 'integer', minimum: 0, maximum: 23 }, tz: { type: 'string', maxLength: 64, default: 'UTC' } }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build({ taskqueue: { redis: process.env.REDIS_URL } })
  await app.ready()
  const { taskqueue } = app
  await app.inject({ method: 'PUT', url: '/tenants/acme/digest', payload: { hour: 8, tz: 'Asia/Tokyo' } })
  const show = ({ id, cron, tz, everyMs, next }: ScheduleStatus) => `${id}: ${cron === undefined ? `every ${everyMs} ms` : `${cron} (${tz})`}, next at ${next?.toISOString()}`
  for (const schedule of await taskqueue.schedules()) console.log(show(schedule))
  await sleep(2500)

  console.log('-- run two of them now, besides their slots')
  for (const id of ['report', 'digest:acme']) await taskqueue.wait((await taskqueue.runSchedule(id))!)

  console.log('-- pause one of them for 2 s: its slots pass, and are not caught up')
  await taskqueue.pauseSchedule('measure')
  await sleep(2000)
  await taskqueue.resumeSchedule('measure')
  await sleep(1100)

  console.log('-- pause the queue for 3 s, as if no process were there: the last slot is caught up')
  await taskqueue.queue('timed').pause()
  await sleep(3000)
  await taskqueue.queue('timed').resume()
  await sleep(100)

  const { statusCode } = await app.inject({ method: 'DELETE', url: '/tenants/acme/digest' })
  await app.close()
  console.log(`-- the digest is removed: ${statusCode}`)
}
