// Routes for an operator: look into a queue, stop it and let it go on, put back what has failed.
//
//     npm run build && node build/example/operate.js
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions, type TaskStatus } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { redis: process.env.REDIS_URL, ...options })
  let isBroken = true

  app.register(async operator => {
    // Here belongs a hook that lets nobody in but operators.
    const queue = app.taskqueue.queue('default')
    operator.get('/', async () => ({ ...await queue.counts(), paused: await queue.isPaused() }))
    operator.get<{ Params: { state: TaskStatus['state'] }, Querystring: { offset?: number } }>('/:state', async ({ params, query: { offset = 0 } }) =>
      await queue.list(params.state, { offset: Number(offset), limit: 20 }))
    operator.post('/pause', async () => { await queue.pause() })
    operator.post('/resume', async () => { await queue.resume() })
    operator.post('/redrive', async () => ({ redriven: await queue.redrive() }))
    operator.post('/remove', async () => ({ removed: await queue.remove() }))
    operator.delete<{ Params: { id: string } }>('/tasks/:id', async ({ params }) => ({ cancelled: await app.taskqueue.cancel(params.id) }))
  }, { prefix: '/queue' })

  app.post<{ Body: { count: number } }>('/newsletter', async ({ body }) => {
    const ids = await app.taskqueue.addAll(Array.from({ length: body.count }, (_, n) => ({ url: '/tasks/mail', payload: { to: `reader ${n}` } })))
    return { ids: ids.length }
  })
  app.post('/repair', async () => { isBroken = false })
  app.post('/tasks/mail', { constraints: { taskOnly: true } }, async (_request, reply) => reply.code(isBroken ? 400 : 200).send({}))
  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build({ consumer: { concurrency: 10, autoStart: false } })
  await app.ready()
  const post = async (url: string, payload?: object): Promise<unknown> => (await app.inject({ method: 'POST', url, payload })).body
  console.log(await post('/newsletter', { count: 10_000 }))
  await post('/queue/pause')
  await app.taskqueue.drain()
  console.log((await app.inject('/queue')).json())
  await post('/queue/resume')
  await app.taskqueue.drain()
  console.log((await app.inject('/queue')).json())
  await post('/repair')
  console.log(await post('/queue/redrive'))
  await app.taskqueue.drain()
  console.log((await app.inject('/queue')).json())
  await app.close()
}
