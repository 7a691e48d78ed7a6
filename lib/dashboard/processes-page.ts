import type { ConsumedQueue, ProcessStatus } from '../queue/processes.js'
import { duration, time } from './format.js'
import { type Html, html } from './html.js'
import { type Page, pathOfList, pathOfTask, table } from './layout.js'

/** How many tasks of a process are named. */
const MOST_NAMED = 5

function consumed ({ queue, concurrency, held, taskIds }: ConsumedQueue): Html {
  const links = taskIds.slice(0, MOST_NAMED).map(id =>
    html`<br><small><a href="${pathOfTask(id)}">${id}</a></small>`)
  return html`<li><a href="${pathOfList(queue, 'running')}">${queue}</a>: holds ${held}, runs up to ${concurrency} at
once ${links}</li>`
}

/** The page on which the processes are that consume. */
export function processesPage (processes: readonly ProcessStatus[], now = Date.now()): Page {
  const rows = processes.map(({ name, startedAt, heardAt, isAlive, queues }) => html`<tr>
<th scope="row">${name}${!isAlive && html` <span class="badge bad">gone</span>`}</th>
<td>${duration(now - startedAt.getTime())}</td><td>${time(heardAt, now)}</td>
<td><ul>${queues.map(consumed)}</ul></td></tr>`)
  const heads = ['Name', 'Up for', 'Heard of', 'Consumes']
  return {
    title: 'Processes',
    content: processes.length === 0
      ? html`<p class="empty">No process consumes. Tasks wait until one does.</p>`
      : html`${table(heads, rows)}
<p class="note">Processes tell of themselves every fifth of a lease. What a process holds is what it runs and what it
has claimed ahead. If it is gone, others take over what it held.</p>`
  }
}
