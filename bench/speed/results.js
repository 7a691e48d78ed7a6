import { median } from '../support/statistics.js'

/** What came out of a measure: for each round the figures of each trial. */
export class Results {
  #rounds

  constructor (rounds) {
    this.#rounds = rounds
  }

  has (trial) { return this.#of(trial).length > 0 }

  /** A figure of a trial, by round. */
  values (trial, figure) { return this.#of(trial).map(({ figures }) => figures[figure]) }

  median (trial, figure) { return median(this.values(trial, figure)) }

  /** The median of the ratios within each round. */
  ratio (trial, other, figure) {
    const ratios = this.#rounds.flatMap(entries => {
      const [one, two] = [trial, other].map(trial => entries.find(entry => matches(entry.trial, trial)))
      return one === undefined || two === undefined ? [] : [one.figures[figure] / two.figures[figure]]
    })
    return ratios.length > 0 ? median(ratios) : NaN
  }

  #of (trial) { return this.#rounds.flatMap(entries => entries.filter(entry => matches(entry.trial, trial))) }
}

function matches (trial, wanted) {
  return Object.entries(wanted).every(([name, value]) => trial[name] === value)
}
