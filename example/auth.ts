// Log in, add a task, and the task runs as you: `@fastify/auth` takes a task's user as well
// as a token, on the same route.
//
//     npm run build && node build/example/auth.js
import { pathToFileURL } from 'node:url'
import auth from '@fastify/auth'
import jwt from '@fastify/jwt'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'

interface User { id: string, name: string }

export async function build (options: TaskqueueOptions = {}): Promise<FastifyInstance> {
  const users = new Map<string, User>([['ada', { id: 'ada', name: 'Ada Lovelace' }]])
  const reports: string[] = []

  const app = Fastify()
  await app.register(jwt, { secret: process.env.JWT_SECRET ?? 'only an example needs no better secret' })
  await app.register(auth)
  await app.register(taskqueue, {
    // The task carries who you are, and not what you have proved it with.
    copyHeaders: false,
    user: { load: id => users.get(id) ?? null },
    ...options
  })
  const verifyJwt = async (request: FastifyRequest) => { await request.jwtVerify() }

  app.post<{ Body: { id: string } }>('/login', async (request, reply) => {
    const user = users.get(request.body.id)
    return user === undefined ? reply.code(401).send() : { token: app.jwt.sign({ sub: user.id }) }
  })

  app.post('/reports', { preHandler: app.auth([verifyJwt]) }, async (request, reply) => {
    const id = request.taskqueue.add('/reports/build', { method: 'POST', payload: null })
    reply.code(202)
    return { id }
  })

  // For a task as its user, for anybody else with a token, and for no outsider.
  app.post('/reports/build', { preHandler: app.auth([app.verifyTask, verifyJwt]) }, async request => {
    const { name } = request.user as User
    reports.push(`built for ${name}`)
    return { name }
  })

  app.get('/reports', { preHandler: app.auth([verifyJwt]) }, async () => reports)

  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  const url = await app.listen({ port: 0 })
  const post = (path: string, body?: object, token?: string) => fetch(url + path, {
    method: 'POST',
    headers: { ...body && { 'content-type': 'application/json' }, ...token && { authorization: `Bearer ${token}` } },
    body: body && JSON.stringify(body)
  })
  console.log('an outsider asks for a report:', (await post('/reports')).status)
  console.log('an outsider builds a report:  ', (await post('/reports/build')).status)
  const { token } = await (await post('/login', { id: 'ada' })).json() as { token: string }
  console.log('Ada asks for a report:        ', (await post('/reports', undefined, token)).status)
  let reports: string[] = []
  while (reports.length === 0) {
    reports = await (await fetch(`${url}/reports`, { headers: { authorization: `Bearer ${token}` } })).json() as string[]
  }
  console.log('and the task has run as Ada:  ', reports)
  await app.close()
}
