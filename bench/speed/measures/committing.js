import taskqueue from '../../../build/lib/index.js'
import { contenders } from '../contenders.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { makeApp, PATH, payloadOf } from '../route.js'
import { forEachOf, median, range } from '../../support/statistics.js'
import { atMost, number, spread, table } from '../../support/text.js'

export const title = 'Adding tasks in a request'

/**
 * Requests that add so many tasks each, so many of them at once. Where the plugin is the contender
 * a request adds its tasks to its transaction; the others add before they answer.
 */
const SHAPES = [{ adds: 1, atOnce: 1 }, { adds: 1, atOnce: 50 }, { adds: 100, atOnce: 1 }, { adds: 100, atOnce: 10 }]
const ADDERS = ['ours', 'bullmq', 'bee']

export function trials () {
  return SHAPES.flatMap(({ adds, atOnce }) => ADDERS.map(contender => ({ contender, adds, atOnce })))
}

export async function measure (stage, { contender, adds, atOnce }, { tasks }) {
  const { path } = await stage.redis()
  const requests = Math.max(100, Math.ceil(tasks / (adds === 1 ? 4 : 100)))
  return await stage.play('server', { contender, redis: path, adds, atOnce, requests }).result
}

const BLOCKS = 10

export const roles = {
  /** Requests that add and such as do not take turns, in blocks. */
  async server ({ contender, redis, adds, atOnce, requests }) {
    const app = makeApp(() => {})
    const queue = contender === 'ours' ? await addRoutesOfOurs(app, redis, adds) : await addRoutes(app, await contenders[contender].open({ redis, concurrency: 1, onTask () {} }), adds)
    await app.ready()
    const meter = new RedisMeter(redis)
    const request = url => app.inject({ method: 'POST', url, payload: payloadOf(0) }).then(({ statusCode }) => {
      if (statusCode !== 200) throw new Error(`${url} answered with ${statusCode}`)
    })
    for (const url of ['/none', '/adds']) await forEachOf(500, atOnce, () => request(url))
    const block = async (url, count) => {
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
    const blocks = { '/none': [], '/adds': [] }
    await meter.start()
    for (let i = 0; i < BLOCKS; i++) for (const url of i % 2 === 0 ? ['/none', '/adds'] : ['/adds', '/none']) blocks[url].push(await block(url, count))
    const { redisUs, commands } = await meter.read(count * BLOCKS * adds)
    const of = (url, figure) => median(blocks[url].map(block => block[figure]))
    const extra = figure => of('/adds', figure) - of('/none', figure)
    await meter.close()
    await app.close()
    await queue?.close()
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

async function addRoutesOfOurs (app, path, adds) {
  await app.register(taskqueue, { redis: { path }, consumer: false })
  app.post('/none', async () => ({}))
  app.post('/adds', async request => {
    for (let n = 0; n < adds; n++) request.taskqueue.add(PATH, { payload: payloadOf(n) })
    return {}
  })
}

async function addRoutes (app, queue, adds) {
  app.post('/none', async () => ({}))
  app.post('/adds', async () => {
    if (adds === 1) await queue.add(0)
    else await queue.addAll(range(adds))
    return {}
  })
  return queue
}

const HEADS = [
  '', 'tasks/s', 'a request that adds none, µs', 'one that adds, µs', 'more, µs/task', 'latency more, µs/request', 'CPU of Node more, µs/task', 'CPU of Redis, µs/task', 'commands/task'
]

export function tables (results) {
  return SHAPES.filter(shape => results.has(shape)).flatMap(shape => {
    const rows = ADDERS.map(contender => ({ contender, ...shape })).map(trial => [
      contenders[trial.contender].label, spread(results.values(trial, 'perSecond')),
      ...['requestUs', 'addingUs', 'extraUs'].map(figure => number(results.median(trial, figure))),
      spread(results.values(trial, 'extraLatencyUs')),
      ...['nodeUs', 'redisUs', 'commands'].map(figure => number(results.median(trial, figure)))
    ])
    return [`### ${shape.adds} ${shape.adds === 1 ? 'task' : 'tasks'} a request, ${shape.atOnce === 1 ? 'one request at a time' : `${shape.atOnce} requests in flight`}`, table(HEADS, rows)]
  })
}

export function goals (results) {
  const [ours, bee] = ['ours', 'bee'].map(contender => ({ contender, adds: 1, atOnce: 1 }))
  return [atMost(1.2, 'latency that a task adds to its request, × Bee-Queue', results.ratio(ours, bee, 'extraLatencyUs'))]
}
