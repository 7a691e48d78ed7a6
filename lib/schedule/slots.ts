import { createHash } from 'node:crypto'
import { Cron } from 'croner'
import { LATEST_TIME_MS } from '../task/time.js'

/** At which times a schedule has its slots. Times are milliseconds since the epoch. */
export interface Timing {
  /** A pattern of five or six fields, and the time zone that it is about. */
  readonly cron?: string | undefined
  readonly tz?: string | undefined
  /** In place of a pattern: the milliseconds between two slots, counted from the epoch. */
  readonly everyMs?: number | undefined
  /** The first and the last time that can be a slot. */
  readonly startAt?: number | undefined
  readonly endAt?: number | undefined
}

/** What to do about slots that were over before anybody could add their tasks. */
export type CatchUp = 'once' | 'none' | 'all'

/** The most tasks that `all` adds for slots that were missed. */
const MOST_CAUGHT_UP = 100

/** How far missed slots are counted. */
const MOST_COUNTED = 100

/** How many years a pattern may leave out. The years 2096 and 2104 are leap years, and none between them. */
const MOST_YEARS = 8

/** How long after its slot a task is not late yet, in milliseconds. */
const GRACE_MS = 60_000

/** Returns the first slot behind a time; undefined if there is none, or none within eight years. */
export function slotAfter (timing: Timing, time: number): number | undefined {
  const { everyMs, startAt = -Infinity, endAt = Infinity } = timing
  const from = Math.max(time, startAt - 1)
  const slot = everyMs === undefined
    ? patternOf(timing, from).nextRun(new Date(from))?.getTime()
    : (Math.floor(from / everyMs) + 1) * everyMs
  return slot === undefined || slot > Math.min(endAt, LATEST_TIME_MS) ? undefined : slot
}

/** Returns the last slots up to a time, the latest first, at most so many. */
function slotsUpTo (timing: Timing, time: number, limit: number): number[] {
  const { everyMs, startAt = -Infinity, endAt = Infinity } = timing
  const to = Math.min(time, endAt)
  const slots = everyMs === undefined
    ? patternOf(timing, to).previousRuns(limit, new Date(to + 1)).map(date => date.getTime())
    : Array.from({ length: limit }, (_, index) => (Math.floor(to / everyMs) - index) * everyMs)
  return slots.filter(slot => slot >= startAt)
}

/** What becomes of the slots that are over. */
export interface Due {
  /** The slot for which a task is added; missing if none is. */
  readonly slot?: number | undefined
  /** The next slot; missing if there is none. */
  readonly next?: number | undefined
  /** How many slots before that one, and behind `slot`, are passed over; at most 100 are counted. */
  readonly missed: number
}

/** Decides what becomes of the slots from `first`, which is over, up to now. */
export function dueAt (timing: Timing, catchUp: CatchUp, first: number, now: number): Due {
  const second = slotAfter(timing, first)
  const isOnly = second === undefined || second > now
  if (catchUp === 'all') {
    const isShort = isOnly || countFrom(timing, first, now) < MOST_CAUGHT_UP
    const latest = isShort ? [] : slotsUpTo(timing, now, MOST_CAUGHT_UP)
    const oldest = latest.findLast(slot => slot >= first) ?? first
    return run(timing, oldest, oldest === first ? 0 : countFrom(timing, first, oldest))
  }
  const last = isOnly ? first : slotsUpTo(timing, now, 1)[0] ?? first
  const missed = isOnly ? 0 : countFrom(timing, first, last)
  if (catchUp === 'once' || now - last <= GRACE_MS) return run(timing, last, missed)
  const { next } = run(timing, last, missed)
  return { missed: missed + 1, ...next !== undefined && { next } }
}

function run (timing: Timing, slot: number, missed: number): Due {
  const next = slotAfter(timing, slot)
  return { slot, missed, ...next !== undefined && { next } }
}

/** Counts the slots from one to another, without that one. */
function countFrom (timing: Timing, first: number, end: number): number {
  if (timing.everyMs !== undefined) return Math.min(MOST_COUNTED, Math.round((end - first) / timing.everyMs))
  let count = 0
  for (let slot: number | undefined = first; slot !== undefined && slot < end; slot = slotAfter(timing, slot)) {
    if (++count === MOST_COUNTED) break
  }
  return count
}

/**
 * Returns by how many milliseconds the task of a slot is put off: less than `jitterMs`, and before the next slot. It is
 * the same in every process.
 */
export function jitterOf (id: string, slot: number, next = Infinity, jitterMs = 0): number {
  const most = Math.min(jitterMs, next - slot)
  return Math.floor(createHash('sha256').update(`${id}@${slot}`).digest().readUInt32BE() / 2 ** 32 * most)
}

/** Patterns that were parsed, since that takes longer than to find the next slot. */
const patterns = new Map<string, Cron>()

/**
 * Parses a pattern; throws an error that says what is wrong with it. A time that a change of the clocks leaves out
 * comes right after the change. A time that comes twice is a slot once, unless a wildcard or a step stands for the hour
 * or the minute. These are the rules of Vixie's cron.
 *
 * @param around the time around which slots are looked for. Without bounds the search for a time that a change of the
 * clocks always leaves out would go through a thousand years.
 */
function patternOf ({ cron = '', tz = 'UTC' }: Timing, around: number): Cron {
  const year = new Date(around).getUTCFullYear()
  const key = `${year} ${tz} ${cron}`
  let pattern = patterns.get(key)
  if (pattern === undefined) {
    const fields = fieldsOf(cron).join(' ')
    // Where it is next year already, or last year still, is another zone.
    const years = `${Math.max(1, year - 1 - MOST_YEARS)}-${Math.min(9999, year + 1 + MOST_YEARS)}`
    pattern = new Cron(`${fields} ${years}`, { timezone: tz, mode: '7-part', fixedTimeRule: 'no-wildcard' })
    if (patterns.size >= 1000) patterns.clear()
    patterns.set(key, pattern)
  }
  return pattern
}

/** Returns the six fields of a pattern, which may be given by a name or have no seconds. */
function fieldsOf (cron: string): string[] {
  const parsed = new Cron(cron, { timezone: 'UTC', mode: '5-or-6-parts' })
  // The process that reads them would put its own time in place of these.
  if (parsed.getOnce() !== null || cron.includes('?')) throw new Error('it must be a pattern, without "?"')
  const fields = parsed.getPattern()!.trim().split(/\s+/)
  return fields.length === 5 ? ['0', ...fields] : fields
}

/** Throws an error that says what is wrong with a pattern. */
export function checkPattern (timing: Timing): void { patternOf(timing, 0) }
