// Ids of one's own: a debounce, a request that is made once however often it is sent, and a nightly report.
//
//     npm run build && node build/example/ids.js
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, say: (what: string) => void = console.log): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { redis: process.env.REDIS_URL, ...options })

  // Saved ten times in a row, a document is indexed once, as it was at last.
  app.put<{ Params: { id: string }, Body: { text: string } }>('/documents/:id', async ({ params, body, taskqueue }) => {
    taskqueue.add('/tasks/say', { id: `index-${params.id}`, onDuplicate: 'replace', delayMs: 200, payload: { what: `index ${body.text}` } })
    return {}
  })

  // A second request with the same key is answered with 409, for a day after the first one's task is done.
  app.post<{ Headers: { 'idempotency-key': string }, Body: { amount: number } }>('/payments', async ({ headers, body, taskqueue }, reply) => {
    taskqueue.add('/tasks/say', {
      id: `pay-${headers['idempotency-key']}`, onDuplicate: 'reject', dedupeMs: 24 * 60 * 60 * 1000, payload: { what: `pay ${body.amount}` }
    })
    return reply.code(202).send({})
  })

  // Every process may ask for the report of a day; it is made once.
  app.post<{ Params: { day: string } }>('/reports/:day', async ({ params }) => {
    const id = await app.taskqueue.add('/tasks/say', { id: `report-${params.day}`, payload: { what: `report of ${params.day}` }, dedupeMs: 60_000 })
    return { added: id !== null }
  })

  app.post<{ Body: { what: string } }>('/tasks/say', { constraints: { taskOnly: true } }, async ({ body }) => { say(body.what) })
  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  await app.ready()
  for (const text of ['a', 'ab', 'abc']) await app.inject({ method: 'PUT', url: '/documents/1', payload: { text } })
  for (let i = 0; i < 2; i++) {
    const { statusCode } = await app.inject({ method: 'POST', url: '/payments', headers: { 'idempotency-key': '42' }, payload: { amount: 5 } })
    console.log(statusCode)
    console.log((await app.inject({ method: 'POST', url: '/reports/2026-11-28' })).json())
  }
  await app.taskqueue.wait('index-1')
  await app.close()
}
