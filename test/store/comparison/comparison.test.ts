import t from 'tap'
import { startRedis } from '../../support/redis-server.js'
import { openComparison } from './compare.js'
import { describe } from './report.js'
import { makeSequence } from './steps.js'

// Random orders to a local, a Redis and an SQLite store in lock step, under one clock, of which all that can be
// seen is compared. `node build/test/store/comparison/cli.js --seed N --sequences N` tries others.

const FIXED_SEEDS = 60
const BUDGET_MS = 12_000

t.setTimeout(300_000)

t.test('a seed fixes a sequence', async t => {
  t.same(makeSequence(1), makeSequence(1))
  t.notSame(makeSequence(1), makeSequence(2))
})

t.test('local, Redis and SQLite stores show the same after the same orders', async t => {
  const { path } = await startRedis(t)
  const comparison = await openComparison(path)
  t.teardown(() => comparison.close())
  const random = Math.floor(Math.random() * 1_000_000_000)
  const start = process.hrtime.bigint()
  let compared = 0
  for (; compared < FIXED_SEEDS || Number(process.hrtime.bigint() - start) / 1e6 < BUDGET_MS; compared++) {
    const seed = compared < FIXED_SEEDS ? compared : random + compared
    const difference = await comparison.run(makeSequence(seed))
    if (difference === undefined) continue
    t.fail(describe(await comparison.shrink(difference)))
    return
  }
  t.comment(`${compared} sequences, those of random seeds from ${random + FIXED_SEEDS}`)
})
