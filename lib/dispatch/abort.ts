/** Why an attempt is stopped whose end nobody waits for any more. */
export class Withdrawn extends Error {}

/** Whether an attempt has to end before its time, and why. Its signal is made when somebody asks for it, as few do. */
export class Halt {
  #reason: Error | undefined
  #controller: AbortController | undefined
  #listener: (() => void) | undefined

  get reason (): Error | undefined { return this.#reason }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#reason !== undefined) this.#controller.abort(this.#reason)
    }
    return this.#controller.signal
  }

  /** Calls one listener after those of the signal; at once if it has been called already. */
  listen (listener: () => void): void {
    this.#listener = listener
    if (this.#reason !== undefined) listener()
  }

  call (reason: Error): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    this.#controller?.abort(reason)
    this.#listener?.()
  }
}
