import { Deadlines } from '../deadlines.js'

/** How many milliseconds a closing app waits for the participants of commits, beyond the time that stores may take. */
const PARTICIPANTS_MS = 10_000

/** Counts the commits of an app. Once the app closes no commit begins, and closing waits for those under way. */
export class OpenCommits {
  /** Bounds the time that stores may take for each phase of a commit. */
  readonly deadlines: Deadlines
  #underWay = 0
  #isClosed = false
  #onLastEnd: (() => void) | undefined

  /** @param timeoutMs how many milliseconds the stores may take for each phase of a commit */
  constructor (timeoutMs: number) {
    this.deadlines = new Deadlines(timeoutMs)
  }

  /** Returns whether a commit may begin. If so, the caller has to call `end`. */
  begin (): boolean {
    if (this.#isClosed) return false
    this.#underWay++
    return true
  }

  end (): void {
    if (--this.#underWay === 0) this.#onLastEnd?.()
  }

  /** Lets no further commit begin, and waits for those under way, within bounds. Returns how many are left. */
  async close (): Promise<number> {
    this.#isClosed = true
    if (this.#underWay > 0) {
      await new Promise<void>(resolve => {
        // Three phases: making the messages, prepare and commit.
        const timer = setTimeout(resolve, 3 * this.deadlines.ms + PARTICIPANTS_MS)
        this.#onLastEnd = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return this.#underWay
  }
}
