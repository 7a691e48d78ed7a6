import type { State } from '../store/found.js'
import { PRIORITIES } from '../store/tasks.js'
import { duration, time } from './format.js'
import { type Content, type Html, html } from './html.js'
import { action, type Frame, type Page, pathOfList, table, timedAction } from './layout.js'
import { present } from './redact.js'
import type { Show, TaskView } from './task-view.js'

/** The states in which nothing is known of a task's priority. */
const ENDED: ReadonlySet<State> = new Set(['done', 'cancelled', 'expired'])

/** The page of one task. */
export function taskPage (task: TaskView, show: Show, frame: Frame, now = Date.now()): Page {
  const {
    id, queue, state, method = '?', url, userId, priority = 'normal', key, addedAt, dueAt, endedAt, running, reason,
    originReqId, progress
  } = task
  const facts: Array<[string, Content]> = [
    ['State', html`<span class="state ${state}">${state}</span>`],
    ['Queue', html`<a href="${pathOfList(queue, state)}">${queue}</a>`],
    ['Request', url === undefined ? 'Its message cannot be read.' : html`<b>${method}</b> ${url}`],
    ['User', userId ?? 'nobody in particular'],
    ['Priority', ENDED.has(state) ? undefined : priority],
    ['Key', key === undefined ? undefined : html`<span class="name">${key}</span>`],
    ['Added', time(addedAt, now)],
    ['Added by request', originReqId],
    ['Due', dueAt && time(dueAt, now)],
    ['Runs since', running?.startedAt && time(running.startedAt, now)],
    ['Runs at', running && (running.consumer ?? 'a consumer whose heartbeat has not told yet')],
    ['Ended', endedAt && time(endedAt, now)],
    ['Reason', reason],
    ['Progress', progress === undefined ? undefined : block(progress)]
  ]
  return {
    title: `Task ${id}`,
    trail: [['Queues', './'], [`${queue}: ${state}`, pathOfList(queue, state)]],
    content: html`<div class="actions">${actionsOf(task, frame)}</div>
<dl>${facts.map(([name, value]) => value !== undefined && html`<dt>${name}</dt><dd>${value}</dd>`)}</dl>
<h2>Attempts</h2>
${attemptsOf(task, now)}
<h2>Payload</h2>
${show.payload === true ? payloadOf(task) : hidden('payload')}
<h2>Answer</h2>
${answerOf(task, show)}`
  }
}

function actionsOf ({ id, queue, state, priority = 'normal' }: TaskView, frame: Frame): Content {
  const fields = { id, queue }
  const rank = PRIORITIES.indexOf(priority)
  const levels = PRIORITIES.map((level, index) => level !== priority &&
    action(frame, 'prioritize', `${index < rank ? 'Raise' : 'Lower'} to ${level}`, { ...fields, priority: level }))
  switch (state) {
    case 'waiting':
    case 'delayed':
      return [
        state === 'delayed' && action(frame, 'run', 'Run now', fields),
        timedAction(frame, 'reschedule', 'Reschedule', fields, 'Run in', { min: 0, usual: 10 }),
        levels,
        action(frame, 'cancel', 'Cancel', fields, 'danger')
      ]
    case 'running': return [levels, action(frame, 'cancel', 'Cancel', fields, 'danger')]
    case 'dead': return [
      action(frame, 'redrive', 'Redrive', fields), action(frame, 'remove', 'Remove', fields, 'danger')
    ]
    default: return false
  }
}

function attemptsOf ({ attempts }: TaskView, now: number): Html {
  if (attempts.length === 0) return html`<p class="empty">No attempt has ended.</p>`
  const rows = attempts.map(({ startedAt, durationMs, status, reason }) => html`<tr>
<td>${time(startedAt, now)}</td><td class="number">${durationMs === undefined ? '–' : duration(durationMs)}</td>
<td class="number">${status ?? '–'}</td><td class="reason">${reason}</td></tr>`)
  return table(['Began', 'Took', 'Status', 'Reason'], rows)
}

function payloadOf ({ payload }: TaskView): Html {
  return payload === undefined ? html`<p class="empty">None is known.</p>` : block(payload)
}

function answerOf ({ answer }: TaskView, show: Show): Html {
  if (answer === undefined) return html`<p class="empty">None is known.</p>`
  const headers = Object.entries(answer.headers).map(([name, value]) => html`<dt>${name}</dt><dd>${value}</dd>`)
  return html`<dl><dt>Status</dt><dd>${answer.status}</dd>${headers}</dl>
${show.answer === true ? block(answer.body) : hidden('answer')}`
}

const hidden = (what: 'payload' | 'answer'): Html =>
  html`<p class="empty">Hidden. The option <code>show.${what}</code> of the dashboard shows it.</p>`

function block (value: unknown): Html {
  const { text, more } = present(value)
  return html`<pre>${text}</pre>${more > 0 && html`<p class="note">${more.toLocaleString('en')} more characters</p>`}`
}
