import t from 'tap'
import { reasonOf } from '../../lib/dispatch/reason.js'
import type { Lease } from '../../lib/store/turn.js'
import type { Outcome } from '../../lib/task/outcome.js'
import { type Backoff, exponential } from '../../lib/task/backoff.js'
import { judge, parseRetryAfter, prejudge } from '../../lib/task/verdict.js'

const DAY_MS = 24 * 60 * 60 * 1000
const policy = { maxRetries: 2, missingRouteMs: 3_600_000, backoff: (retry: number) => retry * 100 }
const lease = (counters: Partial<Lease> = {}) => ({ retries: 0, deferredMs: 0, unroutedMs: 0, ...counters })
const answered = (status: number, retryAfter?: string): Outcome => ({
  kind: 'answered', status, answer: { headers: { ...retryAfter !== undefined && { 'retry-after': retryAfter } }, body: Buffer.of(), whole: true }
})

t.test('the status of the response is the verdict', async t => {
  for (let status = 200; status < 600; status++) {
    const expected = status < 400
      ? { kind: 'done' }
      : status >= 500 || [408, 409, 425, 429].includes(status)
        ? { kind: 'retry', delayMs: 100, reason: `status ${status}` }
        : { kind: 'dead', reason: `status ${status}` }
    t.strictSame(judge(answered(status), lease({ retries: 0 }), policy), expected, String(status))
  }
})

t.test('a task without an answer is tried again, and one that the app has not seen is given back', async t => {
  t.strictSame(judge({ kind: 'failed', reason: 'no answer within 5 ms' }, lease({ retries: 0 }), policy), { kind: 'retry', delayMs: 100, reason: 'no answer within 5 ms' })
  t.strictSame(judge({ kind: 'unseen' }, lease({ retries: 0 }), policy), { kind: 'release', unseen: true })
  t.strictSame(judge({ kind: 'unseen' }, lease({ retries: 99 }), policy), { kind: 'release', unseen: true }, 'which costs no retry')
})

t.test('after its last retry a task is dead, and only then', async t => {
  const failed: Outcome = { kind: 'failed', reason: 'no reply' }
  for (const [outcome, retries, maxRetries, expected] of [
    [answered(503), 0, 2, { kind: 'retry', delayMs: 100, reason: 'status 503' }],
    [answered(503), 1, 2, { kind: 'retry', delayMs: 200, reason: 'status 503' }],
    [answered(503), 2, 2, { kind: 'dead', reason: 'status 503, after 2 retries' }],
    [answered(429, '7'), 2, 2, { kind: 'defer', delayMs: 7000, reason: 'status 429', busy: true }],
    [answered(429, 'soon'), 2, 2, { kind: 'dead', reason: 'status 429, after 2 retries' }],
    [answered(500, '7'), 2, 2, { kind: 'dead', reason: 'status 500, after 2 retries' }],
    [failed, 2, 2, { kind: 'dead', reason: 'no reply, after 2 retries' }],
    [answered(500), 3, 2, { kind: 'dead', reason: 'status 500, after 3 retries' }],
    [answered(500), 0, 0, { kind: 'dead', reason: 'status 500, after 0 retries' }],
    [answered(204), 2, 2, { kind: 'done' }],
    [answered(404), 1, 2, { kind: 'dead', reason: 'status 404' }]
  ] as const) {
    t.strictSame(judge(outcome, lease({ retries }), { ...policy, maxRetries }), expected)
  }
})

t.test('Retry-After is when a task is tried again', async t => {
  const delayOf = (status: number, retryAfter?: string) => {
    const verdict = judge(answered(status, retryAfter), lease(), policy)
    return verdict.kind === 'retry' ? verdict.delayMs : verdict.kind
  }
  for (const status of [408, 409, 425, 500, 502]) t.equal(delayOf(status, '7'), 7000)
  for (const status of [429, 503]) t.equal(delayOf(status, '0'), 0, 'which is no time to wait for')
  t.equal(delayOf(503, 'Tue, 24 Nov 2020 12:00:30 GMT'), 0)
  t.equal(delayOf(503, 'soon'), 100, 'one that is none leaves it to the backoff')
  t.equal(delayOf(200, '7'), 'done')
  t.equal(delayOf(404, '7'), 'dead')
})

