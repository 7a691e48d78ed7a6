/**
 * An app in a process of its own, which adds tasks on request and runs them. Its argument:
 * the `system`, where its `redis` is, its `queues`, its `concurrency`, 0 to run none, and by how much
 * its wall clock is fast.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import Fastify, { LogController } from 'fastify'
import { gate } from '../../build/test/support/gate.js'
import { systems } from './systems.js'

const { system, sharing, aheadMs = 0, ...options } = JSON.parse(process.argv[2])
const tell = message => { process.send(message) }
const { opened: released, open: release } = gate()
let errors = 0

if (aheadMs !== 0) setClock(aheadMs)

process.on('disconnect', () => { process.exit() })
const app = Fastify({
  logController: new LogController({ disableRequestLogging: true }),
  logger: { level: 'error', stream: { write () { errors++ } } }
})
const shared = sharing ? new Redis({ ...options.redis, maxRetriesPerRequest: null }) : undefined
const { start, add, counts, close } = await systems[system](app, { ...options, shared }, tell)

app.post('/order', async request => {
  const { tasks, delayMs, fail } = request.body
  for (const task of tasks) await add(request, `/task?${new URLSearchParams(task)}`, delayMs)
  if (fail) throw new Error('the request fails after it has added')
  return {}
})

app.get('/task', async ({ query: { n, ms, die, hold } }) => {
  tell({ event: 'begins', n })
  if (die !== undefined) {
    await sleep(Number(die))
    process.kill(process.pid, 'SIGKILL')
  }
  if (hold !== undefined) await released
  if (ms !== undefined) await sleep(Number(ms))
  tell({ event: 'ends', n })
  return {}
})

process.on('SIGTERM', async () => {
  await close()
  tell({ event: 'closed' })
})
process.on('message', async question => {
  const answers = { counts, errors: () => errors, release }
  tell({ event: 'answer', value: await answers[question]() })
})
await app.listen({ host: '127.0.0.1', port: 0 })
await start()
tell({ event: 'ready', port: app.server.address().port })

function setClock (aheadMs) {
  const TrueDate = Date
  globalThis.Date = class extends TrueDate {
    constructor (...values) {
      if (values.length === 0) super(TrueDate.now() + aheadMs)
      else super(...values)
    }

    static now () { return TrueDate.now() + aheadMs }
  }
}
