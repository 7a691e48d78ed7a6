import { AttemptWithdrawn, LazyAbortController } from '../dispatch/abort.js'
import type { Held, Lease, Settlement } from '../store/turn.js'

interface Running {
  readonly lease: Lease
  readonly aborter: LazyAbortController
}

/** The tasks of a consumer that run, and the attempts that have ended and of which the store has not heard. */
export class InFlight {
  readonly #running = new Map<string, Running>()
  readonly #ended: Settlement[] = []

  /** How many tasks run. */
  get running (): number { return this.#running.size }

  /** The attempts that have ended, the first one first. Their leases are held until the store has heard of it. */
  get ended (): readonly Settlement[] { return this.#ended }

  get isEmpty (): boolean { return this.#running.size + this.#ended.length === 0 }

  leases (): Held[] {
    return [...this.#running.values(), ...this.#ended].map(({ lease }) => lease)
  }

  /** Takes in a task whose attempt begins, and returns what aborts it. */
  begin (lease: Lease): LazyAbortController {
    const aborter = new LazyAbortController()
    this.#running.set(lease.id, { lease, aborter })
    return aborter
  }

  /** Whether an attempt still runs for us: it may have been given back or lost. */
  has (lease: Lease): boolean {
    return this.#running.get(lease.id)?.lease === lease
  }

  end (settlement: Settlement): void {
    this.#running.delete(settlement.lease.id)
    this.#ended.push(settlement)
  }

  /** Gives a task back that was not begun. */
  release (lease: Lease): void {
    this.#ended.push({ lease, verdict: { kind: 'release', unseen: true } })
  }

  /** Forgets the first of the attempts that have ended, all of them by default, and returns them. */
  takeEnded (count = Infinity): Settlement[] {
    return this.#ended.splice(0, count)
  }

  /** Aborts an attempt whose lease is lost, and returns whether there was one. */
  lose ({ id, fence }: Held, reason: string): boolean {
    const running = this.#running.get(id)
    // It may have ended, or been claimed again, while the heartbeat was on its way.
    if (running?.lease.fence !== fence) return false
    this.#running.delete(id)
    running.aborter.abort(new AttemptWithdrawn(reason))
    return true
  }

  /** Gives back all that runs, in order, and returns what aborts the attempts. */
  giveBack (): Running[] {
    const running = [...this.#running.values()]
    this.#running.clear()
    for (const { lease } of running) this.#ended.push({ lease, verdict: { kind: 'release' } })
    return running
  }
}