t.test('429 and 503 with Retry-After cost no retry, for 24 h in all, and then one each', async t => {
  for (const status of [429, 503]) {
    const reason = `status ${status}`
    for (const [deferredMs, retryAfter, expected] of [
      [0, '7', { kind: 'defer', delayMs: 7000, reason, busy: true }],
      [0, '86400', { kind: 'defer', delayMs: DAY_MS, reason, busy: true }],
      [DAY_MS - 7000, '7', { kind: 'defer', delayMs: 7000, reason, busy: true }],
      [DAY_MS - 6999, '7', { kind: 'retry', delayMs: 7000, reason }],
      [0, '86401', { kind: 'retry', delayMs: 86_401_000, reason }],
      [0, undefined, { kind: 'retry', delayMs: 100, reason }]
    ] as const) {
      t.strictSame(judge(answered(status, retryAfter), lease({ deferredMs }), policy), expected)
    }
    t.strictSame(judge(answered(status, '7'), lease({ deferredMs: DAY_MS, retries: 2 }), policy), { kind: 'dead', reason: `${reason}, after 2 retries` })
    const soon = new Date(Math.ceil(Date.now() / 1000) * 1000 + 1000).toUTCString()
    const { kind, delayMs } = judge(answered(status, soon), lease(), policy) as { kind: string, delayMs: number }
    t.ok(kind === 'defer' && delayMs >= 1000 && delayMs <= 2000, 'at least a second')
  }
})

t.test('a task that no route takes is left to others, half as long again each time, for a bounded time, and is then dead', async t => {
  const reason = 'no route of this app takes POST /x'
  for (const missingRouteMs of [0, 1, 1000, 3_600_000]) {
    let unroutedMs = 0
    let times = 0
    for (;;) {
      // What it was deferred for otherwise is another matter.
      const verdict = judge({ kind: 'unrouted', reason }, lease({ unroutedMs, deferredMs: unroutedMs + DAY_MS, retries: 99 }), { ...policy, missingRouteMs })
      if (verdict.kind === 'dead') {
        t.strictSame(verdict, { kind: 'dead', reason })
        break
      }
      const { kind, delayMs, ...rest } = verdict as { kind: 'defer', delayMs: number }
      t.strictSame({ kind, ...rest }, { kind: 'defer', reason, unrouted: true })
      t.ok(delayMs > 0 && delayMs <= Math.min(60_000, Math.max(100, unroutedMs / 2)))
      unroutedMs += delayMs
      times++
    }
    t.equal(unroutedMs, missingRouteMs)
    t.ok(times <= 150, `${times} times`)
  }
})

t.test('the reason says what the error said', async t => {
  t.strictSame(judge({ ...answered(500), error: 'boom' } as Outcome, lease(), policy), { kind: 'retry', delayMs: 100, reason: 'status 500: boom' })
  t.strictSame(judge({ ...answered(422), error: 'no' } as Outcome, lease(), policy), { kind: 'dead', reason: 'status 422: no' })
  t.strictSame(judge({ ...answered(500), error: 'boom' } as Outcome, lease({ retries: 2 }), policy), { kind: 'dead', reason: 'status 500: boom, after 2 retries' })
})

t.test('whatever is thrown says something, in bounds', async t => {
  const { proxy, revoke } = Proxy.revocable({}, {})
  revoke()
  for (const [value, expected] of [
    [new Error('boom'), 'boom'], ['text', 'text'], [undefined, 'undefined'], [null, 'null'], [0, '0'], [7n, '7'], [Symbol('s'), 'Symbol(s)'], [{}, '[object Object]'],
    ['', 'an error that says nothing'], [new Error(''), 'Error'], [Object.assign(new Error(''), { code: 'ECONNREFUSED' }), 'ECONNREFUSED'],
    [{ message: { toString () { throw new Error('no') } } }, 'an error that says nothing'], [{ get message () { throw new Error('no') } }, 'an error that says nothing'],
    [Object.create(null), 'an error that says nothing'], [proxy, 'an error that says nothing'],
    [new Error('a\0b\ud800c'), 'a\ufffdb\ufffdc'], [new Error('x'.repeat(500)), 'x'.repeat(500)], [new Error('x'.repeat(501)), `${'x'.repeat(499)}…`],
    [new Error(`${'x'.repeat(498)}🚨🚨`), `${'x'.repeat(498)}…`]
  ] as const) {
    t.equal(reasonOf(value), expected)
  }
})

