import { setTimeout as sleep } from 'node:timers/promises'
import { number } from '../support/text.js'
import { environmentOf } from './environment.js'
import { MEASURES } from './measures/index.js'
import { Stage } from './stage.js'

/** @import { Limits, MeasureName } from './measures/index.js' */
/** @import { Entry, Figures, Rounds, Section, Trial } from './results.js' */

/** For one trial. */
const LONGEST_MS = 5 * 60_000

/** @type {Stage | undefined} */
let stage

/** Ends what the trial that is being made has started. */
export async function endTrial () { await stage?.end() }

/**
 * Makes a measure: all of its trials in each round, each time in another order.
 *
 * @param {MeasureName} name
 * @param {Limits} wanted
 * @param {string[]} args Those of the program.
 * @returns {Promise<Section>}
 */
export async function make (name, wanted, args) {
  const { roundsOf, trials: trialsOf } = MEASURES[name]
  const limits = { ...wanted, rounds: roundsOf?.(wanted.rounds) ?? wanted.rounds }
  const environment = environmentOf(limits, args)
  const trials = trialsOf(limits)
  /** @type {Rounds} */
  const rounds = []
  for (let round = 0; round < limits.rounds; round++) {
    const first = Math.floor(round * trials.length / limits.rounds)
    /** @type {Entry[]} */
    const entries = []
    for (const trial of [...trials.slice(first), ...trials.slice(0, first)]) {
      const figures = await attempt(name, trial, limits)
      if (figures !== undefined) entries.push({ trial, figures: rounded(figures) })
    }
    rounds.push(entries)
  }
  return { environment, rounds }
}

/**
 * @param {MeasureName} name
 * @param {Trial} trial
 * @param {Limits} limits
 * @returns {Promise<Figures | undefined>} Nothing if it fails.
 */
async function attempt (name, trial, limits) {
  stage = new Stage(name)
  const said = [name, ...Object.values(trial), '|']
  try {
    /** @type {Figures} */
    const figures = await inTime(MEASURES[name].measure(stage, trial, limits))
    console.error(...said, ...Object.entries(figures).map(([figure, value]) => `${figure} ${number(value)}`))
    return figures
  } catch (error) {
    process.exitCode = 1
    console.error(...said, error)
    return undefined
  } finally {
    await stage.end()
  }
}

/** @param {Figures} figures */
function rounded (figures) {
  return Object.fromEntries(Object.entries(figures).map(([figure, value]) => [figure, Number(value.toPrecision(6))]))
}

/**
 * Whatever hangs fails, and the rest goes on.
 *
 * @template T
 * @param {Promise<T>} made
 */
async function inTime (made) {
  const ending = new AbortController()
  const late = sleep(LONGEST_MS, undefined, { signal: ending.signal })
    .then(() => { throw new Error('it has not ended in time') })
  try {
    return await Promise.race([made, late])
  } finally {
    ending.abort()
    late.catch(() => {})
  }
}
