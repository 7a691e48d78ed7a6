/** A process in which one part of one measurement is made: `roles[role]` of a measure, with its options. */
import { Mailbox } from '../support/mailbox.js'
import { tellParent } from '../support/parent.js'

/** @import { Roles } from './stage.js' */

/** @typedef {{ message: unknown } | { result: unknown }} Letter */

/**
 * The line to the process that has started this one.
 *
 * @typedef {object} Line
 * @property {(message: string | number) => void} tell
 * @property {() => Promise<unknown>} hear
 */

const { measure, role, options } = JSON.parse(process.argv[2])
const mailbox = new Mailbox()
process.on('message', message => { mailbox.put(message) })
process.on('disconnect', () => { process.exit() })

/** @type {Line} */
const line = {
  tell (message) { tellParent({ message }) },
  hear: () => mailbox.take()
}

/** @type {{ roles: Roles }} */
const { roles } = await import(`./measures/${measure}.js`)
const result = await roles[role](/** @type {never} */ (options), line)
tellParent({ result: result ?? null }, () => { process.exit() })
