import taskqueue from '../../../build/lib/index.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { forEachOf, median, range } from '../../support/statistics.js'
import { number, spread, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'
import { makeApp, PATH, payloadOf } from '../route.js'

/** @import { FastifyInstance } from 'fastify' */
/** @import { OpenQueue, QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/**
 * Requests that add so many tasks each, so many of them at once.
 *
 * @typedef {{ adds: number, atOnce: number }} Shape
 */
/** @typedef {{ contender: QueueName } & Shape} CommittingTrial */

/**
 * @typedef {object} CommittingFigures
 * @property {number} requestUs The time of a request that adds none.
 * @property {number} addingUs That of a request that adds.
 * @property {number} extraUs How much more that is for each task.
 * @property {number} extraLatencyUs How much later its answer comes.
 * @property {number} nodeUs How much more CPU it takes for each task.
 * @property {number} perSecond
 * @property {number} redisUs
 * @property {number} commands
 */

/** @typedef {Measure<CommittingTrial, CommittingFigures, typeof roles>} Committing */

export const title = 'Adding tasks in a request'

/** @type {Shape[]} */
const SHAPES = [{ adds: 1, atOnce: 1 }, { adds: 1, atOnce: 50 }, { adds: 100, atOnce: 1 }, { adds: 100, atOnce: 10 }]
/** @type {QueueName[]} */
const ADDERS = ['ours', 'bullmq', 'bee']

/** @type {Committing['trials']} */
export function trials () {
  return SHAPES.flatMap(shape => ADDERS.map(contender => ({ contender, ...shape })))
}

/** @type {Committing['measure']} */
export async function measure (stage, trial, { tasks }) {
  const { path } = await stage.redis()
  const requests = Math.max(100, Math.ceil(tasks / (trial.adds === 1 ? 4 : 100)))
  return await stage.play('server', { ...trial, redis: path, requests }).result
}

const BLOCKS = 10

/** @typedef {{ us: number, latencyUs: number, nodeUs: number }} Block What a request took in a block of them. */
/** @typedef {'/none' | '/adds'} Url */

export const roles = {
  /**
   * Requests that add and such as do not take turns, in blocks.
   *
   * @param {CommittingTrial & { redis: string, requests: number }} options
   * @returns {Promise<CommittingFigures>}
   */
  async server ({ contender, redis, adds, atOnce, requests }) {
    const app = makeApp(() => {})
    const close = contender === 'ours'
      ? await addRoutesOfOurs(app, redis, adds)
      : addRoutes(app, await contenders[contender].open({ redis, concurrency: 1, onTask () {} }), adds)
    await app.ready()
    const meter = new RedisMeter(redis)
    /** @param {Url} url */
    const request = async url => {
      const { statusCode } = await app.inject({ method: 'POST', url, payload: payloadOf(0) })
      if (statusCode !== 200) throw new Error(`${url} answered with ${statusCode}`)
    }
    await forEachOf(500, atOnce, () => request('/none'))
    await forEachOf(500, atOnce, () => request('/adds'))
    /**
     * @param {Url} url
     * @param {number} count
     * @returns {Promise<Block>}
     */
    const block = async (url, count) => {
      /** @type {number[]} */
      const times = []
      const [cpu, start] = [process.cpuUsage(), performance.now()]
      await forEachOf(count, atOnce, async () => {
        const start = performance.now()
        await request(url)
        times.push((performance.now() - start) * 1000)
      })
      return { us: (performance.now() - start) * 1000 / count, latencyUs: median(times), nodeUs: cpuUs(cpu) / count }
    }
    const count = Math.ceil(requests / BLOCKS)
    /** @type {Record<Url, Block[]>} */
    const blocks = { '/none': [], '/adds': [] }
    /** @type {Url[]} */
    const urls = ['/none', '/adds']
    await meter.start()
    for (let i = 0; i < BLOCKS; i++) {
      for (const url of i % 2 === 0 ? urls : urls.toReversed()) blocks[url].push(await block(url, count))
    }
    const { redisUs, commands } = await meter.read(count * BLOCKS * adds)
    /**
     * @param {Url} url
     * @param {keyof Block} figure
     */
    const of = (url, figure) => median(blocks[url].map(block => block[figure]))
    /** @param {keyof Block} figure */
    const extra = figure => of('/adds', figure) - of('/none', figure)
    meter.close()
    await app.close()
    await close()
    return {
      requestUs: of('/none', 'us'),
      addingUs: of('/adds', 'us'),
      extraUs: extra('us') / adds,
      extraLatencyUs: extra('latencyUs'),
      nodeUs: extra('nodeUs') / adds,
      perSecond: adds * 1e6 / of('/adds', 'us'),
      redisUs,
      commands
    }
  }
}

/**
 * A request adds its tasks to its transaction.
 *
 * @param {FastifyInstance} app
 * @param {string} path
 * @param {number} adds
 */
async function addRoutesOfOurs (app, path, adds) {
  await app.register(taskqueue, { redis: { path }, consumer: false })
  app.post('/none', async () => ({}))
  app.post('/adds', async request => {
    for (let n = 0; n < adds; n++) request.taskqueue.add(PATH, { payload: payloadOf(n) })
    return {}
  })
  // It is closed with the app.
  return async () => {}
}

/**
 * A request adds its tasks before it answers.
 *
 * @param {FastifyInstance} app
 * @param {OpenQueue} queue
 * @param {number} adds
 */
function addRoutes (app, queue, adds) {
  app.post('/none', async () => ({}))
  app.post('/adds', async () => {
    if (adds === 1) await queue.add(0)
    else await queue.addAll(range(adds))
    return {}
  })
  return () => queue.close()
}

const HEADS = [
  '', 'tasks/s', 'a request that adds none, µs', 'one that adds, µs', 'more, µs/task', 'latency more, µs/request',
  'CPU of Node more, µs/task', 'CPU of Redis, µs/task', 'commands/task'
]

/** @type {Committing['tables']} */
export function tables (results) {
  return SHAPES.filter(shape => results.has(shape)).flatMap(shape => {
    const rows = ADDERS.map(contender => ({ contender, ...shape })).map(trial => [
      contenders[trial.contender].label, spread(results.values(trial, 'perSecond')),
      ...results.medians(trial, 'requestUs', 'addingUs', 'extraUs').map(number),
      spread(results.values(trial, 'extraLatencyUs')),
      ...results.medians(trial, 'nodeUs', 'redisUs', 'commands').map(number)
    ])
    return [`### ${sayingOf(shape)}`, table(HEADS, rows)]
  })
}

/** @param {Shape} shape */
function sayingOf ({ adds, atOnce }) {
  return `${adds} ${adds === 1 ? 'task' : 'tasks'} a request, ` +
    (atOnce === 1 ? 'one request at a time' : `${atOnce} requests in flight`)
}

/** @type {Committing['goals']} */
export function goals (results) {
  const shape = { adds: 1, atOnce: 1 }
  const ratio = results.ratio({ contender: 'ours', ...shape }, { contender: 'bee', ...shape }, 'extraLatencyUs')
  return [atMost(1.1, 'latency that a task adds to its request, × Bee-Queue', ratio)]
}
