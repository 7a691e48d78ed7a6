import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import type { AddOptions, ConsumerOptions, Queue, TaskqueueOptions } from '../lib/index.js'
import type { Attempt, Command, Report } from './fixtures/app.js'
import { loggedApp } from './logged-app.js'
import { startRedis, type RedisServer, type RedisServerOptions } from './redis-server.js'
import { until } from './until.js'

export const NOTHING = { waiting: 0, delayed: 0, running: 0, dead: 0 }
export const LEASE_MS = 1000
export const HEARTBEAT_MS = LEASE_MS / 5
/** What a machine that is busy may add to any time. */
export const SLACK_MS = 2000

/** A process that runs `fixtures/app.ts`. */
export interface Process {
  readonly child: ChildProcess
  readonly reports: readonly Report[]
  /** What it reported of the beginnings and ends of attempts, and of their signals. */
  readonly begun: Attempt[]
  readonly ended: Attempt[]
  readonly aborted: Attempt[]
  readonly added: string[]
  /** How it ended, once it has. */
  readonly exit: Promise<[code: number | null, signal: NodeJS.Signals | null]>
  send (command: Command): void
  /** Returns how many MiB the process takes, garbage apart, and how many its answers had so far. */
  measure (): Promise<{ rss: number, answered: number }>
  /** Sends a signal that ends it, waits for its end, and returns how it ended. */
  end (signal: NodeJS.Signals): Process['exit']
}

export interface Processes {
  readonly redis: RedisServer
  readonly admin: Redis
  /** All that were started. */
  readonly all: Process[]
  /** Starts a process that is a consumer with these options, or only adds. */
  start (consumer: ConsumerOptions | false): Promise<Process>
  /** Adds tasks from the process of the test, which runs none. */
  add (urls: string[], options?: AddOptions): Promise<string[]>
  counts: Queue['counts']
  /** Waits until nothing waits, is delayed or runs. */
  drained (): Promise<void>
}

/** Makes it possible to start processes that share one queue, in a Redis of their own. */
export async function startAll (t: Test, options: RedisServerOptions = {}): Promise<Processes> {
  const redis = await startRedis(t, options)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false, commitTimeoutMs: 10_000 })
  await app.ready()
  const admin = new Redis({ path: redis.path })
  admin.on('error', () => {})
  t.teardown(() => { admin.disconnect() })
  const all: Process[] = []
  const counts = () => app.taskqueue.queue('default').counts()
  return {
    redis,
    admin,
    all,
    add: (urls, options) => app.taskqueue.transaction(tx => urls.map(url => tx.add(url, options))),
    counts,
    async drained () {
      await until(async () => {
        const { waiting, delayed, running } = await counts()
        return waiting + delayed + running === 0
      }, 'the queue is drained', 60_000)
    },
    async start (consumer) {
      const started = forkApp(t, { redis: { path: redis.path }, consumer: consumer && { leaseMs: LEASE_MS, ...consumer } })
      all.push(started)
      await until(() => started.reports.length > 0 || hasEnded(started.child), 'start', 60_000)
      if (started.reports.length === 0) throw new Error(`it ended with ${started.child.exitCode ?? started.child.signalCode}`)
      return started
    }
  }
}

/**
 * Returns "id attempt" for each settlement of a task that has told of its own: what such a
 * task adds is stored when it is settled, and not otherwise.
 */
export function settlements (processes: readonly Process[]): string[] {
  return processes.flatMap(({ begun }) => begun)
    .map(({ url }) => /settled=(.*)&attempt=(.*)/.exec(url))
    .flatMap(match => match === null ? [] : `${match[1]} ${match[2]}`)
    .sort()
}

export const idsOf = (attempts: ReadonlyArray<{ id: string }>): string[] => attempts.map(({ id }) => id).sort()

export const repeat = <T>(times: number, value: T): T[] => Array.from({ length: times }, () => value)

const MIB = 2 ** 20
const hasEnded = ({ exitCode, signalCode }: ChildProcess) => exitCode !== null || signalCode !== null

function forkApp (t: Test, options: TaskqueueOptions): Process {
  const child = fork(fileURLToPath(new URL('fixtures/app.js', import.meta.url)), [JSON.stringify(options)], { execArgv: ['--expose-gc'] })
  const exit = once(child, 'exit') as Process['exit']
  t.teardown(async () => {
    // One that is stopped hears of nothing else.
    if (!hasEnded(child)) child.kill('SIGKILL')
    await exit
  })
  // A message to one that has just died.
  child.on('error', () => {})
  const reports: Report[] = []
  child.on('message', (report: Report) => { reports.push(report) })
  const of = (event: string) => reports.filter(report => report.event === event) as Attempt[]
  return {
    child,
    reports,
    exit,
    get begun () { return of('begins') },
    get ended () { return of('ends') },
    get aborted () { return of('aborts') },
    get added () { return of('added').map(({ id }) => id) },
    send (command) { child.send(command) },
    async measure () {
      const of = () => reports.filter(report => report.event === 'measured')
      const { length } = of()
      child.send({ measure: true })
      await until(() => of().length > length, 'measurement')
      const { rss, answered } = of().at(-1)!
      return { rss: rss / MIB, answered: answered / MIB }
    },
    async end (signal) {
      child.kill(signal)
      return await exit
    }
  }
}
