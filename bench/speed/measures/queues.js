import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import { contenders } from '../contenders.js'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { atMost, number, table } from '../../support/text.js'

export const title = 'Many queues at rest'
export const roundsOf = () => 1

export function trials () {
  return [['ours', [1, 100, 1000]], ['bullmq', [1, 100]]].flatMap(([contender, counts]) => counts.map(queues => ({ contender, queues })))
}

export async function measure (stage, { contender, queues }, { quick }) {
  const { path } = await stage.redis()
  const windowMs = quick ? 2000 : 10_000
  const perMinute = 60_000 / windowMs
  const client = new Redis({ path })
  const meter = new RedisMeter(path)
  await meter.start()
  const connections = async () => (await client.client('LIST')).trim().split('\n').length
  const others = await connections()
  const idler = stage.play('idler', { contender, redis: path, queues })
  await idler.hear()
  const made = await connections() - others
  await sleep(windowMs)

  await meter.start()
  idler.tell('begin')
  await sleep(windowMs)
  const { redisUs, commands } = await meter.read(1 / perMinute)
  idler.tell('end')
  const { nodeUs, ...memory } = await idler.hear()

  const requests = await requestsWithin(path, windowMs)
  client.disconnect()
  await meter.close()
  return { connections: made, requests: requests * perMinute, commands, redisMs: redisUs / 1000, nodeMs: nodeUs / 1000 * perMinute, ...memory }
}

/** Counts what is sent to Redis, which costs it too much to measure anything else meanwhile. */
async function requestsWithin (path, ms) {
  const socket = connect(path)
  socket.write('MONITOR\r\n')
  let requests = 0
  // The first line is the answer. What scripts run comes from `lua`.
  createInterface(socket).on('line', line => { if (/^\+[\d.]+ \[\d+ (?!lua\])/.test(line)) requests++ })
  await sleep(ms)
  socket.destroy()
  return requests
}

export const roles = {
  async idler ({ contender, redis, queues }, line) {
    const queue = await contenders[contender].open({ redis, queues: range(queues).map(n => `queue-${n}`), concurrency: 1, onTask () {} })
    await queue.start()
    line.tell('ready')
    await line.hear()
    const cpu = process.cpuUsage()
    await line.hear()
    const nodeUs = cpuUs(cpu)
    const { rss } = process.memoryUsage()
    collectGarbage()
    line.tell({ nodeUs, rssMiB: rss / 2 ** 20, heapMiB: process.memoryUsage().heapUsed / 2 ** 20 })
    await line.hear()
  }
}

function collectGarbage () {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

export function tables (results) {
  const rows = [1, 100, 1000].flatMap(queues => ['ours', 'bullmq'].map(contender => ({ contender, queues })).filter(trial => results.has(trial)).map(trial => [
    `${queues.toLocaleString('en')}: ${contenders[trial.contender].label}`,
    ...['connections', 'requests', 'commands', 'redisMs', 'nodeMs', 'rssMiB', 'heapMiB'].map(figure => number(results.median(trial, figure)))
  ]))
  return [
    'One process that can add to so many queues, consumes them all, and has nothing to do.',
    table([
      'queues', 'connections', 'requests to Redis/min', 'commands/min', 'CPU of Redis, ms/min', 'CPU of Node, ms/min', 'RSS, MiB', 'heap, MiB'
    ], rows)
  ]
}

export function goals (results) {
  const [one, many] = [1, 1000].map(queues => ({ contender: 'ours', queues }))
  return [
    atMost(2, 'connections of 1,000 queues', results.median(many, 'connections')),
    atMost(1, 'requests to Redis of 1,000 queues at rest, × those of one queue, which are one a heartbeat', results.median(many, 'requests') / results.median(one, 'requests'))
  ]
}
