/** How many milliseconds a closing app waits for the participants of commits, beyond the time that stores may take. */
const PARTICIPANTS_MS = 10_000

/** Counts the commits of an app. Once the app closes no commit begins, and closing waits for those under way. */
export class OpenCommits {
  /** How many milliseconds the stores may take for each phase of a commit. */
  readonly timeoutMs: number
  #underWay = 0
  #isClosed = false
  #onLastEnd: (() => void) | undefined

  constructor (timeoutMs: number) {
    this.timeoutMs = timeoutMs
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
        const timer = setTimeout(resolve, 3 * this.timeoutMs + PARTICIPANTS_MS)
        this.#onLastEnd = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return this.#underWay
  }
}
