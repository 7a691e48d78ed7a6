import { Bed } from '../support/bed.js'
import { Mailbox } from '../support/mailbox.js'

/** @import { Forked } from '../support/bed.js' */
/** @import { Letter, Line } from './child.js' */

/**
 * What a process of a trial does, with its options; what it returns is a result of the trial.
 *
 * @typedef {(options: never, line: Line) => Promise<unknown>} Role
 */
/** @typedef {Record<string, Role>} Roles */

/**
 * What one trial starts: a Redis, and processes that measure. All of it ends with the trial.
 *
 * @template {Roles} [R=Roles]
 */
export class Stage extends Bed {
  #measure

  /** @param {string} measure */
  constructor (measure) {
    super()
    this.#measure = measure
  }

  /**
   * Starts a process with a role of the measure.
   *
   * @template {keyof R & string} Name
   * @param {Name} role
   * @param {Parameters<R[Name]>[0]} options
   * @returns {Actor<Awaited<ReturnType<R[Name]>>>}
   */
  play (role, options) {
    const forked = this.fork(new URL('child.js', import.meta.url), { measure: this.#measure, role, options })
    return new Actor(role, forked)
  }
}

/**
 * @template [Result=unknown]
 */
export class Actor {
  /**
   * What the role returns; rejects when it fails.
   *
   * @type {Promise<Result>}
   */
  result
  #child
  #mailbox = new Mailbox()

  /**
   * @param {string} role
   * @param {Forked} process
   */
  constructor (role, { child, exit }) {
    this.#child = child
    this.result = new Promise((resolve, reject) => {
      child.on('message', message => {
        const letter = /** @type {Letter} */ (message)
        if ('result' in letter) resolve(/** @type {Result} */ (letter.result))
        else this.#mailbox.put(letter.message)
      })
      exit.then(() => { reject(new Error(`the process of ${role} has ended without a result`)) })
    })
    this.result.catch(() => {})
  }

  /** @param {string} message */
  tell (message) { this.#child.send(message) }

  /** Its next message; rejects when it fails instead. */
  async hear () {
    return await Promise.race([this.#mailbox.take(), this.result])
  }

  /** Its next message, which is a number. */
  async hearNumber () {
    const message = await this.hear()
    if (typeof message !== 'number') throw new Error(`a number was expected, not ${message}`)
    return message
  }
}
