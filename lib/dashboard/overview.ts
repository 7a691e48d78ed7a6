import type { QueueHealth } from '../plugin/health.js'
import type { History } from '../store/found.js'
import { chart } from './chart.js'
import { count, duration } from './format.js'
import { type Html, html } from './html.js'
import { action, type Frame, type Page, pathOfList, table } from './layout.js'

export interface Overview {
  readonly queues: ReadonlyArray<QueueHealth & { readonly history?: History }>
}

const STATES = ['waiting', 'delayed', 'running', 'dead'] as const

/** The page on which all queues are. */
export function overviewPage ({ queues }: Overview, frame: Frame): Page {
  const rows = queues.map(queue => row(queue, frame))
  const heads = ['Queue', 'Waiting', 'Delayed', 'Running', 'Dead', 'Oldest', 'Last hour', '']
  return {
    title: 'Queues',
    content: html`${table(heads, rows, 'queues')}
<p class="note">All processes together, but for what runs “here”. “Oldest” is how long the first task in line has waited
since it was due. Bars show the last 60 minutes: <span class="key done">done</span>,
<span class="key failed">failed attempts</span>.</p>`
  }
}

function row (queue: QueueHealth & { readonly history?: History }, frame: Frame): Html {
  const { name, isReachable, isPaused, restMs = 0, oldestMs, consumer, history } = queue
  if (!isReachable) {
    return html`<tr class="down"><th scope="row">${name}</th>
<td colspan="7"><strong>Its store does not answer.</strong> Requests that add tasks to it fail. Consumers go on by
themselves when it is back.</td></tr>`
  }
  const counts = STATES.map(state => {
    const value = queue[state]
    const kind = state === 'dead' && value !== 0 ? 'number bad' : value === 0 ? 'number none' : 'number'
    return html`<td class="${kind}"><a href="${pathOfList(name, state)}">${count(value)}</a></td>`
  })
  const here = consumer === undefined ? 'not consumed here' : `${consumer.running} of ${consumer.concurrency} here`
  const fields = { queue: name }
  const oldest = oldestMs === undefined || oldestMs === 0 ? '–' : duration(oldestMs)
  return html`<tr>
<th scope="row"><a href="${pathOfList(name, 'waiting')}">${name}</a>
${isPaused === true && html`<span class="badge">paused</span>`}
${restMs > 0 && html`<span class="badge">rests for ${duration(restMs)}</span>`}<br><small>${here}</small></th>
${counts}
<td class="number">${oldest}</td>
<td>${history !== undefined && chart(history)}</td>
<td>${isPaused === true ? action(frame, 'resume', 'Resume', fields) : action(frame, 'pause', 'Pause', fields)}</td>
</tr>`
}
