import { Type, TypeBoxValidatorCompiler, type TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import type { JsonSchemaToTsProvider } from '@fastify/type-provider-json-schema-to-ts'
import { validatorCompiler as zodCompiler, type ZodTypeProvider } from '@fastify/type-provider-zod'
import Fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions } from 'fastify'
import { inspect } from 'node:util'
import t, { type Test } from 'tap'
import { z } from 'zod'
import taskqueue, { errorCodes, type TaskqueueOptions, type TaskRoute } from '../../lib/index.js'
import type { FastifyValidationResult } from 'fastify/types/schema.js'
import { until } from '../support/until.js'

t.test('a typed task runs with what it was given', async t => {
  const { app: untyped, ready, runs } = await start(t)
  const app = untyped.withTypeProvider<JsonSchemaToTsProvider>()
  const ran: unknown[] = []
  const report = app.task({
    url: '/reports/:user/:month(^\\d+$)',
    schema: {
      body: { type: 'object', required: ['title'], properties: { title: { type: 'string' } } },
      querystring: { type: 'object', properties: { draft: { type: 'boolean' }, tag: { type: 'array', items: { type: 'string' } } } },
      params: { type: 'object', properties: { user: { type: 'string' }, month: { type: 'integer' } } }
    } as const,
    handler: async ({ body, query, params }) => {
      const title: string = body.title
      const draft: boolean | undefined = query.draft
      const month: number | undefined = params.month
      ran.push({ title, draft, tag: query.tag, user: params.user, month })
    }
  })
  await ready()
  t.match(report, { method: 'POST', url: '/reports/:user/:month(^\\d+$)' })
  await app.taskqueue.add(report, { payload: { title: 'November' }, query: { draft: true, tag: ['a', 'b'] }, params: { user: 'Ada/Lovelace ü?#%&..', month: 11 } })
  await until(() => ran.length === 1)
  t.strictSame(ran, [{ title: 'November', draft: true, tag: ['a', 'b'], user: 'Ada/Lovelace ü?#%&..', month: 11 }])
  t.match(runs, [{ method: 'POST', url: '/reports/Ada%2FLovelace%20%C3%BC%3F%23%25%26../11?draft=true&tag=a&tag=b' }])
})

t.test('it is added with its request, or in a transaction, like any other', async t => {
  const { app, ready, add, runs } = await start(t)
  const one = app.task({ url: '/one', handler: async () => {} })
  await ready()
  t.equal((await add(request => request.taskqueue.add(one))).error, undefined)
  await app.taskqueue.transaction(transaction => transaction.add(one, { id: 'two', delayMs: 1, headers: { 'x-a': 'b' } }))
  t.match(await add(request => { request.taskqueue.add(one); throw new Error('no') }), { error: { message: 'no' } })
  await until(() => runs.length === 2)
  t.strictSame(runs.map(({ url }) => url), ['/one', '/one'])
})

t.test('several are added at once by their route, all of them or none', async t => {
  const { app, ready, runs } = await start(t)
  const one = app.task({ url: '/one/:n', handler: async ({ task }) => { t.type(task.id, 'string') } })
  await ready()
  const wrong = [{ route: one, params: { n: 1 } }, { route: one, params: {} }] as Array<{ route: typeof one, params: { n: number } }>
  await t.rejects(app.taskqueue.addAll(wrong), { code: 'FST_TASKQUEUE_INVALID_INPUT', message: /^tasks\[1\]: A task for POST \/one\/:n cannot be added/ })
  await t.rejects(app.taskqueue.addAll([{ url: '/one/1' }, { url: 'x' }]), { code: 'FST_TASKQUEUE_INVALID_URL', message: /^tasks\[1\]: / })
  await t.rejects(app.taskqueue.addAll([{ route: '/one/1' as never }]), { code: 'FST_TASKQUEUE_INVALID_OPTION', message: /^tasks\[0\]: Option 'route' must be/ })
  await app.taskqueue.addAll([{ route: one, params: { n: 2 } }, { route: one, params: { n: 3 } }])
  await until(() => runs.length === 2)
  t.strictSame(runs.map(({ url }) => url), ['/one/2', '/one/3'])
})

