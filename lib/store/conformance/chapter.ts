import { randomUUID } from 'node:crypto'
import type { Store } from '../store.js'

/** One test of the suite, for any test runner. `run` rejects when the store fails the test. */
export interface ConformanceTest { readonly title: string, readonly run: () => Promise<void> }

/** Makes the store under test. The suite calls it once for each test, then opens and closes what it returns. */
export type CreateStore = () => Store | Promise<Store>

/** The body of a test. It gets an open store and the names of two empty queues. */
type Body = (store: Store, queue: string, other: string) => Promise<void>

/** Takes the tests of one chapter, by title. The function it returns makes them tests of the given stores. */
export function chapter (bodies: Record<string, Body>): (create: CreateStore) => ConformanceTest[] {
  return create => Object.entries(bodies).map(([title, body]) => ({
    title,
    async run () {
      const store = await create()
      // The names are new for each test, so that the queues are empty even in a database that others use.
      const queue = `conformance-${randomUUID()}`
      try {
        await store.open()
        await body(store, queue, `${queue}-2`)
      } finally {
        await store.close()
      }
    }
  }))
}
