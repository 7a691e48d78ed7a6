// What the tests beside it test: who signs up gets a mail, from a task.
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

export async function build (options: TaskqueueOptions = {}, send: (to: string) => void = console.log): Promise<FastifyInstance> {
  const app = Fastify()
  await app.register(taskqueue, { queues: { default: {}, mail: {} }, ...options })

  app.post<{ Body: { email: string } }>('/signup', { schema: { body: signup } }, async ({ body, taskqueue }, reply) => {
    reply.code(202)
    return { id: taskqueue.add('/tasks/welcome', { queue: 'mail', payload: { to: body.email } }) }
  })

  app.post<{ Body: { to: string } }>('/tasks/welcome', { constraints: { taskOnly: true } }, async ({ body }) => { send(body.to) })

  return app
}

const signup = { type: 'object', required: ['email'], properties: { email: { type: 'string', format: 'email' } } }
