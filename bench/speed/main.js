/** Measures how fast tasks are added and run, here and by others, and writes what came out: `npm run bench`. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { environmentOf } from './environment.js'
import * as adding from './measures/adding.js'
import * as committing from './measures/committing.js'
import * as backlog from './measures/backlog.js'
import * as drain from './measures/drain.js'
import * as latency from './measures/latency.js'
import * as memory from './measures/memory.js'
import * as processes from './measures/processes.js'
import * as queues from './measures/queues.js'
import * as requests from './measures/requests.js'
import { pageOf, partsOf } from './page.js'
import { plotOf } from './plot.js'
import { Stage } from './stage.js'
import { number } from '../support/text.js'

const MEASURES = { drain, adding, committing, latency, memory, backlog, processes, queues, requests }

/** For one trial. */
const LONGEST_MS = 5 * 60_000

const { values } = parseArgs({
  options: {
    only: { type: 'string', default: Object.keys(MEASURES).join() },
    tasks: { type: 'string' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    render: { type: 'boolean', default: false }
  }
})
const { tasks = values.quick ? 500 : 20_000, rounds = values.quick ? 1 : 5 } = values
const options = { tasks: Number(tasks), rounds: Number(rounds), quick: values.quick }
const wanted = values.only.split(',')
for (const name of wanted) if (!(name in MEASURES)) throw new Error(`there is no measure ${name}, but ${Object.keys(MEASURES).join(', ')}`)

const folder = new URL(`../results/${values.quick ? 'quick/' : ''}`, import.meta.url)
const file = name => new URL(name, folder)
mkdirSync(folder, { recursive: true })
const sections = existsSync(file('speed.json')) ? JSON.parse(readFileSync(file('speed.json'))) : {}

let stage
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await stage?.end()
    process.exit(1)
  })
}

if (values.render) {
  const made = Object.keys(MEASURES).filter(name => sections[name] !== undefined)
  if (made.length > 0) publish(made)
  else {
    process.exitCode = 1
    console.error(`There are no raw results to render in ${fileURLToPath(file('speed.json'))}.`)
  }
} else {
  for (const name of wanted) {
    sections[name] = await make(name)
    writeFileSync(file('speed.json'), `${JSON.stringify(sections, undefined, 1)}\n`)
  }
  publish(wanted)
}

/** Writes the page and the plot, or only prints some measures as long as the page would lack others. */
function publish (names) {
  const missing = Object.keys(MEASURES).filter(name => sections[name] === undefined)
  if (missing.length === 0) {
    writeFileSync(file('speed.md'), pageOf(MEASURES, sections))
    writeFileSync(file('speed.svg'), plotOf(sections.drain))
  } else {
    console.log(partsOf(names, MEASURES, sections))
    console.error(`The page is left as it is, since there are no raw results of ${missing.join(', ')}.`)
  }
}

async function make (name) {
  const measure = MEASURES[name]
  const limits = { ...options, rounds: measure.roundsOf?.(options.rounds) ?? options.rounds }
  const environment = environmentOf(limits, process.argv.slice(2))
  const trials = measure.trials(limits)
  const rounds = []
  for (let round = 0; round < limits.rounds; round++) {
    const first = Math.floor(round * trials.length / limits.rounds)
    const entries = []
    for (const trial of [...trials.slice(first), ...trials.slice(0, first)]) {
      const figures = await attempt(name, trial, limits)
      if (figures !== undefined) entries.push({ trial, figures: rounded(figures) })
    }
    rounds.push(entries)
  }
  return { environment, rounds }
}

async function attempt (name, trial, limits) {
  stage = new Stage(name)
  try {
    const figures = await inTime(MEASURES[name].measure(stage, trial, limits))
    console.error(name, ...Object.values(trial), '|', ...Object.entries(figures).map(([figure, value]) => `${figure} ${number(value)}`))
    return figures
  } catch (error) {
    process.exitCode = 1
    console.error(name, ...Object.values(trial), '|', error)
  } finally {
    await stage.end()
  }
}

function rounded (figures) {
  return Object.fromEntries(Object.entries(figures).map(([figure, value]) => [figure, Number(value.toPrecision(6))]))
}

/** Whatever hangs fails, and the rest goes on. */
async function inTime (figures) {
  const ending = new AbortController()
  const late = sleep(LONGEST_MS, undefined, { signal: ending.signal }).then(() => { throw new Error('it has not ended in time') })
  try {
    return await Promise.race([figures, late])
  } finally {
    ending.abort()
    late.catch(() => {})
  }
}
