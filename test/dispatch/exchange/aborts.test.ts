import { PassThrough, Readable } from 'node:stream'
import { text } from 'node:stream/consumers'
import { pipeline } from 'node:stream/promises'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import t from 'tap'
import { compare, type Case, type Sight } from './ways.js'

const parsed = 'a server closes a request that it has read, and then knows of no abortion'
const responds = 'what is destroyed with an error has an onResponse, and on a server there is no error'

t.test('an exchange that is given up ends in the same way', async t => {
  const hooks = (app: FastifyInstance, { see }: Sight) => {
    app.addHook('onRequestAbort', async _request => { see('onRequestAbort') })
    app.addHook('onResponse', async () => { see('onResponse') })
  }
  const events = (app: FastifyInstance, sight: Sight) => {
    app.addHook('onRequest', async ({ raw }, { raw: answer }) => {
      for (const event of ['aborted', 'close']) raw.on(event, () => { sight.see(`request ${event}`, raw.aborted) })
      for (const event of ['finish', 'close']) answer.on(event, () => { sight.see(`answer ${event}`, answer.writableEnded) })
    })
  }
  const hang = () => new Promise<never>(() => {})
  const giveUpAndHang: Case['handler'] = async (_request, _reply, { giveUp }) => {
    giveUp()
    return await hang()
  }
  const body = { method: 'POST', payload: 'x' } as const
  const ticking = ({ see }: Sight) => {
    const stream = new PassThrough()
    const timer = setInterval(() => { stream.write('tick') }, 2)
    stream.on('close', () => {
      clearInterval(timer)
      see('stream closed', stream.destroyed)
    })
    return stream
  }
  compare(t, [
    { title: 'in a handler that hangs', app: hooks, handler: giveUpAndHang, last: 'onRequestAbort', asInject: responds },
    { title: 'in a handler that hangs, with a body', ...body, app: hooks, handler: giveUpAndHang, asInject: parsed },
    { title: 'by its events', app: events, handler: giveUpAndHang, asInject: 'a server tells the answer first' },
    {
      title: 'by the event of its request',
      handler: async ({ raw }, _reply, { see, giveUp }) => {
        raw.once('aborted', () => { see('aborted', raw.aborted) })
        giveUp()
        return await hang()
      },
      last: 'aborted'
    },
    {
      title: 'by its signal',
      handler: async ({ signal }, _reply, { see, giveUp }) => {
        signal.addEventListener('abort', () => { see('aborted') })
        giveUp()
        return await hang()
      },
      last: 'aborted'
    },
    {
      title: 'in a hook',
      app: (app, sight) => {
        hooks(app, sight)
        app.addHook('preHandler', giveUpAndHang.bind(undefined, undefined as never, undefined as never, sight) as never)
      },
      handler: async () => 'never',
      last: 'onRequestAbort',
      asInject: responds
    },
    {
      title: 'in a handler that answers all the same',
      app: hooks,
      handler: async (_request, { raw }, { giveUp, see }) => {
        const closed = new Promise(resolve => { raw.once('close', resolve) })
        giveUp()
        await closed
        see(raw.destroyed, raw.writableEnded, raw.write('x'))
        return 'late'
      },
      last: 'onRequestAbort',
      asInject: responds
    },
    {
      title: 'in a handler that fails after it',
      app: hooks,
      handler: async (_request, { raw }, { giveUp }) => {
        const closed = new Promise(resolve => { raw.once('close', resolve) })
        giveUp()
        await closed
        throw new Error('late')
      },
      last: 'onRequestAbort',
      asInject: responds
    },
    {
      title: 'in the middle of a stream',
      app: hooks,
      handler: async (_request, _reply, sight) => {
        const stream = ticking(sight)
        setTimeout(sight.giveUp, 30)
        return stream
      },
      last: 'stream closed',
      asInject: responds
    },
    {
      title: 'in the middle of a stream of the web',
      handler: async (_request, _reply, { giveUp, see }) => {
        setTimeout(giveUp, 30)
        return new ReadableStream({
          async pull (controller) {
            await sleep(2)
            controller.enqueue('tick')
          },
          cancel () { see('cancelled') }
        })
      },
      last: 'cancelled'
    },
    {
      title: 'in the middle of a Response',
      handler: async (_request, _reply, sight) => {
        setTimeout(sight.giveUp, 30)
        return new Response(Readable.toWeb(ticking(sight)) as ReadableStream)
      },
      last: 'stream closed'
    },
    {
      title: 'in the middle of a pipeline by hand',
      handler: async (_request, reply, sight) => {
        reply.hijack()
        setTimeout(sight.giveUp, 30)
        sight.see(await pipeline(ticking(sight), reply.raw).then(() => 'whole', error => error.code ?? error.message))
        sight.see('ended')
      },
      last: 'ended',
      asInject: 'a pipeline fails with the error that an answer is destroyed with'
    },
    {
      title: 'in the middle of raw writes',
      handler: (_request, reply, { giveUp, see }) => {
        reply.hijack()
        reply.raw.writeHead(200)
        const timer = setInterval(() => { reply.raw.write('tick') }, 2)
        setTimeout(giveUp, 30)
        reply.raw.on('close', () => {
          clearInterval(timer)
          see('closed', reply.raw.writableEnded)
        })
      },
      last: 'closed'
    },
    {
      title: 'while its body is read',
      method: 'POST',
      payload: 'x'.repeat(100_000),
      headers: { 'content-type': 'application/raw' },
      app: app => { app.addContentTypeParser('application/raw', (_request, _payload, done) => { done(null) }) },
      handler: async ({ raw }, _reply, { giveUp, see }) => {
        giveUp()
        await sleep(20)
        see(await text(raw).then(({ length }) => length, error => error.code))
        see('read')
      },
      last: 'read',
      asInject: Number(process.versions.node.split('.')[0]) > 20 ? 'a server drops what has not been read' : undefined
    },
    {
      title: 'after it has been answered',
      app: hooks,
      handler: async (_request, reply, { giveUp }) => {
        await reply.send('well')
        await sleep(20)
        giveUp()
      }
    }
  ])
})

