import { gate } from '../../build/test/support/gate.js'
import { range } from '../support/statistics.js'
import { contenders } from './contenders.js'

/** @import { Place, QueueName } from './contenders.js' */

const TASKS = 500

/**
 * Has a process run some tasks of a queue of its own, so that what it runs then is compiled.
 *
 * @param {QueueName} contender
 * @param {Pick<Place, 'redis' | 'concurrency'>} place
 */
export async function warmUp (contender, { redis, concurrency }) {
  let left = TASKS
  const { opened, open } = gate()
  const onTask = () => { if (--left === 0) open() }
  const queue = await contenders[contender].open({ redis, queues: [`warm-up-${process.pid}`], concurrency, onTask })
  await queue.addAll(range(TASKS))
  await queue.start()
  await opened
  await queue.close()
}
