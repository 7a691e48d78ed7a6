import { fork } from 'node:child_process'
import { once } from 'node:events'
import { fileURLToPath } from 'node:url'
import { Bed } from '../support/bed.js'
import { Mailbox } from '../support/mailbox.js'

/** What one measurement starts: a Redis, and processes that measure. All of it ends with the measurement. */
export class Stage extends Bed {
  #measure

  constructor (measure) {
    super()
    this.#measure = measure
  }

  /** Starts a process with a role of the measure. */
  play (role, options) {
    const child = fork(fileURLToPath(new URL('child.js', import.meta.url)), [JSON.stringify({ measure: this.#measure, role, options })])
    const exit = once(child, 'exit')
    this.teardown(async () => {
      if (child.exitCode === null && child.signalCode === null) {
        child.kill('SIGKILL')
        await exit
      }
    })
    return new Actor(role, child, exit)
  }
}

class Actor {
  /** What the role returns; rejects when it fails. */
  result
  #child
  #mailbox = new Mailbox()

  constructor (role, child, exit) {
    this.#child = child
    this.result = new Promise((resolve, reject) => {
      child.on('message', letter => {
        if ('result' in letter) resolve(letter.result)
        else this.#mailbox.put(letter.message)
      })
      exit.then(() => { reject(new Error(`the process of ${role} has ended without a result`)) })
    })
    this.result.catch(() => {})
  }

  tell (message) { this.#child.send(message) }

  /** Its next message; rejects when it fails instead. */
  async hear () {
    return await Promise.race([this.#mailbox.take(), this.result])
  }
}
