import { number } from '../support/text.js'
import { CONTENDERS, contenders } from './contenders.js'
import { CONCURRENCIES, drainResultsOf } from './measures/drain.js'

/** @import { ContenderName } from './contenders.js' */
/** @import { Section } from './results.js' */

const WIDTH = 780
const LEFT = 250
const RIGHT = 70
const ROW = 19
const BAR = 13
const GROUP = 44
const FONT = 'font: 12px system-ui, sans-serif'

/**
 * Draws how fast each contender drains, as bars: medians, with a line from the least to the most.
 *
 * @param {Section} drain
 */
export function plotOf (drain) {
  const results = drainResultsOf(drain)
  const groups = CONCURRENCIES.map(concurrency => ({
    concurrency,
    trials: CONTENDERS.map(contender => ({ contender, concurrency })).filter(trial => results.has(trial))
  })).filter(({ trials }) => trials.length > 0)
  const all = groups.flatMap(({ trials }) => trials.flatMap(trial => results.values(trial, 'perSecond')))
  const most = Math.max(...all)
  /** @param {number} value */
  const x = value => LEFT + value / most * (WIDTH - LEFT - RIGHT)

  let y = 58
  const parts = groups.flatMap(({ concurrency, trials }) => {
    const head = `<text class="head" x="${LEFT}" y="${y + 14}">concurrency ${concurrency}</text>`
    y += 24
    const bars = trials.map(trial => {
      const values = results.values(trial, 'perSecond')
      const [least, middle, most] = [Math.min(...values), results.median(trial, 'perSecond'), Math.max(...values)]
      const bar = barOf(trial.contender, y, middle, [least, middle, most].map(x))
      y += ROW
      return bar
    })
    y += GROUP - 24
    return [head, ...bars]
  })
  const { date, cores, node, redis, tasks } = drain.environment
  const size = `width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}"`
  const note = `${tasks.toLocaleString('en')} waiting tasks. Medians, least to most. ` +
    `${date}, ${cores} cores, Node ${node}, Redis ${redis}`
  return `<svg xmlns="http://www.w3.org/2000/svg" ${size} role="img" aria-labelledby="title">
<title id="title">Tasks a second, by contender and concurrency</title>
<style>
text { ${FONT}; fill: #1f2328 }
.title { font-size: 15px; font-weight: 600 }
.head { font-weight: 600 }
.note, .value { fill: #59636e }
.ours { fill: #0a7d5a }
.other { fill: #8c96a0 }
.bare { fill: #c3cad1 }
.range { stroke: #1f2328; stroke-width: 1; opacity: .55 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 }
  .note, .value { fill: #9198a1 }
  .ours { fill: #2fbf8f }
  .other { fill: #6e7781 }
  .bare { fill: #454c54 }
  .range { stroke: #e6edf3 }
}
</style>
<text class="title" x="10" y="22">Tasks a second, each a request to a route of the app</text>
<text class="note" x="10" y="42">${note}</text>
${parts.join('\n')}
</svg>
`
}

/**
 * @param {ContenderName} contender
 * @param {number} y
 * @param {number} value
 * @param {number[]} range From where to where the least, the median and the most reach.
 */
function barOf (contender, y, value, [least, end, most]) {
  const kind = contender === 'bare' ? 'bare' : contender.startsWith('ours') ? 'ours' : 'other'
  const middle = y + BAR / 2
  const [label, width] = [contenders[contender].label.replaceAll('`', ''), (end - LEFT).toFixed(1)]
  return `<text x="${LEFT - 8}" y="${y + 11}" text-anchor="end">${label}</text>` +
    `<rect class="${kind}" x="${LEFT}" y="${y}" width="${width}" height="${BAR}" rx="2"/>` +
    `<line class="range" x1="${least.toFixed(1)}" x2="${most.toFixed(1)}" y1="${middle}" y2="${middle}"/>` +
    `<text class="value" x="${Number(most.toFixed(1)) + 6}" y="${y + 11}">${number(value)}</text>`
}