t.test('a route of a typed task exists for tasks only, whatever its method', async t => {
  const { app, ready, runs } = await start(t)
  const routes = (['GET', 'POST', 'PUT', 'PATCH', 'DELETE'] as const).map(method => app.task({ method, url: '/task', handler: async () => 'done' }))
  await ready()
  for (const route of routes) {
    t.equal((await app.inject({ method: route.method, url: '/task' })).statusCode, 404)
    await app.taskqueue.add(route)
  }
  await until(() => runs.length === 5)
  t.strictSame(runs.map(({ method }) => method), ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])
})

t.test('what its schemas do not take is refused at once, by what it is and what is wrong with it', async t => {
  const { app, ready, refuses } = await start(t)
  const task: TaskRoute = app.task({
    url: '/task/:id',
    schema: {
      body: { type: 'object', required: ['to'], properties: { to: { type: 'string', minLength: 2 }, deep: { type: 'object', properties: { n: { type: 'number' } } } } },
      querystring: { type: 'object', additionalProperties: false, properties: { limit: { type: 'integer' } } },
      params: { type: 'object', properties: { id: { type: 'string', format: 'uuid' } } }
    },
    handler: async () => {}
  })
  await ready()
  const params = { id: '0193c3a0-0000-7000-8000-000000000000' }
  const payload = { to: 'ada' }
  for (const [options, reason] of [
    [{ params }, 'body must be object'],
    [{ params, payload: null }, 'body must be object'],
    [{ params, payload: {} }, "body must have required property 'to'"],
    [{ params, payload: { to: 'a' } }, 'body/to must NOT have fewer than 2 characters'],
    [{ params, payload: { to: undefined } }, "body must have required property 'to'"],
    [{ params, payload: { to: 'ada', deep: { n: 'x' } } }, 'body/deep/n must be number'],
    [{ params, payload: [] }, 'body must be object'],
    [{ params, payload: 'ada' }, 'body must be object'],
    [{ params, payload, query: { limit: 'many' } }, 'querystring/limit must be integer'],
    [{ payload, params: { id: 'x' } }, 'params/id must match format "uuid"'],
    [{ payload }, 'params/id must be a string, number or boolean'],
    [{ payload, params: null }, 'params/id must be a string, number or boolean'],
    [{ payload, params: {} }, 'params/id must be a string, number or boolean'],
    [{ payload, params: { id: {} } }, 'params/id must be a string, number or boolean'],
    [{ payload, params: { id: '\ud800' } }, 'params/id must be a string, number or boolean'],
    [{ payload, params: { ...params, page: 1 } }, 'params/page is not in its url']
  ] as Array<[object, string]>) {
    await refuses(task, options, 'FST_TASKQUEUE_INVALID_INPUT', `A task for POST /task/:id cannot be added: ${reason}`)
  }
})

