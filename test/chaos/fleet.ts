import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import type { RedisServer } from '../support/redis-server.js'
import { startProxy, type TcpProxy } from '../support/tcp-proxy.js'
import type { Leave, Order, Setting } from './app.js'
import type { Write } from './ledger.js'
import { CANNOT_START, CONSUMERS, WEBS } from './plan.js'

/** How long an app may take to close. */
const CLOSE_MS = 20_000

export interface Teardown { teardown (run: () => unknown): void }

/** A process that is started again whenever it has died, and the proxy through which it reaches Redis. */
export class Member {
  readonly name: string
  readonly proxy: TcpProxy
  /** Where it takes requests; undefined while there is no such process. */
  port: number | undefined
  readonly #setting: Setting
  readonly #write: Write
  #child: ChildProcess | undefined
  #restartMs = 300
  #isKilled = false
  #retired = false
  /** Whether it does not close in time. */
  #isStuck = false

  constructor (name: string, proxy: TcpProxy, setting: Setting, write: Write) {
    this.name = name
    this.proxy = proxy
    this.#setting = setting
    this.#write = write
  }

  get pid (): number | undefined { return this.#child?.pid }

  /** Resolves when it is ready; it may take a while when Redis is not there. */
  async start (): Promise<void> {
    // Without what the test's own runner would have it load.
    const { NODE_OPTIONS: _, NODE_V8_COVERAGE: __, ...env } = process.env
    const child = fork(fileURLToPath(new URL('app.js', import.meta.url)), [JSON.stringify(this.#setting)], { env, execArgv: [] })
    const pid = child.pid!
    this.#child = child
    this.#isKilled = false
    let isReady = false
    // Of messages to one that has died.
    child.on('error', () => {})
    child.once('exit', (code, signal) => {
      this.#child = this.port = undefined
      const isClosed = code === 0 || (code === CANNOT_START && !isReady)
      const cause = isClosed ? 'closed' : signal !== 'SIGKILL' || this.#isStuck ? 'crash' : this.#isKilled ? 'fault' : 'poison'
      const how = this.#isStuck ? `not closed within ${CLOSE_MS} ms` : signal ?? `exit code ${code}${isReady ? '' : ' before it was ready'}`
      this.#write({ event: 'died', name: this.name, pid, cause, how })
      if (!this.#retired) setTimeout(() => { if (!this.#retired) this.start().catch(() => {}) }, this.#restartMs)
    })
    this.#write({ event: 'started', name: this.name, pid })
    const [message] = await Promise.race([once(child, 'message'), once(child, 'exit').then(() => [undefined])])
    isReady = message !== undefined
    if (this.#child === child) this.port = message?.port || undefined
  }

  kill (restartMs: number): void {
    this.#restartMs = restartMs
    this.#isKilled = true
    this.signal('SIGKILL')
  }

  signal (signal: NodeJS.Signals): void {
    this.#child?.kill(signal)
  }

  order (order: Order): void {
    if (this.#child?.connected === true) this.#child.send(order, () => {})
  }

  /** Closes its app, as whoever deploys a new one does, and its client if that is somebody else's. */
  close (restartMs = 300, leave?: Leave, adds = true): void {
    if (this.pid === undefined) return
    this.#restartMs = restartMs
    this.#write({ event: 'closing', pid: this.pid })
    this.order({ close: true, adds, leave })
  }

  /** Has it close, and start no more; kills it when it takes too long. */
  async retire (): Promise<void> {
    this.#retired = true
    const child = this.#child
    if (child === undefined) return
    const exit = once(child, 'exit')
    // What it would add now nobody would run.
    this.close(0, undefined, false)
    await Promise.race([exit, sleep(CLOSE_MS, undefined, { ref: false })])
    this.#isStuck = true
    this.abandon()
    await exit
  }

  abandon (): void {
    this.#retired = true
    this.signal('SIGKILL')
  }
}

/** Starts two web processes and four consumers. */
export async function startFleet (t: Teardown, redis: RedisServer, dir: string, lib: string, write: Write): Promise<Member[]> {
  const fleet = await Promise.all(Array.from({ length: WEBS + CONSUMERS }, async (_, index) => {
    const consumes = index >= WEBS
    const name = consumes ? `consumer ${index - WEBS}` : `web ${index}`
    const proxy = await startProxy(t, { path: redis.path })
    const setting = { consumes, lib, ledger: join(dir, 'ledger'), log: join(dir, 'log'), redisPort: proxy.port, isOwner: index % 2 === 1 }
    const member = new Member(name, proxy, setting, write)
    t.teardown(() => { member.abandon() })
    return member
  }))
  await Promise.all(fleet.map(member => member.start()))
  return fleet
}
