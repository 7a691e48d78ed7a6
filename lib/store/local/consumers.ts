import { FORGET_CONSUMER_MS, type Holding, type Presence, SHOWN_LEASES } from '../heartbeat.js'

/** The consumers of one queue, as of their last heartbeats. */
export class Consumers {
  readonly #heard = new Map<string, { readonly holding: Holding, readonly at: number }>()

  note (holding: Holding): void {
    this.#heard.set(holding.consumer, { holding, at: performance.now() })
  }

  present (): Presence[] {
    const now = performance.now()
    const present: Presence[] = []
    for (const [name, { holding, at }] of this.#heard) {
      const { queue, consumer, startedAt, concurrency, heartbeatMs, leases } = holding
      const silentMs = now - at
      if (silentMs > FORGET_CONSUMER_MS) this.#heard.delete(name)
      else {
        const taskIds = leases.slice(0, SHOWN_LEASES).map(({ id }) => id)
        present.push({ queue, consumer, startedAt, concurrency, heartbeatMs, silentMs, held: leases.length, taskIds })
      }
    }
    return present
  }
}
