// A report that takes its time: 202 and a Location at once, and there its state, its progress and
// at last the report. `?wait=5` holds the answer until it is there, for five seconds at most.
//
//     npm run build && node build/example/status.js      REDIS_URL=redis://localhost … on Redis
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { errorCodes, type TaskqueueOptions, type TaskStatus } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, writePage: (page: number) => Promise<unknown> = async () => await sleep(200)): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { queues: { reports: {} }, ...options })

  const report = app.task<{ Body: { title: string, pages: number } }>({
    url: '/tasks/report',
    handler: async ({ body: { title, pages }, task }) => {
      for (let page = 1; page <= pages; page++) {
        task!.signal.throwIfAborted()
        await writePage(page)
        await task!.progress({ percent: Math.round(100 * page / pages) })
      }
      return { title, pages }
    }
  })

  app.post<{ Body: { title: string, pages: number } }>('/reports', { schema: order }, async ({ body, taskqueue }, reply) => {
    const id = taskqueue.add(report, { payload: body })
    reply.code(202).header('location', `/reports/${id}`)
    return { id }
  })

  app.get<{ Params: { id: string }, Querystring: { wait: number } }>('/reports/:id', { schema: look }, async ({ params: { id }, query: { wait } }, reply) => {
    const status = await (wait > 0 ? waitFor(id, wait * 1000) : app.taskqueue.get(id))
    // An id can be that of any task; those of others are nobody's business here.
    if (status?.url !== report.url) return reply.callNotFound()
    const { state, progress, reason, answer } = status
    return { state, progress, reason, ...state === 'done' && { report: JSON.parse(String(answer?.body)) } }
  })

  const waitFor = async (id: string, timeoutMs: number): Promise<TaskStatus | undefined> => {
    try {
      return await app.taskqueue.wait(id, { timeoutMs })
    } catch (error) {
      if (error instanceof errorCodes.FST_TASKQUEUE_TIMEOUT) return await app.taskqueue.get(id)
      throw error
    }
  }

  return app
}

const order = {
  body: { type: 'object', required: ['title', 'pages'], properties: { title: { type: 'string' }, pages: { type: 'integer', minimum: 1, maximum: 1000 } } }
}
const look = { querystring: { type: 'object', properties: { wait: { type: 'number', minimum: 0, maximum: 30, default: 0 } } } }

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build({ redis: process.env.REDIS_URL })
  const { statusCode, headers: { location } } = await app.inject({ method: 'POST', url: '/reports', payload: { title: 'November', pages: 5 } })
  console.log(statusCode, location)
  await sleep(500)
  for (const query of ['', '?wait=0.1', '?wait=5']) console.log((await app.inject(`${location}${query}`)).body)
  await app.close()
}
