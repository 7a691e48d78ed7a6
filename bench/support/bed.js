import { fork } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { startRedis } from '../../build/test/support/redis-server.js'

/** @import { ChildProcess } from 'node:child_process' */
/** @import { RedisServer, RedisServerOptions } from '../../build/test/support/redis-server.js' */

/**
 * A process that a bed has started.
 *
 * @typedef {object} Forked
 * @property {ChildProcess} child
 * @property {Promise<void>} exit Resolves when it has ended.
 */

/** What an experiment or a measurement starts: Redis servers and processes. All of it ends with the bed. */
export class Bed {
  /** @type {Array<() => unknown>} */
  #endings = []
  /** @type {Array<Promise<RedisServer>>} */
  #servers = []
  #isOver = false

  /**
   * For the helpers of the tests.
   *
   * @param {() => unknown} end
   */
  teardown (end) { this.#endings.push(end) }

  async end () {
    this.#isOver = true
    await Promise.allSettled(this.#servers)
    for (const end of this.#endings.splice(0).reverse()) await end()
  }

  /** @param {RedisServerOptions} [options] */
  async redis (options) {
    this.#refuseWhenOver()
    const server = startRedis(this, options)
    this.#servers.push(server)
    return await server
  }

  /**
   * Starts a program in a process of its own, with its options as the only argument.
   *
   * @param {URL} program
   * @param {object} options
   * @returns {Forked}
   */
  fork (program, options) {
    this.#refuseWhenOver()
    const child = fork(fileURLToPath(program), [JSON.stringify(options)])
    // A message may find it dead.
    child.on('error', () => {})
    /** @type {Promise<void>} */
    const exit = new Promise(resolve => { child.once('exit', () => { resolve() }) })
    this.teardown(async () => {
      if (!isAlive(child)) return
      child.kill('SIGKILL')
      await exit
    })
    return { child, exit }
  }

  #refuseWhenOver () {
    if (this.#isOver) throw new Error('it is over')
  }
}

/** @param {ChildProcess} child */
function isAlive ({ exitCode, signalCode }) { return exitCode === null && signalCode === null }
