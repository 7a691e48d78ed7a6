import type { KeyStatus } from '../queue/limits.js'
import { type Bounds, keyActions, limitsOf, restOf, wordsOf } from './bounds.js'
import { count, time } from './format.js'
import { type Html, html } from './html.js'
import { type Frame, type Page, pathOfKeys, pathOfList, table } from './layout.js'

/** How many keys a page has. */
export const KEYS_LENGTH = 100

export interface KeyList extends Bounds {
  readonly queue: string
  /** The last key of the page before; '' on the first page. */
  readonly after: string
  readonly keys: readonly KeyStatus[]
  /** Whether others follow. */
  readonly isMore: boolean
}

/** The page on which the keys of a queue are. */
export function keysPage (list: KeyList, frame: Frame, now = Date.now()): Page {
  const { queue, after, keys, isPaused } = list
  const none = after === '' ? `No task of ${queue} that waits or runs has a key` : 'No key is left here'
  const heads = ['Key', 'Waiting', 'Running', 'Rest ends', 'Limits of its own', '']
  return {
    title: `${queue}: keys`,
    trail: [['Queues', './'], [`${queue}: waiting`, pathOfList(queue, 'waiting')]],
    content: html`<div class="actions">
${isPaused && html`<span class="badge">paused</span>`}
${restOf(queue, list, frame, now)}</div>
${limitsOf(list)}
${keys.length > 0 ? table(heads, keys.map(key => row(list, key, frame, now))) : html`<p class="empty">${none}.</p>`}
${pager(list)}
<p class="note">A key is listed while tasks of it wait or run. Until its rest ends no task of it is claimed. A key also
rests until its rate allows the next task.</p>`
  }
}

function row (
  { queue, after }: KeyList, { key, waiting, running, restingUntil, limits }: KeyStatus, frame: Frame, now: number
): Html {
  return html`<tr><th scope="row" class="name">${key}</th>
<td class="number">${count(waiting)}</td><td class="number">${count(running)}</td>
<td>${time(restingUntil, now)}</td>
<td class="reason">${limits === undefined ? '–' : wordsOf(limits) || 'No limit holds for it.'}</td>
<td>${keyActions({ queue, key, after }, restingUntil !== undefined, frame)}</td></tr>`
}

/** Leads one page on, and to the first: a store lists the keys behind a key, and none before it. */
function pager ({ queue, after, keys, isMore }: KeyList): Html | false {
  if (after === '' && !isMore) return false
  return html`<nav class="pager" aria-label="Pages">
${after !== '' && html`<a rel="first" href="${pathOfKeys(queue)}">First</a>`}
${isMore && html`<a rel="next" href="${pathOfKeys(queue, keys.at(-1)!.key)}">Next</a>`}</nav>`
}
