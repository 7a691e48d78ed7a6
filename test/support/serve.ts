import Fastify, { type FastifyInstance, type FastifyServerOptions } from 'fastify'
import taskqueue, { type TaskqueueOptions } from '../../lib/index.js'

interface Context { teardown (run: () => unknown): void }

export interface ServeOptions {
  /** Before the plugin is registered. */
  before?: (app: FastifyInstance) => unknown
  /** After it, and before the app listens. */
  declare?: (app: FastifyInstance) => unknown
  taskqueue?: TaskqueueOptions
  fastify?: FastifyServerOptions
}

export interface Served {
  app: FastifyInstance
  url: string
  /** What it has logged since it listens, from level warn on. */
  logs: Array<{ level: number, msg: string, err?: { code?: string, message: string }, [key: string]: unknown }>
}

/** An app with the plugin, listening until the end of the test. */
export async function serve (t: Context, { before, declare, taskqueue: options = {}, fastify }: ServeOptions): Promise<Served> {
  const logs: Served['logs'] = []
  const app = Fastify({
    logger: { level: 'warn', stream: { write: line => { logs.push(JSON.parse(line)) } } },
    ...fastify
  }) as unknown as FastifyInstance
  t.teardown(() => app.close())
  await before?.(app)
  await app.register(taskqueue, options)
  await declare?.(app)
  const url = await app.listen({ port: 0, host: '127.0.0.1' })
  logs.length = 0
  return { app, url, logs }
}
