import { Agent, request } from 'node:http'
import taskqueue from '../../../build/lib/index.js'
import { cpuUs } from '../../support/meter.js'
import { forEachOf, median, range } from '../../support/statistics.js'
import { spread, table } from '../../support/text.js'
import { atMost } from '../goals.js'
import { makeApp, PATH, payloadOf } from '../route.js'

/** @import { RequestOptions } from 'node:http' */
/** @import { Line } from '../child.js' */
/** @import { Measure } from './index.js' */

/** @typedef {'GET' | 'POST'} RouteName */
/** @typedef {{ route: RouteName }} RequestsTrial */

/**
 * What a request takes with the plugin, without it (`bare`), and how much more that is.
 *
 * @typedef {Record<'us' | 'bareUs' | 'percent' | 'cpuUs' | 'bareCpuUs' | 'cpuPercent', number>} RequestsFigures
 */

/** @typedef {Measure<RequestsTrial, RequestsFigures, typeof roles>} Requests */

export const title = 'Requests that add nothing'
/** @param {number} rounds */
export const roundsOf = rounds => rounds * 2

const BODY = JSON.stringify(payloadOf(0))
/** @type {Record<RouteName, RequestOptions>} */
const ROUTES = {
  GET: { method: 'GET', path: '/' },
  POST: {
    method: 'POST', path: PATH, headers: { 'content-type': 'application/json', 'content-length': BODY.length }
  }
}
const TRIALS = /** @type {RouteName[]} */ (Object.keys(ROUTES)).map(route => ({ route }))
const AT_ONCE = 10

/** @type {Requests['trials']} */
export function trials () { return TRIALS }

/**
 * Two servers take turns, one with the plugin and one without.
 *
 * @type {Requests['measure']}
 */
export async function measure (stage, { route }, { quick }) {
  const { path } = await stage.redis()
  const [blocks, requests] = quick ? [4, 200] : [60, 1000]
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  /** @param {string | undefined} redis */
  const start = async redis => {
    const actor = stage.play('server', { redis })
    const port = await actor.hearNumber()
    return { actor, port, us: /** @type {number[]} */ ([]), cpuUs: /** @type {number[]} */ ([]) }
  }
  const [ours, bare] = [await start(path), await start(undefined)]
  /** @param {{ port: number }} server */
  const load = ({ port }) => forEachOf(requests, AT_ONCE, () => send({ ...ROUTES[route], port, agent }))
  for (const server of range(5).flatMap(() => [ours, bare])) await load(server)
  for (const block of range(blocks)) {
    for (const server of block % 2 === 0 ? [ours, bare] : [bare, ours]) {
      server.actor.tell('begin')
      await server.actor.hear()
      const start = performance.now()
      await load(server)
      server.us.push((performance.now() - start) * 1000 / requests)
      server.actor.tell('end')
      server.cpuUs.push(await server.actor.hearNumber() / requests)
    }
  }
  agent.destroy()
  /** @param {'us' | 'cpuUs'} figure */
  const percent = figure => (median(range(blocks).map(block => ours[figure][block] / bare[figure][block])) - 1) * 100
  return {
    us: median(ours.us),
    bareUs: median(bare.us),
    percent: percent('us'),
    cpuUs: median(ours.cpuUs),
    bareCpuUs: median(bare.cpuUs),
    cpuPercent: percent('cpuUs')
  }
}

/**
 * Makes a request, and waits for the end of its answer.
 *
 * @param {RequestOptions} options
 * @returns {Promise<void>}
 */
async function send (options) {
  await new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', ...options }, response => { response.on('end', resolve).resume() })
      .on('error', reject)
      .end(options.method === 'POST' ? BODY : undefined)
  })
}

export const roles = {
  /**
   * @param {{ redis: string | undefined }} options
   * @param {Line} line
   * @returns {Promise<never>}
   */
  async server ({ redis }, line) {
    const app = makeApp(() => {})
    if (redis !== undefined) await app.register(taskqueue, { redis: { path: redis } })
    app.get('/', async () => ({ hello: 'world' }))
    const address = new URL(await app.listen({ host: '127.0.0.1', port: 0 }))
    line.tell(Number(address.port))
    for (;;) {
      await line.hear()
      const before = process.cpuUsage()
      line.tell('begun')
      await line.hear()
      line.tell(cpuUs(before))
    }
  }
}

/** @type {Array<keyof RequestsFigures>} */
const FIGURES = ['bareUs', 'us', 'percent', 'bareCpuUs', 'cpuUs', 'cpuPercent']

/** @type {Requests['tables']} */
export function tables (results) {
  const rows = TRIALS.filter(trial => results.has(trial)).map(trial => [
    trial.route, ...FIGURES.map(figure => spread(results.values(trial, figure)))
  ])
  return [
    'Over HTTP, ten at a time, to a route that answers at once, of servers with the plugin and without it, ' +
      'which take turns; POST has the body of a task, and its schema. The CPU is that of the server.',
    table(['', 'without, µs', 'with, µs', 'more, %', 'CPU without, µs', 'CPU with, µs', 'more, %'], rows)
  ]
}

/** @type {Requests['goals']} */
export function goals (results) {
  return TRIALS.filter(trial => results.has(trial)).flatMap(trial => [
    atMost(2, `${trial.route}: more time, %`, results.median(trial, 'percent')),
    atMost(2, `${trial.route}: more CPU, %`, results.median(trial, 'cpuPercent'))
  ])
}
