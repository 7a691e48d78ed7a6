import t from 'tap'
import { makePlan } from './plan.js'
import { describe, evidence } from './report.js'
import { run } from './run.js'

// Requests to two web processes, four consumers, and faults of all kinds at random. A seed
// fixes what is asked and what goes wrong; `npm run chaos -- --seed N` tries another.

/** Those that have once found something are kept. */
const SEEDS = [1, 2, 3]
const SECS = 15

t.setTimeout(180_000)

for (const seed of SEEDS) {
  t.test(`random faults lose no task, run none that was not queued, and leave nothing behind: seed ${seed}`, async t => {
    const plan = makePlan(seed, SECS)
    const result = await run(t, plan)
    t.comment(describe(plan, result))
    t.ok(result.figures.ok > 0 && result.figures.attempts > 0, 'it has run')
    t.strictSame(result.violations, [], evidence(result).join('\n'))
  })
}
