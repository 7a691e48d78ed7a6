/**
 * Keeps an app under steady load for as long as it is told, with tasks that fail in every way
 * and a Redis whose connections are cut and which is restarted, and checks that nothing
 * grows: `npm run soak -- --minutes 10`.
 */
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { Redis } from 'ioredis'
import type { Sample } from './app.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'

const SAMPLE_MS = 10_000
const CUT_MS = 4000
const RESTART_MS = 60_000
const MIB = 1024 * 1024

/** What is measured, and by how much the last quarter may be above the second one. */
const MEASURES = {
  heap: { title: 'heap used, MiB', allowed: (before: number) => 1 + before * 0.05 },
  resources: { title: 'active resources', allowed: (before: number) => 5 + before * 0.25 },
  connections: { title: 'connections', allowed: () => 0.5 },
  keys: { title: 'keys in Redis', allowed: () => 6 },
  memory: { title: 'memory of Redis, MiB', allowed: (before: number) => 0.25 + before * 0.05 }
}
type Measure = keyof typeof MEASURES
type Row = Record<Measure, number>

const { values: { minutes } } = parseArgs({ options: { minutes: { type: 'string', default: '10' } } })
const endings: Array<() => unknown> = []
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => { finish().finally(() => process.exit(1)) })
try {
  process.exitCode = await soak(Number(minutes) * 60_000) ? 0 : 1
} finally {
  await finish()
}

async function finish (): Promise<void> {
  for (const end of endings.splice(0).reverse()) await end()
}

async function soak (ms: number): Promise<boolean> {
  const redis = await startRedis({ teardown: end => { endings.push(end) } }, { args: ['--appendonly', 'yes'] })
  const admin = new Redis(redis.path, { retryStrategy: () => 50, maxRetriesPerRequest: null })
  admin.on('error', () => {})
  endings.push(() => { admin.disconnect() })
  const child = fork(fileURLToPath(new URL('app.js', import.meta.url)), [redis.path], { execArgv: ['--expose-gc'] })
  endings.push(() => { child.kill('SIGKILL') })
  const died = once(child, 'exit').then(([code, signal]) => { throw new Error(`the app exited with ${code ?? signal}`) })
  const ask = async (question?: 'sample' | 'stop'): Promise<Sample> => {
    if (question !== undefined) child.send(question)
    return (await Promise.race([once(child, 'message'), died]))[0]
  }
  await ask()

  const start = performance.now()
  const rows: Row[] = []
  print(['second', ...Object.values(MEASURES).map(({ title }) => title), 'tasks done', 'requests refused'])
  const every = (periodMs: number, run: () => unknown) => {
    const timer = setInterval(run, periodMs)
    endings.push(() => { clearInterval(timer) })
    return timer
  }
  let type = 'normal'
  const cuts = every(CUT_MS, () => {
    type = type === 'normal' ? 'pubsub' : 'normal'
    admin.call('CLIENT', 'KILL', 'TYPE', type, 'SKIPME', 'yes').catch(() => {})
  })
  const restarts = every(RESTART_MS, async () => {
    await redis.stop()
    await redis.start()
  })
  while (performance.now() - start < ms) {
    await sleep(SAMPLE_MS)
    const sample = await ask('sample')
    const row = await measure(sample, admin)
    rows.push(row)
    print([Math.round((performance.now() - start) / 1000), ...Object.values(row).map(round), sample.ended, sample.refused])
  }
  clearInterval(cuts)
  clearInterval(restarts)

  const isFlat = judge(rows)
  await ask('stop')
  await until(async () => {
    const { counts } = await ask('sample')
    return counts.length > 0 && counts.every(({ waiting, delayed, running }) => waiting + delayed + running === 0)
  }, 'the queues are empty', 60_000)
  console.log('Every task has ended.')
  return isFlat
}

async function measure ({ heapUsed, resources }: Sample, admin: Redis): Promise<Row> {
  const memory = /^used_memory:(\d+)/m.exec(await admin.info('memory'))![1]
  const clients = String(await admin.client('LIST')).trim().split('\n')
  return { heap: heapUsed / MIB, resources, connections: clients.length - 1, keys: await admin.dbsize(), memory: Number(memory) / MIB }
}

/** Compares the medians of the second and the last quarter; the first one warms up. */
function judge (rows: readonly Row[]): boolean {
  const quarter = (number: number) => rows.slice(Math.floor(rows.length * (number - 1) / 4), Math.floor(rows.length * number / 4))
  if (quarter(2).length === 0) throw new Error('too short to compare quarters: a minute at least')
  console.log()
  print(['measure', '2nd quarter', 'last quarter', 'may grow by', 'verdict'])
  const verdicts = (Object.keys(MEASURES) as Measure[]).map(measure => {
    const [before, after] = [2, 4].map(number => median(quarter(number).map(row => row[measure]))) as [number, number]
    const { title, allowed } = MEASURES[measure]
    const isFlat = after - before <= allowed(before)
    print([title, round(before), round(after), round(allowed(before)), isFlat ? 'flat' : 'GROWS'])
    return isFlat
  })
  return verdicts.every(Boolean)
}

function median (values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length / 2
  return (sorted[Math.floor(middle)]! + sorted[Math.ceil(middle) - 1]!) / 2
}

function round (value: number): number {
  return Math.round(value * 100) / 100
}

function print (cells: ReadonlyArray<string | number>): void {
  console.log(cells.map(cell => String(cell).padStart(20)).join(' '))
}
