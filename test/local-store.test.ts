import t from 'tap'
import { LocalStore } from '../lib/local-store.js'
import { storeConformance } from '../lib/index.js'
import { addTo } from './add-to.js'

for (const { title, run } of storeConformance(() => new LocalStore())) t.test(title, run)

t.test('keeps a long line in order while it grows at one end and is claimed at the other', async t => {
  const store = new LocalStore()
  const claimed: string[] = []
  for (let added = 0; added < 5000; added += 50) {
    await addTo(store, Array.from({ length: 50 }, (_, index) => ({ queue: 'q', id: `${added + index}`, message: '' })))
    const { leases } = await store.turn('q', { settlements: [], limit: 40, alone: false, leaseMs: 1000 })
    claimed.push(...leases.map(({ id }) => id))
  }
  const { leases } = await store.turn('q', { settlements: [], limit: 5000, alone: false, leaseMs: 1000 })
  claimed.push(...leases.map(({ id }) => id))
  t.strictSame(claimed, Array.from({ length: 5000 }, (_, index) => `${index}`))
})
