import { createHash } from 'node:crypto'
import { Cron } from 'croner'

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
const MOST_COUNTED = 1000

/** How long after its slot a task is not late yet, in milliseconds. */
const GRACE_MS = 60_000

/** Returns the first slot behind a time; undefined if there is none. */
export function slotAfter (timing: Timing, time: number): number | undefined {
  const { everyMs, startAt = -Infinity, endAt = Infinity } = timing
  const from = Math.max(time, startAt - 1)
  const slot = everyMs === undefined
    ? patternOf(timing).nextRun(new Date(from))?.getTime()
    : (Math.floor(from / everyMs) + 1) * everyMs
  return slot === undefined || slot > endAt ? undefined : slot
}

/** Returns the last slots up to a time, the latest first, at most so many. */
function slotsUpTo (timing: Timing, time: number, limit: number): number[] {
  const { everyMs, startAt = -Infinity, endAt = Infinity } = timing
  const to = Math.min(time, endAt)
  const slots = everyMs === undefined
    ? patternOf(timing).previousRuns(limit, new Date(to + 1)).map(date => date.getTime())
    : Array.from({ length: limit }, (_, index) => (Math.floor(to / everyMs) - index) * everyMs)
  return slots.filter(slot => slot >= startAt)
}

/** What becomes of the slots that are over. */
export interface Due {
  /** The slot for which a task is added; missing if none is. */
  readonly slot?: number | undefined
  /** The next slot; missing if there is none. */
  readonly next?: number | undefined
  /** How many slots before that one, and behind `slot`, are passed over; at most 1000 are counted. */
  readonly missed: number
}

/** Decides what becomes of the slots from `first`, which is over, up to now. */
export function dueAt (timing: Timing, catchUp: CatchUp, first: number, now: number): Due {
  const second = slotAfter(timing, first)
  const isOnly = second === undefined || second > now
  if (catchUp === 'all') {
    const latest = isOnly ? [] : slotsUpTo(timing, now, MOST_CAUGHT_UP)
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
 */
export function patternOf ({ cron = '', tz = 'UTC' }: Timing): Cron {
  const key = `${tz} ${cron}`
  let pattern = patterns.get(key)
  if (pattern === undefined) {
    pattern = new Cron(cron, { timezone: tz, mode: '5-or-6-parts', fixedTimeRule: 'no-wildcard' })
    // The process that reads it would put its own time in place of these.
    if (pattern.getOnce() !== null || cron.includes('?')) throw new Error('it must be a pattern, without "?"')
    if (patterns.size >= 1000) patterns.clear()
    patterns.set(key, pattern)
  }
  return pattern
}
