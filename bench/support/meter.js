import { Redis } from 'ioredis'
import { cpuSecondsIn, numberIn } from './redis-info.js'

/**
 * What Redis has done, for each task.
 *
 * @typedef {object} RedisWork
 * @property {number} redisUs The microseconds of its CPU.
 * @property {number} commands Its commands, those inside scripts too.
 * @property {number} bytesIn
 * @property {number} bytesOut
 */

/** @type {RedisWork} */
export const NO_REDIS = { redisUs: 0, commands: 0, bytesIn: 0, bytesOut: 0 }

/** The commands by which something is measured. */
const MEASURING = /^(?:info|config|memory|client|dbsize|flushall)\b/

/** What Redis has done between two moments. */
export class RedisMeter {
  #client
  #before = NO_REDIS

  /** @param {string} path */
  constructor (path) {
    this.#client = new Redis({ path })
  }

  async start () { this.#before = await this.#read() }

  /**
   * Returns what it has done since the start, divided by a number of tasks.
   *
   * @param {number} tasks
   * @returns {Promise<RedisWork>}
   */
  async read (tasks) {
    const [now, before] = [await this.#read(), this.#before]
    return {
      redisUs: (now.redisUs - before.redisUs) / tasks,
      commands: (now.commands - before.commands) / tasks,
      bytesIn: (now.bytesIn - before.bytesIn) / tasks,
      bytesOut: (now.bytesOut - before.bytesOut) / tasks
    }
  }

  /** Drops all keys. */
  async flush () { await this.#client.flushall() }

  close () { this.#client.disconnect() }

  /** @returns {Promise<RedisWork>} */
  async #read () {
    const info = await this.#client.info('everything')
    const calls = [...info.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)].filter(([, name]) => !MEASURING.test(name))
    return {
      redisUs: cpuSecondsIn(info) * 1e6,
      commands: calls.reduce((sum, [,, count]) => sum + Number(count), 0),
      bytesIn: numberIn(info, 'total_net_input_bytes'),
      bytesOut: numberIn(info, 'total_net_output_bytes')
    }
  }
}

/**
 * The microseconds of CPU of this process since a moment.
 *
 * @param {NodeJS.CpuUsage} since
 */
export function cpuUs (since) {
  const { user, system } = process.cpuUsage(since)
  return user + system
}
