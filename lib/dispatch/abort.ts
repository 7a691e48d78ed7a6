/** The reason why an attempt is aborted whose result no longer matters: lease lost, task cancelled, app closing. */
export class AttemptWithdrawn extends Error {}

/** An AbortController that makes its signal when somebody asks for it, as few do. */
export class LazyAbortController {
  #reason: Error | undefined
  #controller: AbortController | undefined
  #listener: (() => void) | undefined

  /** Why it was aborted; undefined while it was not. */
  get reason (): Error | undefined { return this.#reason }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#reason !== undefined) this.#controller.abort(this.#reason)
    }
    return this.#controller.signal
  }

  /** Has one listener called after those of the signal; at once if it was aborted already. */
  onAbort (listener: () => void): void {
    this.#listener = listener
    if (this.#reason !== undefined) listener()
  }

  abort (reason: Error): void {
    if (this.#reason !== undefined) return
    this.#reason = reason
    this.#controller?.abort(reason)
    this.#listener?.()
  }
}
