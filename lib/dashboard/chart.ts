import type { History } from '../store/found.js'
import { count } from './format.js'
import { type Html, html } from './html.js'

const HEIGHT = 32
const WIDTH = 4

/** Draws what has happened in the last hour: a bar for each minute, what was done above what has failed. */
export function chart ({ done, failed }: History): Html {
  const most = Math.max(1, ...done.map((value, minute) => value + (failed[minute] ?? 0)))
  const sum = (counts: readonly number[]) => counts.reduce((all, value) => all + value, 0)
  const label = `last hour: ${count(sum(done))} done, ${count(sum(failed))} failed attempts`
  const bars = done.map((value, minute) => {
    const high = Math.round(value / most * HEIGHT)
    const low = Math.round((failed[minute] ?? 0) / most * HEIGHT)
    const x = minute * WIDTH
    return [
      high > 0 && html`<rect class="done" x="${x}" y="${HEIGHT - low - high}" width="${WIDTH - 1}" height="${high}"/>`,
      low > 0 && html`<rect class="failed" x="${x}" y="${HEIGHT - low}" width="${WIDTH - 1}" height="${low}"/>`
    ]
  })
  return html`<svg class="chart" role="img" aria-label="${label}" viewBox="0 0 ${done.length * WIDTH} ${HEIGHT}"
    preserveAspectRatio="none"><title>${label}</title>${bars}</svg>`
}
