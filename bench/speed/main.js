/** Measures how fast tasks are added and run, here and by others, and writes what came out: `npm run bench`. */
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import { NAMES } from './measures/index.js'
import { pageOf, partsOf } from './page.js'
import { plotOf } from './plot.js'
import { endTrial, make } from './rounds.js'

/** @import { MeasureName } from './measures/index.js' */
/** @import { Sections } from './page.js' */

const args = process.argv.slice(2)
const { values: { only, tasks, rounds, quick, render } } = parseArgs({
  args,
  options: {
    only: { type: 'string' },
    tasks: { type: 'string' },
    rounds: { type: 'string' },
    quick: { type: 'boolean', default: false },
    render: { type: 'boolean', default: false }
  }
})
const limits = { tasks: Number(tasks ?? (quick ? 500 : 20_000)), rounds: Number(rounds ?? (quick ? 1 : 5)), quick }

const folder = new URL(`../results/${quick ? 'quick/' : ''}`, import.meta.url)
const [raw, page, plot] = ['speed.json', 'speed.md', 'speed.svg'].map(name => fileURLToPath(new URL(name, folder)))
/** @type {Sections} */
const sections = existsSync(raw) ? JSON.parse(readFileSync(raw, 'utf8')) : {}

for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    await endTrial()
    process.exit(1)
  })
}

if (!render) await measure(only?.split(',').map(nameOf) ?? NAMES)
else if (Object.keys(sections).length > 0) publish(NAMES)
else {
  process.exitCode = 1
  console.error(`There are no raw results to render in ${raw}.`)
}

/** @param {MeasureName[]} names */
async function measure (names) {
  mkdirSync(folder, { recursive: true })
  for (const name of names) {
    sections[name] = await make(name, limits, args)
    writeFileSync(raw, `${JSON.stringify(sections, undefined, 1)}\n`)
  }
  publish(names)
}

/**
 * Writes the page and the plot; or only prints some measures, as long as the page would lack others.
 *
 * @param {MeasureName[]} names
 */
function publish (names) {
  const missing = NAMES.filter(name => sections[name] === undefined)
  if (missing.length === 0 && sections.drain !== undefined) {
    writeFileSync(page, pageOf(sections))
    writeFileSync(plot, plotOf(sections.drain))
  } else {
    console.log(partsOf(names, sections))
    console.error(`The page is left as it is, since there are no raw results of ${missing.join(', ')}.`)
  }
}

/**
 * @param {string} text
 * @returns {MeasureName}
 */
function nameOf (text) {
  const name = NAMES.find(name => name === text)
  if (name === undefined) throw new Error(`there is no measure ${text}, but ${NAMES.join(', ')}`)
  return name
}
