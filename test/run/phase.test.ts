import t from 'tap'
import { next, type Phase } from '../../lib/run/phase.js'

const PHASES: readonly Phase[] = ['new', 'consuming', 'turned away', 'closing']

t.test('a consumer goes from one phase to those that may follow it, and to no other', async t => {
  const followers = PHASES.map(phase => [phase, ...PHASES.filter(wanted => wanted !== phase && next(phase, wanted) === wanted)])
  t.strictSame(followers, [
    ['new', 'consuming', 'closing'],
    ['consuming', 'turned away', 'closing'],
    ['turned away', 'consuming', 'closing'],
    ['closing']
  ])
})
