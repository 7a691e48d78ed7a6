// A report that takes a while: 202 and where to look, progress, and the answer when it is done.
//
//     npm run build && node build/example/status.js
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { errorCodes, type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { redis: process.env.REDIS_URL, ...options })

  app.post('/reports', async (request, reply) => {
    const id = request.taskqueue.add('/tasks/report', { payload: { month: 11 } })
    return reply.code(202).header('location', `/reports/${id}`).send({ id })
  })

  app.get<{ Params: { id: string }, Querystring: { wait?: number } }>('/reports/:id', async ({ params, query }, reply) => {
    const task = await (query.wait === undefined ? app.taskqueue.get(params.id) : app.taskqueue.wait(params.id, { timeoutMs: query.wait * 1000 }))
      .catch(async (error: unknown) => {
        if (error instanceof errorCodes.FST_TASKQUEUE_TIMEOUT) return await app.taskqueue.get(params.id)
        throw error
      })
    if (task === undefined) return reply.callNotFound()
    const { state, progress, answer } = task
    return { state, progress, report: state === 'done' ? JSON.parse(answer!.body.toString()) : undefined }
  })

  app.post<{ Body: { month: number } }>('/tasks/report', { constraints: { taskOnly: true } }, async ({ task, body }) => {
    for (let percent = 0; percent < 100; percent += 25) {
      await task!.progress({ percent })
      await sleep(20, undefined, { signal: task!.signal })
    }
    return { month: body.month, total: 4711 }
  })
  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  await app.ready()
  const { headers: { location } } = await app.inject({ method: 'POST', url: '/reports' })
  await sleep(50)
  console.log((await app.inject(location as string)).json())
  console.log((await app.inject(`${location as string}?wait=5`)).json())
  await app.close()
}
