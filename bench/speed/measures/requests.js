import { Agent, request } from 'node:http'
import taskqueue from '../../../build/lib/index.js'
import { cpuUs } from '../../support/meter.js'
import { makeApp, PATH, payloadOf } from '../route.js'
import { forEachOf, median, range } from '../../support/statistics.js'
import { atMost, spread, table } from '../../support/text.js'

export const title = 'Requests that add nothing'
export const roundsOf = rounds => rounds * 2

const BODY = JSON.stringify(payloadOf(0))
const ROUTES = {
  GET: { path: '/' },
  POST: { path: PATH, headers: { 'content-type': 'application/json', 'content-length': BODY.length } }
}
const AT_ONCE = 10

export function trials () {
  return Object.keys(ROUTES).map(route => ({ route }))
}

/** Two servers take turns, one with the plugin and one without. */
export async function measure (stage, { route }, { quick }) {
  const { path } = await stage.redis()
  const [blocks, requests] = quick ? [4, 200] : [60, 1000]
  const agent = new Agent({ keepAlive: true, maxSockets: AT_ONCE })
  const servers = ['with', 'without'].map(plugin => ({ actor: stage.play('server', { redis: plugin === 'with' ? path : undefined }), us: [], cpuUs: [] }))
  for (const server of servers) server.port = await server.actor.hear()
  const load = ({ port }) => forEachOf(requests, AT_ONCE, () => send({ ...ROUTES[route], method: route, port, agent }))
  for (const server of range(5).flatMap(() => servers)) await load(server)
  for (const block of range(blocks)) {
    for (const server of block % 2 === 0 ? servers : servers.toReversed()) {
      server.actor.tell('begin')
      await server.actor.hear()
      const start = performance.now()
      await load(server)
      server.us.push((performance.now() - start) * 1000 / requests)
      server.actor.tell('end')
      server.cpuUs.push(await server.actor.hear() / requests)
    }
  }
  agent.destroy()
  const [one, other] = servers
  const percent = figure => (median(range(blocks).map(block => one[figure][block] / other[figure][block])) - 1) * 100
  return {
    us: median(one.us),
    bareUs: median(other.us),
    percent: percent('us'),
    cpuUs: median(one.cpuUs),
    bareCpuUs: median(other.cpuUs),
    cpuPercent: percent('cpuUs')
  }
}

/** Makes a request, and waits for the end of its answer. */
async function send (options) {
  await new Promise((resolve, reject) => {
    request({ host: '127.0.0.1', ...options }, response => { response.on('end', resolve).resume() })
      .on('error', reject)
      .end(options.method === 'POST' ? BODY : undefined)
  })
}

export const roles = {
  async server ({ redis }, line) {
    const app = makeApp(() => {})
    if (redis !== undefined) await app.register(taskqueue, { redis: { path: redis } })
    app.get('/', async () => ({ hello: 'world' }))
    await app.listen({ host: '127.0.0.1', port: 0 })
    line.tell(app.server.address().port)
    for (;;) {
      await line.hear()
      const before = process.cpuUsage()
      line.tell('begun')
      await line.hear()
      line.tell(cpuUs(before))
    }
  }
}

export function tables (results) {
  const rows = Object.keys(ROUTES).map(route => ({ route })).filter(trial => results.has(trial)).map(trial => [
    trial.route, ...['bareUs', 'us', 'percent', 'bareCpuUs', 'cpuUs', 'cpuPercent'].map(figure => spread(results.values(trial, figure)))
  ])
  return [
    'Over HTTP, ten at a time, to a route that answers at once, of servers with the plugin and without it, which take turns; POST has the body of a task, and its schema. The CPU is that of the server.',
    table(['', 'without, µs', 'with, µs', 'more, %', 'CPU without, µs', 'CPU with, µs', 'more, %'], rows)
  ]
}

export function goals (results) {
  return Object.keys(ROUTES).filter(route => results.has({ route })).flatMap(route => [
    atMost(2, `${route}: more time, %`, results.median({ route }, 'percent')),
    atMost(2, `${route}: more CPU, %`, results.median({ route }, 'cpuPercent'))
  ])
}
