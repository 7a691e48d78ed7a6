import { checkOptions, isPlain, isWhole } from '../check.js'
import { FST_TASKQUEUE_INVALID_SCHEDULE } from '../errors.js'
import { show } from '../show.js'
import type { Overlap } from '../store/schedules.js'
import type { NewTask } from '../store/tasks.js'
import type { Codec } from '../task/codec.js'
import { isId } from '../task/id.js'
import type { AddOptions } from '../task/options.js'
import type { Task } from '../task/task.js'
import { LATEST_TIME_MS, MAX_DELAY_MS, timeOf } from '../task/time.js'
import { type CatchUp, checkPattern, type Due, jitterOf, slotAfter, type Timing } from './slots.js'

/** When a schedule adds its tasks, and what it does if it cannot. */
export interface ScheduleTiming {
  /**
   * The times of its slots: minute, hour, day of the month, month and day of the week, with a field for seconds in
   * front if there are six; or `@hourly`, `@daily`, `@weekly`, `@monthly` or `@yearly`. Excludes `everyMs`.
   *
   * When the clocks of `tz` go forward, a time that is left out comes right after the change. When they go back, a time
   * that comes twice is a slot once, unless a wildcard or a step stands for its hours or minutes.
   */
  cron?: string
  /** The time zone of `cron`, by its name in the IANA database. @default 'UTC' */
  tz?: string
  /**
   * In place of `cron`: how many milliseconds lie between two slots, at least 1000. They are counted from the epoch, so
   * that a restart moves no slot.
   */
  everyMs?: number
  /**
   * The earliest time of a slot: a Date, milliseconds since the epoch, or a text of RFC 3339 with its zone.
   * @default none
   */
  startAt?: Date | string | number
  /** The latest time of a slot. @default none */
  endAt?: Date | string | number
  /**
   * What to do about slots that are over when a process can add tasks again. `'once'` adds one task, for the latest
   * slot. `'none'` adds a task only for a slot that is over for no longer than a minute. `'all'` adds a task for each
   * slot, the oldest first, but for at most 100. `missed` counts the others. @default 'once'
   */
  catchUp?: CatchUp
  /**
   * What to do at a slot while the last task has not ended. `'skip'` adds nothing, unless the last task waits to be
   * tried again; then it is cancelled. `'allow'` adds the task all the same. `'replace'` cancels the last task, also if
   * it runs. A dead letter has ended. @default 'skip'
   */
  overlap?: Overlap
  /**
   * How many milliseconds the task of a slot may be put off, so that many schedules do not begin at once: always less
   * than up to the next slot. For a schedule and a slot it is always the same. @default 0
   */
  jitterMs?: number
}

/** A schedule: its timing, and the options of `add` for its tasks. */
export interface ScheduleOptions
  extends ScheduleTiming, Omit<AddOptions, 'id' | 'onDuplicate' | 'dedupeMs' | 'delayMs' | 'runAt'> {}

/** What makes a task of the options of `add`. */
export type ComposeTask = (target: unknown, options: AddOptions) => { readonly task: Task, readonly entry: NewTask }

/** A schedule as the app reads and writes it. */
export interface Plan extends Timing {
  readonly catchUp: CatchUp
  readonly overlap: Overlap
  readonly jitterMs: number
  /** Whether it was declared with the plugin or a route. */
  readonly declared: boolean
  readonly lane: Pick<NewTask, 'priority' | 'key' | 'expiresMs'>
  /** The task that it adds, under the id of the schedule. */
  readonly task: Task
}

const TIMING = [
  'cron', 'tz', 'everyMs', 'startAt', 'endAt', 'catchUp', 'overlap', 'jitterMs'
] as const satisfies ReadonlyArray<keyof ScheduleTiming>
const OF_TASK = [
  'url', 'route', 'params', 'method', 'query', 'headers', 'payload', 'queue', 'expiresMs', 'priority', 'key',
  'maxRetries', 'backoff', 'timeoutMs', 'user'
] as const
const CATCH_UPS: ReadonlySet<unknown> = new Set<CatchUp>(['once', 'none', 'all'])
const OVERLAPS: ReadonlySet<unknown> = new Set<Overlap>(['skip', 'allow', 'replace'])

/** The longest plan, in characters: a page of schedules is read at once. */
const MAX_PLAN_LENGTH = 16 * 1024

/** Throws unless this can be the id of a schedule. With a slot it is the id of a task. */
export function checkScheduleId (id: unknown): asserts id is string {
  if (isId(id, 200)) return
  const expected = 'its id must be 1 to 200 printable ASCII characters without spaces'
  throw new FST_TASKQUEUE_INVALID_SCHEDULE(show(id), expected)
}

