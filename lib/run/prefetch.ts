import type { Held, Lease } from '../store/turn.js'
import type { InFlight } from './in-flight.js'
import { Pace } from './pace.js'

/** How long a claimed task may wait for room here before it is left to others. */
const HOLD_MS = 100

/** What becomes of tasks that were claimed ahead. */
export interface PrefetchEnds {
  readonly mayBegin: () => boolean
  readonly begin: (lease: Lease) => void
  /** Gives all of them back to the store: none of them has begun for too long. */
  readonly giveBack: () => void
}

/**
 * The tasks that a consumer has claimed and not begun, in order. Where attempts are short the consumer claims more of
 * them than can run at once. Where they turn out to be long it leaves those to others.
 */
export class Prefetch {
  readonly #concurrency: number
  readonly #inFlight: InFlight
  readonly #ends: PrefetchEnds
  readonly #pace = new Pace()
  #leases: Lease[] = []
  /** Whether tasks may be claimed ahead: not of a queue with keys or limits. */
  #isOpen = true
  /** Since when none of them has begun. */
  #restingSince = 0
  #review: NodeJS.Timeout | undefined
  #filling: NodeJS.Immediate | undefined

  constructor (concurrency: number, inFlight: InFlight, ends: PrefetchEnds) {
    this.#concurrency = concurrency
    this.#inFlight = inFlight
    this.#ends = ends
  }

  get leases (): readonly Lease[] { return this.#leases }

  get size (): number { return this.#leases.length }

  /** How many tasks to claim beyond those that can run at once. */
  get ahead (): number { return this.#isOpen ? this.#pace.ahead(this.#concurrency) : 0 }

  /** Takes note of how long an attempt took. */
  notePace (ms: number): void { this.#pace.note(ms) }

  /** Takes note of how long the store took to answer, and whether the queue has keys or limits. */
  noteTurn (ms: number, isShared: boolean): void {
    this.#pace.noteTrip(ms)
    this.#isOpen = !isShared
  }

  /** Takes in what was claimed, and begins what there is room for. */
  add (leases: readonly Lease[]): void {
    if (leases.length === 0) return
    if (this.#leases.length === 0) this.#restingSince = performance.now()
    this.#leases.push(...leases)
    this.#fill()
  }

  /** Begins what there is room for, unless the consumer may begin nothing. */
  fill (): void {
    if (this.#leases.length > 0 && this.#ends.mayBegin()) this.#fill()
  }

  takeAll (): Lease[] { return this.#leases.splice(0) }

  drop ({ id, fence }: Held): void {
    this.#leases = this.#leases.filter(lease => lease.id !== id || lease.fence !== fence)
  }

  /**
   * Begins one task, which may end within this tick, and then the next, and in the next tick those that are left.
   * Tasks that only compute would take longer side by side.
   */
  #fill (): void {
    while (this.#leases.length > 0 && this.#inFlight.running < this.#concurrency) {
      if (this.#inFlight.running === 0) this.#filling ??= setImmediate(() => { this.#fillInNextTick() })
      else if (this.#filling !== undefined) break
      this.#restingSince = performance.now()
      this.#ends.begin(this.#leases.shift()!)
    }
    if (this.#leases.length > 0) this.#review ??= setTimeout(() => { this.#reviewHeld() }, HOLD_MS).unref()
  }

  #fillInNextTick (): void {
    this.#filling = undefined
    this.fill()
  }

  /** Leaves to others what has waited too long. */
  #reviewHeld (): void {
    this.#review = undefined
    if (this.#leases.length === 0) return
    if (performance.now() - this.#restingSince < HOLD_MS) return this.#fill()
    this.#pace.slow()
    this.#ends.giveBack()
  }
}
