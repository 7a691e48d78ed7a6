import t, { type Test } from 'tap'
import { check, type FinalState, type Rule } from './check.js'
import type { Entry, Event } from './ledger.js'
import { LEASE_MS, LIMITS, SHARED, type TaskKind } from './plan.js'

// The checker itself, on ledgers that are made by hand.

const WEB = 1
const CONSUMER = 2
const OTHER = 3
const EMPTY: FinalState = { places: { 'taskqueue:{mail}:waiting': 0 }, dead: [], prepared: [], kept: [], commits: 0, keys: [] }

t.test('a ledger in which everything went well has no violations', async t => {
  const { violations, figures } = check(ledgerOf(...request(1, 200, 'a', 'b'), ...attempt('a', 1), ...attempt('b', 1, OTHER)), EMPTY)
  t.strictSame(violations, [])
  t.match(figures, { requests: 1, ok: 1, failed: 0, unknown: 0, tasks: 2, attempts: 2, duplicates: {}, lost: 0, ghosts: 0, keys: 0 })
})

t.test('a task of a request that succeeded is lost unless it comes to an end', async t => {
  finds(t, 'lost', [...request(1, 200, 'a')])
  finds(t, 'lost', [...request(1, 200, 'a'), begins('a', 1)])
  finds(t, 'lost', [...request(1, 200, 'a'), begins('a', 1), ends('a', 1, 503)])
  finds(t, 'lost', [{ event: 'asked', request: 1 }, { event: 'answered', request: 1, status: 200 }])
})

t.test('a commit whose process lost Redis and died is in doubt, and not lost', async t => {
  const left = { ...EMPTY, prepared: ['..a..'], commits: 1 }
  const { violations, figures } = check(ledgerOf(...request(1, 200, 'a'), died(WEB)), left)
  t.strictSame(violations, [])
  t.equal(figures.inDoubt, 1)
  finds(t, 'lost', [...request(1, 200, 'a')], left)
  finds(t, 'left', [...request(1, 503, 'a')], left)
})

t.test('a task of a request that failed is a ghost when it begins', async t => {
  for (const status of [409, 500, 503]) finds(t, 'ghost', [...request(1, status, 'a'), begins('a', 1)])
  isClean(t, [...request(1, 503, 'a', 'b')])
})

t.test('a request without an answer may have queued its tasks, but all of them or none', async t => {
  isClean(t, [...request(1, undefined, 'a', 'b')])
  isClean(t, [...request(1, undefined, 'a', 'b'), ...attempt('a', 1), ...attempt('b', 1)])
  finds(t, 'torn', [...request(1, undefined, 'a', 'b'), ...attempt('a', 1)])
})

t.test('a task is attempted again when it has failed, or when its process died, closed, stood still or was cut off', async t => {
  const first = [...request(1, 200, 'a'), begins('a', 1)]
  const again = attempt('a', 2, OTHER)
  const reasonFor = (...between: Array<Event | number>) => check(ledgerOf(...first, ...between, ...again), EMPTY)
  t.match(reasonFor(ends('a', 1, 503)), { violations: [], figures: { duplicates: {} } })
  t.match(reasonFor(died(CONSUMER)), { violations: [], figures: { duplicates: { died: 1 } } })
  t.match(reasonFor(ends('a', 1, 200), died(CONSUMER)), { violations: [], figures: { duplicates: { died: 1 } } })
  t.match(reasonFor({ event: 'closing', pid: CONSUMER }), { violations: [], figures: { duplicates: { 'given back': 1 } } })
  t.match(reasonFor(...fault('stop', CONSUMER)), { violations: [], figures: { duplicates: { 'stood still': 1 } } })
  t.match(reasonFor(LEASE_MS, { event: 'stalled', pid: CONSUMER, ms: LEASE_MS }), { violations: [], figures: { duplicates: { 'stood still': 1 } } })
  t.match(reasonFor(...fault('blackhole', CONSUMER)), { violations: [], figures: { duplicates: { 'cut off': 1 } } })
  t.match(check(ledgerOf(...request(1, 200, 'a'), ...fault('stop', CONSUMER), ...attempt('a', 2, OTHER), begins('a', 1)), EMPTY),
    { violations: [], figures: { duplicates: { 'stood still': 1 } } }, 'the answer to its claim waited for a process that stood still')
  for (const nothing of [[], [ends('a', 1, 200)], [died(OTHER)], fault('stop', OTHER), fault('freeze', undefined), fault('stop', CONSUMER, 100)]) {
    finds(t, 'duplicate', [...first, ...nothing, ...again])
  }
})

