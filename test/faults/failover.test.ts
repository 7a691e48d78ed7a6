import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { loggedApp } from '../support/logged-app.js'

import type { RedisServer } from '../support/redis-server.js'
import { startProxy } from '../support/tcp-proxy.js'
import { until } from '../support/until.js'

import { balance, openLedger, type Ledger } from './adder-and-consumer.js'

import { startPair, startSentinels, type Pair } from './sentinels.js'

// Another Redis takes over.

t.setTimeout(300_000)

t.test('a master that becomes a replica is left for the new one, five times under load, and no task is lost or doubled', async t => {
  const { pair, ledger, swap } = await startBehindProxy(t)
  const release = await ledger.hold()
  const stop = ledger.load()
  for (let round = 1; round <= 5; round++) {
    await more(ledger, 20)
    await swap()
    await more(ledger, 20)
    await pair.complete()
  }
  await stop()
  t.same(ledger.refused, [])
  release()
  await balance(t, ledger, pair.adminOf(await pair.master()))
})

t.test('a consumer that only runs what it has when its master becomes a replica keeps it, beside others at the new one', async t => {
  const { pair, ledger, moveTo } = await startBehindProxy(t)
  const release = await ledger.hold()
  await replicated(ledger, pair)
  const master = await pair.master()
  const next = pair.other(master)
  const admin = pair.adminOf(next)
  await admin.call('REPLICAOF', 'NO', 'ONE')
  moveTo(next)
  await pair.adminOf(master).call('REPLICAOF', '127.0.0.1', next.port)
  const { app: other, log } = await loggedApp(t, { redis: addressOf(next), consumer: { leaseMs: 1000 } })
  await other.ready()
  await sleep(3000)
  t.same(log.filter(({ taskId }) => taskId !== undefined), [], 'they take over nothing')
  release()
  await balance(t, ledger, admin)
})

for (const { replicas, kills, freezes } of [{ replicas: 1, kills: 3, freezes: 2 }, { replicas: 0, kills: 1, freezes: 1 }]) {
  t.test(`with Sentinel, where ${replicas === 1 ? 'a replica has each task before it is accepted' : 'replicas have a task some time after it is accepted'},`, async t => {
    const pair = await startPair(t)
    const ledger = await openLedger(t, {
      redis: await startSentinels(t, pair), replicas, commitTimeoutMs: 3000, consumer: { leaseMs: 1000, concurrency: 5 }
    })

    /** Fails over under load; expects that nothing is lost of what the replica had, and returns how much was lost of the rest. */
    async function failOver (t: Test, run: (master: RedisServer, next: RedisServer) => Promise<void>): Promise<number> {
      const before = new Set(ledger.lost)
      const stop = ledger.load()
      let safe = new Set<string>()
      try {
        await more(ledger, 20)
        safe = await replicated(ledger, pair)
        const master = await pair.master()
        await run(master, pair.other(master))
        await pair.complete()
        await more(ledger, 20)
      } finally {
        await stop()
      }
      // Not what an earlier failover has lost, which was accepted before this one.
      const isSafe = ({ id }: { id: string }) => replicas === 1 || (safe.has(id) && !before.has(id))
      await ledger.settled(isSafe)
      t.strictSame(ledger.lost.filter(id => isSafe({ id })), [], `${ledger.accepted.length} accepted, ${ledger.refused.length} refused`)
      t.strictSame(ledger.ghosts, [])
      return ledger.lost.length - before.size
    }

    for (let round = 1; round <= kills; round++) {
      await t.test(`a master that is killed is followed by its replica (${round} of ${kills})`, async t => {
        const lost = await failOver(t, async (master, next) => {
          const start = performance.now()
          await master.stop()
          await pair.master(next)
          // What must have a replica is accepted again when there is one.
          if (replicas === 0) await more(ledger, 1)
          const ms = performance.now() - start
          t.ok(ms < 10_000, `${Math.round(ms)} ms until ${replicas === 0 ? 'a task is accepted' : 'there is a master'}`)
          await master.start(['--replicaof', '127.0.0.1', String(next.port)])
        })
        t.comment(`${lost} lost`)
      })
    }

    for (let round = 1; round <= freezes; round++) {
      await t.test(`a master that was frozen and takes itself for the master when it is back is left (${round} of ${freezes})`, async t => {
        const lost = await failOver(t, async (master, next) => {
          master.freeze()
          await pair.master(next)
          master.thaw()
        })
        t.comment(`${lost} lost`)
      })
    }
  })
}

/** The tasks that the replica has, whatever happens to its master. */
async function replicated (ledger: Ledger, pair: Pair): Promise<Set<string>> {
  const known = new Set(ledger.accepted.map(({ id }) => id))
  const admin = pair.adminOf(await pair.master())
  // A write of its own, behind theirs, to wait for.
  await admin.set('last', '')
  await until(async () => await admin.wait(1, 1000) === 1)
  return known
}

async function more (ledger: Ledger, count: number): Promise<void> {
  const before = ledger.accepted.length
  await until(() => ledger.accepted.length >= before + count, 'more tasks', 30_000)
}

/** Apps that find the master through a proxy, as through an address that moves. */
async function startBehindProxy (t: Test) {
  const pair = await startPair(t)
  const proxy = await startProxy(t, addressOf(await pair.master()))
  const ledger = await openLedger(t, { redis: addressOf(proxy), commitTimeoutMs: 5000, consumer: { leaseMs: 1000, concurrency: 5 } })
  /** Who is connected stays so. */
  const moveTo = (server: RedisServer) => { proxy.target = addressOf(server) }
  return {
    pair,
    ledger,
    moveTo,
    /** Makes the replica the master once it has everything. */
    async swap () {
      const master = await pair.master()
      const next = pair.other(master)
      await pair.adminOf(master).call('FAILOVER', 'TO', '127.0.0.1', next.port, 'TIMEOUT', 5000)
      await pair.master(next)
      moveTo(next)
    }
  }
}

function addressOf ({ port }: { port: number }) {
  return { host: '127.0.0.1', port }
}
