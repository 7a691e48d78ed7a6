import t from 'tap'
import { storeConformance } from '../../lib/store/conformance/index.js'
import { LocalStore } from '../../lib/store/local/store.js'
import type { Settlement } from '../../lib/store/turn.js'
import { addTo } from '../support/add-to.js'

for (const { title, run } of storeConformance(() => new LocalStore())) t.test(title, run)

t.test('keeps a long line in order while it grows at one end and is claimed at the other', async t => {
  const store = new LocalStore()
  const claimed: string[] = []
  for (let added = 0; added < 5000; added += 50) {
    await addTo(store, Array.from({ length: 50 }, (_, index) => ({ queue: 'q', id: `${added + index}`, message: '' })))
    const { leases } = await store.turn('q', { settlements: [], heartbeatMs: 200, claim: { limit: 40, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 0 } })
    claimed.push(...leases.map(({ id }) => id))
  }
  const { leases } = await store.turn('q', { settlements: [], heartbeatMs: 200, claim: { limit: 5000, alone: false, leaseMs: 1000 }, keep: { count: 0, ms: 0 } })
  claimed.push(...leases.map(({ id }) => id))
  t.strictSame(claimed, Array.from({ length: 5000 }, (_, index) => `${index}`))
})

t.test('keeps a long line in order that tasks leave at every place', async t => {
  const store = new LocalStore()
  const all = Array.from({ length: 6000 }, (_, index) => `${index}`)
  const keep = { count: 0, ms: 0 }
  const turn = (limit: number, settlements: Settlement[] = []) => store.turn('q', { settlements, heartbeatMs: 200, claim: { limit, alone: false, leaseMs: 1000 }, keep })
  await addTo(store, all.map(id => ({ queue: 'q', id, message: '' })))
  const { leases } = await turn(500)
  await turn(0, leases.map(lease => ({ lease, verdict: { kind: 'release' } })))
  await turn(100)
  const isKept = (id: string) => Number(id) >= 100 && Number(id) % 3 === 0
  t.equal(await store.operate('q', { kind: 'cancel', ids: all.slice(100).filter(id => !isKept(id)), keep }), 3934)
  for (let round = 0; round < 3000; round++) {
    await addTo(store, [{ queue: 'q', id: 'often', message: `${round}`, onDuplicate: 'replace' }])
  }
  t.match((await store.counts(['q']))[0], { waiting: 1967, running: 100 })
  t.strictSame((await store.list('q', 'waiting', 0, 5000)).map(({ id }) => id), [...all.filter(isKept), 'often'])
  const claimed = [...(await turn(10)).leases, ...(await turn(5000)).leases]
  t.strictSame(claimed.map(({ id }) => id), [...all.filter(isKept), 'often'])
  t.equal(claimed.at(-1)?.message, '2999')
})
