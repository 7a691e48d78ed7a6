import Fastify, { LogController, type FastifyInstance, type FastifyServerOptions } from 'fastify'
import type { Test } from 'tap'
import taskqueue, { type ConsumerOptions, type Store, type TaskqueueOptions } from '../../lib/index.js'
import { until } from './until.js'

import { gate } from './gate.js'

export type LogLine = Record<string, any>

/** Makes an app whose log is kept, and which the test closes at its end. It is not ready yet. */
export async function loggedApp (
  t: Pick<Test, 'teardown'>, options: TaskqueueOptions, server: FastifyServerOptions = {}
): Promise<{ app: FastifyInstance, log: LogLine[], closing: Promise<void> }> {
  const log: LogLine[] = []
  const app: FastifyInstance = Fastify({
    ...server,
    logController: new LogController({ disableRequestLogging: true }),
    logger: { stream: { write (line: string) { log.push(JSON.parse(line)) } } }
  } as FastifyServerOptions)
  t.teardown(() => app.close())
  const { opened: closing, open } = gate()
  app.addHook('preClose', async () => { setImmediate(open) })
  await app.register(taskqueue, options)
  return { app, log, closing }
}

/** An app with one queue, which is kept in the given store, and what the log says of its tasks. */
export async function appOn (
  t: Test, store: Store, { dispatch, ...consumer }: ConsumerOptions & Pick<TaskqueueOptions, 'dispatch'> = {}, queue = 'default', server: FastifyServerOptions = {}
): Promise<{
  app: FastifyInstance
  log: LogLine[]
  /** Resolves when the app, and its consumer, have begun to close. */
  closing: Promise<void>
  add: FastifyInstance['taskqueue']['add']
  /** Resolves with the lines on the ends of a task's attempts, once there are as many. */
  lines (taskId: string, count: number): Promise<LogLine[]>
}> {
  const { app, log, closing } = await loggedApp(t, { queues: { [queue]: { type: () => store } }, consumer, dispatch }, server)
  return {
    app,
    log,
    closing,
    add: app.taskqueue.add,
    async lines (taskId, count) {
      const ends = () => log.filter(line => line.taskId === taskId && ('durationMs' in line || 'reason' in line))
      await until(() => ends().length >= count, `line ${count} on ${taskId}`)
      return ends()
    }
  }
}
