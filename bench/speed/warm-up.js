import { contenders } from './contenders.js'
import { withResolvers } from '../support/resolvers.js'
import { range } from '../support/statistics.js'

const TASKS = 500

/** Has a process run some tasks of a queue of its own, so that what it runs then is compiled. */
export async function warmUp (contender, { redis, concurrency }) {
  let left = TASKS
  const { promise, resolve } = withResolvers()
  const onTask = () => { if (--left === 0) resolve() }
  const queue = await contenders[contender].open({ redis, queues: [`warm-up-${process.pid}`], concurrency, onTask })
  await queue.addAll(range(TASKS))
  await queue.start()
  await promise
  await queue.close()
}
