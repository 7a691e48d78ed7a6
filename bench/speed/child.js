/** A process in which one part of one measurement is made: `roles[role]` of a measure, with its options. */
import { Mailbox } from '../support/mailbox.js'

const { measure, role, options } = JSON.parse(process.argv[2])
const mailbox = new Mailbox()
process.on('message', message => { mailbox.put(message) })
process.on('disconnect', () => { process.exit() })

/** To the process that has started this one. */
const line = {
  tell (message) { process.send({ message }) },
  hear: () => mailbox.take()
}

const { roles } = await import(`./measures/${measure}.js`)
const result = await roles[role](options, line)
process.send({ result: result ?? null }, () => { process.exit() })
