import type { FastifyInstance } from 'fastify'
import type { QueueHealth } from '../plugin/health.js'
import type { Maker } from './client.js'

const STATES = ['waiting', 'delayed', 'running', 'dead'] as const

interface Question {
  readonly help: string
  /** Returns the value for a queue; undefined if it is not known. */
  readonly answer: (queue: QueueHealth) => number | undefined
}

const QUESTIONS: Readonly<Record<string, Question>> = {
  oldest_waiting_seconds: {
    help: 'How long the first task in line has waited since it was due.',
    answer: ({ oldestMs }) => oldestMs === undefined ? undefined : oldestMs / 1000
  },
  paused: {
    help: '1 if the queue is paused.',
    answer: ({ isPaused }) => isPaused === undefined ? undefined : Number(isPaused)
  },
  rest_seconds: {
    help: 'For how long the whole queue still rests.',
    answer: ({ restMs }) => restMs === undefined ? undefined : restMs / 1000
  },
  store_up: {
    help: '1 if the store of the queue answers this process.',
    answer: ({ isReachable }) => Number(isReachable)
  },
  running: {
    help: 'Tasks that run in this process.',
    answer: ({ consumer }) => consumer?.running
  },
  concurrency: {
    help: 'How many tasks this process runs at once at most.',
    answer: ({ consumer }) => consumer?.concurrency
  }
}

/** Makes the metrics that each scrape asks the open apps for: all of them in one round trip to each store. */
export function makeGauges (make: Maker, apps: ReadonlySet<FastifyInstance>): void {
  let asking: Promise<void> | undefined
  // A scrape collects all metrics at once.
  const ask = () => (asking ??= askAll().finally(() => { asking = undefined }))
  const tasks = make.gauge('tasks', 'Tasks by state, the same in every process.', ask, 'queue', 'state')
  const gauges = Object.entries(QUESTIONS).map(([name, { help, answer }]) =>
    ({ gauge: make.gauge(name, help, ask, 'queue'), answer }))
  const askAll = async () => {
    const healths = await Promise.all([...apps].map(app => app.taskqueue.health()))
    for (const gauge of [tasks, ...gauges.map(({ gauge }) => gauge)]) gauge.reset()
    for (const health of healths.flatMap(({ queues }) => queues)) {
      const { name: queue } = health
      for (const state of STATES) {
        const count = health[state]
        if (count !== undefined) tasks.set({ queue, state }, count)
      }
      for (const { gauge, answer } of gauges) {
        const value = answer(health)
        if (value !== undefined) gauge.set({ queue }, value)
      }
    }
  }
}
