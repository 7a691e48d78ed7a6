import { FST_TASKQUEUE_UNREACHABLE } from '../errors.js'

/**
 * Waits for the answer of a store. An error of the store may name its address, which clients of the app must not see.
 * So it becomes the `cause` of an error that may be shown.
 */
export async function reach<T> (answer: Promise<T>): Promise<T> {
  try {
    return await answer
  } catch (cause) {
    const shown = new FST_TASKQUEUE_UNREACHABLE('The store of the queue', 'it does not answer, or it refuses')
    throw Object.assign(shown, { cause })
  }
}
