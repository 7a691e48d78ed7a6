import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { Rate } from '../../lib/index.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import type { NewTask } from '../../lib/store/tasks.js'
import type { Settlement, TurnResult } from '../../lib/store/turn.js'
import { startAll } from '../support/processes.js'
import { startRedis, type RedisServerOptions } from '../support/redis-server.js'
import { until } from '../support/until.js'

// What limits promise where there are several processes, many keys, or a clock that is set back.

t.setTimeout(300_000)

const LEASE_MS = 60_000

/** Opens stores as so many processes would. */
async function open (t: Test, count: number, options?: RedisServerOptions) {
  const redis = await startRedis(t, options)
  const admin = new Redis({ path: redis.path })
  t.teardown(() => { admin.disconnect() })
  const stores = await Promise.all(Array.from({ length: count }, async () => {
    const store = new RedisStore({ path: redis.path }, 'taskqueue', 60_000)
    t.teardown(() => store.close())
    await store.open()
    return store
  }))
  return { redis, admin, stores }
}

async function add (store: RedisStore, tasks: NewTask[]): Promise<void> {
  for (let i = 0; i < tasks.length; i += 1000) await (await store.prepare(tasks.slice(i, i + 1000))).commit()
}

function turn (store: RedisStore, limit: number, settlements: Settlement[] = []): Promise<TurnResult> {
  const claim = limit > 0 ? { limit, alone: false, leaseMs: LEASE_MS } : undefined
  return store.turn('q', { settlements, heartbeatMs: LEASE_MS / 5, claim, keep: { count: 0, ms: 1000 } })
}

const task = (index: number, rest: Partial<NewTask> = {}): NewTask => ({ queue: 'q', id: `task-${index}`, message: 'message', ...rest })

/** How many of these claims lie in the fullest window. Their fences are microseconds, those of one claim one apart. */
function mostWithin (ms: number, claimed: readonly number[]): number {
  const windowUs = ms * 1000 - 100
  return Math.max(...claimed.map((from, index) => claimed.slice(index).findLastIndex(at => at < from + windowUs) + 1))
}

const RATES: Record<string, Rate> = { 'evenly spaced': { max: 100, ms: 500 }, 'in bursts': { max: 50, ms: 500, burst: 20 } }

for (const [title, rate] of Object.entries(RATES)) {
  t.test(`five processes that claim as fast as they can begin no more attempts in any window than the rate allows, ${title}`, async t => {
    const { stores } = await open(t, 5)
    const [first] = stores
    await first!.operate('q', { kind: 'limit', limits: { rate } })
    await add(first!, Array.from({ length: 2000 }, (_, index) => task(index)))
    // A claim tells its time: the fence is the microsecond of Redis's clock.
    const claimed: number[] = []
    const end = performance.now() + 3000
    await Promise.all(stores.map(async store => {
      let ended: Settlement[] = []
      while (performance.now() < end) {
        const { leases } = await turn(store, 10, ended)
        ended = leases.map(lease => ({ lease, verdict: { kind: 'done' } }))
        claimed.push(...leases.map(({ fence }) => fence))
      }
    }))
    claimed.sort((a, b) => a - b)
    const { max, ms, burst = 1 } = rate
    const most = mostWithin(ms, claimed)
    t.ok(most <= max + burst - 1, `${most} in a window, at most ${max + burst - 1}`)
    t.ok(claimed.length > max, `and ${claimed.length} in three seconds`)
  })
}

t.test('the consumers of five processes, one of which is killed, begin no more attempts in any window than the rate allows', async t => {
  const { start, add, admin, all } = await startAll(t)
  const [max, ms] = [50, 250]
  const desk = await start(false)
  await desk.queue.setLimits({ rate: { max, ms } })
  await add(Array.from({ length: 300 }, () => '/task?hold=9'))
  const [victim] = await Promise.all(Array.from({ length: 5 }, () => start({ concurrency: 80 })))
  await until(() => all.flatMap(({ begun }) => begun).length > 60)
  await victim!.end('SIGKILL')
  const key = 'taskqueue:{default}:attempts'
  await until(async () => await admin.hlen(key) >= 300, 'all are claimed', 60_000)
  // None has ended, and a fence is the microsecond of the claim.
  const claimed = (await admin.hvals(key)).map(text => Number(text.split(' ')[0])).sort((a, b) => a - b)
  const most = mostWithin(ms, claimed)
  t.ok(most <= max, `${most} in a window, at most ${max}`)
  t.ok(most > max / 2, `${most} in the fullest window`)
})

t.test('a claim among 10,000 keys, all but one of them at their limit, sends Redis the same commands as one among 100', async t => {
  const { admin, stores: [store] } = await open(t, 1)
  const used: Array<Record<string, number>> = []
  for (const count of [100, 10_000]) {
    await admin.flushall()
    await store!.operate('q', { kind: 'limit', limits: { perKey: { running: 1 } } })
    // Two tasks of each key, of which one runs.
    await add(store!, Array.from({ length: 2 * count }, (_, index) => task(index, { key: `key-${index % count}` })))
    for (let claimed = 0; claimed < count;) claimed += (await turn(store!, 500)).leases.length
    t.same((await turn(store!, 10)).leases, [])
    await add(store!, Array.from({ length: 20 }, (_, index) => task(2 * count + index, { key: 'free' })))
    let ended: Settlement[] = []
    await admin.config('RESETSTAT')
    for (let round = 0; round < 20; round++) {
      const { leases } = await turn(store!, 1, ended)
      t.equal(leases.length, 1)
      ended = leases.map(lease => ({ lease, verdict: { kind: 'done' } }))
    }
    const stats = await admin.info('commandstats')
    used.push(Object.fromEntries([...stats.matchAll(/^cmdstat_(\S+):calls=(\d+)/gm)].map(([, name, calls]) => [name!, Number(calls)])))
    t.strictSame(Object.keys(used.at(-1)!).filter(name => /^(?:lrem|lindex|hgetall|hkeys|hvals|h?scan|keys|[sz]scan|smembers|sort)$/.test(name)), [])
  }
  t.strictSame(used[1], used[0])
})

t.test('while the clock of Redis is set back an hour, a rate holds nothing up for longer than it says', async t => {
  const { redis, stores: [store] } = await open(t, 1, { clock: true })
  await store!.operate('q', { kind: 'limit', limits: { rate: { max: 5, ms: 500 }, perKey: { rate: { max: 5, ms: 500 } } } })
  await add(store!, Array.from({ length: 20 }, (_, index) => task(index, { key: 'k' })))
  const claimOne = async () => {
    let claimed = 0
    await until(async () => {
      claimed += (await turn(store!, 1)).leases.length
      return claimed > 0
    }, 'a claim', 10_000)
  }
  await claimOne()
  redis.setClock(-3600)
  await sleep(10)
  const start = performance.now()
  for (let count = 0; count < 5; count++) await claimOne()
  const tookMs = performance.now() - start
  t.ok(tookMs > 400 - 20, `five take ${tookMs} ms, and four intervals at least`)
})
