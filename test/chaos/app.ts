/** An app in a process of its own, which adds tasks on request, or consumes them, and writes down what it does. */
import { randomUUID } from 'node:crypto'
import { appendFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { setTimeout as sleep } from 'node:timers/promises'
import Fastify from 'fastify'
import { clockMs, writeTo } from './ledger.js'
import { COMMIT_TIMEOUT_MS, LEASE_MS, QUEUES, type PlannedRequest, type PlannedTask } from './plan.js'

export interface Setting {
  consumes: boolean
  /** Where the plugin is. */
  lib: string
  ledger: string
  log: string
  redisPort: number
}

export type Order = { block: number } | { skew: number } | { close: true }

/** A stall that is shorter is not worth a line. */
const STALL_MS = 150

const { consumes, lib, ledger, log, redisPort } = JSON.parse(process.argv[2]!) as Setting
const { default: taskqueue } = await import(lib) as typeof import('../../lib/index.js')
const { pid } = process
const write = writeTo(ledger)
const queueAfter = (queue: string) => QUEUES[(QUEUES.indexOf(queue as 'mail') + 1) % QUEUES.length]!

process.on('disconnect', () => { process.exit() })
const app = Fastify({ logger: { level: 'warn', stream: { write (line) { appendFileSync(log, line) } } } })
await app.register(taskqueue, {
  redis: { host: '127.0.0.1', port: redisPort },
  queues: Object.fromEntries(QUEUES.map(queue => [queue, {}])),
  commitTimeoutMs: COMMIT_TIMEOUT_MS,
  copyHeaders: false,
  consumer: consumes && { concurrency: 4, leaseMs: LEASE_MS, closeGraceMs: 300, backoff: retry => 100 * 2 ** retry }
})

const cancelling = new WeakMap<object, string[]>()
const cancel = (id: string): void => {
  write({ event: 'cancels', id, pid })
  app.taskqueue.cancel(id).then(was => { write({ event: 'cancelled', id, pid, was }) }, () => {})
}

app.post<{ Body: PlannedRequest, Params: { request: string } }>('/add/:request', {
  onSend: async request => { if (request.body.ending === 'hook throws') throw new Error('a hook throws') },
  onResponse: async (request, reply) => { if (reply.statusCode < 400) for (const id of cancelling.get(request) ?? []) cancel(id) }
}, async (request, reply) => {
  const { tasks, ending } = request.body
  const added = tasks.map(({ queue, delayMs, expiresMs, ...payload }) => {
    const replaced = payload.kind === 'replaced' && { id: randomUUID(), onDuplicate: 'replace' as const }
    if (replaced !== false) request.taskqueue.add('/task', { payload, queue, delayMs: 3_600_000, id: replaced.id })
    return { id: request.taskqueue.add('/task', { payload, queue, delayMs, expiresMs, ...replaced }), kind: payload.kind, delayMs, expiresMs }
  })
  cancelling.set(request, added.filter(({ kind }) => kind === 'cancelled').map(({ id }) => id))
  write({ event: 'added', request: Number(request.params.request), pid, tasks: added })
  if (ending === 'throws') throw new Error('the handler throws')
  if (ending === 'refuses') reply.code(409)
  return { ids: added.map(({ id }) => id) }
})

app.post<{ Body: Pick<PlannedTask, 'kind' | 'ms'> }>('/task', { constraints: { taskOnly: true } }, async (request, reply) => {
  const { kind, ms } = request.body
  const { id, attempt, queue, signal } = request.task!
  write({ event: 'begins', id, attempt, pid })
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
  if ('close' in order) {
    await app.close()
    process.exit(0)
  }
})
try {
  if (consumes) await app.ready()
  else await app.listen({ port: 0, host: '127.0.0.1' })
} catch (err) {
  // Redis is not there.
  app.log.error({ err })
  process.exit(1)
}
process.send!({ port: app.server.listening ? (app.server.address() as AddressInfo).port : 0 })
