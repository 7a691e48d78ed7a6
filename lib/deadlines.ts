interface Waiting {
  readonly deadline: number
  readonly expire: () => void
}

/** Bounds how long promises are waited for: all of them equally long, by one timer. */
export class Deadlines {
  readonly ms: number
  /** Those that are waited for, in the order of their deadlines. */
  readonly #waiting = new Set<Waiting>()
  #timer: NodeJS.Timeout | undefined

  /** @param ms how long each promise is waited for, in milliseconds */
  constructor (ms: number) {
    this.ms = ms
  }

  /** Waits for a promise. Rejects with what `late` returns if that takes too long. */
  within<T> (answer: Promise<T>, late: () => Error): Promise<T> {
    return new Promise((resolve, reject) => {
      const waiting = { deadline: performance.now() + this.ms, expire: () => { reject(late()) } }
      this.#waiting.add(waiting)
      if (this.#timer === undefined) this.#watch(this.ms)
      else if (this.#waiting.size === 1) this.#timer.ref()
      answer.then(value => {
        this.#end(waiting)
        resolve(value)
      }, error => {
        this.#end(waiting)
        reject(error)
      })
    })
  }

  #end (waiting: Waiting): void {
    this.#waiting.delete(waiting)
    // The timer goes on, since the next promise comes soon where many come. It keeps no process alive.
    if (this.#waiting.size === 0) this.#timer?.unref()
  }

  #watch (ms: number): void {
    this.#timer = setTimeout(() => { this.#expire() }, ms)
  }

  #expire (): void {
    this.#timer = undefined
    const now = performance.now()
    for (const waiting of this.#waiting) {
      if (waiting.deadline > now) {
        this.#watch(Math.ceil(waiting.deadline - now))
        return
      }
      this.#waiting.delete(waiting)
      waiting.expire()
    }
  }
}