t.test('Retry-After is a number of seconds or a date, at most 30 days ahead, and nothing else', async t => {
  const now = Date.UTC(2026, 10, 24, 12)
  for (const [value, expected] of [
    ['0', 0],
    ['120', 120_000],
    [' 120 ', 120_000],
    ['2592000', 30 * DAY_MS],
    ['2592001', 30 * DAY_MS],
    ['9'.repeat(400), 30 * DAY_MS],
    ['Tue, 24 Nov 2026 12:00:30 GMT', 30_000],
    ['Tuesday, 24-Nov-26 12:00:30 GMT', 30_000],
    ['Tue Nov 24 12:00:30 2026', 30_000],
    ['Tue, 24 Nov 2026 11:00:00 GMT', 0],
    ['Thu, 01 Jan 1970 00:00:00 GMT', 0],
    ['Tue, 24 Nov 2037 12:00:00 GMT', 30 * DAY_MS],
    [undefined, undefined],
    ['', undefined],
    [' ', undefined],
    ['soon', undefined],
    ['-1', undefined],
    ['1.5', undefined],
    ['1e3', undefined],
    ['0x10', undefined],
    ['5 s', undefined],
    ['120, 60', undefined],
    ['in 5 minutes', undefined],
    ['retry 3', undefined],
    ['Tue, 99 Nov 2026 12:00:30 GMT', undefined],
    ['NaN', undefined],
    ['Infinity', undefined]
  ] as const) {
    t.equal(parseRetryAfter(value, now), expected, JSON.stringify(value))
  }
  const ahead = parseRetryAfter(new Date(Date.now() + 60_000).toUTCString())!
  t.ok(ahead > 58_000 && ahead <= 60_000, 'counted from now')
})

t.test('the backoff is asked for the retry that comes, and is taken by its word', async t => {
  const asked: number[] = []
  const backoff: Backoff = retry => {
    asked.push(retry)
    return 12.5
  }
  for (const retries of [0, 1, 7]) t.match(judge(answered(500), lease({ retries }), { ...policy, maxRetries: 10, backoff }), { kind: 'retry', delayMs: 12.5 })
  t.strictSame(asked, [1, 2, 8])
  for (const delayMs of [0, 1, 30 * DAY_MS]) t.match(judge(answered(500), lease({ retries: 0 }), { ...policy, maxRetries: 1, backoff: () => delayMs }), { delayMs })
})

t.test('a backoff that returns nonsense, or throws, falls back to the default', async t => {
  for (const nonsense of [-1, NaN, Infinity, -Infinity, 30 * DAY_MS + 1, undefined, null, '50', 'soon', {}, [], [50], true, Promise.resolve(50)]) {
    const verdict = judge(answered(500), lease({ retries: 2 }), { ...policy, maxRetries: 10, backoff: () => nonsense as number })
    const { delayMs } = verdict as { delayMs: number }
    t.ok(typeof delayMs === 'number' && delayMs >= 2000 && delayMs <= 4000, `${String(nonsense)}: ${delayMs}`)
  }
  const thrower = () => { throw new Error('no backoff') }
  t.match(judge(answered(500), lease({ retries: 2 }), { ...policy, maxRetries: 10, backoff: thrower }), { kind: 'retry', delayMs: Number })
})

t.test('the default backoff doubles from one second to one hour, spread over the upper half', async t => {
  for (const [retry, ceiling] of [[1, 1000], [2, 2000], [3, 4000], [10, 512_000], [12, 2_048_000], [13, 3_600_000], [100, 3_600_000], [1e6, 3_600_000]] as const) {
    t.equal(exponential(retry, () => 0), ceiling / 2)
    t.equal(exponential(retry, () => 0.5), ceiling * 0.75)
    t.equal(exponential(retry, () => 1), ceiling)
  }
  t.ok(new Set(Array.from({ length: 100 }, () => exponential(13))).size > 50, 'what failed together comes back apart')
})

t.test('a task whose consumer has died three times is dead before it is attempted again', async t => {
  for (const deaths of [0, 1, 2]) t.equal(prejudge({ deaths }), undefined)
  for (const [deaths, isDeadly] of [[3, false], [4, true]] as const) {
    const reason = `${deaths} times its lease has expired while it ran alone: its process has died, or its handler has blocked the event loop`
    t.strictSame(prejudge({ deaths }), { reason, isDeadly })
  }
})
