import t from 'tap'
import { idsOf, repeat, startAll } from '../support/processes.js'
import { NOTHING } from '../support/nothing.js'

// Processes take their time to start.
t.setTimeout(300_000)

t.test('five tasks that kill their processes among two hundred that do not: the five are dead letters, and the others are done', async t => {
  const { add, start, counts, admin, all, drained } = await startAll(t)
  let isOver = false
  const supervise = async (): Promise<void> => {
    // The last may be killed as it starts.
    const process = await start({ concurrency: 8 }).catch(error => { if (!isOver) throw error })
    await process?.exit
    if (!isOver) await supervise()
  }
  const urls = Array.from({ length: 205 }, (_, index) => index % 41 === 20 ? '/task?die=20' : '/task?ms=20')
  const ids = await add(urls)
  const poison = ids.filter((_, index) => urls[index]!.includes('die'))
  const supervised = repeat(4, undefined).map(supervise)
  await drained()
  isOver = true
  t.same(await counts(), { ...NOTHING, dead: 5 })
  t.strictSame((await admin.zrange('taskqueue:{default}:dead', '0', '-1')).sort(), poison.slice().sort())
  t.strictSame([...new Set(idsOf(all.flatMap(({ ended }) => ended)))], ids.filter(id => !poison.includes(id)).sort())
  for (const id of poison) {
    const runs = all.filter(({ begun }) => begun.some(attempt => attempt.id === id)).length
    t.ok(runs === 3 || runs === 4, `it has killed ${runs} processes`)
  }
  for (const { child } of all) child.kill('SIGKILL')
  await Promise.all(supervised)
})