t.test('a commit of a process that has closed is not in doubt: it is lost', async t => {
  const left = { ...EMPTY, prepared: ['..a..'], commits: 1 }
  finds(t, 'lost', [...request(1, 200, 'a'), died(WEB, 'closed')], left)
})

t.test('a request that joins a database transaction succeeds, and its tasks run, if that is committed, and only then', async t => {
  const row: Event = { event: 'row', request: 1, pid: WEB }
  isClean(t, [...joining(200, row), ...attempt('a', 1)])
  isClean(t, [...joining(undefined, row), ...attempt('a', 1)])
  isClean(t, joining(503))
  isClean(t, joining(undefined))
  finds(t, 'lost', joining(200, row))
  finds(t, 'lost', joining(undefined, row))
  finds(t, 'torn', [...joining(503, row), ...attempt('a', 1)])
  finds(t, 'torn', [...joining(200), ...attempt('a', 1)])
  finds(t, 'ghost', [...joining(undefined), ...attempt('a', 1)])
})

t.test('an attempt is made once', async t => {
  finds(t, 'attempt', [...request(1, 200, 'a'), begins('a', 1), died(CONSUMER), ...attempt('a', 1, OTHER)])
})

t.test('a chain exists once for each task, of the attempt that has settled it', async t => {
  const asked = request(1, 200, chaining('a'))
  const ran = [begins('a', 1), chains('a', 1), ends('a', 1, 200)]
  const chained = attempt('a+1', 1)
  isClean(t, [...asked, ...ran, ...chained])
  finds(t, 'chain', [...asked, ...ran])
  finds(t, 'lost', [...asked, ...ran, begins('a+1', 1)])
  const retried = [...asked, begins('a', 1), chains('a', 1), ends('a', 1, 503), begins('a', 2), chains('a', 2), ends('a', 2, 200)]
  isClean(t, [...retried, ...attempt('a+2', 1)])
  finds(t, 'chain', [...retried, ...chained])
  finds(t, 'chain', [...retried, ...chained, ...attempt('a+2', 1)])
})

t.test('a task is settled by the last attempt that was made', async t => {
  const both = [...request(1, 200, chaining('a')), begins('a', 1), chains('a', 1), ...fault('stop', CONSUMER), begins('a', 2, OTHER), chains('a', 2, OTHER)]
  isClean(t, [...both, ends('a', 2, 200, OTHER), ends('a', 1, 200), ...attempt('a+2', 1)])
  finds(t, 'fence', [...both, ends('a', 1, 200), ends('a', 2, 200, OTHER), ...attempt('a+1', 1)])
})

t.test('poison is dead after four deaths at most, and nothing else is', async t => {
  const killer = (deaths: number) => [...request(1, 200, { id: 'p', kind: 'poison' }), ...Array.from({ length: deaths }, (_, index) =>
    [begins('p', index + 1, 10 + index), died(10 + index, 'poison')]).flat()]
  isClean(t, killer(4), { ...EMPTY, dead: ['p'], kept: ['p'] })
  finds(t, 'poison', killer(5), { ...EMPTY, dead: ['p'], kept: ['p'] })
  finds(t, 'poison', killer(4))
  const beside = (cause: 'poison' | 'fault') => [...request(1, 200, 'a'), ...[1, 2, 3, 4].flatMap(number => [begins('a', number, 10 + number), died(10 + number, cause)])]
  finds(t, 'innocent', beside('poison'), { ...EMPTY, dead: ['a'], kept: ['a'] })
  isClean(t, beside('fault'), { ...EMPTY, dead: ['a'], kept: ['a'] })
})

t.test('what is corrupt is dead and never runs', async t => {
  const corrupted: Event = { event: 'corrupted', id: 'x' }
  isClean(t, [corrupted], { ...EMPTY, dead: ['x'], kept: ['x'] })
  finds(t, 'left', [corrupted])
  finds(t, 'stranger', [corrupted, ...attempt('x', 1)], { ...EMPTY, dead: ['x'], kept: ['x'] })
  finds(t, 'innocent', [], { ...EMPTY, dead: ['y'] })
})