t.test('what add does not take with a url it does not take with a route, nor another method', async t => {
  const { app, ready, refuses } = await start(t)
  const task: TaskRoute = app.task({ url: '/task', handler: async () => {} })
  await ready()
  await refuses(task, { method: 'PUT' }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'method' must be left out, since the route has one, got \"PUT\"")
  await refuses(task, { delay: 1 }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'delay' must be one of ")
  await refuses(task, { queue: 'none' }, 'FST_TASKQUEUE_UNKNOWN_QUEUE', 'Queue "none" is not registered')
  await refuses(task, null, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'options' must be an object, got null")
  await refuses('/task', { params: {} }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'params' must be one of ")
})

t.test('params that lead elsewhere are refused', async t => {
  const { app, ready, refuses } = await start(t)
  const options = { constraints: { taskOnly: true as const } }
  const task: TaskRoute = app.task({ url: '/task/:name', handler: async () => {} })
  const numbered: TaskRoute = app.task({ url: '/numbered/:n(^\\d+$)', handler: async () => {} })
  const dated: TaskRoute = app.task({ url: '/dated/:from-:to', handler: async () => {} })
  app.post('/task/other', options, async () => {})
  app.post('/task/open', async () => {})
  await ready()
  for (const name of ['other', 'open', 'x'.repeat(101)]) await refuses(task, { params: { name } }, 'FST_TASKQUEUE_INVALID_INPUT', 'params do not lead to it')
  await refuses(numbered, { params: { n: 'x' } }, 'FST_TASKQUEUE_INVALID_INPUT', 'params do not lead to it')
  await refuses(dated, { params: { from: '2030-01', to: '2030-02' } }, 'FST_TASKQUEUE_INVALID_INPUT', 'params do not lead to it')
  for (const name of ['.', '..', 'a/../b']) await refuses(task, { params: { name } }, 'FST_TASKQUEUE_INVALID_URL', "free of '.' and '..' segments")
})

t.test('params make the url, whatever the form in which it has them', async t => {
  const { app, ready, runs } = await start(t)
  const task = (url: string, params?: Record<string, string | number | boolean>) => [app.task({ url, handler: async () => {} }), { params }] as const
  const tasks = [
    task('/a/:x/:y', { x: 'p q', y: 'r/s' }),
    task('/b/:x?', { x: 1 }),
    task('/c/:x?'),
    task('/c/d/:x?', {}),
    task('/e/:from-:to.json', { from: 1, to: true }),
    task('/f/:x(^(a|b)$)/g', { x: 'b' }),
    task('/h/*', { '*': 'i/j k?#.txt' }),
    task('/l::m/:n', { n: ':n' }),
    task('/:x?')
  ]
  await ready()
  for (const [route, options] of tasks) await app.taskqueue.add(route, options)
  await until(() => runs.length === tasks.length)
  t.strictSame(runs.map(({ url }) => url), [
    '/a/p%20q/r%2Fs', '/b/1', '/c', '/c/d', '/e/1-true.json', '/f/b/g', '/h/i/j%20k%3F%23.txt', '/l:m/%3An', '/'
  ])
})

t.test('what is given stays as it is, and is what the task gets', async t => {
  const { app, ready, refuses } = await start(t, { ajv: { customOptions: { removeAdditional: 'all', useDefaults: true, coerceTypes: true } } })
  const bodies: unknown[] = []
  const body = { type: 'object', required: ['n'], properties: { n: { type: 'number' }, d: { type: 'string', default: 'x' }, at: { type: 'string' } } }
  const task = app.task({
    url: '/task',
    schema: { body, querystring: { type: 'object', properties: { l: { type: 'number', default: 1 } } } },
    preValidation: async ({ body }) => { bodies.push(structuredClone(body)) },
    handler: async ({ body }) => { bodies.push(body) }
  })
  await ready()
  const payload = Object.freeze({ n: '1', extra: Object.freeze({ a: 1 }), at: new Date(0) })
  const query = Object.freeze({ l: '2' })
  await app.taskqueue.add(task, { payload, query })
  t.strictSame(payload, { n: '1', extra: { a: 1 }, at: new Date(0) })
  await until(() => bodies.length === 2)
  t.strictSame(bodies, [{ n: '1', extra: { a: 1 }, at: '1970-01-01T00:00:00.000Z' }, { n: 1, at: '1970-01-01T00:00:00.000Z', d: 'x' }])
  await refuses(task, { payload: { n: {} } }, 'FST_TASKQUEUE_INVALID_INPUT', 'body/n must be number')
})

t.test('a task of a route has a body of its own, or none', async t => {
  const { app, ready, add, runs } = await start(t)
  const bodies: unknown[] = []
  const task = app.task({ url: '/task', handler: async ({ body }) => { bodies.push(body) } })
  await ready()
  for (const options of [undefined, {}, { payload: null }, { payload: { a: 1 } }]) await add(({ taskqueue }) => taskqueue.add(task, options))
  await until(() => runs.length === 4)
  await app.close()
  t.strictSame(bodies, [undefined, undefined, undefined, { a: 1 }])
})

t.test('a body is checked by its content type, where the schema has several, and not where only the route can read it', async t => {
  const { app, ready, refuses } = await start(t)
  const only = (type: string) => ({ schema: { type } })
  const task: TaskRoute = app.task({
    url: '/task',
    schema: { body: { content: { 'application/json': only('object'), 'application/vnd.api+json': only('array'), 'text/plain': { schema: { type: 'string', minLength: 3 } } } } },
    handler: async () => {}
  })
  const form: TaskRoute = app.task({ url: '/form', schema: { body: { type: 'object', required: ['a'] } }, handler: async () => {} })
  await ready()
  const accepts = async (route: TaskRoute, options: object) => { t.type(await app.taskqueue.add(route, options), 'string', inspect(options)) }
  const asJson = { headers: { 'Content-Type': 'application/vnd.api+json; charset=utf-8' } }
  await accepts(task, { payload: {} })
  await accepts(task, { payload: [], ...asJson })
  await accepts(task, { payload: 'abc' })
  await accepts(form, { payload: new URLSearchParams() })
  await accepts(form, { payload: Buffer.from('a') })
  await refuses(task, { payload: [] }, 'FST_TASKQUEUE_INVALID_INPUT', 'body must be object')
  await refuses(task, { payload: {}, ...asJson }, 'FST_TASKQUEUE_INVALID_INPUT', 'body must be array')
  await refuses(task, { payload: 'ab' }, 'FST_TASKQUEUE_INVALID_INPUT', 'body must NOT have fewer than 3 characters')
  await refuses(form, { payload: '{', headers: { 'content-type': 'application/json' } }, 'FST_TASKQUEUE_INVALID_INPUT', ': body is not JSON')
})

t.test('a route in a plugin has its prefix and its schemas to refer to', async t => {
  const { app, ready, refuses, runs } = await start(t)
  app.addSchema({ $id: 'outer', type: 'object', required: ['to'], properties: { to: { type: 'string' } } })
  const routes: TaskRoute[] = []
  for (const [prefix, type] of [['/v1', 'string'], ['/v2/:tenant', 'integer']] as const) {
    await app.register(async child => {
      child.addSchema({ $id: 'inner', type: 'object', properties: { id: { type } }, required: ['id'] })
      routes.push(
        child.task({ url: '/task', schema: { body: { $ref: 'outer#' } }, handler: async () => {} }),
        child.task({ url: '/', schema: { body: { $ref: 'inner#' } }, handler: async () => {} })
      )
    }, { prefix })
  }
  await ready()
  t.strictSame(routes.map(({ url }) => url), ['/v1/task', '/v1', '/v2/:tenant/task', '/v2/:tenant'])
  const [outer, inner, outerOfTenant, innerOfTenant] = routes as [TaskRoute, TaskRoute, TaskRoute, TaskRoute]
  const params = { tenant: 'x' }
  for (const [route, options] of [
    [outer, { payload: { to: 'ada' } }],
    [inner, { payload: { id: 'a' } }],
    [outerOfTenant, { payload: { to: 'ada' }, params }],
    [innerOfTenant, { payload: { id: 1 }, params }]
  ] as const) await app.taskqueue.add(route, options)
  await refuses(outer, { payload: {} }, 'FST_TASKQUEUE_INVALID_INPUT', "A task for POST /v1/task cannot be added: body must have required property 'to'")
  await refuses(inner, { payload: {} }, 'FST_TASKQUEUE_INVALID_INPUT', "body must have required property 'id'")
  await refuses(innerOfTenant, { payload: { id: 'a' }, params }, 'FST_TASKQUEUE_INVALID_INPUT', 'A task for POST /v2/:tenant cannot be added: body/id must be integer')
  await refuses(innerOfTenant, { payload: { id: 1 } }, 'FST_TASKQUEUE_INVALID_INPUT', 'params/tenant must be')
  await until(() => runs.length === 4)
  t.strictSame(runs.map(({ url }) => url), ['/v1/task', '/v1', '/v2/x/task', '/v2/x'])
})

t.test('before the app is ready there is nothing to check with', async t => {
  const { app, ready, runs } = await start(t)
  const task: TaskRoute = app.task({ url: '/task', schema: { body: { type: 'object' } }, handler: async () => {} })
  await t.rejects(app.taskqueue.add(task, { payload: {} }), {
    code: 'FST_TASKQUEUE_INVALID_INPUT',
    message: 'A task for POST /task cannot be added: its schemas are compiled by app.ready(), which has not been called'
  })
  app.addHook('onReady', async () => { await app.taskqueue.add(task, { payload: {} }) })
  await ready()
  await until(() => runs.length === 1)
})

t.test('whatever compiles the schemas of a route checks its tasks', async t => {
  for (const [title, validatorCompiler, reason] of [
    ['errors in a list', () => (data: unknown) => data === null ? { error: [{ message: 'is empty', keyword: '', instancePath: '/a', schemaPath: '', params: {} }] } : { value: 1 }, 'body/a is empty'],
    ['an error', () => (data: unknown) => data === null ? { error: new Error('is empty') } : { value: 1 }, 'body: is empty'],
    ['false', () => Object.assign((data: unknown) => data !== null, { errors: [{ message: 'is empty' }] }), 'body is empty'],
    ['nothing, which is no error', () => () => undefined, ''],
    ['a promise, which only the route can wait for', () => async (data: unknown) => { if (data === null) throw new Error('is empty') }, undefined]
  ] as Array<[string, () => FastifyValidationResult, string?]>) {
    const { app, ready, add, refuses } = await start(t)
    const task: TaskRoute = app.task({ url: '/task', schema: { body: {} }, validatorCompiler, handler: async () => {} })
    await ready()
    t.equal((await add(({ taskqueue }) => taskqueue.add(task, { payload: {} }))).error, undefined, title)
    await until(async () => Object.values(await app.taskqueue.queue('default').counts()).every(count => count === 0))
    if (reason === '') await app.taskqueue.add(task)
    else if (reason !== undefined) await refuses(task, {}, 'FST_TASKQUEUE_INVALID_INPUT', reason)
    else {
      await app.taskqueue.add(task)
      await until(async () => (await app.taskqueue.queue('default').counts()).dead === 1)
    }
  }
})

t.test('schemas are compiled once', async t => {
  const { app, ready } = await start(t)
  let compiled = 0
  const validatorCompiler = () => { compiled++; return () => true }
  const task: TaskRoute = app.task({ url: '/task', schema: { body: {}, querystring: {} }, validatorCompiler, handler: async () => {} })
  await ready()
  const byFastify = compiled
  for (let n = 0; n < 3; n++) await app.taskqueue.add(task)
  t.equal(compiled - byFastify, 2)
})

t.test('a route has defaults for its tasks, over which add has the last word', async t => {
  const { app, ready, runs } = await start(t, {}, { queues: { default: {}, mail: {}, slow: { consumer: { maxRetries: 5, backoff: () => 0 } } } })
  let attempts = 0
  const task = app.task({
    url: '/task',
    config: { task: { queue: 'slow', maxRetries: 1, timeoutMs: 50 } },
    handler: async ({ task }) => {
      attempts++
      if (task!.queue === 'slow') await new Promise(resolve => { task!.signal.addEventListener('abort', resolve) })
    }
  })
  await ready()
  await app.taskqueue.add(task)
  await until(async () => (await app.taskqueue.queue('slow').counts()).dead === 1)
  t.equal(attempts, 2, 'both ended by the timeout')
  await app.taskqueue.add(task, { maxRetries: 2 })
  await until(async () => (await app.taskqueue.queue('slow').counts()).dead === 2)
  t.equal(attempts, 5)
  await app.taskqueue.add(task, { queue: 'mail', maxRetries: undefined })
  await until(() => runs.length === 6)
  t.equal(runs.at(-1)!.queue, 'mail')
})

t.test('wrong options of a route are refused when it is made', async t => {
  const { app } = await start(t)
  const make = (options: object) => () => { app.task({ url: '/task', handler: async () => {}, ...options }) }
  for (const [options, code, message] of [
    [{ method: 'HEAD' }, 'FST_TASKQUEUE_INVALID_METHOD', 'got "HEAD"'],
    [{ method: ['POST'] }, 'FST_TASKQUEUE_INVALID_METHOD', 'got an array'],
    [{ constraints: { taskOnly: true } }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'constraints' must be left out"],
    [{ config: { task: { queue: 'none' } } }, 'FST_TASKQUEUE_UNKNOWN_QUEUE', 'Queue "none"'],
    [{ config: { task: { maxRetries: -1 } } }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'config.task.maxRetries' must be a whole number"],
    [{ config: { task: { timeoutMs: 0 } } }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'config.task.timeoutMs' must be a whole number"],
    [{ config: { task: { delayMs: 0 } } }, 'FST_TASKQUEUE_INVALID_OPTION', "Option 'config.task.delayMs' must be one of queue, priority, key, maxRetries, timeoutMs"],
    [{ handler: undefined }, 'FST_ERR_ROUTE_MISSING_HANDLER', 'Missing handler']
  ] as Array<[object, string, string]>) {
    t.throws(make(options), { code, message: new RegExp(message.replace(/[[\]]/g, '\\$&')) }, inspect(options))
  }
})

t.test('with TypeBox', async t => {
  const { app: untyped, ready, refuses, runs } = await start(t)
  const app = untyped.withTypeProvider<TypeBoxTypeProvider>().setValidatorCompiler(TypeBoxValidatorCompiler)
  const task = app.task({
    url: '/users/:id',
    schema: {
      body: Type.Object({ to: Type.String(), cc: Type.Optional(Type.Array(Type.String())) }),
      querystring: Type.Object({ draft: Type.Optional(Type.Boolean()) }),
      params: Type.Object({ id: Type.Integer() })
    },
    handler: async ({ body, params, query }) => {
      const typed: [string, string[] | undefined, number, boolean | undefined] = [body.to, body.cc, params.id, query.draft]
      // @ts-expect-error: the schema has no such property
      return [typed, body.bcc]
    }
  })
  await ready()
  await app.taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 1 }, query: { draft: true } })
  await refuses(task, { payload: { to: 1 }, params: { id: 1 } }, 'FST_TASKQUEUE_INVALID_INPUT', 'body/to must be string')
  await until(() => runs.length === 1)

  typesOnly(({ taskqueue }) => {
    taskqueue.add(task, { payload: { to: 'ada', cc: ['bob'] }, params: { id: 1 }, queue: 'mail', id: '1', delayMs: 1, headers: { 'x-a': 'b' } })
    app.taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 1 } })
    // @ts-expect-error: it must have a payload and params
    taskqueue.add(task)
    // @ts-expect-error: it must have a payload
    taskqueue.add(task, { params: { id: 1 } })
    // @ts-expect-error: it must have params
    taskqueue.add(task, { payload: { to: 'ada' } })
    // @ts-expect-error: the payload must be complete
    taskqueue.add(task, { payload: {}, params: { id: 1 } })
    // @ts-expect-error: and of the right type
    taskqueue.add(task, { payload: { to: 1 }, params: { id: 1 } })
    // @ts-expect-error: with nothing else
    taskqueue.add(task, { payload: { to: 'ada', bcc: 'eve' }, params: { id: 1 } })
    // @ts-expect-error: it cannot be none
    taskqueue.add(task, { payload: null, params: { id: 1 } })
    // @ts-expect-error: the schema wants a number
    taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 'x' } })
    // @ts-expect-error: the schema wants a boolean
    taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 1 }, query: { draft: 'x' } })
    // @ts-expect-error: the route has a method
    taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 1 }, method: 'PUT' })
    // @ts-expect-error: no such option
    taskqueue.add(task, { payload: { to: 'ada' }, params: { id: 1 }, delay: 1 })
    // @ts-expect-error: the same outside of requests
    app.taskqueue.add(task, { payload: { to: 1 }, params: { id: 1 } })
  })
})

