import { median } from './statistics.js'

/**
 * A number with as many digits as it deserves.
 *
 * @param {number} value
 */
export function number (value) {
  if (!Number.isFinite(value)) return '–'
  const size = Math.abs(value)
  const digits = size >= 100 || value === 0 ? 0 : size >= 10 ? 1 : 2
  return value.toLocaleString('en', { minimumFractionDigits: digits, maximumFractionDigits: digits })
}

/**
 * The median of some values, and between which they lie.
 *
 * @param {readonly number[]} values
 */
export function spread (values) {
  if (values.length === 0 || values.some(value => !Number.isFinite(value))) return '–'
  const middle = number(median(values))
  return values.length === 1 ? middle : `${middle} [${number(Math.min(...values))}–${number(Math.max(...values))}]`
}

/**
 * A table in Markdown.
 *
 * @param {readonly string[]} heads
 * @param {ReadonlyArray<readonly string[]>} rows
 */
export function table (heads, rows) {
  /** @param {readonly string[]} cells */
  const line = cells => `| ${cells.join(' | ')} |`
  return [line(heads), line(heads.map((_, column) => column === 0 ? '---' : '---:')), ...rows.map(line)].join('\n')
}