t.test('what was cancelled is not begun afterwards, and need not have been', async t => {
  const asked = request(1, 200, { id: 'a', kind: 'cancelled' })
  const cancelled = (was: boolean): Event[] => [{ event: 'cancels', id: 'a', pid: WEB }, { event: 'cancelled', id: 'a', pid: WEB, was }]
  isClean(t, [...asked, ...cancelled(true)])
  isClean(t, [...asked, ...cancelled(true), LEASE_MS / 2, ...attempt('a', 1)])
  isClean(t, [...asked, ...cancelled(false), 2 * LEASE_MS, ...attempt('a', 1)])
  isClean(t, [...asked, ...cancelled(true), ...fault('stop', CONSUMER, 2 * LEASE_MS), begins('a', 1)])
  finds(t, 'cancelled', [...asked, ...cancelled(true), 2 * LEASE_MS, ...attempt('a', 1)])
})

t.test('what has expired is not begun, unless it was before', async t => {
  const asked = request(1, 200, { id: 'a', kind: 'expiring', expiresMs: 100 })
  isClean(t, asked)
  isClean(t, [...asked, ...attempt('a', 1)])
  isClean(t, [...asked, 2 * LEASE_MS, ...attempt('a', 2)])
  finds(t, 'expired', [...asked, 2 * LEASE_MS, ...attempt('a', 1)])
})

t.test('no more attempts of the shared queue run at once than it allows', async t => {
  const ids = Array.from({ length: LIMITS.running + 1 }, (_, index) => `t${index}`)
  const [first, ...others] = ids as [string, ...string[]]
  const all = request(1, 200, ...ids)
  const begun = (ids: string[]) => ids.map(id => begins(id, 1, CONSUMER, SHARED))
  const ended = (ids: string[]) => ids.map(id => ends(id, 1, 200))
  isClean(t, [...all, ...begun([first]), ...ended([first]), ...begun(others), ...ended(others)])
  isClean(t, [...all, ...ids.map(id => begins(id, 1, CONSUMER, 'mail')), ...ended(ids)])
  finds(t, 'limit', [...all, ...begun(ids), ...ended(ids)])
  t.match(check(ledgerOf(...all, ...begun(ids), ...ended(ids)), EMPTY).violations, [{ rule: 'limit', id: others.at(-1), beside: ids }])
  t.equal(check(ledgerOf(...all, ...begun(ids), ...ended(ids)), EMPTY).violations.length, 1, 'it is found once')
})

t.test('no more attempts of one key run at once than it allows', async t => {
  const both = (key: string | undefined) => request(1, 200, { id: 'a', kind: 'plain', key: 'k' }, { id: 'b', kind: 'plain', key })
  const begun = [begins('a', 1, CONSUMER, SHARED), begins('b', 1, OTHER, SHARED)]
  const ended = [ends('a', 1, 200), ends('b', 1, 200, OTHER)]
  finds(t, 'limit', [...both('k'), ...begun, ...ended])
  isClean(t, [...both('l'), ...begun, ...ended])
  isClean(t, [...both(undefined), ...begun, ...ended])
  isClean(t, [...both('k'), begins('a', 1, CONSUMER, SHARED), ends('a', 1, 200), begins('b', 1, OTHER, SHARED), ends('b', 1, 200, OTHER)])
})

t.test('an attempt counts until it is aborted, its task is cancelled, or its lease may have been lost', async t => {
  const both = request(1, 200, { id: 'a', kind: 'plain', key: 'k' }, { id: 'b', kind: 'plain', key: 'k' })
  const first = begins('a', 1, CONSUMER, SHARED)
  const other = [begins('b', 1, OTHER, SHARED), ends('b', 1, 200, OTHER)]
  const again = [begins('a', 2, OTHER, SHARED), ends('a', 2, 200, OTHER)]
  const beside = (...between: Array<Event | number>) => [...both, first, ...between, ...other, ends('a', 1, 200)]
  isClean(t, [...both, first, { event: 'closing', pid: CONSUMER }, { event: 'aborts', id: 'a', attempt: 1, pid: CONSUMER }, ...other, ...again])
  isClean(t, [...both, first, died(CONSUMER), ...again, ...other])
  isClean(t, beside({ event: 'cancels', id: 'a', pid: WEB }))
  isClean(t, beside(...fault('stop', CONSUMER)))
  isClean(t, beside(...fault('blackhole', CONSUMER)))
  isClean(t, beside(LEASE_MS, { event: 'stalled', pid: CONSUMER, ms: LEASE_MS }))
  // The answer to its claim waited for a process that stood still.
  isClean(t, [...both, ...fault('stop', CONSUMER), ...again, begins('b', 1, OTHER, SHARED), first, ends('b', 1, 200, OTHER)])
  isClean(t, beside(...fault('stop', OTHER)))
  finds(t, 'limit', [...both, first, begins('b', 1, OTHER, SHARED), ...fault('stop', CONSUMER), ends('b', 1, 200, OTHER), ends('a', 1, 200)])
  for (const nothing of [[{ event: 'closing', pid: CONSUMER } as const], [died(WEB)], fault('stop', WEB), fault('freeze', undefined), fault('stop', CONSUMER, 100)]) {
    finds(t, 'limit', beside(...nothing))
  }
})