/** Checks what a schedule was given, and makes its plan and the name of its queue. */
export function planOf (
  id: string, given: ScheduleOptions, declared: boolean, compose: ComposeTask
): { readonly queue: string, readonly plan: Plan } {
  checkScheduleId(id)
  checkOptions(`schedule ${id}`, given, [...TIMING, ...OF_TASK], 'a schedule')
  const { cron, tz, everyMs, startAt, endAt, catchUp = 'once', overlap = 'skip', jitterMs = 0, ...added } = given
  const { url, route, ...options } = added as typeof added & { readonly url?: string, readonly route?: unknown }
  const refuse = (reason: string) => new FST_TASKQUEUE_INVALID_SCHEDULE(id, reason)
  if ((cron === undefined) === (everyMs === undefined)) throw refuse('give it cron or everyMs, and not both')
  if (everyMs !== undefined && tz !== undefined) throw refuse('tz belongs to cron: everyMs is the same in all zones')
  if (everyMs !== undefined && !isWhole(everyMs, 1000)) {
    throw refuse(`everyMs must be a whole number, 1000 or more, got ${show(everyMs)}`)
  }
  if (!isWhole(jitterMs, 0, MAX_DELAY_MS)) {
    throw refuse(`jitterMs must be 0 to ${MAX_DELAY_MS}, which is 30 days, got ${show(jitterMs)}`)
  }
  if (!CATCH_UPS.has(catchUp)) throw refuse(`catchUp must be 'once', 'none' or 'all', got ${show(catchUp)}`)
  if (!OVERLAPS.has(overlap)) throw refuse(`overlap must be 'skip', 'allow' or 'replace', got ${show(overlap)}`)
  const time = (name: string, value: unknown) => {
    if (value === undefined) return undefined
    const ms = typeof value === 'number' ? value : timeOf(value)
    if (isWhole(ms, 0, LATEST_TIME_MS)) return ms
    throw refuse(`${name} must be a time as a Date, milliseconds or a text with its zone, got ${show(value)}`)
  }
  const timing: Timing = { cron, tz, everyMs, startAt: time('startAt', startAt), endAt: time('endAt', endAt) }
  if (cron !== undefined) checkCron(timing, refuse)
  if (slotAfter({ cron, tz, everyMs }, Date.now()) === undefined) throw refuse('it has no slot in the next eight years')
  const isEmpty = timing.startAt !== undefined && slotAfter(timing, timing.startAt - 1) === undefined
  if (isEmpty) throw refuse('it has no slot between startAt and endAt')
  const { task, entry: { queue, priority, key, expiresMs } } = compose(route ?? url, options)
  const lane = {
    ...priority !== undefined && { priority },
    ...key !== undefined && { key },
    ...expiresMs !== undefined && { expiresMs }
  }
  const own = { ...task, id, addedAt: undefined }
  return { queue, plan: { ...timing, catchUp, overlap, jitterMs, declared, lane, task: own } }
}

function checkCron (timing: Timing, refuse: (reason: string) => Error): void {
  if (typeof timing.cron !== 'string' || timing.cron.length > 255) {
    throw refuse(`cron must be a text of at most 255 characters, got ${show(timing.cron)}`)
  }
  const { tz = 'UTC' } = timing
  try {
    if (typeof tz !== 'string') throw new Error('it is not text')
    new Intl.DateTimeFormat('en', { timeZone: tz }).format()
  } catch {
    throw refuse(`tz must be the name of a time zone that this process knows, got ${show(tz)}`)
  }
  try {
    checkPattern(timing)
  } catch (error) {
    throw refuse(`cron ${show(timing.cron)} is no pattern: ${(error as Error).message}`)
  }
}

/** Writes a plan as a text that is protected as the messages of tasks are. */
export function writePlan (codec: Codec, queue: string, { task, ...rest }: Plan): string {
  const text = codec.encodeRecord(queue, task.id, { ...rest, message: codec.encode(queue, task) }, 'schedule')
  // The task of a slot is a little longer, and has to fit as well.
  taskAt(codec, queue, { task, ...rest }, { slot: 0, missed: 100 }, Date.now())
  if (text.length <= MAX_PLAN_LENGTH) return text
  throw new FST_TASKQUEUE_INVALID_SCHEDULE(task.id, `it is longer than ${MAX_PLAN_LENGTH} characters with its payload`)
}

/** Reads a plan; undefined if it cannot be read. */
export function readPlan (codec: Codec, queue: string, id: string, text: string): Plan | undefined {
  try {
    type Written = Omit<Plan, 'task'> & { readonly message: string }
    const { message, ...rest } = codec.decodeRecord(queue, id, text, 'schedule') as Written
    const plan = { ...rest, task: codec.decode(queue, id, message) }
    slotAfter(plan, Date.now())
    const isFit = CATCH_UPS.has(plan.catchUp) && OVERLAPS.has(plan.overlap) && isPlain(plan.lane)
    return isFit && (plan.everyMs === undefined || plan.everyMs >= 1000) ? plan : undefined
  } catch {
    return undefined
  }
}

/** Makes the task of a slot. @param now the time by the clock of the store */
export function taskAt (
  codec: Codec, queue: string, { task, lane, jitterMs }: Plan,
  { slot, next, missed }: Due & { readonly slot: number }, now: number
): NewTask {
  const id = taskIdAt(task.id, slot)
  const jitter = jitterOf(task.id, slot, next, jitterMs)
  const schedule = { id: task.id, slot, missed }
  const dueAt = jitter > 0 ? slot + jitter : undefined
  const message = codec.encode(queue, { ...task, id, addedAt: now, dueAt, schedule })
  return { queue, id, message, ...lane, ...dueAt !== undefined && { runAt: dueAt } }
}

/** Returns the id of the task of a slot. */
const taskIdAt = (id: string, slot: number): string => `${id}@${new Date(slot).toISOString()}`
