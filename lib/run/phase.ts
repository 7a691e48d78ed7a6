/**
 * What a consumer does at the moment.
 *
 *     new ── start, run ──▶ consuming ── the app turns a task away ──▶ turned away
 *      │                      │     ▲                                   │     │
 *      │                      │     └────────── after 100 ms ───────────┘     │
 *      └────── stop ──────▶ closing ◀──────────────── stop ───────────────────┘
 */
export type Phase = 'new' | 'consuming' | 'turned away' | 'closing'

/** Which phases may follow each. */
const NEXT: Readonly<Record<Phase, readonly Phase[]>> = {
  new: ['consuming', 'closing'],
  consuming: ['turned away', 'closing'],
  'turned away': ['consuming', 'closing'],
  closing: []
}

/** For how long tasks are left to others after the app has turned one away, in milliseconds. */
const TURNED_AWAY_MS = 100

/** Keeps the phase of a consumer. */
export class Phases {
  #now: Phase = 'new'

  get now (): Phase { return this.#now }

  /** Returns whether the phase may follow, and was entered. */
  enter (phase: Phase): boolean {
    if (!NEXT[this.#now].includes(phase)) return false
    this.#now = phase
    return true
  }

  /** Notes that the app has turned a task away. Calls `goOn` when the consumer may consume again. */
  turnAway (goOn: () => void): void {
    if (!this.enter('turned away')) return
    setTimeout(() => {
      this.enter('consuming')
      goOn()
    }, TURNED_AWAY_MS).unref()
  }
}
