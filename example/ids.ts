// What an id is good for: the last change is indexed, once things are quiet ('replace'); a payment
// is made once, however often it is sent ('reject'); and one digest is on its way at a time ('keep').
//
//     npm run build && node build/example/ids.js         REDIS_URL=redis://localhost … on Redis
import { randomUUID } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance, type InjectOptions } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

const DAY_MS = 24 * 60 * 60 * 1000

export interface ExampleOptions {
  taskqueue?: TaskqueueOptions
  /** How long an article has to stay as it is until it is indexed. */
  quietMs?: number
  did?: (what: string) => void
}

export async function build ({ taskqueue: options = {}, quietMs = 300, did = console.log }: ExampleOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { queues: { ids: {} }, ...options })

  const index = app.task<{ Body: { name: string, text: string } }>({
    url: '/tasks/index',
    handler: async ({ body }) => { did(`indexed ${body.name}: ${body.text}`) }
  })
  const pay = app.task<{ Body: { cents: number } }>({
    url: '/tasks/pay',
    handler: async ({ body }) => { did(`paid ${body.cents}`) }
  })
  const digest = app.task({
    url: '/tasks/digest',
    handler: async () => { did('sent the digest') }
  })

  app.put<{ Params: { name: string }, Body: { text: string } }>('/articles/:name', { schema: article }, async ({ params, body, taskqueue }, reply) => {
    taskqueue.add(index, {
      id: `index:${params.name}`,
      onDuplicate: 'replace',
      delayMs: quietMs,
      payload: { name: params.name, text: body.text }
    })
    return reply.code(204).send()
  })

  app.post<{ Headers: { 'idempotency-key': string }, Body: { cents: number } }>('/payments', { schema: payment }, async ({ headers, body, taskqueue }, reply) => {
    reply.code(202)
    return {
      id: taskqueue.add(pay, {
        id: `pay:${headers['idempotency-key']}`,
        onDuplicate: 'reject',
        dedupeMs: DAY_MS,
        payload: { cents: body.cents }
      })
    }
  })

  app.post('/digest', async (_request, reply) => {
    const id = await app.taskqueue.add(digest, { id: 'digest', delayMs: quietMs })
    if (id === null) return { message: 'one is on its way already' }
    reply.code(202)
    return { id }
  })

  return app
}

const article = {
  params: { type: 'object', properties: { name: { type: 'string', pattern: '^[a-z0-9-]+$' } } },
  body: { type: 'object', required: ['text'], properties: { text: { type: 'string' } } }
}
const payment = {
  headers: { type: 'object', required: ['idempotency-key'], properties: { 'idempotency-key': { type: 'string', pattern: '^[!-~]{1,200}$' } } },
  body: { type: 'object', required: ['cents'], properties: { cents: { type: 'integer', minimum: 1 } } }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build({ taskqueue: { redis: process.env.REDIS_URL } })
  const show = async (request: InjectOptions) => {
    const { statusCode, body } = await app.inject(request)
    console.log(statusCode, body)
  }

  for (const text of ['a draft', 'a second draft', 'the last word']) await show({ method: 'PUT', url: '/articles/news', payload: { text } })
  await app.taskqueue.wait('index:news')

  const key = randomUUID()
  const payment = { method: 'POST', url: '/payments', headers: { 'idempotency-key': key }, payload: { cents: 995 } } as const
  await show(payment)
  await app.taskqueue.wait(`pay:${key}`)
  await show(payment)

  for (let n = 0; n < 2; n++) await show({ method: 'POST', url: '/digest' })
  await app.taskqueue.wait('digest')
  await app.close()
}