t.test('nothing is left, and no process crashes', async t => {
  finds(t, 'left', [], { ...EMPTY, places: { 'taskqueue:{mail}:waiting': 1 } })
  finds(t, 'left', [], { ...EMPTY, kept: ['a'] })
  finds(t, 'left', [], { ...EMPTY, commits: 1 })
  isClean(t, request(1, 503, 'a'), { ...EMPTY, commits: 1 })
  const turn = 'taskqueue:{mail}:turn:01234567-89ab-cdef-0123-456789abcdef'
  finds(t, 'left', [], { ...EMPTY, keys: [turn] })
  isClean(t, [died(CONSUMER)], { ...EMPTY, keys: [turn] })
  finds(t, 'left', [], { ...EMPTY, keys: ['taskqueue:{mail}:waiting'] })
  for (const key of ['lanes', 'ready', 'holding', 'pacing', 'resting']) finds(t, 'left', [], { ...EMPTY, keys: [`taskqueue:{shared}:${key}`] })
  isClean(t, [], { ...EMPTY, keys: ['limits', 'tat'].map(key => `taskqueue:{shared}:${key}`) })
  finds(t, 'left', [], { ...EMPTY, kept: [' k'], keys: ['taskqueue:{shared}:lane'] })
  finds(t, 'crash', [died(CONSUMER, 'crash')])
})

function isClean (t: Test, events: Array<Event | number>, state = EMPTY): void {
  t.strictSame(check(ledgerOf(...events), state).violations, [])
}

/** The rule is broken; another may be as well. */
function finds (t: Test, rule: Rule, events: Array<Event | number>, state = EMPTY): void {
  const { violations } = check(ledgerOf(...events), state)
  t.ok(violations.some(violation => violation.rule === rule), `${rule}: ${violations.map(({ rule, text }) => `${rule} ${text}`).join(', ')}`)
}

/** Events that follow each other at once; a number is a time that passes. */
function ledgerOf (...events: Array<Event | number>): Entry[] {
  let at = 1000
  return events.flatMap(event => {
    at += typeof event === 'number' ? event : 1
    return typeof event === 'number' ? [] : [{ at, ...event }]
  })
}

const chaining = (id: string) => ({ id, kind: 'chain' as const })

function request (number: number, status: number | undefined, ...tasks: Array<string | { id: string, kind: TaskKind, expiresMs?: number, key?: string | undefined }>): Event[] {
  return [
    { event: 'asked', request: number },
    { event: 'added', request: number, pid: WEB, tasks: tasks.map(task => typeof task === 'string' ? { id: task, kind: 'plain' } : task) },
    status === undefined ? { event: 'unanswered', request: number } : { event: 'answered', request: number, status }
  ]
}

function joining (status: number | undefined, ...row: Event[]): Event[] {
  const [asked, added, answered] = request(1, status, 'a') as [Event, Extract<Event, { event: 'added' }>, Event]
  return [asked, { ...added, joins: true }, ...row, answered]
}

function attempt (id: string, attempt: number, pid = CONSUMER): Event[] {
  return [begins(id, attempt, pid), ends(id, attempt, 200, pid)]
}

function begins (id: string, attempt: number, pid = CONSUMER, queue?: string): Event {
  return { event: 'begins', id, attempt, pid, queue }
}

function ends (id: string, attempt: number, status: number, pid = CONSUMER): Event {
  return { event: 'ends', id, attempt, pid, status }
}

function chains (id: string, attempt: number, pid = CONSUMER): Event {
  return { event: 'chains', id, attempt, pid, tasks: [`${id}+${attempt}`] }
}

function died (pid: number, cause: 'fault' | 'poison' | 'crash' | 'closed' = 'fault'): Event {
  return { event: 'died', name: `process ${pid}`, pid, cause }
}

function fault (fault: 'stop' | 'blackhole' | 'freeze', pid: number | undefined, ms = LEASE_MS): Array<Event | number> {
  return [{ event: 'fault', fault, pid, ms }, ms, { event: 'healed', fault, pid }]
}
