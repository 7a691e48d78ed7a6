import taskqueue from '../../../build/lib/index.js'
import { cpuUs } from '../meter.js'
import { makeApp, PATH, payloadOf } from '../route.js'
import { forEachOf, median, range } from '../statistics.js'
import { number, spread, table } from '../text.js'

export const title = 'Requests that add nothing'
export const roundsOf = rounds => rounds * 2

const ROUTES = {
  GET: { method: 'GET', url: '/' },
  POST: { method: 'POST', url: PATH, payload: payloadOf(0) }
}

export function trials () {
  return Object.keys(ROUTES).map(route => ({ route }))
}

/** Two processes take turns, one with the plugin and one without. */
export async function measure (stage, { route }, { quick }) {
  const { path } = await stage.redis()
  const [blocks, requests] = quick ? [4, 200] : [100, 1000]
  const servers = ['with', 'without'].map(plugin => ({ actor: stage.play('server', { redis: plugin === 'with' ? path : undefined, route, requests }), us: [], cpuUs: [] }))
  for (const { actor } of servers) await actor.hear()
  for (const block of range(blocks)) {
    for (const server of block % 2 === 0 ? servers : servers.toReversed()) {
      server.actor.tell('run')
      const { us, cpuUs } = await server.actor.hear()
      server.us.push(us)
      server.cpuUs.push(cpuUs)
    }
  }
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

export const roles = {
  async server ({ redis, route, requests }, line) {
    const app = makeApp(() => {})
    if (redis !== undefined) await app.register(taskqueue, { redis: { path: redis } })
    app.get('/', async () => ({ hello: 'world' }))
    await app.ready()
    const run = () => forEachOf(requests, 1, () => app.inject(ROUTES[route]))
    for (let i = 0; i < 5; i++) await run()
    line.tell('warm')
    for (;;) {
      await line.hear()
      const [cpu, start] = [process.cpuUsage(), performance.now()]
      await run()
      line.tell({ us: (performance.now() - start) * 1000 / requests, cpuUs: cpuUs(cpu) / requests })
    }
  }
}

export function tables (results) {
  const rows = Object.keys(ROUTES).map(route => ({ route })).filter(trial => results.has(trial)).map(trial => [
    trial.route, ...['bareUs', 'us', 'percent', 'bareCpuUs', 'cpuUs', 'cpuPercent'].map(figure => spread(results.values(trial, figure)))
  ])
  return [
    '`app.inject` of a route that answers at once, with the plugin and without it, in processes that take turns; POST has the body of a task, and its schema.',
    table(['', 'without, µs', 'with, µs', 'more, %', 'CPU without, µs', 'CPU with, µs', 'more, %'], rows)
  ]
}

export function goals (results) {
  return Object.keys(ROUTES).filter(route => results.has({ route })).flatMap(route => [['percent', 'time'], ['cpuPercent', 'CPU']].map(([figure, name]) => {
    const more = results.median({ route }, figure)
    return { goal: `${route}: at most 2 % more ${name}`, value: `${number(more)} %`, isReached: more <= 2 }
  }))
}
