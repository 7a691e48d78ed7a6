// node closing-line.js LOG STATUS: says in one plain line how a run of tap ended.
import { readFileSync } from 'node:fs'

const [log, status] = process.argv.slice(2)
const summary = readFileSync(log, 'utf8').match(/^# \{ total: .*\}$/gm)?.at(-1) ?? ''
const count = key => Number(summary.match(new RegExp(`\\b${key}: (\\d+)`))?.[1] ?? 0)
// tap also fails for coverage, a crash or a leak, none of which it counts as a failed test.
const failed = count('fail') || (status === '0' ? 0 : 1)
const skipped = count('skip') + count('todo')
console.log(`${count('pass')} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`)
