import { type Content, type Html, html } from './html.js'

/** The parts that pages have in common. */
export interface Frame {
  /** Whether the operator may act as well as look. */
  readonly mayAct: boolean
  /** The names of the files of style, script and icon. */
  readonly assets: { readonly style: string, readonly script: string, readonly icon: string }
}

/** A page, without what all pages have around them. */
export interface Page {
  readonly title: string
  /** The links that lead here from the overview: title, and path. */
  readonly trail?: ReadonlyArray<readonly [title: string, path: string]>
  readonly content: Content
}

const MENU = [['Queues', './'], ['Schedules', 'schedules'], ['Processes', 'processes']] as const

/**
 * Puts around a page what all pages have. All links are relative to the root of the dashboard, right below which every
 * page is, so that they work with any prefix and behind any proxy.
 */
export function layout ({ title, trail = [], content }: Page, { assets }: Frame): Html {
  return html`<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>${title} – task queue</title>
<link rel="icon" href="${assets.icon}">
<link rel="stylesheet" href="${assets.style}">
<script src="${assets.script}" defer></script>
</head>
<body>
<a class="skip" href="#main">Skip to the content</a>
<header>
<nav aria-label="Dashboard">${MENU.map(([name, path]) => html`<a href="${path}">${name}</a>`)}</nav>
<form class="find" action="task" role="search">
<label>Task
<input name="id" placeholder="its id" required maxlength="255" autocomplete="off" spellcheck="false"></label>
<button>Find</button>
</form>
</header>
<main id="main">
<nav class="trail" aria-label="Breadcrumb">${trail.map(([name, path]) => html`<a href="${path}">${name}</a> / `)}</nav>
<h1>${title}</h1>
${content}
</main>
</body>
</html>
`
}

/** The fields of the form of an action. */
type Fields = Readonly<Record<string, string>>

const inputsOf = (fields: Fields): Html[] => Object.entries(fields).map(([field, value]) =>
  html`<input type="hidden" name="${field}" value="${value}">`)

/** A button that acts on something, as a form, so that it works without a script. */
export function action (
  frame: Frame, name: string, label: string, fields: Fields, kind: 'plain' | 'danger' = 'plain'
): Html | false {
  if (!frame.mayAct) return false
  return html`<form method="post" action="actions/${name}" class="action">
${inputsOf(fields)}<button class="${kind}">${label}</button></form>`
}

/** An action for which the operator chooses a time in minutes, at most 30 days of them. */
export function timedAction (
  frame: Frame, name: string, label: string, fields: Fields, ask: string, minutes: { min: number, usual: number }
): Html | false {
  if (!frame.mayAct) return false
  const { min, usual } = minutes
  return html`<form method="post" action="actions/${name}" class="action">${inputsOf(fields)}
<label>${ask} <input name="minutes" type="number" min="${min}" max="43200" value="${usual}" required> min</label>
<button>${label}</button></form>`
}

/** An action that cannot be undone: the operator has to write a word first. */
export function confirmedAction (
  frame: Frame, name: string, label: string, fields: Fields, word: string
): Html | false {
  if (!frame.mayAct) return false
  return html`<details class="confirm"><summary>${label}…</summary>
<form method="post" action="actions/${name}">${inputsOf(fields)}
<label>Write <b>${word}</b> to go on: <input name="confirm" required autocomplete="off" spellcheck="false"></label>
<button class="danger">${label}</button></form></details>`
}

/** A table, which scrolls by itself where it is too wide. */
export function table (heads: readonly string[], rows: readonly Html[], kind?: string): Html {
  return html`<div class="scroll"><table class="${kind}">
<thead><tr>${heads.map(head => html`<th scope="col">${head}</th>`)}</tr></thead>
<tbody>${rows}</tbody></table></div>`
}

/** Leads one page on or back, and to the first. `count` is how many the page has, and `length` how many it can have. */
export function pager (
  pathAt: (offset: number) => string, offset: number, count: number, length: number, isMore: boolean
): Html | false {
  if (offset === 0 && !isMore) return false
  const link = (label: string, to: number, rel: string) => html`<a rel="${rel}" href="${pathAt(to)}">${label}</a>`
  return html`<nav class="pager" aria-label="Pages">
${offset > 0 && [link('First', 0, 'first'), ' ', link('Previous', Math.max(0, offset - length), 'prev')]}
<span>${(offset + 1).toLocaleString('en')} to ${(offset + count).toLocaleString('en')}</span>
${isMore && link('Next', offset + length, 'next')}</nav>`
}

/** No list is longer, and every store can count so far. */
const MAX_OFFSET = 1e12

/** Reads where a page begins. A text that is no number leads to the first page. */
export const offsetOf = (text: string | undefined): number =>
  Math.min(Math.max(0, Math.floor(Number(text)) || 0), MAX_OFFSET)

/** Returns the path of the list of a queue's tasks in a state. */
export const pathOfList = (queue: string, state: string, offset = 0): string =>
  `queue?name=${encodeURIComponent(queue)}&state=${state}${offset > 0 ? `&offset=${offset}` : ''}`

export const pathOfTask = (id: string): string => `task?id=${encodeURIComponent(id)}`

/** Returns the path of the keys of a queue behind a key. */
export const pathOfKeys = (queue: string, after = ''): string =>
  `keys?name=${encodeURIComponent(queue)}${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`

/** Returns the path of the dead letters of a queue by what they have in common. */
export const pathOfDead = (queue: string): string => `dead?name=${encodeURIComponent(queue)}`

/** Returns the path of the schedules, which says what has become of one that was run. */
export function pathOfSchedules (offset = 0, ran?: { readonly id: string, readonly taskId: string | null }): string {
  const query = new URLSearchParams({
    ...offset > 0 && { offset: String(offset) },
    ...ran !== undefined && { ran: ran.id },
    ...typeof ran?.taskId === 'string' && { added: ran.taskId }
  })
  return `schedules${query.size > 0 ? `?${query}` : ''}`
}
