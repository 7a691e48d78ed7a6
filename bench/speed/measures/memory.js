import { setTimeout as sleep } from 'node:timers/promises'
import { Redis } from 'ioredis'
import { contenders } from '../contenders.js'
import { range } from '../../support/statistics.js'
import { Tally } from '../tally.js'
import { atMost, number, spread, table } from '../../support/text.js'
import { warmUp } from '../warm-up.js'

export const title = 'Memory of Redis'
export const roundsOf = rounds => Math.min(rounds, 2)

const QUEUES = ['ours', 'bullmq', 'bee', 'platformatic']

export function trials () {
  return QUEUES.map(contender => ({ contender }))
}

export async function measure (stage, { contender }, { tasks }) {
  const { path } = await stage.redis()
  return await stage.play('keeper', { contender, redis: path, tasks: tasks * 5 }).result
}

export const roles = {
  async keeper ({ contender, redis, tasks }) {
    const client = new Redis({ path: redis })
    const used = async () => {
      await sleep(200)
      return Number(/^used_memory:(\d+)/m.exec(await client.info('memory'))[1])
    }
    await warmUp(contender, { redis, concurrency: 10 })
    await client.flushall()
    // The same connections are open at each look.
    const idle = await contenders[contender].open({ redis, concurrency: 10, onTask () {} })
    const before = await used()
    await idle.addAll(range(tasks))
    const full = await used()
    const tally = new Tally(tasks)
    const queue = await contenders[contender].open({ redis, concurrency: 10, onTask: tally.note })
    await queue.start()
    await tally.done
    await sleep(200)
    tally.check()
    await queue.close()
    const after = await used()
    const keys = await client.dbsize()
    return { bytes: (full - before) / tasks, leftBytes: after - before, keys }
  }
}

export function tables (results, { tasks }) {
  const rows = QUEUES.map(contender => ({ contender })).filter(trial => results.has(trial)).map(trial => [
    contenders[trial.contender].label, spread(results.values(trial, 'bytes')), number(results.ratio(trial, { contender: 'bullmq' }, 'bytes')),
    spread(results.values(trial, 'leftBytes')), spread(results.values(trial, 'keys'))
  ])
  return [
    `${(tasks * 5).toLocaleString('en')} tasks, first all waiting and then all done.`,
    table(['', 'bytes for a waiting task', '× BullMQ', 'bytes left in the end', 'keys left'], rows)
  ]
}

export function goals (results) {
  const ours = { contender: 'ours' }
  return [
    atMost(0.45, 'bytes for a waiting task, × BullMQ', results.ratio(ours, { contender: 'bullmq' }, 'bytes')),
    atMost(5, 'keys left in the end', results.median(ours, 'keys'))
  ]
}
