import t from 'tap'
import { type CatchUp, dueAt, jitterOf, slotAfter, type Timing } from '../../lib/schedule/slots.js'

const at = (text: string) => Date.parse(text)
const shown = (slot: number | undefined) => slot === undefined ? undefined : new Date(slot).toISOString().replace(':00.000Z', 'Z')

function slots (timing: Timing, from: string, count: number) {
  const found: Array<string | undefined> = []
  for (let slot: number | undefined = at(from); found.length < count && slot !== undefined;) {
    slot = slotAfter(timing, slot)
    found.push(shown(slot))
  }
  return found
}

const PATTERNS: ReadonlyArray<readonly [title: string, timing: Timing, from: string, expected: string[]]> = [
  ['runs a time that New York leaves out right after the change', { cron: '30 2 * * *', tz: 'America/New_York' }, '2026-03-07T12:00Z', ['2026-03-08T07:00Z', '2026-03-09T06:30Z']],
  ['runs a time that New York has twice only once', { cron: '30 1 * * *', tz: 'America/New_York' }, '2026-10-31T12:00Z', ['2026-11-01T05:30Z', '2026-11-02T06:30Z']],
  ['takes a list of hours for fixed times', { cron: '30 1,14 * * *', tz: 'America/New_York' }, '2026-11-01T00:00Z', ['2026-11-01T05:30Z', '2026-11-01T19:30Z', '2026-11-02T06:30Z']],
  ['runs a step in both passes of an hour that comes twice', { cron: '*/30 1 * * *', tz: 'America/New_York' }, '2026-11-01T04:00Z', ['2026-11-01T05:00Z', '2026-11-01T05:30Z', '2026-11-01T06:00Z', '2026-11-01T06:30Z', '2026-11-02T06:00Z']],
  ['knows a change of half an hour', { cron: '15 2 * * *', tz: 'Australia/Lord_Howe' }, '2026-10-03T00:00Z', ['2026-10-03T15:30Z', '2026-10-04T15:15Z']],
  ['runs at the first moment of a day without midnight', { cron: '0 0 * * *', tz: 'America/Santiago' }, '2026-09-05T05:00Z', ['2026-09-06T04:00Z', '2026-09-07T03:00Z']],
  ['takes UTC for its zone unless it has one', { cron: '0 9 * * MON-FRI' }, '2026-12-04T10:00Z', ['2026-12-07T09:00Z']],
  ['takes seconds', { cron: '*/30 * * * * *' }, '2026-12-04T10:00:29Z', ['2026-12-04T10:00:30.000Z', '2026-12-04T10:01Z']],
  ['takes names for usual times', { cron: '@weekly' }, '2026-11-30T00:00Z', ['2026-12-06T00:00Z']],
  ['takes the last day of a month', { cron: '0 0 L * *' }, '2028-02-01T00:00Z', ['2028-02-29T00:00Z']],
  ['counts equal distances from the epoch', { everyMs: 90 * 60_000 }, '2026-11-30T00:00Z', ['2026-11-30T01:30Z', '2026-11-30T03:00Z']],
  ['begins at a time, which may be a slot itself', { cron: '0 * * * *', startAt: at('2026-12-01T05:00Z') }, '2026-11-30T00:00Z', ['2026-12-01T05:00Z', '2026-12-01T06:00Z']],
  ['begins at a time between two slots', { everyMs: 3_600_000, startAt: at('2026-12-01T05:00:01Z') }, '2026-11-30T00:00Z', ['2026-12-01T06:00Z']],
  ['ends with a time, which may be a slot itself', { everyMs: 3_600_000, endAt: at('2026-11-30T02:00Z') }, '2026-11-30T00:00Z', ['2026-11-30T01:00Z', '2026-11-30T02:00Z', undefined as never]]
]

for (const [title, timing, from, expected] of PATTERNS) {
  t.test(title, async t => { t.strictSame(slots(timing, from, expected.length), expected) })
}

t.test('has no slot twice and none out of order, all through a year of several zones', async t => {
  for (const tz of ['America/New_York', 'Australia/Lord_Howe', 'America/Santiago', 'Africa/Casablanca', 'Pacific/Apia']) {
    for (const cron of ['*/30 * * * *', '30 0-3 * * *', '0 2 * * *']) {
      let last = at('2026-01-01T00:00Z')
      let longest = 0
      while (last < at('2027-01-01T00:00Z')) {
        const next = slotAfter({ cron, tz }, last)!
        longest = Math.max(longest, next - last)
        if (next <= last) {
          t.fail(`${tz} ${cron}: ${shown(next)} follows ${shown(last)}`)
          return
        }
        last = next
      }
      const hours = longest / 3_600_000
      t.ok(hours <= (cron === '*/30 * * * *' ? 0.5 : 26), `${tz} ${cron} has a hole of ${hours} hours`)
    }
  }
})

