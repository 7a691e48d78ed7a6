// Tenants share one queue: none waits for the thousand messages of another, what is urgent overtakes what the same
// tenant has in line, and if the provider has no room for one tenant, only that one rests.
//
//     npm run build && node build/example/tenants.js     REDIS_URL=redis://localhost … on Redis
import { pathToFileURL } from 'node:url'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type KeyLimits, type TaskqueueOptions } from 'fastify-taskqueue'

export interface ExampleOptions {
  taskqueue?: TaskqueueOptions
  /** Sends a message, or returns in how many seconds the provider has room for this tenant. */
  send?: (tenant: string, text: string) => Promise<number | undefined>
}

export async function build ({ taskqueue: options = {}, send = async () => undefined }: ExampleOptions = {}): Promise<FastifyInstance> {
  const app = Fastify()
  // One tenant may have three of the four places, so that there is always one for another.
  const messages = { consumer: { concurrency: 4 }, limits: { perKey: { running: 3 } } }
  await app.register(taskqueue, { queues: { messages }, ...options })

  const deliver = app.task<{ Body: { tenant: string, text: string } }>({
    url: '/tasks/deliver',
    handler: async ({ body }, reply) => {
      const seconds = await send(body.tenant, body.text)
      if (seconds !== undefined) return reply.code(429).header('retry-after', seconds).send()
    }
  })

  app.post<OfTenant & { Body: { texts: string[], urgent: boolean } }>('/tenants/:tenant/messages', { schema: { params: ofTenant, body: ofTexts } }, async (request, reply) => {
    const { params: { tenant }, body: { texts, urgent } } = request
    const priority = urgent ? 'high' : 'normal'
    const ids = request.taskqueue.addAll(texts.map(text => ({ route: deliver, payload: { tenant, text }, key: tenant, priority })))
    reply.code(202)
    return { added: ids.length }
  })

  app.get('/tenants', async () => await app.taskqueue.queue('messages').keys())

  app.put<OfTenant & { Body: KeyLimits }>('/tenants/:tenant/limits', { schema: { params: ofTenant } }, async (request, reply) => {
    await app.taskqueue.queue('messages').setKeyLimits(request.params.tenant, request.body)
    return reply.code(204).send()
  })

  return app
}

interface OfTenant { Params: { tenant: string } }

const ofTenant = { type: 'object', properties: { tenant: { type: 'string', pattern: '^[a-z0-9-]{1,64}$' } } }
const ofTexts = {
  type: 'object',
  required: ['texts'],
  properties: { texts: { type: 'array', items: { type: 'string' } }, urgent: { type: 'boolean', default: false } }
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const sent: string[] = []
  let isFull = true
  let start = 0
  const app = await build({
    taskqueue: { redis: process.env.REDIS_URL, consumer: { autoStart: false } },
    async send (tenant, text) {
      await sleep(10)
      if (tenant === 'cy' && isFull) {
        isFull = false
        return 1
      }
      sent.push(text)
      if (text !== 'news') console.log(`${tenant}'s ${text} is number ${sent.length}, after ${Date.now() - start} ms`)
      return undefined
    }
  })
  const add = async (tenant: string, texts: string[], urgent = false) => await app.inject({ method: 'POST', url: `/tenants/${tenant}/messages`, payload: { texts, urgent } })

  await add('acme', Array(1000).fill('news'))
  for (const tenant of ['ada', 'bo', 'cy']) await add(tenant, ['hello'])
  await add('acme', ['password'], true)
  console.log((await app.inject('/tenants')).json())

  start = Date.now()
  await app.taskqueue.drain()
  console.log(`${sent.length} messages sent`)
  await app.close()
}
