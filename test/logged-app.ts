import Fastify, { LogController, type FastifyInstance, type FastifyServerOptions } from 'fastify'
import taskqueue, { type TaskqueueOptions } from '../lib/index.js'

export type LogLine = Record<string, any>

/** Makes an app whose log is kept, and which the test closes at its end. It is not ready yet. */
export async function loggedApp (
  t: { teardown (run: () => unknown): void }, options: TaskqueueOptions, server: FastifyServerOptions = {}
): Promise<{ app: FastifyInstance, log: LogLine[] }> {
  const log: LogLine[] = []
  const app: FastifyInstance = Fastify({
    ...server,
    logController: new LogController({ disableRequestLogging: true }),
    logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } }
  } as FastifyServerOptions)
  t.teardown(() => app.close())
  await app.register(taskqueue, options)
  return { app, log }
}

/** Something to wait for until the test says so. */
export function gate (): { opened: Promise<void>, open: () => void } {
  let open!: () => void
  const opened = new Promise<void>(resolve => { open = resolve })
  return { opened, open }
}
