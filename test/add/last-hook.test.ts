import { Readable } from 'node:stream'
import type { FastifyInstance, FastifyReply, FastifyRequest, RouteOptions } from 'fastify'
import t from 'tap'
import { RecordingStore } from '../support/recording-store.js'
import { serve } from '../support/serve.js'
import { contextOf } from '../support/context.js'

// The commit comes behind every onSend hook, in whatever way and order they are added.

type Hook = (request: FastifyRequest, reply: FastifyReply, payload: unknown) => Promise<unknown>
type Handler = (request: FastifyRequest, reply: FastifyReply) => unknown
type Add = (app: FastifyInstance, hook: Hook, handler: Handler) => unknown

interface Way {
  /** Adds the hook and, if it is not to be GET /, the route. */
  add: Add
  isRoute?: true
  method?: 'HEAD'
}

/** Adds what a plugin of the app does to each of its routes. */
function onRoute (change: (route: RouteOptions, hook: Hook) => void): Add {
  return (app, hook) => app.addHook('onRoute', route => { change(route, hook) })
}

const push = (route: RouteOptions, hook: Hook) => {
  if (Array.isArray(route.onSend)) route.onSend.push(hook)
  else route.onSend = route.onSend === undefined ? [hook] : [route.onSend, hook]
}

const ways: Record<string, Way> = {
  'of the app': { add: (app, hook) => app.addHook('onSend', hook) },
  'of the route': { isRoute: true, add: (app, hook, handler) => app.get('/', { onSend: hook }, handler) },
  'of a HEAD route': { add: (app, hook) => app.addHook('onSend', hook), method: 'HEAD' },
  'pushed by onRoute': { add: onRoute(push) },
  'pushed by onRoute to a HEAD route': { add: onRoute(push), method: 'HEAD' },
  'assigned by onRoute': { add: onRoute((route, hook) => { route.onSend = hook }) },
  'assigned by onRoute in a list of its own': { add: onRoute((route, hook) => { route.onSend = [hook] }) },
  'pushed by onRoute that replaces the config': {
    add: onRoute((route, hook) => {
      route.config = {} as NonNullable<RouteOptions['config']>
      push(route, hook)
    })
  },
  'read from a getter that onRoute defines': {
    add: onRoute((route, hook) => { Object.defineProperty(route, 'onSend', { get: () => [hook], enumerable: true }) })
  },
  'added when the route is ready': { add: onRoute((route, hook) => { queueMicrotask(() => { push(route, hook) }) }) },
  'of a child plugin': {
    isRoute: true,
    add: (app, hook, handler) => app.register(async child => {
      child.get('/', handler)
      child.addHook('onSend', hook)
    })
  },
  'pushed by onRoute in a child plugin': {
    isRoute: true,
    add: (app, hook, handler) => app.register(async child => {
      onRoute(push)(child, hook, handler)
      child.get('/', handler)
    })
  },
  'of the app, for its 404 handler': {
    isRoute: true,
    add: (app, hook, handler) => {
      app.setNotFoundHandler(handler)
      app.addHook('onSend', hook)
    }
  },
  'of a child plugin, for its 404 handler': {
    isRoute: true,
    add: (app, hook, handler) => app.register(async child => {
      child.setNotFoundHandler(handler)
      child.addHook('onSend', hook)
    }, { prefix: '/' })
  },
  'of a route that hands over to the 404 handler': {
    isRoute: true,
    add: (app, hook, handler) => {
      app.setNotFoundHandler(handler)
      app.get('/', { onSend: hook }, (_request, reply) => { reply.callNotFound() })
    }
  },
  'of the app, for a route that hands over to the 404 handler': {
    isRoute: true,
    add: (app, hook, handler) => {
      app.setNotFoundHandler(handler)
      app.get('/', (_request, reply) => { reply.callNotFound() })
      app.addHook('onSend', hook)
    }
  },
  'added to the hooks that run, before the handler': {
    add: (app, hook) => app.addHook('onRequest', async request => { contextOf(request).onSend.push(hook) })
  },
  'added to the hooks that run, by one of them': {
    add: (app, hook) => app.addHook('onSend', async request => { contextOf(request).onSend.push(hook) })
  },
  'added to the hooks that run, by the last of the route': {
    isRoute: true,
    add: (app, hook, handler) => {
      app.get('/', { onSend: async request => { contextOf(request).onSend.push(hook) } }, handler)
    }
  }
}

/** What the hook does, and the status that comes of it. */
const fates: Record<string, { hook: Hook, status: number }> = {
  'lets it pass': { hook: async () => {}, status: 200 },
  throws: { hook: async () => { throw new Error('late') }, status: 500 },
  'refuses by a status': { hook: async (_request, reply) => { reply.code(406) }, status: 406 },
  'sends a bad header': { hook: async (_request, reply) => { reply.header('x-bad', 'a\nb') }, status: 500 },
  'gives a stream that fails': {
    hook: async () => new Readable({ read () { this.destroy(new Error('broken')) } }),
    status: 500
  }
}

t.test('a task is queued if its request succeeds after all onSend hooks, and not before', async t => {
  for (const [where, way] of Object.entries(ways)) {
    for (const order of ['before', 'after'] as const) {
      t.test(`a hook ${where}, added ${order} the plugin`, async t => {
        for (const [what, { hook, status }] of Object.entries(fates)) {
          // The route drops the stream of a HEAD reply, after the hooks of the app.
          if (way.method === 'HEAD' && what === 'gives a stream that fails') continue
          const store = new RecordingStore()
          let count = 0
          const add = (app: FastifyInstance) => {
            let isFirst = true
            const first: Hook = async (request, reply, payload) => {
              // The reply of the error comes by here, too.
              if (!isFirst || reply.statusCode >= 400) return undefined
              store.events.push('hook')
              return await hook(request, reply, payload)
            }
            const handler = async ({ taskqueue }: FastifyRequest, reply: FastifyReply) => {
              isFirst = true
              taskqueue.add('/task', { id: `${++count}` })
              return reply.code(200).send('ok')
            }
            way.add(app, first, handler)
            if (way.isRoute !== true) app.get('/', handler)
          }
          const { url } = await serve(t, {
            [order === 'before' ? 'before' : 'declare']: add,
            taskqueue: { queues: { default: { type: () => store } }, consumer: false }
          })
          // More than once: hooks that are added as they run stay.
          for (let round = 1; round <= 3; round++) {
            store.events.length = 0
            const response = await fetch(url, { method: way.method ?? 'GET' })
            await response.text()
            t.equal(response.status, status, what)
            const expected = status < 400 ? [`store prepares ${count}`, `store commits ${count}`] : []
            t.same(store.events.filter(event => event !== 'hook'), expected, `${what}: queued or not`)
            t.equal(store.events[0], 'hook', `${what}: and not before the hook`)
          }
        }
      })
    }
  }
})
