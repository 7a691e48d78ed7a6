import { until } from '../../build/test/support/until.js'
import { Bed } from '../support/bed.js'

/** @import { Answers, AppOptions, AppTask, Message, Order, RedisAddress, TaskReport } from './app.js' */
/** @import { Forked } from '../support/bed.js' */
/** @import { SystemName } from './systems.js' */

/** @typedef {TaskReport & { at: number }} TimedReport A report, and when it came by the clock of this process. */

/**
 * How a request ended.
 *
 * @typedef {object} OrderEnd
 * @property {number | undefined} status Undefined if there was no answer.
 * @property {number} ms
 */

/** @type {Promise<unknown>} */
let starting = Promise.resolve()

/** What one experiment starts: Redis servers, and processes with an app each. */
export class AppBed extends Bed {
  /**
   * Starts a process with an app.
   *
   * @param {SystemName} system
   * @param {RedisAddress} redis
   * @param {Partial<AppOptions>} [options]
   */
  async start (system, redis, options = {}) {
    // One after the other, so that those that run already have the machine to themselves, or nearly.
    const start = starting.then(() => this.#start(system, redis, options))
    starting = start.catch(() => {})
    return await start
  }

  /**
   * @param {SystemName} system
   * @param {RedisAddress} redis
   * @param {Partial<AppOptions>} options
   */
  async #start (system, redis, options) {
    /** @type {AppOptions} */
    const settings = { system, redis: addressOf(redis), queues: ['default'], concurrency: 1, ...options }
    const process = new AppProcess(this.fork(new URL('app.js', import.meta.url), settings))
    await Promise.race([
      until(() => process.port, 'an app that listens', 60_000),
      process.exit.then(() => { throw new Error(`${system} exited at its start`) })
    ])
    return process
  }
}

/**
 * The socket of a server that has one.
 *
 * @param {RedisAddress} redis
 */
function addressOf (redis) { return 'path' in redis ? { path: redis.path } : redis }

export class AppProcess {
  /**
   * What it has told of its tasks.
   *
   * @type {TimedReport[]}
   */
  reports = []
  /**
   * Where it listens, once it does.
   *
   * @type {number | undefined}
   */
  port
  /**
   * When its app was closed.
   *
   * @type {number | undefined}
   */
  closedAt
  #child
  /** @type {Array<(value: unknown) => void>} */
  #answers = []

  /** @param {Forked} process */
  constructor ({ child, exit }) {
    this.#child = child
    this.exit = exit
    child.on('message', message => { this.#take(/** @type {Message} */ (message)) })
  }

  /** @param {Message} message */
  #take (message) {
    if (message.event === 'ready') this.port = message.port
    else if (message.event === 'answer') this.#answers.shift()?.(message.value)
    else if (message.event === 'closed') this.closedAt = performance.now()
    else this.reports.push({ ...message, at: performance.now() })
  }

  /** @param {string} [n] */
  begun (n) { return this.#of('begins', n) }
  /** @param {string} [n] */
  ended (n) { return this.#of('ends', n) }

  /**
   * @param {TaskReport['event']} event
   * @param {string} [n]
   */
  #of (event, n) {
    return this.reports.filter(report => report.event === event && (n === undefined || report.n === n))
  }

  /** @param {NodeJS.Signals} signal */
  kill (signal = 'SIGKILL') { this.#child.kill(signal) }

  /**
   * Has it answer a question.
   *
   * @template {keyof Answers} Question
   * @param {Question} question
   */
  async ask (question) {
    const answer = new Promise(resolve => { this.#answers.push(resolve) })
    this.#child.send(question)
    return /** @type {Answers[Question]} */ (await answer)
  }

  /**
   * Makes a request, over HTTP, that adds tasks.
   *
   * @param {AppTask[]} tasks
   * @param {Omit<Order, 'tasks'> & { longestMs?: number }} [options]
   * @returns {Promise<OrderEnd>}
   */
  async order (tasks, { longestMs = 60_000, ...body } = {}) {
    const start = performance.now()
    const answer = fetch(`http://127.0.0.1:${this.port}/order`, {
      method: 'POST',
      headers: { 'content-type': 'application/json', connection: 'close' },
      body: JSON.stringify({ tasks, ...body }),
      signal: AbortSignal.timeout(longestMs)
    })
    const status = await answer.then(async response => {
      await response.arrayBuffer()
      return response.status
    }).catch(() => undefined)
    return { status, ms: performance.now() - start }
  }
}
