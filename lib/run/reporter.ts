import { isHeard, type Events, type Publish } from '../observe/events.js'
import type { Held, Lease, Settlement } from '../store/turn.js'

/** The members of an event besides the consumer that it is about. */
type Rest<Name extends keyof Events> = Omit<Events[Name], 'queue' | 'consumer'>

/** The events that are about a consumer. */
type OfConsumer = { [Name in keyof Events]: Events[Name] extends { consumer: string } ? Name : never }[keyof Events]

/** Tells of what happens to one consumer. */
export class Reporter {
  readonly #publish: Publish
  readonly #about: { readonly queue: string, readonly consumer: string }

  constructor (publish: Publish, queue: string, consumer: string) {
    this.#publish = publish
    this.#about = { queue, consumer }
  }

  tell<Name extends OfConsumer> (name: Name, event: Rest<Name>): void {
    this.#publish(name, { ...this.#about, ...event } as Events[Name])
  }

  tellClaimed (leases: readonly Lease[]): void {
    if (leases.length === 0 || !isHeard('tasks:claimed')) return
    const suspects = leases.filter(({ suspect }) => suspect).length
    this.tell('tasks:claimed', { taskIds: idsOf(leases), suspects })
  }

  /** Tells which of some attempts the store has settled, and which had lost their leases. */
  tellSettled (settlements: readonly Settlement[], settled: readonly boolean[]): void {
    settled.forEach((isSettled, index) => {
      if (!isSettled) this.tell('lease:lost', { taskId: settlements[index]!.lease.id })
    })
    if (settled.length === 0 || !isHeard('tasks:settled')) return
    const those = settlements.filter((_, index) => settled[index] === true)
    if (those.length > 0) this.tell('tasks:settled', { taskIds: idsOf(those.map(({ lease }) => lease)) })
  }

  /** Tells which attempts the store will not hear of. */
  tellUnsettled (settlements: readonly Settlement[]): void {
    const taskIds = idsOf(settlements.map(({ lease }) => lease))
    if (taskIds.length > 0) this.tell('tasks:unsettled', { taskIds })
  }
}

const idsOf = (leases: readonly Held[]): string[] => leases.map(({ id }) => id)
