import { contenders } from './contenders.js'
import { Results } from './results.js'
import { number } from '../support/text.js'

const WIDTH = 780
const LEFT = 250
const RIGHT = 70
const ROW = 19
const BAR = 13
const GROUP = 44
const FONT = 'font: 12px system-ui, sans-serif'

/** Draws how fast each contender drains, as bars: medians, with a line from the least to the most. */
export function plotOf ({ environment, rounds }) {
  const results = new Results(rounds)
  const groups = [1, 10, 50].map(concurrency => ({
    concurrency, trials: Object.keys(contenders).map(contender => ({ contender, concurrency })).filter(trial => results.has(trial))
  })).filter(({ trials }) => trials.length > 0)
  const most = Math.max(...groups.flatMap(({ trials }) => trials.flatMap(trial => results.values(trial, 'perSecond'))))
  const x = value => (LEFT + value / most * (WIDTH - LEFT - RIGHT)).toFixed(1)

  let y = 58
  const parts = groups.flatMap(({ concurrency, trials }) => {
    const head = `<text class="head" x="${LEFT}" y="${y + 14}">concurrency ${concurrency}</text>`
    y += 24
    const bars = trials.map(trial => {
      const values = results.values(trial, 'perSecond')
      const bar = barOf(trial.contender, x, y, results.median(trial, 'perSecond'), [Math.min(...values), Math.max(...values)])
      y += ROW
      return bar
    })
    y += GROUP - 24
    return [head, ...bars]
  })
  const { date, cores, node, redis, tasks } = environment
  return `<svg xmlns="http://www.w3.org/2000/svg" width="${WIDTH}" height="${y}" viewBox="0 0 ${WIDTH} ${y}" role="img" aria-labelledby="title">
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
<text class="note" x="10" y="42">${tasks.toLocaleString('en')} waiting tasks. Medians, least to most. ${date}, ${cores} cores, Node ${node}, Redis ${redis}</text>
${parts.join('\n')}
</svg>
`
}

function barOf (contender, x, y, value, [least, most]) {
  const kind = contender === 'bare' ? 'bare' : contender.startsWith('ours') ? 'ours' : 'other'
  const middle = y + BAR / 2
  const end = Math.max(value, most)
  return `<text x="${LEFT - 8}" y="${y + 11}" text-anchor="end">${contenders[contender].label.replaceAll('`', '')}</text>` +
    `<rect class="${kind}" x="${LEFT}" y="${y}" width="${(x(value) - LEFT).toFixed(1)}" height="${BAR}" rx="2"/>` +
    `<line class="range" x1="${x(least)}" x2="${x(most)}" y1="${middle}" y2="${middle}"/>` +
    `<text class="value" x="${Number(x(end)) + 6}" y="${y + 11}">${number(value)}</text>`
}
