import type { Violation } from './check.js'
import type { Entry } from './ledger.js'
import type { Plan } from './plan.js'
import type { Run } from './run.js'

/** How many violations are shown with all that the ledger has on them. */
const SHOWN = 10

/** One line of figures. */
export function describe ({ seed, secs }: Plan, { figures, violations }: Run): string {
  const { requests, ok, failed, unknown, tasks, attempts, duplicates, faults, lost, ghosts, inDoubt, longestWaitMs, longestAnswerMs, keys } = figures
  const list = (counts: object) => Object.entries(counts).map(([name, count]) => `${count} ${name}`).join(', ') || 'none'
  return `seed ${seed}, ${secs} s: ${requests} requests (${ok} ok, ${failed} failed, ${unknown} unknown), ${attempts} attempts at ${tasks} tasks, ` +
    `again after: ${list(duplicates)}; faults: ${list(faults)}; ${lost} lost, ${ghosts} ghosts, ${inDoubt} in doubt, ` +
    `longest answer ${longestAnswerMs} ms, longest wait ${longestWaitMs} ms, ${keys} keys, ${violations.length} violations`
}

/** The violations, each with the lines of the ledger on its task, its request, and the processes and faults meanwhile. */
export function evidence ({ ledger, violations }: Run): string[] {
  const lines = violations.slice(0, SHOWN).flatMap(violation => [
    `${violation.rule}: ${violation.id ?? ''} ${violation.request ?? ''} ${violation.text}`,
    ...linesOn(ledger, violation).map(entry => `    ${JSON.stringify(entry)}`)
  ])
  return violations.length > SHOWN ? [...lines, `and ${violations.length - SHOWN} more`] : lines
}

function linesOn (ledger: readonly Entry[], { id, request, beside = [] }: Violation): Entry[] {
  const ids = id === undefined ? beside : [id, ...beside]
  const own = ledger.filter(entry => ('request' in entry && entry.request === request) || ids.some(id => names(entry, id)))
  if (own.length === 0) return []
  const requests = new Set(own.flatMap(entry => 'request' in entry ? [entry.request] : []))
  const pids = new Set(own.flatMap(entry => 'pid' in entry ? [entry.pid] : []))
  const [from, to] = [own[0]!.at - 3000, own.at(-1)!.at + 1000]
  return ledger.filter(entry => own.includes(entry) || ('request' in entry && requests.has(entry.request)) ||
    (entry.at >= from && entry.at <= to && isOfProcess(entry, pids)))
}

/** Also the tasks that it chains, and the one that chains it: their ids begin alike. */
function names (entry: Entry, id: string): boolean {
  const [root] = id.split('+')
  if ('id' in entry) return entry.id.split('+')[0] === root
  return entry.event === 'added' && entry.tasks.some(task => task.id === root)
}

function isOfProcess (entry: Entry, pids: ReadonlySet<number | undefined>): boolean {
  if (entry.event === 'fault' || entry.event === 'healed') return entry.pid === undefined || pids.has(entry.pid)
  return (entry.event === 'stalled' || entry.event === 'died' || entry.event === 'started' || entry.event === 'closing') && pids.has(entry.pid)
}
