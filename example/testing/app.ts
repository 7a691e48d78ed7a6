// The app that the tests beside it test, each with another runner.
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, outbox: string[] = []): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, options)
  app.post<{ Body: { email: string } }>('/signup', async (request, reply) => {
    if (!request.body.email.includes('@')) return reply.code(400).send({})
    request.taskqueue.add('/tasks/welcome', { payload: { to: request.body.email } })
    return reply.code(202).send({})
  })
  app.post<{ Body: { to: string } }>('/tasks/welcome', { constraints: { taskOnly: true } }, async ({ body }) => { outbox.push(body.to) })
  return app
}

/** What tests set: nothing runs by itself, and what is added can be looked at. */
export const forTests: TaskqueueOptions = { consumer: { autoStart: false }, noteAdded: true }
