/** Makes the same experiments on each system: `npm run bench:promises`, or with the names of some. */
import { mkdirSync, writeFileSync } from 'node:fs'
import { AppBed } from './app-bed.js'
import { EXPERIMENTS } from './experiments/index.js'
import { pageOf } from './page.js'

/** @import { Entry, Figures, Kind } from './experiments/index.js' */
/** @import { Results } from './page.js' */
/** @import { SystemName } from './systems.js' */

const wanted = process.argv.slice(2)
const known = EXPERIMENTS.map(({ run }) => run.name)
for (const name of wanted) {
  if (!known.includes(name)) throw new Error(`there is no experiment ${name}, but ${known.join(', ')}`)
}
const experiments = EXPERIMENTS.filter(({ run }) => wanted.length === 0 || wanted.includes(run.name))
/** @type {Results} */
const results = new Map(experiments.map(experiment => [experiment, {}]))

/** @type {Set<AppBed>} */
const beds = new Set()
let isInterrupted = false
for (const signal of ['SIGINT', 'SIGTERM']) {
  process.once(signal, async () => {
    isInterrupted = true
    await Promise.all([...beds].map(bed => bed.end()))
    process.exit(1)
  })
}

for (const { experiment, name } of trials('alone')) await make(experiment, name)
for (const kind of /** @type {const} */ (['timed', 'long'])) {
  await Promise.all(trials(kind).map(({ experiment, name }) => make(experiment, name)))
}

const page = pageOf(results)
if (wanted.length === 0 && !isInterrupted) {
  const folder = new URL('../results/', import.meta.url)
  mkdirSync(folder, { recursive: true })
  writeFileSync(new URL('promises.md', folder), page)
} else console.log(page)

/** @param {Kind} kind */
function trials (kind) {
  return experiments.filter(experiment => experiment.kind === kind)
    .flatMap(experiment => experiment.names.map(name => ({ experiment, name })))
}

/**
 * @param {Entry} experiment
 * @param {SystemName} system
 */
async function make (experiment, system) {
  if (isInterrupted) return
  const figures = await attempt(experiment, system)
  results.set(experiment, { ...results.get(experiment), [system]: figures })
  console.error(`${experiment.run.name}, ${system}:`, figures)
}

/**
 * @param {Entry} experiment
 * @param {SystemName} system
 * @returns {Promise<Figures>}
 */
async function attempt ({ run }, system) {
  const bed = new AppBed()
  beds.add(bed)
  try {
    return await run(system, bed)
  } catch (error) {
    process.exitCode = 1
    console.error(error)
    return { failed: error instanceof Error ? error.message : String(error) }
  } finally {
    await bed.end()
    beds.delete(bed)
  }
}
