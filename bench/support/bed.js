import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { startRedis } from '../../build/test/support/redis-server.js'
import { until } from '../../build/test/support/until.js'

let starting = Promise.resolve()

/**
 * What one experiment starts: Redis servers, and processes with an app each. All of it is
 * ended with the experiment.
 */
export class Bed {
  #endings = []
  #servers = []
  #isOver = false

  /** For the helpers of the tests. */
  teardown (end) { this.#endings.push(end) }

  async end () {
    this.#isOver = true
    await Promise.allSettled(this.#servers)
    for (const end of this.#endings.splice(0).reverse()) await end()
  }

  async redis (options) {
    this.#refuseWhenOver()
    const server = startRedis(this, options)
    this.#servers.push(server)
    return await server
  }

  /** Starts a process with an app; see `promises/app.js` for its options. */
  async start (system, redis, options = {}) {
    // One after the other, so that those that run already have the machine to themselves, or nearly.
    const start = starting.then(() => this.#start(system, redis, options))
    starting = start.catch(() => {})
    return await start
  }

  #refuseWhenOver () {
    if (this.#isOver) throw new Error('the experiment is over')
  }

  async #start (system, redis, options) {
    this.#refuseWhenOver()
    const { path } = redis
    const settings = { system, redis: path === undefined ? redis : { path }, queues: ['default'], concurrency: 1, ...options }
    const child = fork(fileURLToPath(new URL('../promises/app.js', import.meta.url)), [JSON.stringify(settings)])
    child.on('error', () => {})
    const process = new Process(child)
    this.teardown(async () => {
      if (process.isAlive) {
        child.kill('SIGKILL')
        await process.exit
      }
    })
    await Promise.race([
      until(() => process.port, 'an app that listens', 60_000),
      process.exit.then(() => { throw new Error(`${system} exited at its start`) })
    ])
    return process
  }
}

class Process {
  /** What it has told of its tasks: `begins` and `ends` with their `n`, by the clock of this process. */
  reports = []
  /** Where it listens, once it does. */
  port
  #child
  #answers = []

  constructor (child) {
    this.#child = child
    this.exit = once(child, 'exit')
    child.on('message', message => {
      if (message.event === 'ready') this.port = message.port
      else if (message.event === 'answer') this.#answers.shift()(message.value)
      else this.reports.push({ ...message, at: performance.now() })
    })
  }

  get isAlive () { return this.#child.exitCode === null && this.#child.signalCode === null }

  begun (n) { return this.#of('begins', n) }
  ended (n) { return this.#of('ends', n) }
  #of (event, n) { return this.reports.filter(report => report.event === event && (n === undefined || report.n === n)) }

  kill (signal = 'SIGKILL') { this.#child.kill(signal) }

  /** Has it answer a question: `counts` of a queue, `errors` that it has logged, or `release` of the tasks that it holds. */
  async ask (question) {
    const answer = new Promise(resolve => { this.#answers.push(resolve) })
    this.#child.send(question)
    return await answer
  }

  /** Makes a request, over HTTP, that adds tasks. */
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
    }, () => undefined)
    return { status, ms: performance.now() - start }
  }
}
