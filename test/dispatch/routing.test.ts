import Fastify from 'fastify'
import type { FastifyInstance, FastifyRequest, FastifyServerOptions, InjectOptions } from 'fastify'
import t from 'tap'
import taskqueue, { type AddOptions, type TaskRoute, type TaskStatus } from '../../lib/index.js'

type Strategy = NonNullable<NonNullable<FastifyServerOptions['routerOptions']>['constraints']>[string]

/** A strategy that chooses routes by the value of a header. */
function byHeader (name: string, { header = name, mustMatchWhenDerived = false } = {}): Strategy {
  return {
    name,
    mustMatchWhenDerived,
    storage () {
      const handlers = new Map<unknown, never>()
      return {
        get: (value: string) => handlers.get(value) ?? null,
        set: (value, handler) => { handlers.set(value, handler as never) }
      }
    },
    deriveConstraint: ({ headers }) => headers[header] as string,
    validate () {}
  }
}

type Test = { teardown (run: () => unknown): void }

interface Options {
  server?: FastifyServerOptions
  dispatch?: 'direct' | 'inject'
  before?: (app: FastifyInstance) => unknown
  routes: (app: FastifyInstance, add: (request: FastifyRequest) => Promise<string>) => unknown
}

const DISPATCHES = ['direct', 'inject'] as const
const only = { constraints: { taskOnly: true } } as const

/** An app that adds a task by a request; a route answers what it is. */
async function start (t: Test, { server = {}, dispatch = 'direct', before, routes }: Options) {
  const app = Fastify(server)
  t.teardown(() => app.close())
  before?.(app)
  await app.register(taskqueue, { dispatch, consumer: { maxRetries: 0, missingRouteMs: 0 } })
  let target: [string | TaskRoute<{}>, AddOptions] = ['', {}]
  const add = async (request: { taskqueue: { add: Function } }) => request.taskqueue.add(...target) as string
  for (const constraints of [{}, { version: '2.0.0' }]) app.post('/add', { constraints }, add)
  await routes(app, add)
  await app.ready()
  return {
    app,

    /** Where a task ends up: what its route says, or why it is dead. */
    async goal (url: string | TaskRoute<{}>, options: AddOptions = {}, by: InjectOptions = {}): Promise<unknown> {
      target = [url, { payload: {}, ...options }]
      const { statusCode, body } = await app.inject({ method: 'POST', url: '/add', ...by })
      if (statusCode !== 200) return body
      return goalOf(await app.taskqueue.wait(body))
    }
  }
}

function goalOf (status?: TaskStatus): unknown {
  return status?.state === 'done' ? String(status.answer!.body) : status?.reason
}

t.test('a header that a task inherits does not choose its route, and one that it is given does', async t => {
  for (const dispatch of DISPATCHES) {
    const { goal } = await start(t, {
      dispatch,
      routes: app => {
        app.post('/plain', async () => 'plain')
        app.post('/only', only, async () => 'only')
        app.post('/both', async () => 'plain')
        app.post('/both', { constraints: { version: '2.1.0' } }, async ({ headers }) => {
          return `version ${headers['accept-version']}`
        })
        app.post('/both-only', only, async () => 'only')
        app.post('/both-only', { constraints: { taskOnly: true, version: '2.1.0' } }, async () => 'version')
      }
    })
    const by = { headers: { 'accept-version': '2.x' } }
    const given = { headers: { 'Accept-Version': '2.x' } }
    for (const url of ['/plain', '/only', '/both', '/both-only']) {
      t.equal(await goal(url, {}, by), url === '/only' || url === '/both-only' ? 'only' : 'plain', url)
    }
    t.equal(await goal('/both', given), 'version 2.x')
    t.equal(await goal('/both', given, by), 'version 2.x')
    t.equal(await goal('/both-only', given), 'version')
    t.equal(await goal('/plain', given), 'no route of this app takes POST /plain', 'as for any request')
  }
})

t.test("so it is with an app's own constraints, wherever they are added, and hooks see all headers", async t => {
  for (const mustMatchWhenDerived of [true, false]) {
    const strategies = [
      byHeader('tenant', { mustMatchWhenDerived }),
      byHeader('beta', { header: 'cookie', mustMatchWhenDerived })
    ]
    const constraints = Object.fromEntries(strategies.map(strategy => [strategy.name, strategy]))
    const places: Array<Partial<Options>> = [
      { server: { routerOptions: { constraints } } },
      { before: app => { for (const strategy of strategies) app.addConstraintStrategy(strategy as never) } }
    ]
    for (const place of places) {
      for (const dispatch of DISPATCHES) {
        const { goal } = await start(t, {
          ...place,
          dispatch,
          routes: (app, add) => {
            app.post('/add', { constraints: { tenant: 'a', beta: 'b=1' } }, add)
            app.addHook('onRequest', async request => {
              if (request.task === null) return
              Object.assign(request, { seen: [request.headers.tenant, request.raw.headers.cookie] })
            })
            app.post('/plain', only, async request => JSON.stringify((request as { seen?: unknown }).seen))
            app.post('/both', only, async () => 'plain')
            app.post('/both', { constraints: { taskOnly: true, tenant: 'a' } }, async () => 'tenant')
          }
        })
        const by = { headers: { tenant: 'a', cookie: 'b=1' } }
        t.equal(await goal('/plain', {}, by), '["a","b=1"]')
        if (mustMatchWhenDerived) continue
        t.equal(await goal('/both', {}, by), 'plain')
        t.equal(await goal('/both', { headers: { tenant: 'a' } }, by), 'tenant')
      }
    }
  }
})

