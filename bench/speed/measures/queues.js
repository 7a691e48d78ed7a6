import { connect } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as sleep } from 'node:timers/promises'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { Redis } from 'ioredis'
import { cpuUs, RedisMeter } from '../../support/meter.js'
import { range } from '../../support/statistics.js'
import { number, table } from '../../support/text.js'
import { contenders } from '../contenders.js'
import { atMost } from '../goals.js'

/** @import { Line } from '../child.js' */
/** @import { QueueName } from '../contenders.js' */
/** @import { Measure } from './index.js' */

/** @typedef {{ contender: QueueName, queues: number }} QueuesTrial */

/**
 * What a process at rest costs, in a minute where that is a matter of time.
 *
 * @typedef {object} QueuesFigures
 * @property {number} connections
 * @property {number} requests To Redis.
 * @property {number} commands
 * @property {number} redisMs The CPU of Redis.
 * @property {number} nodeMs The CPU of the process.
 * @property {number} rssMiB
 * @property {number} heapMiB
 */

/** @typedef {Measure<QueuesTrial, QueuesFigures, typeof roles>} Queues */

export const title = 'Many queues at rest'
export const roundsOf = () => 1

/** @type {QueuesTrial[]} */
const TRIALS = [
  { contender: 'ours', queues: 1 }, { contender: 'ours', queues: 100 }, { contender: 'ours', queues: 1000 },
  { contender: 'bullmq', queues: 1 }, { contender: 'bullmq', queues: 100 }
]

/** @type {Queues['trials']} */
export function trials () { return TRIALS }

/** @type {Queues['measure']} */
export async function measure (stage, { contender, queues }, { quick }) {
  const { path } = await stage.redis()
  const windowMs = quick ? 2000 : 10_000
  const perMinute = 60_000 / windowMs
  const client = new Redis({ path })
  const meter = new RedisMeter(path)
  await meter.start()
  const countConnections = async () => String(await client.client('LIST')).trim().split('\n').length
  const others = await countConnections()
  const idler = stage.play('idler', { contender, redis: path, queues })
  await idler.hear()
  const connections = await countConnections() - others
  await sleep(windowMs)

  await meter.start()
  idler.tell('begin')
  await sleep(windowMs)
  const { redisUs, commands } = await meter.read(1 / perMinute)
  idler.tell('end')
  await idler.hear()

  const requests = await requestsWithin(path, windowMs)
  client.disconnect()
  meter.close()
  idler.tell('close')
  const { nodeUs, rssMiB, heapMiB } = await idler.result
  return {
    connections,
    requests: requests * perMinute,
    commands,
    redisMs: redisUs / 1000,
    nodeMs: nodeUs / 1000 * perMinute,
    rssMiB,
    heapMiB
  }
}

/**
 * Counts what is sent to Redis, which costs it too much to measure anything else meanwhile.
 *
 * @param {string} path
 * @param {number} ms
 */
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
  /**
   * Opens queues and rests: until it is told to begin to measure itself, then until it is told to end that, and then
   * until it is told to close.
   *
   * @param {{ contender: QueueName, redis: string, queues: number }} options
   * @param {Line} line
   */
  async idler ({ contender, redis, queues }, line) {
    const names = range(queues).map(n => `queue-${n}`)
    const queue = await contenders[contender].open({ redis, queues: names, concurrency: 1, onTask () {} })
    await queue.start()
    line.tell('ready')
    await line.hear()
    const cpu = process.cpuUsage()
    await line.hear()
    const nodeUs = cpuUs(cpu)
    const { rss } = process.memoryUsage()
    collectGarbage()
    const { heapUsed } = process.memoryUsage()
    line.tell('measured')
    await line.hear()
    return { nodeUs, rssMiB: rss / 2 ** 20, heapMiB: heapUsed / 2 ** 20 }
  }
}

function collectGarbage () {
  setFlagsFromString('--expose-gc')
  runInNewContext('gc')()
}

/** @type {Array<keyof QueuesFigures>} */
const FIGURES = ['connections', 'requests', 'commands', 'redisMs', 'nodeMs', 'rssMiB', 'heapMiB']
const HEADS = [
  'queues', 'connections', 'requests to Redis/min', 'commands/min', 'CPU of Redis, ms/min', 'CPU of Node, ms/min',
  'RSS, MiB', 'heap, MiB'
]

/** @type {Queues['tables']} */
export function tables (results) {
  const made = TRIALS.toSorted((one, other) => one.queues - other.queues).filter(trial => results.has(trial))
  const rows = made.map(trial => [
    `${trial.queues.toLocaleString('en')}: ${contenders[trial.contender].label}`,
    ...results.medians(trial, ...FIGURES).map(number)
  ])
  return [
    'One process that can add to so many queues, consumes them all, and has nothing to do.', table(HEADS, rows)
  ]
}

/** @type {Queues['goals']} */
export function goals (results) {
  /** @param {number} queues */
  const requestsOf = queues => results.median({ contender: 'ours', queues }, 'requests')
  return [
    atMost(2, 'connections of 1,000 queues', results.median({ contender: 'ours', queues: 1000 }, 'connections')),
    atMost(1, 'requests to Redis of 1,000 queues at rest, × those of one queue, which are one a heartbeat',
      requestsOf(1000) / requestsOf(1))
  ]
}
