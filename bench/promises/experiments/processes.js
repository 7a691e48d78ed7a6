/** Processes that are killed, told to stop, or wrong about the time. */
import { setTimeout as sleep } from 'node:timers/promises'
import { until } from '../../../build/test/support/until.js'

/** @import { AppBed, AppProcess } from '../app-bed.js' */
/** @import { SystemName } from '../systems.js' */
/** @import { Experiment } from './index.js' */

const HANGS = 3_600_000
/** @param {number} ms */
const seconds = ms => (ms / 1000).toFixed(1)

/**
 * Has a process begin a task that does not end, beside another that is idle.
 *
 * @param {SystemName} system
 * @param {AppBed} bed
 */
async function startVictim (system, bed) {
  const redis = await bed.redis()
  const victim = await bed.start(system, redis)
  await victim.order([{ n: 'task', ms: HANGS }])
  await until(() => victim.begun('task').length > 0, 'the task')
  return { victim, heir: await bed.start(system, redis) }
}

/**
 * Resolves with when the process begins the task, or undefined.
 *
 * @param {AppProcess} process
 * @param {string} n
 * @param {number} longestMs
 */
async function begin (process, n, longestMs) {
  await until(() => process.begun(n).length > 0, `${n} elsewhere`, longestMs).catch(() => {})
  return process.begun(n)[0]?.at
}

/** @type {Experiment} */
export async function kills (system, bed) {
  const waits = await Promise.all([0, 6, 12, 18, 24].map(async phase => {
    const { victim, heir } = await startVictim(system, bed)
    await sleep(phase * 1000)
    const start = performance.now()
    victim.kill()
    return (await begin(heir, 'task', 180_000) ?? Infinity) - start
  }))
  return { 'seconds until the task runs again, 5 kills': waits.map(seconds).join(', ') }
}

/** @type {Experiment} */
export async function closing (system, bed) {
  const { victim, heir } = await startVictim(system, bed)
  const start = performance.now()
  victim.kill('SIGTERM')
  const closedAt = await until(() => victim.closedAt, 'the end of close()', 45_000).catch(() => undefined)
  if (closedAt === undefined) victim.kill()
  const again = await begin(heir, 'task', 180_000)
  return {
    'close() returns after': closedAt === undefined
      ? 'not within 45 s (then killed)'
      : `${seconds(closedAt - start)} s`,
    'the task runs elsewhere after': again === undefined ? 'not within 180 s' : `${seconds(again - start)} s`
  }
}

/** @type {Experiment} */
export async function wrongClocks (system, bed) {
  /**
   * @param {number} aheadMs
   * @param {number} delayMs
   * @param {number} longestMs
   */
  async function delay (aheadMs, delayMs, longestMs) {
    const redis = await bed.redis()
    const adder = await bed.start(system, redis, { concurrency: 0 })
    const worker = await bed.start(system, redis, { aheadMs })
    const start = performance.now()
    await adder.order([{ n: 'delayed' }], { delayMs })
    const at = await begin(worker, 'delayed', longestMs)
    return at === undefined ? `not within ${longestMs / 1000} s` : `${seconds(at - start)} s`
  }
  const HOUR_MS = 3_600_000
  const [fast, slow] = await Promise.all([delay(HOUR_MS, HOUR_MS / 2, 60_000), delay(-HOUR_MS, 1000, 60_000)])
  return {
    'clock 1 h fast: a task delayed by 30 min runs after': fast,
    'clock 1 h slow: a task delayed by 1 s runs after': slow
  }
}

/** @type {Experiment} */
export async function poison (system, bed) {
  const redis = await bed.redis()
  const watcher = await bed.start(system, redis, { concurrency: 0 })
  const innocents = Array.from({ length: 20 }, (_, i) => ({ n: `innocent-${i}`, ms: 1000 }))
  /** @param {number} i */
  const poison = i => ({ n: `poison-${i}`, die: 500 })
  await watcher.order([poison(0), ...innocents.slice(0, 10), poison(1), ...innocents.slice(10)])

  /** @type {AppProcess[]} */
  const processes = []
  const end = new AbortController()
  const supervise = async () => {
    while (!end.signal.aborted) {
      const process = await bed.start(system, redis, { concurrency: 5 })
      processes.push(process)
      await process.exit
    }
  }
  // Fails where the end of the experiment interrupts a start.
  const supervised = Promise.allSettled([supervise(), supervise()])
  const start = performance.now()
  let left = NaN
  await until(async () => {
    const { waiting, delayed, running } = await watcher.ask('counts')
    left = waiting + delayed + running
    await sleep(200)
    return left === 0
  }, 'an end of all tasks', 300_000).catch(() => {})
  const ms = performance.now() - start
  const { dead } = await watcher.ask('counts')
  end.abort()
  await bed.end()
  await supervised
  /** @param {string} n */
  const runs = n => processes.flatMap(process => process.begun(n)).length
  /** @param {{ n: string }} task */
  const hasEnded = ({ n }) => processes.some(process => process.ended(n).length > 0)
  return {
    'innocents that ended well, of 20': innocents.filter(hasEnded).length,
    'innocents that were given up': dead - 2 + (left === 0 ? 0 : NaN),
    'runs of the two that kill, before they were given up': `${runs('poison-0')}, ${runs('poison-1')}`,
    'until all was decided': left === 0 ? `${seconds(ms)} s` : `${left} undecided after 300 s`
  }
}
