import type { FastifyBaseLogger } from 'fastify'
import type { Store } from './store.js'

/** What an app tells the store of one of its queues. */
export interface StoreContext {
  /**
   * The longest time between two beats of this app's heartbeat, in milliseconds; Infinity if the app consumes nothing.
   */
  readonly heartbeatMs: number
  readonly log: FastifyBaseLogger
  /** Tells the time, in milliseconds since the epoch. */
  readonly clock: Pick<DateConstructor, 'now'>
}

/**
 * Creates the store of a queue. The app calls it once for each queue, before it is ready. Queues for which it returns
 * the same store share the store's connections, and their tasks commit together.
 */
export type CreateStore = (queue: string, context: StoreContext) => Store | Promise<Store>

/** A kind of store. A function that creates stores is one as well: it has no name and is not volatile. */
export interface StoreType {
  /** For error messages and logs. */
  readonly name: string
  /** Whether the tasks are lost when this process ends. The app then warns of each loss. @default false */
  readonly isVolatile?: boolean
  readonly create: CreateStore
}
