/**
 * Keeps suspects apart from everything else that the consumers of one process run: while
 * one of them runs nothing else does, so that if it kills the process it kills no other task.
 */
export class Isolation {
  readonly #wakers: Array<() => void> = []
  /** Attempts that run and claims that are under way. */
  #active = 0
  #isAlone = false
  #isAwaited = false

  /** Calls `wake` when a consumer that was refused may try again. */
  onChange (wake: () => void): void { this.#wakers.push(wake) }

  /** Whether ordinary tasks may be claimed and run. */
  get isOpen (): boolean { return !this.#isAlone }

  /** Begins to run alone, unless something runs; returns whether it has. */
  enter (): boolean {
    this.#isAwaited = this.#active > 0 || this.#isAlone
    if (this.#isAwaited) return false
    this.#isAlone = true
    return true
  }

  leave (): void {
    this.#isAlone = false
    this.#wake()
  }

  begin (): void { this.#active++ }

  end (): void {
    this.#active--
    if (this.#active === 0 && this.#isAwaited) this.#wake()
  }

  #wake (): void {
    this.#isAwaited = false
    for (const wake of this.#wakers) wake()
  }
}