t.test('with Zod, which takes one type and makes another of it', async t => {
  const { app: untyped, ready, refuses, runs } = await start(t)
  const app = untyped.withTypeProvider<ZodTypeProvider>().setValidatorCompiler(zodCompiler)
  const bodies: unknown[] = []
  const task = app.task({
    url: '/task',
    schema: {
      body: z.object({ to: z.string(), at: z.string().transform(text => new Date(text)), copies: z.number().default(1) }),
      querystring: z.object({ limit: z.string().transform(Number) })
    },
    handler: async ({ body, query }) => {
      const at: Date = body.at
      const sum: number = body.copies + query.limit
      bodies.push([body.to, at.getTime(), sum])
    }
  })
  await ready()
  await app.taskqueue.add(task, { payload: { to: 'ada', at: '1970-01-01T00:00:01Z' }, query: { limit: '2' } })
  await refuses(task, { payload: { at: '' }, query: { limit: '2' } }, 'FST_TASKQUEUE_INVALID_INPUT', 'body/to Invalid input: expected string')
  await until(() => runs.length === 1 && bodies.length === 1)
  t.strictSame(bodies, [['ada', 1000, 3]])

  typesOnly(({ taskqueue }) => {
    // @ts-expect-error: what it takes is a string
    taskqueue.add(task, { payload: { to: 'ada', at: new Date() }, query: { limit: '2' } })
    // @ts-expect-error: what it takes is a string
    taskqueue.add(task, { payload: { to: 'ada', at: '' }, query: { limit: 2 } })
    // @ts-expect-error: it must have a query
    taskqueue.add(task, { payload: { to: 'ada', at: '' } })
  })
})

