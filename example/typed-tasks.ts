// A task whose payload the compiler and its schema check where it is added, and again where it runs.
//
//     npm run build && node build/example/typed-tasks.js
import { pathToFileURL } from 'node:url'
import { Type, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyInstance } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

const greetings = { en: 'Welcome', de: 'Willkommen' }

export async function build (options: TaskqueueOptions = {}, send: (mail: string) => void = console.log): Promise<FastifyInstance> {
  const app = Fastify().withTypeProvider<TypeBoxTypeProvider>()
  await app.register(taskqueue, { queues: { default: {}, mail: {} }, ...options })

  const welcome = app.task({
    url: '/tasks/welcome/:lang',
    schema: {
      params: Type.Object({ lang: Type.Enum(['en', 'de']) }),
      body: Type.Object({ to: Type.String({ format: 'email' }) })
    },
    config: { task: { queue: 'mail', maxRetries: 3 } },
    handler: async ({ params, body }) => { send(`${greetings[params.lang]}, ${body.to}!`) }
  })

  app.post('/signup', { schema: { body: Type.Object({ email: Type.String() }) } }, async (request, reply) => {
    const id = request.taskqueue.add(welcome, { params: { lang: 'de' }, payload: { to: request.body.email } })
    reply.code(202)
    return { id }
  })

  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  for (const email of ['ada@example.com', 'nobody']) {
    const { statusCode, body } = await app.inject({ method: 'POST', url: '/signup', payload: { email } })
    console.log(statusCode, body)
  }
  await app.close()
}
