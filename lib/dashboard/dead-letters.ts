import { createHash } from 'node:crypto'
import type { Queue } from '../queue/queue.js'
import type { TaskStatus } from '../queue/status.js'
import { cut } from '../show.js'
import { time } from './format.js'
import { type Html, html } from './html.js'
import { action, confirmedAction, type Frame, type Page, pathOfList, pathOfTask, table } from './layout.js'

/** Dead letters that have the same request and died for the same reason. */
export interface DeadGroup {
  /** By which actions name it. */
  readonly key: string
  readonly request: string
  readonly reason: string
  readonly ids: readonly string[]
  readonly newest: Date | undefined
}

export interface DeadLetters {
  readonly queue: string
  /** How many dead letters the queue has. */
  readonly count: number
  /** Groups of the newest ones, the largest group first. */
  readonly groups: readonly DeadGroup[]
}

/** How many dead letters are grouped: the newest. */
const MOST_GROUPED = 1000

/** Returns the groups of the newest dead letters of a queue. */
export async function groupsOf (queue: Queue): Promise<DeadGroup[]> {
  return groupDead(await queue.list('dead', { limit: MOST_GROUPED }))
}

/** Groups dead letters by their requests and reasons. Parts of a path that look like ids count as the same. */
function groupDead (tasks: readonly TaskStatus[]): DeadGroup[] {
  const groups = new Map<string, DeadGroup & { readonly ids: string[] }>()
  for (const { id, method = '?', url = 'unreadable', reason = '', endedAt } of tasks) {
    const request = `${method} ${patternOf(url)}`
    const why = cut(reason.split('\n', 1)[0]!, 200)
    // A form could not carry a reason as it is.
    const key = createHash('sha256').update(`${request}\n${why}`).digest('hex').slice(0, 16)
    const group = groups.get(key)
    if (group === undefined) groups.set(key, { key, request, reason: why, ids: [id], newest: endedAt })
    else group.ids.push(id)
  }
  return [...groups.values()].sort((a, b) => b.ids.length - a.ids.length)
}

const ID = /^(?:\d+|[\da-f]{8}-[\da-f]{4}-[\da-f]{4}-[\da-f]{4}-[\da-f]{12}|[\da-f]{16,})$/i

/** Returns the path of a url with its ids left out. */
function patternOf (url: string): string {
  const [path = ''] = url.split('?', 1)
  return path.split('/').map(part => ID.test(part) ? ':id' : part).join('/')
}

const HEADS = ['Tasks', 'Request', 'Reason', 'Newest', '']

/** The page on which the dead letters of a queue are, by what they have in common. */
export function deadLettersPage ({ queue, count, groups }: DeadLetters, frame: Frame, now = Date.now()): Page {
  const grouped = groups.reduce((sum, { ids }) => sum + ids.length, 0)
  return {
    title: `${queue}: dead letters`,
    trail: [['Queues', './'], [`${queue}: dead`, pathOfList(queue, 'dead')]],
    content: count === 0
      ? html`<p class="empty">No task of ${queue} is dead.</p>`
      : html`<div class="actions">
${action(frame, 'redrive-all', `Redrive all ${count.toLocaleString('en')}`, { queue })}
${confirmedAction(frame, 'remove-all', `Remove all ${count.toLocaleString('en')}`, { queue }, queue)}</div>
${grouped < count && html`<p class="note">These are the newest ${grouped.toLocaleString('en')}.</p>`}
${table(HEADS, groups.map(group => row(queue, group, frame, now)))}`
  }
}

function row (queue: string, { key, request, reason, ids, newest }: DeadGroup, frame: Frame, now: number): Html {
  const fields = { queue, group: key }
  return html`<tr><td class="number">${ids.length.toLocaleString('en')}</td>
<td class="url">${request}<br><small>such as <a href="${pathOfTask(ids[0]!)}">${ids[0]}</a></small></td>
<td class="reason">${reason}</td><td>${time(newest, now)}</td>
<td>${action(frame, 'redrive-group', 'Redrive', fields)}
${action(frame, 'remove-group', 'Remove', fields, 'danger')}</td></tr>`
}
