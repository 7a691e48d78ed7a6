/** node cli.js [--seed N] [--sequences N] [--steps N] [--all]: compares the stores, and prints the shortest sequence after which they differ. */
import { parseArgs } from 'node:util'
import { startRedis } from '../../support/redis-server.js'
import { openComparison } from './compare.js'
import { describe } from './report.js'
import { makeSequence } from './steps.js'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    sequences: { type: 'string', default: '2000' },
    steps: { type: 'string' },
    all: { type: 'boolean', default: false }
  }
})

const teardowns: Array<() => unknown> = []
try {
  const { path } = await startRedis({ teardown (teardown) { teardowns.push(teardown) } })
  const comparison = await openComparison(path)
  teardowns.push(() => comparison.close())
  const first = Number(values.seed)
  const start = process.hrtime.bigint()
  let differences = 0
  let compared = 0
  for (let seed = first; seed < first + Number(values.sequences); seed++) {
    compared++
    const difference = await comparison.run(makeSequence(seed, values.steps === undefined ? undefined : Number(values.steps)))
    if (difference === undefined) continue
    differences++
    process.exitCode = 1
    if (!values.all) {
      console.log(describe(await comparison.shrink(difference)))
      break
    }
    console.log(`seed ${seed}: ${difference.what}`)
  }
  const secs = Number(process.hrtime.bigint() - start) / 1e9
  console.log(`${compared} sequences from seed ${first} in ${secs.toFixed(0)} s: ${differences} differ`)
} finally {
  for (const teardown of teardowns.reverse()) await teardown()
}
