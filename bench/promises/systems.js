import { randomUUID } from 'node:crypto'
import { Queue, Worker } from 'bullmq'
import taskqueue from '../../build/lib/index.js'

/** @import { FastifyInstance, FastifyRequest } from 'fastify' */
/** @import { Job } from 'bullmq' */
/** @import { Redis } from 'ioredis' */
/** @import { AppOptions, TaskReport } from './app.js' */

/** @typedef {'fastify-taskqueue' | 'BullMQ'} SystemName */

/** @typedef {Record<'waiting' | 'delayed' | 'running' | 'dead', number>} Counts Of the tasks of a queue, by state. */

/**
 * How an app adds tasks and runs them.
 *
 * @typedef {object} AppQueue
 * @property {() => Promise<void>} start Begins to run tasks.
 * @property {(request: FastifyRequest, url: string, delayMs?: number) => Promise<void>} add
 * @property {() => Promise<Counts>} counts
 * @property {() => Promise<void>} close Closes the app too.
 */

/**
 * Prepares an app for a system.
 *
 * @callback System
 * @param {FastifyInstance} app
 * @param {AppOptions & { shared: Redis | undefined }} options
 * @param {(report: TaskReport) => void} tell
 * @returns {Promise<AppQueue>}
 */

/**
 * How an app adds tasks and runs them, by system. The tasks are requests to the app in each,
 * and all options not named here are the system's defaults.
 *
 * @type {Record<SystemName, System>}
 */
export const systems = {
  async 'fastify-taskqueue' (app, { redis, queues, concurrency }) {
    await app.register(taskqueue, {
      redis,
      queues: Object.fromEntries(queues.map(name => [name, {}])),
      consumer: concurrency > 0 && { concurrency }
    })
    return {
      async start () {},
      async add (request, url, delayMs) { request.taskqueue.add(url, { queue: queues[0], delayMs }) },
      counts: () => app.taskqueue.queue(queues[0]).counts(),
      close: () => app.close()
    }
  },

  async BullMQ (app, { redis, queues, concurrency, queueConnection, shared, ownIds = false }, tell) {
    const connection = { ...redis, ...queueConnection }
    const made = queues.map(name => new Queue(name, { connection: shared ?? connection }))
    const [queue] = made
    /** @type {Worker[]} */
    let workers = []
    /** @param {Error} err */
    const onError = err => { app.log.error({ err }) }
    for (const queue of made) queue.on('error', onError)
    await queue.waitUntilReady()

    /** @param {Job} job */
    async function run ({ data: { url } }) {
      if (typeof url !== 'string') {
        tell({ event: 'begins', n: 'without data' })
        return
      }
      const { statusCode } = await app.inject(url)
      if (statusCode >= 400) throw new Error(`it answered with ${statusCode}`)
    }

    return {
      async start () {
        if (concurrency === 0) return
        const connection = shared ?? { ...redis, maxRetriesPerRequest: null }
        workers = queues.map(name => new Worker(name, run, { connection, concurrency }))
        for (const worker of workers) worker.on('error', onError)
        await Promise.all(workers.map(worker => worker.waitUntilReady()))
      },
      async add (_request, url, delayMs) {
        await queue.add('task', { url }, { delay: delayMs, jobId: ownIds ? randomUUID() : undefined })
      },
      async counts () {
        const { waiting, prioritized, delayed, active, failed } = await queue.getJobCounts()
        return { waiting: waiting + prioritized, delayed, running: active, dead: failed }
      },
      async close () {
        await Promise.all(workers.map(worker => worker.close()))
        await Promise.all(made.map(queue => queue.close()))
        await app.close()
      }
    }
  }
}
