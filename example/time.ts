// Reminders: each comes later, can be postponed or sent at once, and is not sent when it comes too late.
//
//     npm run build && node build/example/time.js        REDIS_URL=redis://localhost … on Redis
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, send: (text: string) => void = console.log): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { queues: { reminders: {} }, ...options })

  const remind = app.task<{ Body: { text: string } }>({
    url: '/tasks/remind',
    handler: async ({ body }) => { send(body.text) }
  })

  app.post<{ Body: Reminder }>('/reminders', { schema: { body: reminder } }, async (request, reply) => {
    const { text, at, uselessAfterMs } = request.body
    const id = request.taskqueue.add(remind, { payload: { text }, runAt: at, expiresMs: uselessAfterMs })
    reply.code(201).header('location', `/reminders/${id}`)
    return { id }
  })

  app.post<{ Params: { id: string }, Body: { byMs: number } }>('/reminders/:id/postpone', { schema: { body: postponement } }, async ({ params, body }, reply) => {
    const isPostponed = await app.taskqueue.reschedule(params.id, { delayMs: body.byMs })
    return reply.code(isPostponed ? 204 : 404).send()
  })

  app.post<{ Params: { id: string } }>('/reminders/:id/send', async ({ params }, reply) => {
    const isSent = await app.taskqueue.runNow(params.id)
    return reply.code(isSent ? 204 : 404).send()
  })

  return app
}

interface Reminder { text: string, at: string, uselessAfterMs?: number }

// The pattern of the format takes long for long texts: `maxLength` is what is checked first.
const reminder = {
  type: 'object',
  required: ['text', 'at'],
  properties: { text: { type: 'string' }, at: { type: 'string', maxLength: 40, format: 'date-time' }, uselessAfterMs: { type: 'integer', minimum: 1 } }
}
const postponement = { type: 'object', required: ['byMs'], properties: { byMs: { type: 'integer', minimum: 0 } } }

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build({ redis: process.env.REDIS_URL })
  const post = async (url: string, payload?: object) => await app.inject({ method: 'POST', url, payload })
  const remind = async (text: string, inMs: number, uselessAfterMs?: number) => {
    const at = new Date(Date.now() + inMs).toISOString()
    return (await post('/reminders', { text, at, uselessAfterMs })).json().id
  }
  const report = async (what: string, id: string) => { console.log(`${what}: ${(await app.taskqueue.wait(id))?.state}`) }

  await report('in 300 ms', await remind('Water the plants', 300))

  const postponed = await remind('Call Ada', 60_000)
  await post(`/reminders/${postponed}/postpone`, { byMs: 500 })
  await report('postponed', postponed)

  const hurried = await remind('Buy bread', 3_600_000)
  await post(`/reminders/${hurried}/send`)
  await report('sent at once', hurried)

  const late = await remind('The meeting begins', 100, 200)
  await post(`/reminders/${late}/postpone`, { byMs: 400 })
  await report('postponed beyond its use', late)
  await app.close()
}
