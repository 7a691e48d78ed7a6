import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { HEARTBEAT_MS, idsOf, LEASE_MS, repeat, settlements, SLACK_MS, startAll, type Process } from '../support/processes.js'

import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

// Processes take their time to start.
t.setTimeout(300_000)

t.test('the tasks of a consumer that is killed run again elsewhere, one at a time and before others', async t => {
  const { add, start, counts } = await startAll(t)
  const victim = await start({ concurrency: 3 })
  const ids = await add(['/task?ms=60000', '/task?ms=60000', '/task?ms=60000', '/task'])
  await until(() => victim.begun.length === 3)
  const heir = await start({ concurrency: 4 })
  await until(() => heir.ended.length === 1)
  await victim.end('SIGKILL')
  await until(() => heir.begun.length === 2)
  t.match(heir.begun[1], { id: ids[0], attempt: 2 })
  t.same(await counts(), { ...NOTHING, waiting: 2, running: 1 })
  const others = await Promise.all([start({ concurrency: 4 }), start({ concurrency: 4 })])
  await until(() => others.every(({ begun }) => begun.length === 1))
  t.strictSame(idsOf(others.flatMap(({ begun }) => begun)), ids.slice(1, 3).sort())
})

t.test('five kills in the midst of fifty tasks, at any time between heartbeats: each begins again within a lease and two heartbeats, and is done once', async t => {
  const { add, start, counts, drained } = await startAll(t)
  const victims = await Promise.all(repeat(5, { concurrency: 10 }).map(start))
  const ids = await add(repeat(50, '/task?hold=1&tell=1'))
  await until(() => victims.every(({ begun }) => begun.length === 10))
  const heirs = await Promise.all([start({ concurrency: 10 }), start({ concurrency: 10 })])
  const begunAgain = () => heirs.flatMap(({ begun }) => begun).filter(({ attempt }) => attempt === 2)
  const lateness: number[] = []
  for (const [index, victim] of victims.entries()) {
    await sleep(index * HEARTBEAT_MS / victims.length)
    const killedAt = Date.now()
    await victim.end('SIGKILL')
    await until(() => begunAgain().length === (index + 1) * 10)
    const starts = begunAgain().filter(({ id }) => victim.begun.some(attempt => attempt.id === id)).map(({ at }) => at - killedAt)
    t.equal(starts.length, 10)
    lateness.push(Math.max(...starts))
  }
  t.ok(Math.max(...lateness) <= LEASE_MS + 2 * HEARTBEAT_MS + SLACK_MS, `the last after ${lateness.join(', ')} ms`)
  await drained()
  t.same(await counts(), NOTHING)
  t.strictSame(settlements(heirs), ids.map(id => `${id} 2`).sort())
})

for (const [halted, halt] of [['frozen', freeze], ['blocked', block]] as const) {
  t.test(`a consumer that is ${halted} loses its twenty tasks to another, is told so by the signal, and settles none of them`, async t => {
    const { add, start, counts, drained } = await startAll(t)
    const sleeper = await start({ concurrency: 20 })
    // Half of them go on for ever, and half end as soon as the process goes on.
    const ids = await add([...repeat(10, '/task?ms=60000&then=0&tell=1'), ...repeat(10, '/task?hold=1&tell=1')])
    await until(() => sleeper.begun.length === 20)
    const heir = await start({ concurrency: 20 })
    const resume = halt(t, sleeper)
    sleeper.send({ open: true })
    await until(() => heir.ended.filter(({ attempt }) => attempt === 2).length === 20)
    await until(async () => (await counts()).running === 0)
    t.strictSame(sleeper.reports.filter(({ event }) => event === 'ends' || event === 'aborts'), [])
    resume()
    await until(() => sleeper.aborted.length === 10 && sleeper.ended.length === 10)
    // What it has to say of these attempts it has said when it takes the next task.
    freeze(t, heir)
    const [last] = await add(['/task'])
    await until(() => sleeper.ended.some(({ id }) => id === last))
    heir.child.kill('SIGCONT')
    await drained()
    t.same(await counts(), NOTHING)
    t.strictSame(idsOf(sleeper.aborted), ids.slice(0, 10).sort())
    t.strictSame(settlements([sleeper, heir]), ids.map(id => `${id} 2`).sort())
  })
}

t.test('five consumers of one name take nothing from each other, and only what one of them leaves behind', async t => {
  const { add, start, counts, drained } = await startAll(t)
  const namesakes: Process[] = []
  const ids: string[] = []
  const options = { name: 'default', concurrency: 2 }
  for (let i = 1; i <= 5; i++) {
    namesakes.push(await start(options))
    ids.push(...await add(repeat(2, '/task?hold=1&tell=1')))
    await until(() => namesakes.every(({ begun }) => begun.length === 2))
  }
  const [victim, leaver, ...others] = namesakes as [Process, Process, ...Process[]]
  await victim.end('SIGKILL')
  const lost = victim.begun.map(({ id }) => id)
  const heir = await start(options)
  await until(() => heir.ended.filter(({ id }) => lost.includes(id)).length === 2)
  leaver.send({ open: true })
  await until(() => leaver.begun.slice(0, 2).every(({ id }) => leaver.ended.some(ended => ended.id === id)))
  await leaver.end('SIGTERM')
  for (const { begun, aborted } of others) t.match([begun, aborted], [{ length: 2 }, { length: 0 }])
  for (const other of others) other.send({ open: true })
  await drained()
  t.same(await counts(), NOTHING)
  t.strictSame(settlements(namesakes.concat(heir)), ids.map(id => `${id} ${lost.includes(id) ? 2 : 1}`).sort())
})

/** Stops a process; returns what lets it go on. */
function freeze (_t: Test, { child }: Process): () => void {
  child.kill('SIGSTOP')
  return () => { child.kill('SIGCONT') }
}

/** Blocks its event loop. */
function block (t: Test, process: Process): () => void {
  const dir = mkdtempSync(join(tmpdir(), 'tq-'))
  t.teardown(() => { rmSync(dir, { recursive: true }) })
  const file = join(dir, 'go-on')
  process.send({ block: file })
  return () => { writeFileSync(file, '') }
}
