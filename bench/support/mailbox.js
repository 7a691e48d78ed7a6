/** Messages in the order in which they came, for a reader that takes them one by one. */
export class Mailbox {
  /** @type {unknown[]} */
  #messages = []
  /** @type {((message: unknown) => void) | undefined} */
  #waiting

  /** @param {unknown} message */
  put (message) {
    if (this.#waiting === undefined) this.#messages.push(message)
    else this.#waiting(message)
    this.#waiting = undefined
  }

  async take () {
    if (this.#messages.length > 0) return this.#messages.shift()
    return await new Promise(resolve => { this.#waiting = resolve })
  }
}
