import { Redis } from 'ioredis'

/** What Redis has done between two moments, and what this process has. */
export class RedisMeter {
  #client
  #before

  constructor (path) {
    this.#client = new Redis({ path })
  }

  async start () { this.#before = await this.#read() }

  /** Returns, for each task, the microseconds of CPU, the commands (those inside scripts too) and the bytes in and out. */
  async read (tasks) {
    const now = await this.#read()
    return Object.fromEntries(Object.entries(now).map(([name, value]) => [name, (value - this.#before[name]) / tasks]))
  }

  /** Drops all keys. */
  async flush () { await this.#client.flushall() }

  async close () { this.#client.disconnect() }

  async #read () {
    const info = await this.#client.info('everything')
    const number = name => Number(new RegExp(`^${name}:(\\S+)`, 'm').exec(info)[1])
    const calls = [...info.matchAll(/^cmdstat_(\S+?):calls=(\d+)/gm)].filter(([, name]) => !MEASURING.test(name))
    return {
      redisUs: (number('used_cpu_user') + number('used_cpu_sys')) * 1e6,
      commands: calls.reduce((sum, [,, count]) => sum + Number(count), 0),
      bytesIn: number('total_net_input_bytes'),
      bytesOut: number('total_net_output_bytes')
    }
  }
}

const MEASURING = /^(?:info|config|memory|client|dbsize|flushall)\b/

/** The microseconds of CPU of this process since a moment, or since its start. */
export function cpuUs (since) {
  const { user, system } = process.cpuUsage(since)
  return user + system
}
