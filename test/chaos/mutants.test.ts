import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath, pathToFileURL } from 'node:url'
import t from 'tap'
import type { Rule } from './check.js'
import type { Teardown } from './fleet.js'
import { makePlan, type PlanOptions } from './plan.js'
import { describe } from './report.js'
import { run } from './run.js'

// A run that finds nothing says something only if it finds what is wrong. Each of these
// builds lacks one mechanism, and is caught by the seeds and the faults that it was for.

interface Mutant {
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

const MUTANTS: readonly Mutant[] = [
  {
    title: 'a commit in one phase, which cannot be withdrawn, runs tasks of requests that were answered with 503',
    file: 'store/redis/commands/prepare-new.js',
    edits: [
      ['if ok and is_set then return end', [
        'if ok and is_set then',
        '  line_up(k, every_second(first_task, last_task), {})',
        "  for i = first, last, 2 do redis.call('HSET', k.prepared, ARGV[i], '0 ') end",
        '  return',
        'end'
      ].join('\n')],
      ["const KEYS = ['prepared', 'message'];", [
        "import { KEYS } from '../keys.js';",
        "import { queueing } from '../lua/line.js';"
      ].join('\n')],
      // eslint-disable-next-line no-template-curly-in-string
      ['${preludeOf(KEYS)}', '${preludeOf(KEYS)}${queueing}']
    ],
    seed: 1,
    secs: 10,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'ghost'
  },
  {
    title: 'leases that run by the time of Redis expire while it is frozen, under consumers that live',
    file: 'store/redis/lua/clock.js',
    edits: [['math.max(0, math.min(now - contact, heartbeat))', 'math.max(0, now - contact)']],
    seed: 1,
    secs: 12,
    options: { faults: ['freeze'], leases: [1.3, 2], rate: 10, poison: 0, long: 0.5 },
    breaks: 'duplicate'
  },
  {
    title: 'suspects that run beside other tasks take them with them to the dead',
    file: 'store/redis/lua/due.js',
    edits: [
      ['p.deaths, p.suspect = p.deaths + p.suspect, 1', 'p.deaths, p.suspect = p.deaths + 1, 0'],
      ['give_back(k.suspects, abandoned)', 'give_back(k.waiting, abandoned)']
    ],
    seed: 1,
    secs: 8,
    options: { faults: [], rate: 10, poison: 6, long: 0.5 },
    breaks: 'innocent'
  },
  {
    title: 'a task is settled by an attempt whose lease was lost where nothing fences it off',
    file: 'store/redis/lua/leases.js',
    edits: [['return p.running and p.fence == fence', 'return p.running']],
    seed: 2,
    secs: 14,
    options: { faults: ['stop'], leases: [2, 2.3], rate: 2, kinds: ['chain'], poison: 0, long: 1 },
    breaks: 'fence'
  },
  {
    title: 'a rollback that leaves messages in the places where they were prepared leaves them there for ever',
    file: 'store/redis/commands/rollback.js',
    edits: [['if not tasks[i + 1] then', 'if false then']],
    seed: 1,
    secs: 10,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'left'
  },
  {
    title: 'a key has more of its tasks run than it allows where a claim does not ask how many run',
    file: 'store/redis/lua/admitting.js',
    edits: [['not most or math.floor(first[2] / CLASS) < most', 'true']],
    seed: 1,
    secs: 5,
    options: { faults: [], poison: 0 },
    breaks: 'limit'
  },
  {
    title: 'a queue has more of its tasks run than it allows where a claim takes as many as it has room for',
    file: 'store/redis/lua/claiming.js',
    edits: [['most = math.min(most, allowed)', '']],
    seed: 1,
    secs: 5,
    options: { faults: [], poison: 0 },
    breaks: 'limit'
  },
  {
    title: 'a key whose task has failed never runs another where the failed one goes on counting as running',
    file: 'store/redis/lua/lanes.js',
    edits: [["if key and key ~= '' then redis.call('ZREM', k.holding", "if false then redis.call('ZREM', k.holding"]],
    seed: 1,
    secs: 3,
    options: { faults: [], poison: 0 },
    breaks: 'left'
  },
  {
    title: 'slots that were over while Redis was frozen are lost where a schedule makes up for the last one only',
    file: 'schedule/slots.js',
    edits: [["catchUp === 'all'", 'false']],
    seed: 1,
    secs: 8,
    options: { faults: ['freeze'], leases: [1, 1.5], poison: 0 },
    breaks: 'slot'
  },
  {
    title: 'an app that closes under its commits tells successes that are not stored',
    file: 'add/open-commits.js',
    edits: [['if (this.#isClosed)', 'if (false)'], ['if (this.#underWay > 0)', 'if (false)']],
    seed: 1,
    secs: 5,
    options: { faults: ['close', 'leave'], poison: 0 },
    breaks: 'torn'
  }
]

t.setTimeout(290_000)

for (const { title, file, edits, seed, secs, options, breaks } of MUTANTS) {
  t.test(title, async t => {
    const plan = makePlan(seed, secs, options)
    const result = await run(t, plan, { lib: mutate(t, file, edits), drainMs: 10_000 })
    t.comment(describe(plan, result))
    const found = result.violations.filter(({ rule }) => rule === breaks)
    t.ok(found.length > 0, `${found.length} times: ${breaks}`)
  })
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
