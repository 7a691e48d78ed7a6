// A sign-up form that answers at once; a task sends the welcome mail, as the new user.
//
//     npm run example                                    one process, local queue
//     REDIS_URL=redis://localhost npm run example        the same on Redis
//     REDIS_URL=… npm run example -- web                 serves, and runs no tasks
//     REDIS_URL=… npm run example -- worker              runs tasks, and serves nothing
//
// Mails are "sent" to a folder that all these processes share.
import { mkdir, readFile, writeFile } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'
import dashboard from 'fastify-taskqueue/dashboard'

export interface ExampleOptions extends Pick<FastifyServerOptions, 'logger'> {
  taskqueue?: TaskqueueOptions
  outbox?: string
}

export async function build ({ logger = false, taskqueue: options = {}, outbox = join(tmpdir(), 'fastify-taskqueue-outbox') }: ExampleOptions = {}): Promise<FastifyInstance> {
  await mkdir(outbox, { recursive: true })
  const app = Fastify({ logger })
  await app.register(taskqueue, options)
  // A real app says who may see it: authorize: request => request.user?.isAdmin && 'operate'
  await app.register(dashboard, { prefix: '/queues', public: true, show: { payload: true, answer: true } })

  app.get('/', async (_request, reply) => reply.type('text/html').send(page))

  app.post<{ Body: { email: string } }>('/signup', { schema: { body: signup } }, async (request, reply) => {
    const { email } = request.body
    // A real app would store a user here; whoever request.user is queues the tasks.
    Object.assign(request, { user: { id: email } })
    const id = request.taskqueue.add('/tasks/welcome', { payload: { subject: `Welcome, ${email}!` } })
    reply.code(202)
    return { id }
  })

  app.post<{ Body: { subject: string } }>('/tasks/welcome', {
    constraints: { taskOnly: true },
    preHandler: app.verifyTask
  }, async (request, reply) => {
    const { user } = request as { user?: { id: string } }
    // No second try could deliver it, so the task becomes a dead letter.
    if (user?.id.endsWith('.invalid')) return reply.code(422).send({ message: `there is no mailbox ${user.id}` })
    await sleep(1000)
    const mail = { to: user?.id, subject: request.body.subject, sentBy: process.pid, attempt: request.task?.attempt }
    await writeFile(join(outbox, `${request.task?.id}.json`), JSON.stringify(mail))
    return mail
  })

  app.get<{ Params: { id: string } }>('/mails/:id', { schema: { params: mail } }, async (request, reply) => {
    try {
      return JSON.parse(await readFile(join(outbox, `${request.params.id}.json`), 'utf8'))
    } catch {
      return reply.code(202).send({ message: 'not sent yet' })
    }
  })

  return app
}

const signup = { type: 'object', required: ['email'], properties: { email: { type: 'string', format: 'email' } } }
const mail = { type: 'object', properties: { id: { type: 'string', format: 'uuid' } } }

const page = /* html */ `<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width">
<title>Sign up</title>
<style>
  body { font: 1.1em/1.5 system-ui, sans-serif; max-width: 34em; margin: 3em auto; padding: 0 1em }
  input, button { font: inherit; padding: .4em .7em }
  li { margin: .3em 0 } code { font-size: .85em }
</style>
<h1>Sign up</h1>
<form><label>Your e-mail address <input name="email" type="email" required value="ada@example.com"></label> <button>Sign up</button></form>
<p>The answer comes at once; the welcome mail takes a second, in a task. Mail to <code>bob@example.invalid</code> cannot be delivered. <a href="queues/">See the queue</a>.</p>
<ol aria-live="polite"></ol>
<script type="module">
  const sleep = ms => new Promise(resolve => setTimeout(resolve, ms))
  document.querySelector('form').addEventListener('submit', async event => {
    event.preventDefault()
    const item = document.querySelector('ol').appendChild(document.createElement('li'))
    const body = JSON.stringify(Object.fromEntries(new FormData(event.target)))
    const start = performance.now()
    const response = await fetch('/signup', { method: 'POST', body, headers: { 'content-type': 'application/json' } })
    const { id, message } = await response.json()
    if (!response.ok) { item.textContent = message; return }
    item.textContent = 'Answered after ' + Math.round(performance.now() - start) + ' ms: task ' + id + ' is queued …'
    for (let mail; mail?.status !== 200; await sleep(200)) {
      mail = await fetch('/mails/' + id)
      if (mail.status !== 200) continue
      const { to, sentBy } = await mail.json()
      item.textContent = 'Done: task ' + id + ' has sent the mail to ' + to + ', in process ' + sentBy + '.'
    }
  })
</script>
`

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const { PORT = '3000', REDIS_URL } = process.env
  const role = process.argv[2]
  const app = await build({
    logger: true,
    taskqueue: { redis: REDIS_URL, consumer: role === 'web' ? false : { concurrency: 10 } }
  })
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => app.close())
  if (role === 'worker') await app.ready()
  else console.log(`Sign up at ${await app.listen({ port: Number(PORT) })}`)
}
