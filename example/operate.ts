// An operator's routes to the queues of an app that sends a newsletter to ten thousand at once.
//
//     npm run build && node build/example/operate.js     REDIS_URL=redis://localhost … on Redis
import { createHash, randomUUID, timingSafeEqual } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type Queue, type State, type TaskqueueOptions } from 'fastify-taskqueue'

export interface ExampleOptions {
  taskqueue?: TaskqueueOptions
  /** What an operator has to show, as `Authorization: Bearer …`. */
  token: string
  send?: (to: string) => void
}

export async function build ({ taskqueue: options = {}, token, send = () => {} }: ExampleOptions): Promise<FastifyInstance> {
  const subscribers = Array.from({ length: 10_000 }, (_, n) => `reader${n}@example.com`)
  const app = Fastify()
  await app.register(taskqueue, { queues: { letters: { consumer: { concurrency: 100 } } }, ...options })

  app.post<{ Body: { to: string } }>('/tasks/letter', { constraints: { taskOnly: true } }, async request => { send(request.body.to) })

  app.post('/newsletter', async (_request, reply) => {
    const ids = await app.taskqueue.addAll(subscribers.map(to => ({ url: '/tasks/letter', payload: { to }, maxRetries: 0 })))
    reply.code(202)
    return { added: ids.length }
  })

  await app.register(operate, { prefix: '/operate', token })
  return app
}

export async function operate (app: FastifyInstance, { token }: { token: string }): Promise<void> {
  const expected = digestOf(`Bearer ${token}`)
  app.addHook('onRequest', async (request, reply) => {
    if (!timingSafeEqual(digestOf(request.headers.authorization ?? ''), expected)) return reply.code(401).send()
  })

  const ofQueue = { type: 'object', properties: { queue: { enum: app.taskqueue.queues.map(({ name }) => name) } } }
  const queueOf = ({ params }: { params: { queue: string } }): Queue => app.taskqueue.queue(params.queue)

  app.get('/queues', async () => await Promise.all(app.taskqueue.queues.map(async queue => (
    { name: queue.name, isPaused: await queue.isPaused(), ...await queue.counts() }
  ))))

  app.get<OfQueue & { Querystring: { state: State, offset: number, limit: number } }>('/queues/:queue/tasks', { schema: { params: ofQueue, querystring: page } }, async request => {
    const { state, ...range } = request.query
    const tasks = await queueOf(request).list(state, range)
    return tasks.map(({ answer, ...task }) => ({ ...task, ...answer !== undefined && { status: answer.status } }))
  })

  app.post<OfQueue>('/queues/:queue/pause', { schema: { params: ofQueue } }, async (request, reply) => {
    await queueOf(request).pause()
    return reply.code(204).send()
  })

  app.post<OfQueue>('/queues/:queue/resume', { schema: { params: ofQueue } }, async (request, reply) => {
    await queueOf(request).resume()
    return reply.code(204).send()
  })

  app.post<OfQueue & OfIds>('/queues/:queue/redrive', { schema: { params: ofQueue, body: ofIds } }, async request => (
    { redriven: await queueOf(request).redrive(request.body.ids) }
  ))

  app.post<OfQueue & OfIds>('/queues/:queue/remove', { schema: { params: ofQueue, body: ofIds } }, async request => (
    { removed: await queueOf(request).remove(request.body.ids) }
  ))

  app.post<{ Params: { id: string } }>('/tasks/:id/cancel', async ({ params }, reply) => {
    const isCancelled = await app.taskqueue.cancel(params.id)
    return reply.code(isCancelled ? 204 : 404).send()
  })
}

const digestOf = (text: string) => createHash('sha256').update(text).digest()

interface OfQueue { Params: { queue: string } }
interface OfIds { Body: { ids: string[] } }

const ofIds = { type: 'object', required: ['ids'], properties: { ids: { type: 'array', items: { type: 'string' } } } }
const page = {
  type: 'object',
  required: ['state'],
  properties: {
    state: { enum: ['waiting', 'delayed', 'running', 'dead', 'done', 'cancelled', 'expired'] },
    offset: { type: 'integer', minimum: 0, default: 0 },
    limit: { type: 'integer', minimum: 1, maximum: 1000, default: 100 }
  }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const token = randomUUID()
  let isBroken = true
  let sent = 0
  const app = await build({
    taskqueue: { redis: process.env.REDIS_URL },
    token,
    send (to) {
      if (isBroken && /reader[1-3]@/.test(to)) throw new Error(`no way to ${to}`)
      sent++
    }
  })
  const call = async (method: 'GET' | 'POST', url: string, payload?: object) => {
    const { statusCode, body } = await app.inject({ method, url, payload, headers: { authorization: `Bearer ${token}` } })
    console.log(method, url, statusCode, body.slice(0, 150))
    return body === '' ? undefined : JSON.parse(body)
  }

  await call('POST', '/operate/queues/letters/pause')
  await call('POST', '/newsletter')
  const [first] = await call('GET', '/operate/queues/letters/tasks?state=waiting&limit=1')
  await call('POST', `/operate/tasks/${first.id}/cancel`)
  await call('POST', '/operate/queues/letters/resume')
  await app.taskqueue.drain()

  const dead: Array<{ id: string }> = await call('GET', '/operate/queues/letters/tasks?state=dead')
  const [one, ...others] = dead.map(({ id }) => id)
  isBroken = false
  await call('POST', '/operate/queues/letters/remove', { ids: [one] })
  await call('POST', '/operate/queues/letters/redrive', { ids: others })
  await app.taskqueue.drain()
  await call('GET', '/operate/queues')
  console.log(`${sent} letters sent`)
  await app.close()
}
