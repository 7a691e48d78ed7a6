import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyInstance } from 'fastify'
import { Redis, type RedisOptions } from 'ioredis'
import type { Test } from 'tap'
import type { TaskqueueOptions } from '../../lib/index.js'
import { loggedApp, type LogLine } from '../support/logged-app.js'

import { until } from '../support/until.js'

import { gate } from '../support/gate.js'
import { NOTHING } from '../support/nothing.js'

/** How a request that adds a task was answered, each attempt at the task, and how many of them have ended. */
export interface Entry { readonly id: string, status?: number, readonly attempts: number[], ends: number }

/** An app that adds, an app that consumes, and a ledger of what both say of each task. */
export interface Ledger {
  readonly adder: FastifyInstance
  readonly consumer: FastifyInstance
  readonly log: LogLine[]
  readonly entries: Map<string, Entry>
  readonly accepted: Entry[]
  readonly refused: Entry[]
  /** Makes a request that adds a task, and returns its entry once it is answered. */
  post (query?: string): Promise<Required<Entry>>
  /** Makes requests, a few at a time, until the function that it returns is called. */
  load (): () => Promise<void>
  /** Adds a task that runs until the function that it returns is called. */
  hold (): Promise<() => void>
  /** Does something when the next task runs, and not again. */
  onRun (run: () => void): void
  /** Waits until all that was accepted is done, or those of it that are looked at. */
  settled (isLookedAt?: (entry: Entry) => boolean): Promise<void>
  /** What must not be: ids that were accepted and never ran, were refused and ran, ran more often than once. */
  readonly lost: string[]
  readonly ghosts: string[]
  readonly doubled: string[]
}

/** Options of the plugin, for both apps, and what differs for each of them. */
export interface LedgerOptions extends TaskqueueOptions { adder?: TaskqueueOptions, consuming?: TaskqueueOptions }

export async function openLedger (t: Test, { adder: adding, consuming, ...both }: LedgerOptions): Promise<Ledger> {
  const { app: adder } = await loggedApp(t, { ...both, consumer: false, ...adding })
  const { app: consumer, log } = await loggedApp(t, { ...both, ...consuming })
  const entries = new Map<string, Entry>()
  const all = () => [...entries.values()]
  const entryOf = (id: string): Entry => {
    const entry = entries.get(id) ?? { id, attempts: [], ends: 0 }
    entries.set(id, entry)
    return entry
  }
  const held = new Map<string, Promise<void>>()
  let act: (() => void) | undefined

  adder.post<{ Querystring: { id: string, query: string } }>('/', async ({ taskqueue, query: { id, query } }) =>
    ({ id: taskqueue.add(`/task?${query}`, { id, method: 'GET' }) }))
  consumer.get<{ Querystring: { status?: string, chain?: string } }>('/task', async ({ task, taskqueue, query: { status, chain } }, reply) => {
    const entry = entryOf(task!.id)
    const { attempts } = entry
    attempts.push(task!.attempt)
    act?.()
    act = undefined
    await held.get(task!.id)
    entry.ends++
    if (chain !== undefined) taskqueue.add('/task', { id: `${task!.id}-chained`, method: 'GET' })
    if (status !== undefined && attempts.length === 1) reply.code(Number(status))
    return {}
  })
  await adder.ready()
  await consumer.ready()

  const ledger: Ledger = {
    adder,
    consumer,
    log,
    entries,
    get accepted () { return all().filter(({ status = 503 }) => status < 400) },
    get refused () { return all().filter(({ status = 200 }) => status >= 400) },
    async post (query = '') {
      const entry = entryOf(randomUUID())
      const { statusCode } = await adder.inject({ method: 'POST', url: '/', query: { id: entry.id, query } })
      return Object.assign(entry, { status: statusCode })
    },
    load () {
      const stop = new AbortController()
      const done = Promise.all(Array.from({ length: 3 }, async () => {
        while (!stop.signal.aborted) {
          const { status } = await ledger.post()
          await sleep(status < 400 ? 1 : 10)
        }
      }))
      return async () => {
        stop.abort()
        await done
      }
    },
    async hold () {
      const { opened, open } = gate()
      const entry = entryOf(randomUUID())
      held.set(entry.id, opened)
      entry.status = (await adder.inject({ method: 'POST', url: '/', query: { id: entry.id, query: '' } })).statusCode
      await until(() => entry.attempts.length === 1, 'the task that is held')
      return open
    },
    onRun (run) { act = run },
    async settled (isLookedAt = () => true) {
      const looked = () => ledger.accepted.filter(isLookedAt)
      await until(() => looked().every(({ attempts }) => attempts.length > 0), 'all that was accepted').catch(() => {})
      const counts = async () => await adder.taskqueue.queue('default').counts().catch(() => NaN)
      await until(async () => JSON.stringify({ ...await counts() as object, dead: 0 }) === JSON.stringify(NOTHING), 'the end of all tasks')
    },
    get lost () { return ledger.accepted.filter(({ attempts }) => attempts.length === 0).map(({ id }) => id) },
    get ghosts () { return ledger.refused.filter(({ attempts }) => attempts.length > 0).map(({ id }) => id) },
    get doubled () { return all().filter(({ attempts }) => attempts.length > 1).map(({ id }) => id) }
  }
  return ledger
}

/** Expects that each task that was accepted has run, once, and no other. */
export async function balance (t: Test, ledger: Ledger, admin: Redis): Promise<void> {
  await ledger.settled()
  await until(async () => !(await admin.hvalsBuffer('taskqueue:{default}:prepared')).some(hasTasks), 'the end of all commits')
  await ledger.settled()
  const { lost, ghosts, doubled, accepted, refused, log } = ledger
  t.same({ lost, ghosts, doubled }, { lost: [], ghosts: [], doubled: [] }, `${accepted.length} accepted, ${refused.length} refused`)
  t.same(log.filter(({ msg }) => msg.includes('lost its lease')), [], 'no lease is lost')
}

/** Whether what is kept of a commit is more than the time at which it ended. */
export const hasTasks = (prepared: Buffer): boolean => prepared.length > '1234567890123 '.length

/** A client that looks and harms, and survives what it does. */
export function adminOf (t: Pick<Test, 'teardown'>, { path }: { path: string }, options: RedisOptions = {}): Redis {
  const admin = new Redis({ path, ...options })
  admin.on('error', () => {})
  t.teardown(() => { admin.disconnect() })
  return admin
}