t.test('with JSON Schema', async t => {
  const { app: untyped, ready, refuses, runs } = await start(t)
  const app = untyped.withTypeProvider<JsonSchemaToTsProvider>()
  const task = app.task({
    url: '/task',
    schema: {
      body: { type: 'object', required: ['to'], additionalProperties: false, properties: { to: { type: 'string' }, kind: { enum: ['a', 'b'] } } },
      querystring: { type: 'object', required: ['limit'], properties: { limit: { type: 'integer' } } }
    },
    handler: async ({ body, query }) => {
      const typed: [string, 'a' | 'b' | undefined, number] = [body.to, body.kind, query.limit]
      return typed
    }
  })
  await ready()
  await app.taskqueue.add(task, { payload: { to: 'ada', kind: 'a' }, query: { limit: 1 } })
  await refuses(task, { payload: { to: 'ada', kind: 'c' }, query: { limit: 1 } }, 'FST_TASKQUEUE_INVALID_INPUT', 'body/kind must be equal to one of the allowed values')
  await until(() => runs.length === 1)

  typesOnly(({ taskqueue }) => {
    // @ts-expect-error: it must be a string
    taskqueue.add(task, { payload: { to: 1 }, query: { limit: 1 } })
    // @ts-expect-error: it must be one of two
    taskqueue.add(task, { payload: { to: 'ada', kind: 'c' }, query: { limit: 1 } })
    // @ts-expect-error: it must have a query
    taskqueue.add(task, { payload: { to: 'ada' } })
  })
})

