import * as client from 'prom-client'
import dashboard from '../../../build/lib/dashboard/dashboard.js'
import taskqueue from '../../../build/lib/index.js'
import metrics from '../../../build/lib/metrics/metrics.js'
import { RedisMeter } from '../../support/meter.js'
import { forEachOf, median, range } from '../../support/statistics.js'
import { number, table } from '../../support/text.js'
import { atMost } from '../goals.js'
import { makeApp, PATH, payloadOf } from '../route.js'

/** @import { Measure } from './index.js' */

/** @typedef {keyof typeof LOOKS} Look */
/** @typedef {{ look: Look, waiting: number }} LookingTrial */
/** @typedef {{ ms: number, commands: number, redisUs: number }} LookingFigures */
/** @typedef {Measure<LookingTrial, LookingFigures, typeof roles>} Looking */

export const title = 'Looking at long queues'
export const roundsOf = () => 3

/** Where to look, relative to the dashboard; `ID` stands for a task in the middle of the line. */
const LOOKS = {
  scrape: '',
  overview: '',
  list: 'queue?name=default&state=waiting',
  'page 20': 'queue?name=default&state=waiting&offset=1000',
  task: 'task?id=ID',
  dead: 'dead?name=default',
  processes: 'processes'
}
const [SIZES, QUICK_SIZES] = [[10_000, 1_000_000], [1000]]
const DEAD = 2000
const TIMES = 20

/** @type {Looking['trials']} */
export function trials ({ quick }) {
  const looks = /** @type {Look[]} */ (Object.keys(LOOKS))
  return (quick ? QUICK_SIZES : SIZES).flatMap(waiting => looks.map(look => ({ look, waiting })))
}

/** @type {Looking['measure']} */
export async function measure (stage, { look, waiting }) {
  return await stage.play('operator', { look, waiting, redis: (await stage.redis()).path }).result
}

export const roles = {
  /** @param {{ look: Look, waiting: number, redis: string }} options */
  async operator ({ look, waiting, redis }) {
    const app = makeApp(() => {})
    await app.register(taskqueue, {
      redis: { path: redis }, consumer: { autoStart: false, maxRetries: 0, concurrency: 100 }
    })
    const register = new client.Registry()
    await app.register(metrics, { client, register })
    await app.register(dashboard, { prefix: '/queues', public: true })
    app.get('/dies/:n', async (_request, reply) => reply.code(422).send({}))
    await app.ready()
    await app.taskqueue.addAll(range(DEAD).map(n => ({ url: `/dies/${n}` })))
    await app.taskqueue.drain()
    let id = ''
    for (let n = 0; n < waiting; n += 1000) {
      const ids = await app.taskqueue.addAll(range(1000).map(i => ({ url: PATH, payload: payloadOf(n + i) })))
      if (n <= waiting / 2) id = String(ids[0])
    }
    const visit = async () => {
      if (look === 'scrape') {
        await register.metrics()
        return
      }
      const { statusCode, body } = await app.inject(`/queues/${LOOKS[look].replace('ID', id)}`)
      if (statusCode !== 200) throw new Error(body)
    }
    await forEachOf(TIMES, 1, visit)
    const meter = new RedisMeter(redis)
    await meter.start()
    /** @type {number[]} */
    const times = []
    await forEachOf(TIMES, 1, async () => {
      // The overview would be remembered for a second.
      if (look === 'overview') await new Promise(resolve => { setTimeout(resolve, 1001) })
      const start = performance.now()
      await visit()
      times.push(performance.now() - start)
    })
    const { commands, redisUs } = await meter.read(TIMES)
    meter.close()
    await app.close()
    return { ms: median(times), commands, redisUs }
  }
}

/** @type {Looking['tables']} */
export function tables (results) {
  const made = trials({ tasks: 0, rounds: 0, quick: false }).filter(trial => results.has(trial))
  const rows = made.map(trial => [
    `${trial.look}, ${trial.waiting.toLocaleString('en')} waiting`,
    ...results.medians(trial, 'ms', 'commands', 'redisUs').map(number)
  ])
  return [
    `The dashboard and a scrape of metrics, on Redis, with ${DEAD.toLocaleString('en')} dead letters besides what ` +
      'waits. Commands count those within scripts.',
    table(['what, and how much waits', 'ms', 'commands', 'CPU of Redis, µs'], rows)
  ]
}

/** @type {Looking['goals']} */
export function goals (results) {
  return /** @type {Look[]} */ (Object.keys(LOOKS)).map(look =>
    atMost(50, `ms, ${look}, 1,000,000 waiting`, results.median({ look, waiting: 1_000_000 }, 'ms')))
}
