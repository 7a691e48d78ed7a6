import { type History, HISTORY_MINUTES } from '../found.js'

/** Counts what happens in each of the last minutes. */
export class Minutes {
  #last = minuteOf(Date.now())
  #counts: number[] = new Array(HISTORY_MINUTES).fill(0)

  count (): void {
    this.#pass()
    this.#counts[HISTORY_MINUTES - 1]!++
  }

  get counts (): History['done'] {
    this.#pass()
    return this.#counts.slice()
  }

  /** Lets the minutes pass that are over. A clock that is set back begins no minute. */
  #pass (): void {
    const now = minuteOf(Date.now())
    const passed = Math.min(now - this.#last, HISTORY_MINUTES)
    if (passed <= 0) return
    this.#last = now
    this.#counts = [...this.#counts.slice(passed), ...new Array(passed).fill(0)]
  }
}

const minuteOf = (ms: number): number => Math.floor(ms / 60_000)
