import { cut } from '../show.js'
import type { State } from '../store/found.js'
import { type Bounds, limitsOf, restOf } from './bounds.js'
import { duration, time } from './format.js'
import { type Content, type Html, html } from './html.js'
import {
  action, confirmedAction, type Frame, type Page, pager, pathOfDead, pathOfKeys, pathOfList, pathOfTask, table
} from './layout.js'
import type { TaskView } from './task-view.js'

export const STATES = [
  'waiting', 'delayed', 'running', 'dead', 'done', 'cancelled', 'expired'
] as const satisfies readonly State[]

/** How many tasks a page of a list has. */
export const PAGE_LENGTH = 50

const DROP = 'Drop all waiting and delayed tasks'

export interface TaskList extends Bounds {
  readonly queue: string
  readonly state: State
  readonly offset: number
  readonly tasks: readonly TaskView[]
  /** Whether others follow. */
  readonly isMore: boolean
  /** Whether a task that waits or runs has a key. */
  readonly hasKeys: boolean
}

/** The page on which the tasks of a queue in one state are. */
export function taskListPage (list: TaskList, frame: Frame, now = Date.now()): Page {
  const { queue, state, offset, tasks, isMore, isPaused, hasKeys } = list
  const tabs = STATES.map(other => other === state
    ? html`<a href="${pathOfList(queue, other)}" aria-current="page">${other}</a>`
    : html`<a href="${pathOfList(queue, other)}">${other}</a>`)
  const none = offset > 0 ? 'No task is left here' : `No task of ${queue} is ${state}`
  return {
    title: `${queue}: ${state}`,
    trail: [['Queues', './']],
    content: html`<nav class="tabs" aria-label="States">${tabs}</nav>
<div class="actions">
${isPaused && html`<span class="badge">paused</span>`}
${isPaused ? action(frame, 'resume', 'Resume', { queue }) : action(frame, 'pause', 'Pause', { queue })}
${restOf(queue, list, frame, now)}
${(state === 'waiting' || state === 'delayed') && confirmedAction(frame, 'purge', DROP, { queue }, queue)}
${hasKeys && html`<a href="${pathOfKeys(queue)}">By key</a>`}
${state === 'dead' && html`<a href="${pathOfDead(queue)}">By route and reason</a>`}
</div>
${limitsOf(list)}
${tasks.length > 0 ? tableOf(tasks, state, now) : html`<p class="empty">${none}.</p>`}
${pager(to => pathOfList(queue, state, to), offset, tasks.length, PAGE_LENGTH, isMore)}`
  }
}

function tableOf (tasks: readonly TaskView[], state: State, now: number): Html {
  const rows = tasks.map(task => html`<tr>
<td class="id"><a href="${pathOfTask(task.id)}">${task.id}</a></td>
<td class="url"><b>${task.method ?? '?'}</b> ${task.url === undefined ? 'unreadable' : cut(task.url, 120)}
${laneOf(task)}</td>
<td>${whenOf(task, state, now)}</td>
<td class="number">${task.running?.attempt ?? task.attempts.length}</td>
<td class="reason">${task.reason !== undefined && cut(task.reason, 160)}</td></tr>`)
  const when = { waiting: 'Added', delayed: 'Due', running: 'Since' }[state as string] ?? 'Ended'
  return table(['Id', 'Request', when, 'Attempts', 'Reason'], rows)
}

function laneOf ({ priority = 'normal', key }: TaskView): Content {
  return [
    priority !== 'normal' && html`<span class="badge">${priority}</span>`,
    key !== undefined && html`<br><small>key <span class="name">${cut(key, 80)}</span></small>`
  ]
}

function whenOf ({ addedAt, dueAt, endedAt, running }: TaskView, state: State, now: number): Content {
  if (state === 'waiting') return time(addedAt, now)
  if (state === 'delayed') return time(dueAt, now)
  if (state !== 'running') return time(endedAt, now)
  return running?.startedAt === undefined ? '–' : duration(now - running.startedAt.getTime())
}
