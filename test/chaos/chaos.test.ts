import t from 'tap'
import { FAULT_KINDS, makePlan } from './plan.js'
import { describe, evidence } from './report.js'
import { run } from './run.js'

// Requests to two web processes, four consumers, and faults of all kinds at random. A seed
// fixes what is asked and what goes wrong; `npm run chaos -- --seed N` tries another.

/** Between them they have every kind of fault. */
const SEEDS = [5, 47]

/** Those that once have found something, and what. */
const KEPT_SEEDS = [
  // A subscription without an answer after a reconnection crashed the process.
  59
]

const SECS = 15

t.setTimeout(300_000)

t.test('a seed fixes the plan, and the seeds have all faults', async t => {
  const textOf = (seed: number) => JSON.stringify(makePlan(seed, SECS))
  t.equal(textOf(1), textOf(1))
  t.not(textOf(1), textOf(2))
  const faults = SEEDS.flatMap(seed => makePlan(seed, SECS).faults.map(({ fault }) => fault))
  t.strictSame([...new Set(faults)].sort(), [...FAULT_KINDS].sort())
})

for (const seed of [...SEEDS, ...KEPT_SEEDS]) {
  t.test(`random faults lose no task, run none that was not queued, and leave nothing behind: seed ${seed}`, async t => {
    const plan = makePlan(seed, SECS)
    const result = await run(t, plan)
    t.comment(describe(plan, result))
    t.ok(result.figures.ok > 0 && result.figures.attempts > 0, 'it has run')
    t.strictSame(result.violations, [], evidence(result).join('\n'))
  })
}