const HOURLY: Timing = { cron: '0 * * * *' }
const CASES: ReadonlyArray<readonly [CatchUp, late: string, expected: [slot: string | undefined, next: string | undefined, missed: number]]> = [
  ['once', '10:00:00.020', ['10:00', '11:00', 0]],
  ['none', '10:00:00.020', ['10:00', '11:00', 0]],
  ['all', '10:00:00.020', ['10:00', '11:00', 0]],
  ['once', '10:59:59.999', ['10:00', '11:00', 0]],
  ['none', '10:01:00', ['10:00', '11:00', 0]],
  ['none', '10:01:00.001', [undefined, '11:00', 1]],
  ['once', '13:30:00', ['13:00', '14:00', 3]],
  ['none', '13:30:00', [undefined, '14:00', 4]],
  ['none', '13:00:30', ['13:00', '14:00', 3]],
  ['all', '13:30:00', ['10:00', '11:00', 0]],
  ['once', '13:00:00', ['13:00', '14:00', 3]]
]

for (const [catchUp, late, expected] of CASES) {
  t.test(`catches up ${catchUp} at ${late} what was to be at 10:00`, async t => {
    const first = at('2026-11-30T10:00Z')
    for (const timing of [HOURLY, { everyMs: 3_600_000 }]) {
      const { slot, next, missed } = dueAt(timing, catchUp, first, at(`2026-11-30T${late}Z`))
      t.strictSame([shown(slot)?.slice(11, 16), shown(next)?.slice(11, 16), missed], expected)
    }
  })
}

t.test('catches up a hundred slots at most, and counts those before them', async t => {
  const first = at('2026-11-01T00:00Z')
  const now = first + 150 * 3_600_000
  for (const timing of [HOURLY, { everyMs: 3_600_000 }]) {
    const due = dueAt(timing, 'all', first, now)
    t.strictSame(due, { slot: first + 51 * 3_600_000, next: first + 52 * 3_600_000, missed: 51 })
    t.strictSame(dueAt(timing, 'all', due.next!, now), { slot: due.next, next: due.next! + 3_600_000, missed: 0 })
  }
})

t.test('counts no more than a hundred missed slots', async t => {
  const first = at('2026-01-01T00:00Z')
  for (const timing of [{ cron: '* * * * * *' }, { everyMs: 1000 }]) {
    const { slot, missed } = dueAt(timing, 'once', first, at('2026-11-30T00:00Z'))
    t.strictSame([shown(slot), missed], ['2026-11-30T00:00Z', 100])
  }
})

t.test('finds a day that comes once in eight years, and gives up a time that never comes', async t => {
  t.equal(shown(slotAfter({ cron: '0 0 29 2 *' }, at('2096-03-01T00:00Z'))), '2104-02-29T00:00Z')
  const since = performance.now()
  t.equal(slotAfter({ cron: '* * 2 * 3 SUN#2', tz: 'America/New_York' }, at('2026-11-30T00:00Z')), undefined)
  t.equal(slotAfter({ cron: '0 0 31 2 *' }, at('2026-11-30T00:00Z')), undefined)
  t.ok(performance.now() - since < 20_000, `it took ${performance.now() - since} ms, and not minutes`)
})

t.test('ends with the last slot of a schedule that has an end', async t => {
  const timing: Timing = { everyMs: 3_600_000, endAt: at('2026-11-30T12:00Z') }
  const due = dueAt(timing, 'once', at('2026-11-30T10:00Z'), at('2026-11-30T15:00Z'))
  t.strictSame(due, { slot: at('2026-11-30T12:00Z'), missed: 2 })
})

t.test('puts tasks off by less than the jitter and the next slot, and always by the same', async t => {
  const slot = at('2026-11-30T10:00Z')
  const jitters = Array.from({ length: 1000 }, (_, index) => jitterOf(`s${index}`, slot, slot + 60_000, 5000))
  t.ok(jitters.every(ms => Number.isInteger(ms) && ms >= 0 && ms < 5000))
  t.ok(new Set(jitters).size > 800, 'they differ')
  t.equal(jitterOf('s0', slot, slot + 60_000, 5000), jitters[0])
  t.ok(Array.from({ length: 1000 }, (_, index) => jitterOf(`s${index}`, slot, slot + 1000, 5000)).every(ms => ms < 1000))
  t.equal(jitterOf('s0', slot, undefined, 0), 0)
})
