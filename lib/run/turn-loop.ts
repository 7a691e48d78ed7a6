import { LONGEST_TIMER_MS } from '../check.js'
import type { InContext } from './context.js'

/**
 * After a consumer has met a task without a route: how much later than others it looks for what has become due,
 * and for how long it does so, in milliseconds.
 */
const YIELD_MS = 50
const YIELDING_MS = 2 * 60_000

/** How long the store may wait to hear of an end while there is work at hand, in milliseconds. */
const SETTLE_MS = 2

/**
 * Takes the turns of a consumer: one at a time, each for any number of wake-ups.
 *
 *     resting ── wake ──▶ turning ── wake ──▶ turning again
 *        ▲                  │  ▲                   │
 *        └── the turn ends ─┘  └─ the turn ends ───┘
 *
 * Two timers wake it as well. The alarm is set for the time at which the store has something to claim, or at which a
 * store that has failed is tried again. The other one collects what has ended until it is worth a turn.
 */
export class TurnLoop {
  readonly #takeTurn: () => Promise<void>
  readonly #onRest: () => void
  readonly #inContext: InContext
  #phase: 'resting' | 'turning' | 'turning again' = 'resting'
  #alarm: NodeJS.Timeout | undefined
  /** Until when other consumers go first, which may have the route that this app lacks. */
  #yieldsUntil = 0
  #collecting: NodeJS.Timeout | undefined

  /**
   * @param takeTurn never rejects
   * @param onRest called when no turn follows
   */
  constructor (takeTurn: () => Promise<void>, onRest: () => void, inContext: InContext) {
    this.#takeTurn = takeTurn
    this.#onRest = onRest
    this.#inContext = inContext
  }

  get isResting (): boolean { return this.#phase === 'resting' }

  wake (): void {
    if (this.#phase === 'resting') this.#inContext(this.#run)
    else this.#phase = 'turning again'
  }

  /** Sets the alarm anew. Where it would ring after the longest time, the heartbeat looks again long before. */
  wakeIn (ms: number): void {
    if (ms > LONGEST_TIMER_MS) return
    clearTimeout(this.#alarm)
    const yieldMs = ms > 0 && performance.now() < this.#yieldsUntil ? YIELD_MS : 0
    this.#alarm = setTimeout(() => { this.wake() }, Math.ceil(ms) + yieldMs)
  }

  /** Lets other consumers go first for a while, when something becomes due. */
  yieldToOthers (): void { this.#yieldsUntil = performance.now() + YIELDING_MS }

  /** Takes the next turn soon, whatever the alarm says, with all that has ended by then. */
  wakeSoon (): void {
    this.#collecting ??= setTimeout(() => { this.wake() }, SETTLE_MS)
  }

  /** Switches the alarm off. */
  silence (): void { clearTimeout(this.#alarm) }

  readonly #run = async (): Promise<void> => {
    do {
      this.#phase = 'turning'
      clearTimeout(this.#collecting)
      this.#collecting = undefined
      await this.#takeTurn()
    } while (this.#isWoken())
    this.#phase = 'resting'
    this.#onRest()
  }

  /** The phase may have changed while the turn was taken, which the compiler does not see. */
  #isWoken (): boolean { return this.#phase === 'turning again' }
}
