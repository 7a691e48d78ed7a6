/** node cli.js [--seed N] [--secs S] [--faults kill,freeze] [--poison N] [--lib path]: runs random faults, prints what came of it, and fails if a promise was broken. */
import { resolve } from 'node:path'
import { pathToFileURL } from 'node:url'
import { parseArgs } from 'node:util'
import { FAULT_KINDS, makePlan, type FaultKind } from './plan.js'
import { describe, evidence } from './report.js'
import { LIB, run } from './run.js'

const { values } = parseArgs({
  options: {
    seed: { type: 'string', default: String(Date.now() % 1_000_000) },
    secs: { type: 'string', default: '20' },
    faults: { type: 'string', default: FAULT_KINDS.join() },
    poison: { type: 'string', default: '2' },
    long: { type: 'string', default: '0.04' },
    lib: { type: 'string' }
  }
})

const faults = values.faults.split(',').filter(fault => fault !== '') as FaultKind[]
const unknown = faults.filter(fault => !FAULT_KINDS.includes(fault))
if (unknown.length > 0) throw new Error(`no such fault: ${unknown.join()}; there are ${FAULT_KINDS.join()}`)

const plan = makePlan(Number(values.seed), Number(values.secs), { faults, poison: Number(values.poison), long: Number(values.long) })
const teardowns: Array<() => unknown> = []
const tearDown = async () => { for (const teardown of teardowns.splice(0).reverse()) await teardown() }
process.once('SIGINT', () => { tearDown().finally(() => { process.exit(130) }) })
try {
  const result = await run({ teardown (teardown) { teardowns.push(teardown) } }, plan, {
    lib: values.lib === undefined ? LIB : pathToFileURL(resolve(values.lib)).href
  })
  console.log(describe(plan, result))
  for (const line of evidence(result)) console.log(line)
  process.exitCode = result.violations.length > 0 ? 1 : 0
} finally {
  await tearDown()
}
