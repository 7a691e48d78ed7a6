/** An app in a process of its own, which adds tasks on request, or consumes them, and writes down what it does. */
import { randomUUID } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { Redis } from 'ioredis'
import type { Transaction } from '../../lib/index.js'
import { clockMs, writeTo, type AddedTask } from './ledger.js'

import { ALL_QUEUES, CANNOT_START, COMMIT_TIMEOUT_MS, EVERY_MS, LEASE_MS, LIMITS, QUEUES, SCHEDULES, SHARED, type LEAVES, type PlannedRequest, type PlannedTask } from './plan.js'

export interface Setting {
  consumes: boolean
  /** Where the plugin is. */
  lib: string
  ledger: string
  log: string
  redisPort: number
  /** Whether it passes in a client of its own. */
  isOwner: boolean
}

/** How and when a client is closed by its owner. */
export interface Leave { how: 'quit' | 'disconnect', when: Exclude<typeof LEAVES[number], 'alone'> }

/** An app that closes may add tasks up to the end, and after it; its client may be closed alone for a while. */
export type Order = { block: number } | { skew: number } | { close: true, adds: boolean, leave?: Leave | undefined } | { alone: Leave['how'], ms: number }

/** A stall that is shorter is not worth a line. */
const STALL_MS = 150

const { consumes, lib, ledger, log, redisPort, isOwner } = JSON.parse(process.argv[2]!) as Setting
const { default: taskqueue } = await import(lib) as typeof import('../../lib/index.js')
const { pid } = process
const write = writeTo(ledger)
const queueAfter = (queue: string) => ALL_QUEUES[(ALL_QUEUES.indexOf(queue as 'mail') + 1) % ALL_QUEUES.length]!

process.on('disconnect', () => { process.exit() })
const app = Fastify({ logger: { level: 'warn', stream: { write (line) { appendFileSync(log, line) } } } })
const client = isOwner ? new Redis({ host: '127.0.0.1', port: redisPort }) : undefined
client?.on('error', () => {})
let leave: Leave | undefined
let isClosing = false
/** What the client answered that was asked to quit; it refuses when it has lost Redis, and then the hook that asked it fails. */
let refusal: unknown
const leaveAt = async (when: Leave['when']) => {
  if (leave?.when !== when) return
  try {
    await client?.[leave.how]()
  } catch (err) {
    refusal = err
    throw err
  }
}
app.addHook('preClose', () => leaveAt('preClose'))
await app.register(taskqueue, {
  redis: client ?? { host: '127.0.0.1', port: redisPort },
  queues: { ...Object.fromEntries(QUEUES.map(queue => [queue, {}])), [SHARED]: { limits: LIMITS } },
  schedules: Object.fromEntries(SCHEDULES.map((id, index) =>
    [id, { everyMs: EVERY_MS, url: '/task', payload: { kind: 'plain', ms: 10 }, queue: QUEUES[index % 2]!, overlap: 'allow' as const, catchUp: 'all' as const }])),
  commitTimeoutMs: COMMIT_TIMEOUT_MS,
  copyHeaders: false,
  consumer: consumes && { concurrency: 4, leaseMs: LEASE_MS, closeGraceMs: 300, backoff: retry => 100 * 2 ** retry }
})

// Of those that are called one after the other the last one is called first.
app.addHook('onClose', () => leaveAt('onClose'))

const cancelling = new WeakMap<object, string[]>()
const cancel = (id: string): void => {
  write({ event: 'cancels', id, pid })
  app.taskqueue.cancel(id).then(was => { write({ event: 'cancelled', id, pid, was }) }, () => {})
}

function addTo (tx: Transaction, number: number, { tasks, joins, outside, ending }: PlannedRequest): AddedTask[] {
  const added = tasks.map(({ queue, delayMs, expiresMs, key, priority, ...payload }) => {
    const replaced = payload.kind === 'replaced' && { id: randomUUID(), onDuplicate: 'replace' as const }
    if (replaced !== false) tx.add('/task', { payload, queue, delayMs: 3_600_000, id: replaced.id })
    const id = tx.add('/task', { payload, queue, delayMs, expiresMs, key, priority, ...replaced })
    return { id, kind: payload.kind, delayMs, expiresMs, key }
  })
  const commit = async () => {
    await sleep(Math.random() * 20)
    write({ event: 'row', request: number, pid })
  }
  if (joins === true) tx.join({ commit, rollback () {} })
  write({ event: 'added', request: number, pid, tasks: added, ...joins === true && { joins } })
  if (outside === true && ending === 'throws') throw new Error('the transaction throws')
  return added
}

