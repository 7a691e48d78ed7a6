import t from 'tap'
import { type Phase, Phases } from '../../lib/run/phase.js'

const WAYS: Readonly<Record<Phase, readonly Phase[]>> = {
  new: [], consuming: ['consuming'], 'turned away': ['consuming', 'turned away'], closing: ['closing']
}
const PHASES = Object.keys(WAYS) as Phase[]

function phasesIn (phase: Phase): Phases {
  const phases = new Phases()
  for (const step of WAYS[phase]) phases.enter(step)
  return phases
}

t.test('a consumer goes from one phase to those that may follow it, and to no other', async t => {
  const followers = PHASES.map(phase => [phase, ...PHASES.filter(wanted => {
    const phases = phasesIn(phase)
    const isEntered = phases.enter(wanted)
    t.equal(phases.now, isEntered ? wanted : phase)
    return isEntered
  })])
  t.strictSame(followers, [
    ['new', 'consuming', 'closing'],
    ['consuming', 'turned away', 'closing'],
    ['turned away', 'consuming', 'closing'],
    ['closing']
  ])
})

t.test('a consumer whose app has turned a task away consumes again soon, unless it closes meanwhile', async t => {
  const phases = phasesIn('consuming')
  const goneOn = new Promise<void>(resolve => { phases.turnAway(resolve) })
  t.equal(phases.now, 'turned away')
  phases.turnAway(() => { t.fail('it is turned away once') })
  const alive = setTimeout(() => {}, 10_000)
  await goneOn
  clearTimeout(alive)
  t.equal(phases.now, 'consuming')

  const closing = phasesIn('consuming')
  const over = new Promise<void>(resolve => { closing.turnAway(resolve) })
  closing.enter('closing')
  const kept = setTimeout(() => {}, 10_000)
  await over
  clearTimeout(kept)
  t.equal(closing.now, 'closing')
})
