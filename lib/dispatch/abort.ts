/** The reason why an attempt is aborted whose result no longer matters: lease lost, task cancelled, app closing. */
export class AttemptWithdrawn extends Error {}

/** An AbortController that makes its signal only when somebody asks for it, which few handlers do. */
export class LazyAbortController {
  #reason: Error | undefined
  #controller: AbortController | undefined
  #listener: (() => void) | undefined

  /** The reason for which it was aborted; undefined if it was not. */
  get reason (): Error | undefined { return this.#reason }

  get signal (): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new AbortController()
      if (this.#reason !== undefined) this.#controller.abort(this.#reason)
    }
    return this.#controller.signal
  }

  /** Sets the one listener that is called after those of the signal; calls it at once if it was aborted already. */
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
