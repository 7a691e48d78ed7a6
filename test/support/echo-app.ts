import Fastify, { type FastifyInstance, type FastifyRequest, type FastifyServerOptions, type InjectOptions } from 'fastify'
import taskqueue, { type AddOptions, type RequestTask, type TaskqueueOptions } from '../../lib/index.js'
import { until } from './until.js'

/** A task as it has reached the app. */
export interface Received {
  readonly method: string
  readonly url: string
  readonly headers: Readonly<Record<string, string>>
  /** Byte for byte; undefined when there was none. */
  readonly body: Buffer | undefined
  readonly task: RequestTask
}

export interface EchoOptions {
  taskqueue?: TaskqueueOptions
  server?: FastifyServerOptions
  /** Adds plugins and content type parsers for the requests that add tasks; those of tasks are not parsed. */
  setUp?: (app: FastifyInstance) => unknown
}

export type Failure = Error & { code?: string }

/** An app that adds tasks below `/task`, where any task is received as it came. */
export async function startEcho (t: { teardown (run: () => unknown): void }, { taskqueue: options, server, setUp }: EchoOptions = {}) {
  const received = new Map<string, Received>()
  let handle: (request: FastifyRequest) => unknown
  const app = Fastify(server)
  t.teardown(() => app.close())
  await app.register(taskqueue, { consumer: { concurrency: 10, maxRetries: 0 }, ...options })
  await setUp?.(app)
  app.route({ method: ['GET', 'POST', 'PUT', 'PATCH', 'DELETE'], url: '/handler', handler: async request => ({ result: await handle(request) }) })
  await app.register(async child => {
    child.removeAllContentTypeParsers()
    child.addContentTypeParser('*', { parseAs: 'buffer' }, (_request, body, done) => { done(null, body) })
    child.all('/task*', { constraints: { taskOnly: true } }, async ({ method, url, headers, body, task }) => {
      received.set(task!.id, { method, url, headers: headers as Record<string, string>, body: body as Buffer | undefined, task: task! })
    })
  })
  await app.ready()

  /** Has a request handled by a function; returns the response. */
  const request = async (work: typeof handle, by: InjectOptions = {}) => {
    handle = work
    return await app.inject({ url: '/handler', ...by })
  }
  const waitFor = async (id: string): Promise<Received> => {
    await until(() => received.has(id), `task ${id}`)
    return received.get(id)!
  }
  return {
    app,
    received,
    request,
    waitFor,

    /** Adds a task in a request and returns what was received of it. */
    async run (url: string, options?: AddOptions, by?: InjectOptions): Promise<Received> {
      let id: string | undefined
      const { statusCode, body } = await request(({ taskqueue }) => { id = taskqueue.add(url, options) }, by)
      if (statusCode !== 200) throw new Error(body)
      return await waitFor(id!)
    },

    /** Adds a task in a request that succeeds all the same; returns what `add` has thrown. */
    async refusal (url: unknown, options?: unknown, by?: InjectOptions): Promise<Failure | undefined> {
      let failure: Failure | undefined
      const { statusCode, body } = await request(({ taskqueue }) => {
        try {
          taskqueue.add(url as string, options as AddOptions)
        } catch (error) {
          failure = error as Failure
        }
      }, by)
      if (statusCode !== 200) throw new Error(body)
      return failure
    },

    /** How many tasks are queued, in whatever state. */
    async queued (): Promise<number> {
      const counts = await Promise.all(app.taskqueue.queues.map(queue => queue.counts()))
      return counts.flatMap(count => Object.values(count) as number[]).reduce((sum, count) => sum + count, 0)
    }
  }
}