t.test('without a type provider there are the types that are given, and those of the url', async t => {
  const { app, ready, runs } = await start(t)
  const given = app.task<{ Body: { to: string }, Querystring: { limit?: number }, Params: { id: string } }>({
    url: '/given/:id',
    handler: async ({ body, query, params }) => {
      const typed: [string, number | undefined, string] = [body.to, query.limit, params.id]
      return typed
    }
  })
  const schemed = app.task({ url: '/schemed', schema: { body: { type: 'object' } }, handler: async () => {} })
  const free = app.task({ url: '/free', handler: async () => {} })
  const users = app.task({ url: '/users/:user/files/:file.:type/:page?', handler: async () => {} })
  const user = app.task({ url: '/users/:user/:page?', handler: async () => {} })
  const files = app.task({ url: '/files/*', handler: async () => {} })
  const verbs = app.task({ url: '/jobs::all/:job::run/::now', handler: async () => {} })
  await ready()
  await app.taskqueue.add(given, { payload: { to: 'ada' }, params: { id: '1' } })
  await app.taskqueue.add(schemed, { payload: { any: 1 } })
  await app.taskqueue.add(free)
  await app.taskqueue.add(free, { payload: { a: 1 }, query: { b: [1, 2] } })
  await app.taskqueue.add(users, { params: { user: 1, file: 'a', type: 'txt' } })
  await app.taskqueue.add(user, { params: { user: 1, page: 2 } })
  await app.taskqueue.add(files, { params: { '*': 'a/b' } })
  await app.taskqueue.add(verbs, { params: { job: 1 } })
  await until(() => runs.length === 8)

  typesOnly(({ taskqueue }) => {
    // @ts-expect-error: two colons are no parameter
    taskqueue.add(verbs, { params: { job: 1, now: 1 } })
    // @ts-expect-error: it must be a string
    taskqueue.add(given, { payload: { to: 1 }, params: { id: '1' } })
    // @ts-expect-error: it must have params
    taskqueue.add(given, { payload: { to: 'ada' } })
    // @ts-expect-error: it must have a payload
    taskqueue.add(schemed)
    // @ts-expect-error: the url has no parameters
    taskqueue.add(free, { params: { id: 1 } })
    // @ts-expect-error: it must have the parameters of its url
    taskqueue.add(user)
    // @ts-expect-error: all of them
    taskqueue.add(user, { params: { page: 1 } })
    // @ts-expect-error: and no others
    taskqueue.add(user, { params: { user: 1, id: 1 } })
    // @ts-expect-error: it must say which file
    taskqueue.add(files)
    // @ts-expect-error: no method of a task
    app.task({ url: '/no', method: 'HEAD', handler: async () => {} })
    // @ts-expect-error: the only constraint is that of tasks
    app.task({ url: '/no', constraints: { host: 'a' }, handler: async () => {} })
    // @ts-expect-error: no such default
    app.task({ url: '/no', config: { task: { delayMs: 1 } }, handler: async () => {} })
    // @ts-expect-error: a route is one that app.task has made
    taskqueue.add({ method: 'POST', url: '/users' })
  })
})

