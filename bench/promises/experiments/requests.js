/** Requests that add tasks, and whose answer or whose Redis is in trouble. */
import { setTimeout as sleep } from 'node:timers/promises'
import { startProxy } from '../../../build/test/support/tcp-proxy.js'
import { until } from '../../../build/test/support/until.js'

/** @import { AppOptions } from '../app.js' */
/** @import { AppBed, AppProcess } from '../app-bed.js' */
/** @import { SystemName } from '../systems.js' */
/** @import { Experiment } from './index.js' */

/**
 * Adds a task and waits until it has run: by then all that were added before have begun.
 *
 * @param {AppProcess} app
 */
async function runBarrier (app) {
  await until(async () => (await app.order([{ n: 'barrier' }])).status === 200, 'a request that succeeds')
  await until(() => app.ended('barrier').length > 0, 'the barrier', 60_000)
}

/** @type {Experiment} */
export async function failingRequests (system, bed) {
  const app = await bed.start(system, await bed.redis())
  for (let i = 0; i < 100; i++) await app.order([{ n: `failed-${i}` }], { fail: true })
  await runBarrier(app)
  return { 'tasks that ran for 100 requests that failed': app.begun().filter(({ n }) => n !== 'barrier').length }
}

/**
 * @param {SystemName} system
 * @param {AppBed} bed
 * @param {Partial<AppOptions>} [options]
 */
async function loseReplies (system, bed, options) {
  const redis = await bed.redis({ tcp: true })
  const proxy = await startProxy(bed, { host: '127.0.0.1', port: redis.port })
  const app = await bed.start(system, { host: '127.0.0.1', port: proxy.port }, { concurrency: 0, ...options })
  const watcher = await bed.start(system, redis, { concurrency: 0 })
  let succeeded = 0
  for (let i = 0; i < 50; i++) {
    const { deaf } = proxy
    const n = `lost-${i}-`
    proxy.loseRepliesTo = n
    const order = app.order([{ n }])
    await until(() => proxy.deaf > deaf, 'the task on its way')
    proxy.loseRepliesTo = undefined
    // Redis has long carried it out when the connection goes.
    await sleep(50)
    proxy.cut()
    if ((await order).status === 200) succeeded++
  }
  const { waiting } = await watcher.ask('counts')
  return { 'requests that succeeded, of 50': succeeded, 'tasks queued for these 50': waiting }
}

/** @type {Experiment} */
export const lostReplies = (system, bed) => loseReplies(system, bed)
/** @type {Experiment} */
export const lostRepliesWithIds = (system, bed) => loseReplies(system, bed, { ownIds: true })

const LONGEST_MS = 40_000

/**
 * @param {SystemName} system
 * @param {AppBed} bed
 * @param {'freeze' | 'stop'} silence
 * @param {Partial<AppOptions>} [options]
 */
async function holdRequests (system, bed, silence, options) {
  const redis = await bed.redis()
  const app = await bed.start(system, redis, options)
  await runBarrier(app)
  await redis[silence]()
  // Until the client has noticed what there is to notice.
  await sleep(1000)
  const answers = await Promise.all(Array.from({ length: 5 }, (_, i) =>
    app.order([{ n: `held-${i}` }], { longestMs: LONGEST_MS })))
  if (silence === 'freeze') redis.thaw()
  else await redis.start()
  app.reports.length = 0
  await runBarrier(app)
  const longestMs = Math.max(...answers.map(({ ms }) => ms))
  const statuses = [...new Set(answers.map(({ status }) => status ?? 'none'))].join(', ')
  const late = answers.filter(({ status }, i) => status !== 200 && app.begun(`held-${i}`).length > 0)
  return {
    'longest wait for an answer': longestMs >= LONGEST_MS
      ? `none after ${LONGEST_MS / 1000} s`
      : `${(longestMs / 1000).toFixed(1)} s, status ${statuses}`,
    'tasks that ran later, for 5 requests without success': late.length
  }
}

const AS_ADVISED = { queueConnection: { enableOfflineQueue: false } }

/** @type {Experiment} */
export const frozenRequests = (system, bed) => holdRequests(system, bed, 'freeze')
/** @type {Experiment} */
export const unreachableRequests = (system, bed) => holdRequests(system, bed, 'stop')
/** @type {Experiment} */
export const frozenRequestsAsAdvised = (system, bed) => holdRequests(system, bed, 'freeze', AS_ADVISED)
/** @type {Experiment} */
export const unreachableRequestsAsAdvised = (system, bed) => holdRequests(system, bed, 'stop', AS_ADVISED)
