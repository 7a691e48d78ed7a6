// Reminders that come later, at another time, now, or not at all.
//
//     npm run build && node build/example/time.js
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, remind: (what: string) => void = console.log): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { redis: process.env.REDIS_URL, ...options })

  app.post<{ Body: { what: string, inMs: number, expiresMs?: number } }>('/reminders', async (request, reply) => {
    const { what, inMs, expiresMs } = request.body
    reply.code(202)
    return { id: request.taskqueue.add('/tasks/remind', { payload: { what }, delayMs: inMs, expiresMs }) }
  })
  app.post<{ Params: { id: string }, Body: { inMs: number } }>('/reminders/:id/postpone', async ({ params, body }) =>
    ({ postponed: await app.taskqueue.reschedule(params.id, { delayMs: body.inMs }) }))
  app.post<{ Params: { id: string } }>('/reminders/:id/now', async ({ params }) =>
    ({ runs: await app.taskqueue.runNow(params.id) }))

  app.post<{ Body: { what: string } }>('/tasks/remind', { constraints: { taskOnly: true } }, async ({ body }) => { remind(body.what) })
  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  await app.ready()
  const add = async (payload: object): Promise<string> => (await app.inject({ method: 'POST', url: '/reminders', payload })).json().id
  const tea = await add({ what: 'the tea is ready', inMs: 100 })
  await app.inject({ method: 'POST', url: `/reminders/${tea}/postpone`, payload: { inMs: 300 } })
  const call = await add({ what: 'call Ada', inMs: 3_600_000 })
  await app.inject({ method: 'POST', url: `/reminders/${call}/now` })
  const news = await add({ what: 'yesterday\'s news', inMs: 200, expiresMs: 100 })
  for (const id of [call, tea]) console.log((await app.taskqueue.wait(id))?.state)
  // Whoever claims next finds it; by then this one has.
  console.log((await app.taskqueue.get(news))?.state)
  await app.close()
}