t.test('the example does what it says', async t => {
  const { build } = await import('../../example/typed-tasks.js')
  const mails: string[] = []
  const app = await build({}, mail => { mails.push(mail) })
  t.teardown(() => app.close())
  const signUp = async (email: string) => await app.inject({ method: 'POST', url: '/signup', payload: { email } })
  t.match(await signUp('ada@example.com'), { statusCode: 202 })
  t.match((await signUp('nobody')).json(), { statusCode: 500, code: 'FST_TASKQUEUE_INVALID_INPUT', message: /body\/to must match format "email"/ })
  await until(() => mails.length > 0)
  t.strictSame(mails, ['Willkommen, ada@example.com!'])
})

/** Has the compiler check a function that is never called. */
function typesOnly (_typed: (request: FastifyRequest) => void): void {}

async function start (t: Test, server: FastifyServerOptions = {}, options: TaskqueueOptions = {}) {
  const app: FastifyInstance = Fastify(server)
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: { maxRetries: 0 }, ...options })
  const runs: Array<{ method: string, url: string, queue: string }> = []
  app.addHook('onRequest', async ({ method, url, task }) => { if (task !== null) runs.push({ method, url, queue: task.queue }) })
  let work: (request: FastifyRequest) => unknown
  app.post('/add', async request => { await work(request) })

  /** Has a request do something; returns what it has thrown. */
  const add = async (given: typeof work): Promise<{ error?: unknown }> => {
    const result: { error?: unknown } = {}
    work = request => {
      try {
        return given(request)
      } catch (error) {
        result.error = error
        return undefined
      }
    }
    await app.inject({ method: 'POST', url: '/add', payload: { password: 'x' } })
    return result
  }
  return {
    app,
    runs,
    add,
    ready: async () => { await app.ready() },

    /** In a request and outside, and nothing is queued. */
    async refuses (target: TaskRoute | string, options: unknown, code: keyof typeof errorCodes, message: string) {
      const before = await until(() => restOf(app))
      for (const error of [
        (await add(({ taskqueue }) => taskqueue.add(target as string, options as object))).error,
        await app.taskqueue.add(target as string, options as object).catch(error => error)
      ]) {
        t.ok(error instanceof errorCodes[code], `${inspect(options)} is refused with ${code}, and not with ${error}`)
        t.equal((error as { statusCode?: number })?.statusCode, 500)
        t.match((error as Error)?.message, message)
      }
      t.equal(await restOf(app), before)
    }
  }
}

/** What is left in the queues when nothing waits or runs any more. */
async function restOf (app: FastifyInstance): Promise<string | undefined> {
  const counts = await Promise.all(app.taskqueue.queues.map(async queue => await queue.counts()))
  return counts.some(({ waiting, running }) => waiting + running > 0) ? undefined : inspect(counts)
}
