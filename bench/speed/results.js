import { median } from '../support/statistics.js'

/** @import { Environment } from './environment.js' */

/** @typedef {Record<string, string | number>} Trial What is measured once in each round. */
/** @typedef {Record<string, number>} Figures What a trial has brought. */

/**
 * @template {Trial} [T=Trial]
 * @template {Figures} [F=Figures]
 * @typedef {{ trial: T, figures: F }} Entry
 */

/**
 * The entries of each round. A trial that failed has none.
 *
 * @template {Trial} [T=Trial]
 * @template {Figures} [F=Figures]
 * @typedef {Array<Array<Entry<T, F>>>} Rounds
 */

/** @typedef {{ environment: Environment, rounds: Rounds }} Section What a measure has brought, as it is kept. */

/**
 * What came out of a measure.
 *
 * @template {Trial} [T=Trial]
 * @template {Figures} [F=Figures]
 */
export class Results {
  #rounds

  /** @param {Rounds<T, F>} rounds */
  constructor (rounds) {
    this.#rounds = rounds
  }

  /** @param {Partial<T>} trial */
  has (trial) { return this.#of(trial).length > 0 }

  /**
   * A figure of a trial, by round.
   *
   * @param {Partial<T>} trial
   * @param {keyof F} figure
   * @returns {number[]}
   */
  values (trial, figure) { return this.#of(trial).map(({ figures }) => figures[figure]) }

  /**
   * @param {Partial<T>} trial
   * @param {keyof F} figure
   */
  median (trial, figure) { return median(this.values(trial, figure)) }

  /**
   * The medians of several figures.
   *
   * @param {Partial<T>} trial
   * @param {Array<keyof F>} figures
   */
  medians (trial, ...figures) { return figures.map(figure => this.median(trial, figure)) }

  /**
   * The median of the ratios within each round.
   *
   * @param {Partial<T>} trial
   * @param {Partial<T>} other
   * @param {keyof F} figure
   */
  ratio (trial, other, figure) {
    const ratios = this.#rounds.flatMap(entries => {
      const [one, two] = [trial, other].map(trial => entries.find(entry => matches(entry.trial, trial)))
      return one === undefined || two === undefined ? [] : [one.figures[figure] / two.figures[figure]]
    })
    return ratios.length > 0 ? median(ratios) : NaN
  }

  /** @param {Partial<T>} trial */
  #of (trial) { return this.#rounds.flatMap(entries => entries.filter(entry => matches(entry.trial, trial))) }
}

/**
 * @param {Trial} trial
 * @param {Partial<Trial>} wanted
 */
function matches (trial, wanted) {
  return Object.entries(wanted).every(([name, value]) => trial[name] === value)
}
