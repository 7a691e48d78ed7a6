/**
 * Sends a message to the process that has started this one.
 *
 * @param {object} message
 * @param {() => void} [onSent]
 */
export function tellParent (message, onSent) {
  if (process.send === undefined) throw new Error('This program runs as a child process only.')
  process.send(message, undefined, undefined, onSent)
}
