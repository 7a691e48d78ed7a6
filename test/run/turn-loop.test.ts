import { mock } from 'node:test'
import { setImmediate as nextTick } from 'node:timers/promises'
import t from 'tap'
import { TurnLoop } from '../../lib/run/turn-loop.js'

t.beforeEach(() => { mock.timers.enable({ apis: ['setTimeout'] }) })
t.afterEach(() => { mock.timers.reset() })

/** A loop whose turns end when the test says so. */
function startLoop () {
  const ends: Array<() => void> = []
  let rests = 0
  const loop = new TurnLoop(() => new Promise<void>(resolve => { ends.push(resolve) }), () => { rests++ }, work => work())
  const endTurn = async () => {
    ends.at(-1)!()
    await nextTick()
  }
  return { loop, endTurn, turns: () => ends.length, rests: () => rests }
}

t.test('a wake-up takes a turn, and any number of them during a turn take one more', async t => {
  const { loop, endTurn, turns, rests } = startLoop()
  t.ok(loop.isResting)
  loop.wake()
  t.equal(turns(), 1)
  t.notOk(loop.isResting)
  for (let i = 0; i < 3; i++) loop.wake()
  t.equal(turns(), 1, 'one turn at a time')
  await endTurn()
  t.equal(turns(), 2)
  t.equal(rests(), 0)
  await endTurn()
  t.equal(turns(), 2)
  t.equal(rests(), 1)
  t.ok(loop.isResting)
})

t.test('the alarm is one: setting it anew or switching it off leaves nothing of it', async t => {
  const { loop, turns } = startLoop()
  loop.wakeIn(5)
  loop.silence()
  mock.timers.tick(10)
  t.equal(turns(), 0)
  loop.wakeIn(5)
  loop.wakeIn(20)
  mock.timers.tick(19)
  t.equal(turns(), 0)
  mock.timers.tick(1)
  t.equal(turns(), 1)
})

t.test('what is collected takes a turn after a while, and none of its own where another turn comes first', async t => {
  const { loop, endTurn, turns } = startLoop()
  loop.wakeSoon()
  mock.timers.tick(1)
  loop.wakeSoon()
  mock.timers.tick(1)
  t.equal(turns(), 1, 'the first of them counts')
  await endTurn()
  loop.wakeSoon()
  loop.wake()
  await endTurn()
  mock.timers.tick(10)
  t.equal(turns(), 2)
})
