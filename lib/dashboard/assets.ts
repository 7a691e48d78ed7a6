import { createHash } from 'node:crypto'

const STYLE = `
:root { color-scheme: light dark; --back: #fff; --ink: #1b1f24; --soft: #57606a; --line: #d5dae0; --panel: #f5f7f9;
  --link: #0550ae;
  --good: #1a7f37; --bad: #b42318; --warm: #8a5300; --warm-back: #fff4d6 }
@media (prefers-color-scheme: dark) { :root { --back: #12161b; --ink: #e6eaef; --soft: #a3adb8; --line: #333b44;
  --panel: #1b2128;
  --link: #79b8ff; --good: #4cc26b; --bad: #ff8a80; --warm: #ffcf70; --warm-back: #3a2d0c } }
* { box-sizing: border-box }
body { margin: 0; background: var(--back); color: var(--ink); font: 15px/1.5 system-ui, sans-serif }
header { display: flex; flex-wrap: wrap; gap: .5rem 1.5rem; align-items: center; justify-content: space-between;
  padding: .6rem 1.25rem; background: var(--panel); border-bottom: 1px solid var(--line) }
header nav a { margin-right: 1.25rem; font-weight: 600; color: var(--ink); text-decoration: none }
main { max-width: 78rem; margin: 0 auto; padding: 1rem 1.25rem 4rem }
a { color: var(--link) }
h1 { margin: .25rem 0 1rem; font-size: 1.45rem; overflow-wrap: anywhere }
h2 { margin: 2rem 0 .5rem; font-size: 1.1rem }
.skip { position: absolute; left: -99rem }
.skip:focus { left: 1rem; top: .5rem; background: var(--back); padding: .5rem }
.trail { color: var(--soft); font-size: .9rem; min-height: 1.35rem }
.scroll { overflow-x: auto }
table { width: 100%; border-collapse: collapse }
th, td { padding: .5rem .6rem; text-align: left; vertical-align: top; border-bottom: 1px solid var(--line) }
thead th { color: var(--soft); font-size: .8rem; font-weight: 600; white-space: nowrap }
.queues thead th:nth-child(n+2):nth-child(-n+6), .queues .number { text-align: right }
.number { font-variant-numeric: tabular-nums; white-space: nowrap }
.number a { color: inherit; text-decoration-color: var(--line) }
.none { color: var(--soft) }
.bad, .bad a { color: var(--bad); font-weight: 600 }
.id { font: .85rem/1.7 ui-monospace, monospace; white-space: nowrap } .url, .reason, dd { overflow-wrap: anywhere }
.name { white-space: pre-wrap; overflow-wrap: anywhere } th.name { min-width: 8rem }
th.url { min-width: 10rem } .schedules time, .schedules td:last-child { white-space: nowrap }
small, .note, .empty { color: var(--soft) } .note { font-size: .9rem }
.badge { padding: .05rem .5rem; border-radius: 1rem; background: var(--warm-back); color: var(--warm);
  font-size: .8rem; font-weight: 600 }
.down td, .down th { background: var(--warm-back) }
.chart { display: block; width: 15rem; height: 2rem;
  background: linear-gradient(var(--line), var(--line)) bottom/100% 1px no-repeat }
.chart .done { fill: var(--good) } .chart .failed { fill: var(--bad) }
.key { white-space: nowrap }
.key::before { content: "■ " } .key.done { color: var(--good) } .key.failed { color: var(--bad) }
.tabs { display: flex; flex-wrap: wrap; gap: .25rem; margin-bottom: 1rem }
.tabs a { padding: .3rem .8rem; border: 1px solid var(--line); border-radius: .4rem; color: inherit;
  text-decoration: none }
.tabs [aria-current] { background: var(--ink); border-color: var(--ink); color: var(--back) }
.actions { display: flex; flex-wrap: wrap; gap: .6rem; align-items: center; margin: .5rem 0 1rem }
.action { display: inline } td .action { display: inline-block; white-space: nowrap }
button, input { font: inherit; color: inherit; padding: .25rem .7rem; border: 1px solid var(--soft);
  border-radius: .4rem; background: var(--back) }
button { cursor: pointer; background: var(--panel) } button.danger { color: var(--bad); border-color: var(--bad) }
input[type=number] { width: 6rem } .find input { width: min(22rem, 55vw) }
:focus-visible { outline: 3px solid var(--link); outline-offset: 1px }
.confirm { border: 1px solid var(--line); border-radius: .4rem; padding: .25rem .7rem }
.confirm form { margin: .5rem 0 }
summary { cursor: pointer }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .35rem 1.5rem; margin: 0 }
dt { color: var(--soft) }
dd { margin: 0 } dl + .scroll { margin-top: .75rem }
pre { margin: .25rem 0; padding: .8rem; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere;
  background: var(--panel); border: 1px solid var(--line); border-radius: .4rem;
  font: .85rem/1.5 ui-monospace, monospace }
ul { margin: 0; padding-left: 1rem }
.pager { display: flex; gap: 1rem; margin: 1rem 0 }
.said { padding: .6rem 1rem; border: 1px solid var(--line); border-left: 4px solid var(--link);
  background: var(--panel) }
th small { font-weight: 400 }
@media (max-width: 40rem) {
  main { padding: .75rem }
  .queues th, .queues td { padding: .4rem .3rem; font-size: .85rem }
  dl { grid-template-columns: 1fr }
  dd { margin-bottom: .5rem }
  .chart { width: 8rem }
}
`

/** Refreshes what the page shows, while somebody sees it and is not about to use a form. */
const SCRIPT = `'use strict';
const EVERY_MS = 5000;
const isInUse = main => main.querySelector('details[open]') ||
  main.contains(document.activeElement) || !document.getSelection().isCollapsed;
async function refresh() {
  const main = document.querySelector('main');
  if (document.hidden || isInUse(main)) return;
  try {
    const response = await fetch(location.href, { headers: { accept: 'text/html' } });
    if (!response.ok && response.status !== 503) return;
    const page = new DOMParser().parseFromString(await response.text(), 'text/html');
    const fresh = page.querySelector('main');
    if (fresh && !isInUse(main)) main.replaceChildren(...fresh.childNodes);
  } catch {}
}
setInterval(refresh, EVERY_MS);
document.addEventListener('visibilitychange', refresh);
`

const ICON = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 16 16">' +
  '<rect width="16" height="16" rx="3" fill="#0550ae"/>' +
  '<path d="M3 4h10v2H3zm0 3h7v2H3zm0 3h4v2H3z" fill="#fff"/></svg>\n'

export interface Asset {
  readonly name: string
  readonly type: string
  readonly text: string
}

const assetOf = (stem: string, extension: string, type: string, text: string): Asset => {
  const hash = createHash('sha256').update(text).digest('hex').slice(0, 10)
  return { name: `${stem}-${hash}.${extension}`, type, text }
}

/** The files of the dashboard. Their names change with what is in them, so browsers may keep them for good. */
export const STYLE_FILE = assetOf('style', 'css', 'text/css; charset=utf-8', STYLE)
export const ICON_FILE = assetOf('icon', 'svg', 'image/svg+xml', ICON)
export const SCRIPT_FILE = assetOf('script', 'js', 'text/javascript; charset=utf-8', SCRIPT)
