/** How long a closing app waits for the participants of commits, beyond what their stores may take. */
const PARTICIPANTS_MS = 10_000

/** The commits of an app. Once it has closed none begins, and it has not closed before those under way have ended. */
export class Commits {
  /** How long the stores may take for each phase of one. */
  readonly timeoutMs: number
  #underWay = 0
  #isClosed = false
  #onLastEnd: (() => void) | undefined

  constructor (timeoutMs: number) {
    this.timeoutMs = timeoutMs
  }

  /** Returns whether one may begin; then `end` has to follow. */
  begin (): boolean {
    if (this.#isClosed) return false
    this.#underWay++
    return true
  }

  end (): void {
    if (--this.#underWay === 0) this.#onLastEnd?.()
  }

  /** Lets none begin any more and waits for those under way, within bounds; returns how many are left. */
  async close (): Promise<number> {
    this.#isClosed = true
    if (this.#underWay > 0) {
      await new Promise<void>(resolve => {
        // Messages, prepare and commit.
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
