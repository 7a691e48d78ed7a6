import type { ScheduleStatus } from '../schedule/schedules.js'
import { cut } from '../show.js'
import { checkId } from '../task/id.js'
import { count, interval, time } from './format.js'
import { type Content, type Html, html } from './html.js'
import { action, type Frame, type Page, pager, pathOfList, pathOfSchedules, pathOfTask, table } from './layout.js'
import { maskUrl } from './redact.js'

/** How many schedules a page has. */
const SCHEDULES_LENGTH = 100

export interface ScheduleList {
  readonly offset: number
  readonly schedules: readonly ScheduleStatus[]
  /** Whether others follow. */
  readonly isMore: boolean
  /** What has become of a schedule that the operator has run. */
  readonly ran?: Ran
}

interface Ran {
  /** The task that was added; missing if none was. */
  readonly taskId?: string
  /** The last task of the schedule; missing if there is no such schedule. */
  readonly lastTaskId?: string | undefined
}

/**
 * Returns a page of schedules in the order of their ids: those of their slots would move between a look and a click.
 *
 * @param ran the schedule that the operator has run
 * @param added the task that this has added
 */
export function scheduleListOf (
  all: readonly ScheduleStatus[], offset: number, ran: string | undefined, added: string | undefined
): ScheduleList {
  const ordered = [...all].sort((a, b) => compare(a.id, b.id) || compare(a.queue, b.queue))
  const end = offset + SCHEDULES_LENGTH
  const schedules = ordered.slice(offset, end).map(({ url, ...rest }) =>
    ({ ...rest, ...url !== undefined && { url: maskUrl(url) } }))
  return { offset, schedules, isMore: end < all.length, ...ran !== undefined && { ran: ranOf(all, ran, added) } }
}

function ranOf (all: readonly ScheduleStatus[], ran: string, added: string | undefined): Ran {
  if (added === undefined) return { lastTaskId: all.find(({ id }) => id === ran)?.last?.taskId }
  checkId(added)
  return { taskId: added }
}

const compare = (a: string, b: string): number => Number(a > b) - Number(a < b)

/** The page on which the schedules of all queues are. */
export function schedulesPage (list: ScheduleList, frame: Frame, now = Date.now()): Page {
  const { offset, schedules, isMore, ran } = list
  const heads = ['Schedule', 'Queue', 'When', 'Next slot', 'Last task', 'Skipped', 'Missed', '']
  const none = offset === 0 ? 'No queue has a schedule' : 'No schedule is left here'
  return {
    title: 'Schedules',
    content: html`${ran !== undefined && html`<p class="said">${outcomeOf(ran)}</p>`}
${schedules.length > 0
  ? table(heads, schedules.map(schedule => row(schedule, offset, frame, now)), 'schedules')
  : html`<p class="empty">${none}.</p>`}
${pager(pathOfSchedules, offset, schedules.length, SCHEDULES_LENGTH, isMore)}
<p class="note">“Skipped” counts the slots at which no task was added since the last task had not ended.
“Missed” counts the slots that were over before a process could add their tasks. A declared schedule stands in the code
of the app, and is removed there. This process cannot read an unreadable schedule, so it cannot run or resume it.</p>`
  }
}

function outcomeOf ({ taskId, lastTaskId }: Ran): Html {
  if (taskId !== undefined) return html`Task ${linkTo(taskId)} was added.`
  if (lastTaskId === undefined) return html`No task was added: there is no such schedule.`
  return html`No task was added: the last task ${linkTo(lastTaskId)} had not ended.`
}

const linkTo = (taskId: string): Html => html`<a class="name" href="${pathOfTask(taskId)}">${taskId}</a>`

function row (schedule: ScheduleStatus, offset: number, frame: Frame, now: number): Html {
  const { id, queue, method, url, declared, next, last, paused, skipped, missed } = schedule
  const isReadable = url !== undefined
  const origin = declared === true ? 'declared' : 'made at run time'
  return html`<tr><th scope="row" class="url">${id}
${paused && html`<span class="badge">paused</span>`}
${!isReadable && html`<span class="badge bad">unreadable</span>`}
${isReadable && html`<br><small>${method} ${cut(url, 120)}<br>${origin}</small>`}</th>
<td><a href="${pathOfList(queue, 'waiting')}">${queue}</a></td>
<td>${timesOf(schedule)}</td>
<td>${next === undefined && !paused ? 'none is left' : time(next, now)}</td>
<td>${last === undefined ? '–' : html`<a href="${pathOfTask(last.taskId)}">${time(last.at, now)}</a>`}</td>
${[skipped, missed].map(value => html`<td class="number ${value === 0 && 'none'}">${count(value)}</td>`)}
<td>${actionsOf(schedule, isReadable, offset, frame)}</td></tr>`
}

function timesOf ({ cron, tz, everyMs }: ScheduleStatus): Content {
  if (everyMs !== undefined) return `every ${interval(everyMs)}`
  return cron === undefined ? '–' : html`<code class="name">${cron}</code><br><small>${tz}</small>`
}

function actionsOf (
  { id, queue, paused, declared }: ScheduleStatus, isReadable: boolean, offset: number, frame: Frame
): Content {
  const fields = { queue, schedule: id, offset: String(offset) }
  return [
    isReadable && action(frame, 'run-schedule', 'Run now', fields), ' ',
    !paused && action(frame, 'pause-schedule', 'Pause', fields),
    paused && isReadable && action(frame, 'resume-schedule', 'Resume', fields), ' ',
    declared !== true && action(frame, 'remove-schedule', 'Remove', fields, 'danger')
  ]
}