t.test('a task has its headers before any hook, also where its request brings an id along', async t => {
  for (const requestIdHeader of ['x-request-id', false] as const) {
    for (const dispatch of DISPATCHES) {
      const seen: unknown[] = []
      const { goal } = await start(t, {
        server: { requestIdHeader },
        dispatch,
        before: app => {
          app.addHook('onRequest', async ({ task, id, headers }) => {
            if (task !== null) seen.push(headers['x-request-id'], id)
          })
        },
        routes: app => { app.post('/plain', async () => 'plain') }
      })
      t.equal(await goal('/plain', {}, { headers: { 'x-request-id': 'mine' } }), 'plain')
      t.strictSame(seen, requestIdHeader === false ? ['mine', seen[1]] : ['mine', 'mine'])
      t.match(seen[1], requestIdHeader === false ? /^req-/ : 'mine')
    }
  }
})

t.test('an async constraint chooses by the same headers', async t => {
  for (const dispatch of DISPATCHES) {
    const strategy = {
      ...byHeader('tenant'),
      deriveConstraint: ({ headers }: FastifyRequest, _context: unknown, done: Function) => { done(null, headers.tenant) }
    }
    const { goal } = await start(t, {
      server: { routerOptions: { constraints: { tenant: strategy as unknown as Strategy } } },
      dispatch,
      routes: app => {
        app.post('/both', async ({ headers }) => `plain ${headers.tenant}`)
        app.post('/both', { constraints: { tenant: 'a' } }, async () => 'tenant')
      }
    })
    t.equal(await goal('/both', {}, { headers: { tenant: 'a' } }), 'plain a')
    t.equal(await goal('/both', { headers: { tenant: 'a' } }, { headers: { tenant: 'a' } }), 'tenant')
  }
})

t.test('a task of a host takes the route of that host', async t => {
  for (const dispatch of DISPATCHES) {
    const { app, goal } = await start(t, {
      dispatch,
      routes: app => {
        for (const host of ['a.example', 'b.example', /^\w+\.c\.example$/, 'localhost']) {
          app.post('/task', { constraints: { taskOnly: true, host } }, async ({ host }) => host)
        }
      }
    })
    for (const host of ['a.example', 'b.example', 'any.c.example']) {
      t.equal(await goal('/task', {}, { headers: { host } }), host)
    }
    t.equal(await goal('/task', {}, { headers: { host: 'd.example' } }), 'no route of this app takes POST /task')
    t.equal(await goal('/task', { headers: { host: 'a.example' } }, { headers: { host: 'd.example' } }), 'a.example')
    const id = await app.taskqueue.add('/task', { payload: {} })
    t.equal(goalOf(await app.taskqueue.wait(id)), 'localhost', 'and of none where no request adds it')
  }
})

t.test('a url that leads to a route is taken as it is, and another one is rewritten as for a client', async t => {
  const perHost: FastifyServerOptions['rewriteUrl'] = ({ headers: { host }, url }) =>
    host === 'api.example' ? `/api${url}` : url!
  const inPlace: FastifyServerOptions['rewriteUrl'] = raw => {
    raw.url = `/api${raw.url}`
    raw.url = `${raw.url}?rewritten`
    return `${raw.url}`
  }
  for (const rewriteUrl of [perHost, inPlace]) {
    for (const dispatch of DISPATCHES) {
      let handle!: TaskRoute<{}>
      const { app } = await start(t, {
        server: { rewriteUrl },
        dispatch,
        before: app => {
          app.addHook('onRequest', async ({ task, url, raw }) => { if (task !== null) raw.headers['x-seen'] = url })
        },
        routes: async app => {
          await app.register(async api => {
            handle = api.task<{ Params: { n: string } }>({
              url: '/handle/:n', handler: async ({ headers, params: { n } }) => `handle ${headers['x-seen']} ${n}`
            }) as never
            api.post('/outer', only, async ({ url, originalUrl }) => `outer ${url} ${originalUrl}`)
            // What is rewritten twice comes here.
            api.post('/*', async () => 'any')
          }, { prefix: '/api' })
        }
      })
      const headers = { host: 'api.example' }
      const run = async (url: string | TaskRoute<{}>, options: AddOptions & { params?: object } = {}) => {
        const id = await app.taskqueue.add(url as string, { payload: {}, headers, ...options })
        return goalOf(await app.taskqueue.wait(id!))
      }
      t.equal(await run(handle as never, { params: { n: 1 } } as never), 'handle /api/handle/1 1')
      t.equal(await run('/api/outer'), 'outer /api/outer /api/outer')
      t.match(await run('/outer'), /^outer \/api\/outer(\?rewritten)? \/outer$/)
      t.match(await run('/nowhere'), 'any')
    }
  }
})

