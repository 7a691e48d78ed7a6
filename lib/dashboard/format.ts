import { type Html, html } from './html.js'

const UNITS: ReadonlyArray<readonly [ms: number, name: string, word: string]> = [
  [86_400_000, 'd', 'day'], [3_600_000, 'h', 'hour'], [60_000, 'min', 'minute'], [1000, 's', 'second'],
  [1, 'ms', 'millisecond']
]

/** Writes a duration in its largest unit: `3 min`. */
export function duration (ms: number): string {
  const [unit, name] = UNITS.find(([unit]) => ms >= unit) ?? [1, 'ms']
  const count = ms / unit
  return `${count < 10 && unit > 1 ? Math.floor(count * 10) / 10 : Math.floor(count)} ${name}`
}

/** Writes exactly in which time something may happen again and again, to be read after “per”: `min`, `90 s`. */
export function period (ms: number): string {
  const [unit, name] = UNITS.find(([unit]) => ms % unit === 0) ?? [1, 'ms']
  return ms === unit ? name : `${count(ms / unit)} ${name}`
}

/** Writes exactly how far two times lie apart, to be read after “every”: `hour`, `90 seconds`. */
export function interval (ms: number): string {
  const [unit, , word] = UNITS.find(([unit]) => ms % unit === 0)!
  return ms === unit ? word : `${count(ms / unit)} ${word}s`
}

export const count = (value: number | undefined): string => value === undefined ? '–' : value.toLocaleString('en')

/** Writes a time, and how long ago it was or how soon it will be. */
export function time (date: Date | undefined, now: number): Html {
  if (date === undefined) return html`–`
  const ms = date.getTime() - now
  const iso = date.toISOString()
  const relative = ms > 0 ? `in ${duration(ms)}` : `${duration(-ms)} ago`
  return html`<time datetime="${iso}" title="${iso}">${relative}</time>`
}
