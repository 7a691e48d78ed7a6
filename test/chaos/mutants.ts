import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import type { Test } from 'tap'
import type { Rule } from './check.js'
import type { Teardown } from './fleet.js'
import { makePlan, type PlanOptions } from './plan.js'
import { describe } from './report.js'
import { run } from './run.js'

// A run that finds nothing says something only if it finds what is wrong. Each of these
// builds lacks one mechanism, and is caught by the seeds and the faults that it was for.

export interface Mutant {
  title: string
  file: string
  /** Pieces of text, and what becomes of them. */
  edits: ReadonlyArray<readonly [text: string, replacement: string]>
  seed: number
  secs: number
  options: PlanOptions
  /** One of the promises that it breaks. */
  breaks: Rule
}

/** Runs each mutant, and expects that the checker finds what it breaks. */
export function testMutants (t: Test, mutants: readonly Mutant[]): void {
  t.setTimeout(290_000)
  for (const { title, file, edits, seed, secs, options, breaks } of mutants) {
    t.test(title, async t => {
      const plan = makePlan(seed, secs, options)
      const result = await run(t, plan, { lib: mutate(t, file, edits), drainMs: 10_000 })
      t.comment(describe(plan, result))
      const found = result.violations.filter(({ rule }) => rule === breaks)
      t.ok(found.length > 0, `${found.length} times: ${breaks}`)
    })
  }
}

/** Copies the plugin with one file changed, and returns the copy's address. It lies where it finds what it imports. */
function mutate (t: Teardown, file: string, edits: Mutant['edits']): string {
  const lib = fileURLToPath(new URL('../../lib', import.meta.url))
  const copy = mkdtempSync(`${lib}-mutant-`)
  t.teardown(() => { rmSync(copy, { recursive: true, force: true }) })
  cpSync(lib, copy, { recursive: true })
  const path = join(copy, file)
  let source = readFileSync(path, 'utf8')
  for (const [text, replacement] of edits) {
    const parts = source.split(text)
    if (parts.length !== 2) throw new Error(`${file} has this ${parts.length - 1} times: ${text}`)
    source = parts.join(replacement)
  }
  writeFileSync(path, source)
  return pathToFileURL(join(copy, 'index.js')).href
}