t.test('after it is routed the url of a task can be changed as that of any request', async t => {
  for (const dispatch of DISPATCHES) {
    const { goal } = await start(t, {
      server: { rewriteUrl: ({ url }) => url! },
      dispatch,
      routes: app => {
        app.addHook('preHandler', async ({ raw }) => { raw.url = '/changed' })
        app.post('/task', async ({ url }) => url)
      }
    })
    t.equal(await goal('/task'), '/changed')
  }
})

t.test('a handle and a url are looked up as the router does, whatever its options', async t => {
  const cases: Array<[FastifyServerOptions, string, object, string]> = [
    [{}, '/tasks/::name', {}, '/tasks/:name'],
    [{}, '/tasks/jobs::run', {}, '/tasks/jobs:run'],
    [{}, '/::x/:y', { y: 'b' }, '/:x/b'],
    [{}, '/::x::/:y', { y: 'b' }, '/:x:/b'],
    [{}, '/tasks/:id::run', { id: '7' }, '/tasks/7:run'],
    [{}, '/tasks/:id::run', { id: 'a/b:é' }, '/tasks/a%2Fb%3A%C3%A9:run'],
    [{}, '/tasks/:id::run', { 'id::run': '7:run' }, '/tasks/7%3Arun'],
    [{}, '/tasks/:id/::a::b', { id: '1' }, '/tasks/1/:a:b'],
    [{}, '/tasks/:id(\\d+)::run', { id: '1' }, '/tasks/1:run'],
    [{}, '/tasks/:a-::b', { a: '1' }, '/tasks/1-:b'],
    [{}, '/files/*', { '*': 'a/b c' }, '/files/a/b%20c'],
    [{}, '/maybe/:x?', {}, '/maybe'],
    [{}, '/maybe/:x?', { x: 'y' }, '/maybe/y'],
    [{ routerOptions: { caseSensitive: false } }, '/Tasks/:Name', { Name: 'Ada' }, '/Tasks/Ada'],
    [{ routerOptions: { ignoreTrailingSlash: true } }, '/tasks/:id/', { id: '1' }, '/tasks/1/'],
    [{ routerOptions: { ignoreDuplicateSlashes: true } }, '/tasks/:id', { id: '1' }, '/tasks/1'],
    [{ routerOptions: { maxParamLength: 200 } }, '/tasks/:id', { id: 'x'.repeat(150) }, `/tasks/${'x'.repeat(150)}`],
    [{ routerOptions: { useSemicolonDelimiter: true } as {} }, '/tasks/:id', { id: 'a;b' }, '/tasks/a%3Bb']
  ]
  for (const [server, url, params, expected] of cases) {
    for (const rewriteUrl of [undefined, ({ url }: { url?: string }) => `/elsewhere${url}`]) {
      let handle!: TaskRoute<{ params?: object }>
      const { app } = await start(t, {
        server: { ...server, ...rewriteUrl && { rewriteUrl } },
        routes: app => {
          app.post(url, async () => 'ordinary')
          handle = app.task({ url, schema: { params: { type: 'object' } }, handler: async ({ url }) => url }) as never
        }
      })
      const id = await app.taskqueue.add(handle, { params })
      t.equal(goalOf(await app.taskqueue.wait(id!)), expected, `${url} ${JSON.stringify(server)}`)
    }
  }
})

t.test('a handle refuses what does not lead to its route', async t => {
  let handle!: TaskRoute<{ params?: object, headers?: object }>
  const { app } = await start(t, {
    routes: app => {
      const schema = { params: { type: 'object' } } as const
      handle = app.task({ url: '/tasks/:id::run', schema, handler: async () => '' }) as never
      app.post('/tasks/open:run', async () => '')
    }
  })
  const refusal = (options: object) => app.taskqueue.add(handle, options).then(() => 'added', error => error.message)
  t.match(await refusal({ params: {} }), 'params/id must be a string')
  t.match(await refusal({ params: { id: '1', 'id::run': '1:run' } }), 'params/id is not in its url')
  t.match(await refusal({ params: { id: 'x'.repeat(101) } }), 'params do not lead to it')
  const headers = { 'accept-version': '1.x' }
  t.match(await refusal({ params: { id: '1' }, headers }), 'headers/accept-version does not lead to it')
})
