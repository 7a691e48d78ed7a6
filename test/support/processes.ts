import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { Redis } from 'ioredis'
import type { Test } from 'tap'
import type { AddOptions, ConsumerOptions, Queue, Taskqueue, TaskqueueOptions } from '../../lib/index.js'
import type { Attempt, Command, Report, Returned } from './app.js'
import { loggedApp } from './logged-app.js'

import { startRedis, type RedisServer, type RedisServerOptions } from './redis-server.js'
import { until } from './until.js'

/** Longer than a live process has to wait for a processor on a machine that is busy. */
export const LEASE_MS = 2000
export const HEARTBEAT_MS = LEASE_MS / 5
/** What a machine that is busy may add to any time. */
export const SLACK_MS = 2000
/** No commit of these tests is to fail, however many tasks it has and however busy the machine is. */
const COMMIT_TIMEOUT_MS = 20_000

/** A process that runs `app.ts`. */
export interface Process {
  readonly child: ChildProcess
  readonly reports: readonly Report[]
  /** What it reported of the beginnings and ends of attempts, and of their signals. */
  readonly begun: Attempt[]
  readonly ended: Attempt[]
  readonly aborted: Attempt[]
  readonly added: string[]
  /** Its `app.taskqueue`, and its queue, to be called from here: each call is reported before it is made. */
  readonly taskqueue: Remote<Taskqueue>
  readonly queue: Remote<Queue>
  /** How it ended, once it has. */
  readonly exit: Promise<[code: number | null, signal: NodeJS.Signals | null]>
  send (command: Command): void
  /** Returns how many MiB the process takes, garbage apart, and how many its answers had so far. */
  measure (): Promise<{ rss: number, answered: number }>
  /** Sends a signal that ends it, waits for its end, and returns how it ended. */
  end (signal: NodeJS.Signals): Process['exit']
}

/** The methods of an object in another process. A call whose process dies is never answered. */
type Remote<T> = Pick<T, { [K in keyof T]: T[K] extends (...args: any[]) => Promise<unknown> ? K : never }[keyof T]>

export interface Processes {
  readonly redis: RedisServer
  readonly admin: Redis
  /** Of the process of the test, which runs no tasks. */
  readonly taskqueue: Taskqueue
  /** All that were started. */
  readonly all: Process[]
  /** Starts a process that is a consumer with these options, or only adds. */
  start (consumer: ConsumerOptions | false): Promise<Process>
  /** Kills a process and waits until Redis, too, has come to the end of what it has sent. */
  kill (victim: Process): Promise<void>
  /** Kills a process so long after it has begun what it is called for here; returns what that returned, if it was faster, and how long it had. */
  killWithin<T> (victim: Process, ms: number, call: () => Promise<T>): Promise<{ returned: Awaited<T> | undefined, tookMs: number }>
  /** Waits until consumers have been in contact with Redis for so long, by which leases run. */
  pass (ms: number): Promise<void>
  /** Adds tasks from the process of the test, which runs none. */
  add (urls: string[], options?: AddOptions): Promise<string[]>
  counts: Queue['counts']
  /** Waits until nothing waits, is delayed or runs. */
  drained (): Promise<void>
}

/** Makes it possible to start processes that share one queue, in a Redis of their own. */
export async function startAll (t: Test, options: RedisServerOptions = {}): Promise<Processes> {
  const redis = await startRedis(t, options)
  const { app } = await loggedApp(t, { redis: { path: redis.path }, consumer: false, commitTimeoutMs: COMMIT_TIMEOUT_MS })
  await app.ready()
  const admin = new Redis({ path: redis.path })
  admin.on('error', () => {})
  t.teardown(() => { admin.disconnect() })
  const all: Process[] = []
  const counts = () => app.taskqueue.queue('default').counts()
  const leaseClock = async () => Number((await admin.get('taskqueue:{default}:clock'))?.split(' ')[1] ?? 0)
  const kill = async (victim: Process) => {
    await victim.end('SIGKILL')
    const name = ` name=${nameOf(all.indexOf(victim))} `
    await until(async () => !String(await admin.client('LIST')).includes(name), 'Redis notices its end')
  }
  return {
    redis,
    admin,
    taskqueue: app.taskqueue,
    all,
    add: (urls, options) => app.taskqueue.transaction(tx => urls.map(url => tx.add(url, options))),
    counts,
    kill,
    async killWithin (victim, ms, call) {
      const begins = once(victim.child, 'message')
      const result = call()
      await begins
      const since = performance.now()
      const returned = await Promise.race([result, ...ms === Infinity ? [] : [sleep(ms, undefined)]])
      const tookMs = performance.now() - since
      await kill(victim)
      return { returned, tookMs }
    },
    async pass (ms) {
      const end = await leaseClock() + ms
      await until(async () => await leaseClock() >= end, `${ms} ms pass`)
    },
    async drained () {
      await until(async () => {
        const { waiting, delayed, running } = await counts()
        return waiting + delayed + running === 0
      }, 'the queue is drained', 60_000)
    },
    async start (consumer) {
      const started = forkApp(t, {
        redis: { path: redis.path, connectionName: nameOf(all.length) },
        commitTimeoutMs: COMMIT_TIMEOUT_MS,
        consumer: consumer && { leaseMs: LEASE_MS, ...consumer }
      })
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

/** Returns the ids of these tasks, once for each settlement. What tells of it may itself be run by two, one of which is killed. */
export const settledIds = (processes: readonly Process[]): string[] => [...new Set(settlements(processes))].map(text => text.split(' ')[0]!)

export const idsOf = (attempts: ReadonlyArray<{ id: string }>): string[] => attempts.map(({ id }) => id).sort()

export const repeat = <T>(times: number, value: T): T[] => Array.from({ length: times }, () => value)

const MIB = 2 ** 20
const nameOf = (index: number) => `process-${index}`
const hasEnded = ({ exitCode, signalCode }: ChildProcess) => exitCode !== null || signalCode !== null

function forkApp (t: Test, options: TaskqueueOptions): Process {
  const child = fork(fileURLToPath(new URL('app.js', import.meta.url)), [JSON.stringify(options)], { execArgv: ['--expose-gc'], serialization: 'advanced' })
  const exit = once(child, 'exit') as Process['exit']
  t.teardown(async () => {
    // One that is stopped hears of nothing else.
    if (!hasEnded(child)) child.kill('SIGKILL')
    await exit
  })
  // A message to one that has just died.
  child.on('error', () => {})
  const reports: Report[] = []
  const calls: Array<(returned: Returned) => void> = []
  child.on('message', (report: Report) => {
    if (report.event === 'returned' || report.event === 'threw') calls[report.call]!(report)
    else reports.push(report)
  })
  const remote = <T>(of: 'taskqueue' | 'queue') => new Proxy({}, {
    get: (_, method: string) => async (...args: unknown[]) => {
      const returned = await new Promise<Returned>(resolve => { child.send({ call: calls.push(resolve) - 1, of, method, args }) })
      if (returned.event === 'returned') return returned.value
      throw Object.assign(new Error(returned.message), { code: returned.code })
    }
  }) as Remote<T>
  const of = (event: string) => reports.filter(report => report.event === event) as Attempt[]
  return {
    child,
    reports,
    exit,
    taskqueue: remote<Taskqueue>('taskqueue'),
    queue: remote<Queue>('queue'),
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
