import Fastify, { type FastifyInstance } from 'fastify'
import t from 'tap'
import taskqueue from '../../lib/index.js'

// Fastifys that send replies in a way that this library does not know: the app must not start.

interface ReplyClass { prototype: { send (payload: unknown): unknown, header (): unknown } }
type Keyed = Record<symbol, unknown>

type Reply = Keyed & { request: Keyed, raw: { writeHead (code: number): void } }
type Context = Keyed & { onSend: unknown[] | null }
type Change = (reply: Reply, send: () => unknown, context: Context) => unknown

function keyOf (object: object, name: string): symbol {
  return Object.getOwnPropertySymbols(object).find(({ description }) => description === name)!
}

/** Changes how an app sends. */
function sendWith (app: FastifyInstance, change: Change): void {
  const { prototype } = (app as unknown as Record<symbol, ReplyClass>)[keyOf(app, 'fastify.Reply')]!
  const { send } = prototype
  prototype.send = function (payload) {
    const reply = this as unknown as Reply
    const context = reply.request[keyOf(reply.request, 'fastify.context')] as Context
    return change(reply, () => send.call(this, payload), context)
  }
}

const futures: Record<string, (app: FastifyInstance) => void> = {
  'has no class of replies': app => { delete (app as unknown as Keyed)[keyOf(app, 'fastify.Reply')] },
  'freezes the hooks of a route': app => {
    sendWith(app, (_reply, send, context) => {
      if (context.onSend !== null) Object.freeze(context.onSend)
      return send()
    })
  },
  'runs a copy of the hooks': app => {
    sendWith(app, (reply, send, context) => {
      const { onSend } = context
      const copied = onSend === null ? context : Object.create(context, { onSend: { get: () => [...onSend] } })
      reply.request[keyOf(reply.request, 'fastify.context')] = copied
      return send()
    })
  },
  'sends before the hooks': app => {
    sendWith(app, (reply, send) => {
      reply.raw.writeHead(200)
      return send()
    })
  },
  'does not send at once': app => { sendWith(app, () => {}) },
  'keeps the headers of a reply elsewhere': app => {
    const { prototype } = (app as unknown as Record<symbol, ReplyClass>)[keyOf(app, 'fastify.Reply')]!
    prototype.header = function () { return this }
  }
}

t.test('an app does not start with a Fastify that', async t => {
  for (const [what, change] of Object.entries(futures)) {
    const app = Fastify()
    change(app)
    const failure = await app.register(taskqueue).then(() => undefined, (error: Error & { cause: Error }) => error)
    const expected = { code: 'FST_TASKQUEUE_UNSUPPORTED_FASTIFY', message: `Fastify ${app.version} ` }
    t.match(failure, expected, `${what}: ${failure?.cause}`)
    t.ok(failure?.cause instanceof Error, 'with the cause')
  }
})

t.test('an app starts with the Fastify that is there, and nobody sees the rehearsal', async t => {
  const lines: string[] = []
  const app = Fastify({ trustProxy: true, logger: { level: 'trace', stream: { write: line => { lines.push(line) } } } })
  const seen: string[] = []
  for (const name of ['onRequest', 'preHandler', 'onSend', 'onResponse', 'onError'] as const) {
    app.addHook(name, async () => { seen.push(name) })
  }
  app.decorateRequest('one', null).decorateReply('other', null)
  await app.register(async child => { await child.register(taskqueue, { consumer: false }) }, { prefix: '/child' })
  t.same([seen, lines], [[], []])
  await app.close()
})
