import { median } from './statistics.js'

/** A number with as many digits as it deserves. */
export function number (value) {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  const digits = size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/** The median of some values, and between which they lie. */
export function spread (values) {
  if (values.length === 0 || values.some(value => !Number.isFinite(value))) return '–'
  const middle = number(median(values))
  return values.length === 1 ? middle : `${middle} [${number(Math.min(...values))}–${number(Math.max(...values))}]`
}

/** What a figure ought to be, and whether it is. */
export function atLeast (least, goal, value) { return { goal, wanted: `≥ ${number(least)}`, value: number(value), isReached: value >= least } }
export function atMost (most, goal, value) { return { goal, wanted: `≤ ${number(most)}`, value: number(value), isReached: value <= most } }

export function table (heads, rows) {
  const line = cells => `| ${cells.join(' | ')} |`
  return [line(heads), line(heads.map((_, column) => column === 0 ? '---' : '---:')), ...rows.map(line)].join('\n')
}
