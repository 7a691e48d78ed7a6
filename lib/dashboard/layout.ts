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

const MENU = [['Queues', './'], ['Processes', 'processes']] as const

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

/** Returns the path of the list of a queue's tasks in a state. */
export const pathOfList = (queue: string, state: string, offset = 0): string =>
  `queue?name=${encodeURIComponent(queue)}&state=${state}${offset > 0 ? `&offset=${offset}` : ''}`

export const pathOfTask = (id: string): string => `task?id=${encodeURIComponent(id)}`

/** Returns the path of the keys of a queue behind a key. */
export const pathOfKeys = (queue: string, after = ''): string =>
  `keys?name=${encodeURIComponent(queue)}${after === '' ? '' : `&after=${encodeURIComponent(after)}`}`

/** Returns the path of the dead letters of a queue by what they have in common. */
export const pathOfDead = (queue: string): string => `dead?name=${encodeURIComponent(queue)}`