t.test('an exchange that its handler breaks off ends in the same way', async t => {
  const closes = ({ raw }: { raw: NodeJS.EventEmitter }, { see }: Sight) => { raw.once('close', () => { see('closed') }) }
  const hang = () => new Promise<never>(() => {})
  compare(t, [
    {
      title: 'by destroying its answer',
      last: 'closed',
      handler: (_request, reply, sight) => {
        closes(reply, sight)
        reply.raw.destroy()
        return hang()
      }
    },
    {
      title: 'by destroying its answer with an error',
      last: 'closed',
      handler: (_request, reply, sight) => {
        closes(reply, sight)
        reply.raw.destroy(new Error('broken'))
        return hang()
      }
    },
    {
      title: 'by destroying its request',
      last: 'closed',
      handler: (request, reply, sight) => {
        closes(reply, sight)
        request.raw.destroy()
        return hang()
      }
    },
    {
      title: 'by destroying its request, which has been read',
      method: 'POST',
      payload: 'x',
      handler: (request) => {
        request.raw.destroy()
        return 'well'
      }
    },
    {
      title: 'by leaving an iteration over its request',
      method: 'POST',
      payload: 'x'.repeat(200_000),
      headers: { 'content-type': 'application/raw' },
      app: app => { app.addContentTypeParser('application/raw', (_request, _payload, done) => { done(null) }) },
      handler: async ({ raw }, reply, sight) => {
        closes(reply, sight)
        const chunks = raw[Symbol.asyncIterator]()
        await chunks.next()
        await chunks.return!()
        return 'well'
      }
    },
    {
      title: 'by destroying its socket',
      last: 'closed',
      handler: (request, reply, sight) => {
        closes(reply, sight)
        request.socket.destroy()
        return hang()
      },
      asServer: 'the socket of light-my-request cannot be destroyed'
    },
    {
      title: 'by destroying the socket of its answer',
      last: 'closed',
      handler: (_request, reply, sight) => {
        closes(reply, sight)
        reply.raw.socket!.destroy()
        return hang()
      }
    },
    {
      title: 'by ending the socket of its answer',
      last: 'closed',
      handler: (_request, reply, sight) => {
        closes(reply, sight)
        reply.raw.socket!.end()
        return hang()
      }
    }
  ])
})

t.test('a handler that Fastify gives up ends in the same way', async t => {
  const hooks = (app: FastifyInstance, { see }: Sight) => { app.addHook('onResponse', async (_request, { statusCode }) => { see('onResponse', statusCode) }) }
  const server = { handlerTimeout: 40 }
  const hang = () => new Promise<never>(() => {})
  compare(t, [
    { title: 'before its answer', server, app: hooks, handler: hang },
    {
      title: 'before its answer, with its signal',
      server,
      app: hooks,
      handler: async ({ signal }, _reply, { see }) => {
        signal.addEventListener('abort', () => { see(signal.reason.code) })
        return await hang()
      }
    },
    {
      title: 'in the middle of its answer',
      server,
      app: hooks,
      handler: async (_request, _reply, { see }) => {
        const stream = new PassThrough()
        stream.on('close', () => { see('stream closed') })
        stream.write('half')
        return stream
      },
      last: 'stream closed',
      asInject: responds
    },
    { title: 'not when it is in time', server, app: hooks, handler: async () => 'well' },
    {
      title: 'by the timeout of its socket',
      app: (app, sight) => {
        hooks(app, sight)
        app.addHook('onTimeout', async () => { sight.see('onTimeout') })
      },
      handler: async ({ raw }) => {
        raw.socket.setTimeout(20)
        return await new Promise(resolve => { raw.socket.once('timeout', () => { setTimeout(resolve, 1, 'late') }) })
      },
      asServer: 'the socket of light-my-request has no timeout'
    }
  ])
})
