/** Messages in the order in which they came, for one who takes them one by one. */
export class Mailbox {
  #messages = []
  #waiting

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
