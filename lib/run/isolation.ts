/**
 * Keeps suspects apart from everything else that the consumers of one process run: while
 * one of them runs nothing else does, so that if it kills the process it kills no other task.
 */
export class Isolation {
  readonly #wakers: Array<() => void> = []
  /** Attempts that run and claims that are under way. */
  #active = 0
  #isAlone = false
  /** Wakes the consumer that waits to run alone. While it waits, no consumer begins anything else. */
  #awaited: (() => void) | undefined

  /** Calls `wake` when a consumer that was refused may try again. */
  onChange (wake: () => void): void { this.#wakers.push(wake) }

  /** Whether a suspect runs, beside which nothing else may. */
  get isAlone (): boolean { return this.#isAlone }

  /** Whether ordinary tasks may be claimed. */
  get isOpen (): boolean { return !this.#isAlone && this.#awaited === undefined }

  /**
   * Begins to run alone, and returns the function that ends it. If something runs, this returns undefined, and calls
   * `wake` when nothing runs any longer.
   */
  enter (wake: () => void): (() => void) | undefined {
    if (this.#active > 0 || this.#isAlone) {
      this.#awaited ??= wake
      return undefined
    }
    this.#isAlone = true
    return () => {
      this.#isAlone = false
      this.#wake()
    }
  }

  begin (): void { this.#active++ }

  end (): void {
    this.#active--
    if (this.#active === 0 && this.#awaited !== undefined) this.#wake()
  }

  /** First the one that waits to run alone: the others would not let it. */
  #wake (): void {
    const awaited = this.#awaited
    this.#awaited = undefined
    awaited?.()
    for (const wake of this.#wakers) wake()
  }
}