/** Adds tasks of its own accord, ever more slowly, for as long as it is told. */
async function addAtEnd (signal: AbortSignal): Promise<void> {
  const adding: Array<Promise<void>> = []
  for (let i = 0; !signal.aborted; i++) {
    const request = pid * 10_000 + i
    const task: PlannedTask = { kind: 'plain', queue: QUEUES[i % 2]!, ms: 5 }
    write({ event: 'asked', request })
    const told = app.taskqueue.transaction(tx => {
      addTo(tx, request, { at: 0, web: 0, ending: 'succeeds', tasks: [task], outside: true, ...i % 3 === 0 && { joins: true } })
    })
    adding.push(told.then(() => 200, () => 503).then(status => { write({ event: 'answered', request, status }) }))
    await sleep(2 + i / 5)
  }
  await Promise.all(adding)
}

async function close (adds: boolean): Promise<void> {
  const over = new AbortController()
  if (!adds) over.abort()
  const adding = addAtEnd(over.signal)
  await sleep(20)
  await leaveAt('before').catch(() => {})
  const closed = app.close()
  setImmediate(() => { leaveAt('after').catch(() => {}) })
  await closed.catch(err => { if (err !== refusal) throw err })
  await sleep(20)
  over.abort()
  await adding
}

/** Closes the client alone, and connects it again after a while. */
async function leaveAlone (how: Leave['how'], ms: number): Promise<void> {
  await Promise.resolve(client?.[how]()).catch(() => {})
  for (;;) {
    await sleep(ms)
    if (client?.status !== 'end' || leave !== undefined) return
    await client.connect().catch(() => {})
  }
}

app.post<{ Body: PlannedRequest, Params: { request: string } }>('/add/:request', {
  onSend: async request => { if (request.body.ending === 'hook throws') throw new Error('a hook throws') },
  onResponse: async (request, reply) => { if (reply.statusCode < 400) for (const id of cancelling.get(request) ?? []) cancel(id) }
}, async (request, reply) => {
  const { ending, outside } = request.body
  const number = Number(request.params.request)
  if (outside === true) return await app.taskqueue.transaction(tx => { addTo(tx, number, request.body) })
  const added = addTo(request.taskqueue, number, request.body)
  cancelling.set(request, added.filter(({ kind }) => kind === 'cancelled').map(({ id }) => id))
  if (ending === 'throws') throw new Error('the handler throws')
  if (ending === 'refuses') reply.code(409)
  return { ids: added.map(({ id }) => id) }
})

app.post<{ Body: Pick<PlannedTask, 'kind' | 'ms'> }>('/task', { constraints: { taskOnly: true } }, async (request, reply) => {
  const { kind, ms } = request.body
  const { id, attempt, queue, signal, schedule } = request.task!
  const slot = schedule && { schedule: schedule.id, slot: schedule.slot.getTime() }
  write({ event: 'begins', id, attempt, pid, queue, ...slot })
  signal.addEventListener('abort', () => { write({ event: 'aborts', id, attempt, pid }) })
  if (kind === 'poison') setTimeout(() => { process.kill(pid, 'SIGKILL') }, 30)
  if (kind === 'chain' || kind === 'flaky') {
    // Their ids tell which attempt has added them.
    const tasks = [queue, queueAfter(queue)].map((queue, index) =>
      request.taskqueue.add('/task', { id: `${id}+${attempt}+${index}`, payload: { kind: 'plain', ms: 5 }, queue }))
    write({ event: 'chains', id, attempt, pid, tasks })
  }
  await sleep(ms, undefined, { signal })
  if (kind === 'poison') await sleep(60_000)
  if (kind === 'flaky' && attempt === 1) reply.code(503)
  write({ event: 'ends', id, attempt, pid, status: reply.statusCode })
  return {}
})

let looked = clockMs()
setInterval(() => {
  const ms = clockMs() - looked - 50
  looked += ms + 50
  if (ms >= STALL_MS) write({ event: 'stalled', pid, ms: Math.round(ms) })
}, 50)

const now = Date.now
process.on('message', async (order: Order) => {
  if ('skew' in order) Date.now = () => now() + order.skew
  if ('block' in order) Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, order.block)
  if ('alone' in order) await leaveAlone(order.alone, order.ms)
  if ('close' in order) {
    // It has been told already.
    if (isClosing) return
    isClosing = true
    leave = order.leave
    await close(order.adds)
    process.exit(0)
  }
})
try {
  if (consumes) await app.ready()
  else await app.listen({ port: 0, host: '127.0.0.1' })
} catch (err) {
  app.log.error({ err })
  // One that is being closed ends when it has told Redis what it has promised.
  if (!isClosing) process.exit(CANNOT_START)
}
if (!isClosing) process.send!({ port: app.server.listening ? (app.server.address() as AddressInfo).port : 0 })
