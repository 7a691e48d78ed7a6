import { type Found, RECORD_LIMIT, SHOWN_BYTES, type State } from '../found.js'
import type { NewTask, Priority } from '../tasks.js'
import type { Verdict } from '../turn.js'
import type { Clock, Due } from './clock.js'
import type { InLine } from './line.js'

/** A task as its queue keeps it: the whole task until it has ended, and then a summary. */
export interface StoredTask extends Attempts, Due, InLine {
  readonly id: string
  message: string
  /** The level and the key of the task; '' stands for none. */
  priority: Priority
  key: string
  state: State
  /** When the task expires. Infinity if it never does, as is so once an attempt has counted. */
  expires: number
  /** One record for each of the newest attempts; undefined for an attempt whose consumer died. */
  records: ReadonlyArray<string | undefined>
  progress?: string
  /** When it was last claimed, in milliseconds since the epoch, and by whom, once that is known. */
  startedAt?: number
  consumer?: string | undefined
  endedAt?: number
  /** The task that replaces this one when the running attempt has ended. */
  next?: StoredTask
}

/** The counters of a task's attempts, which `Lease` explains, and why the task is where it is. */
interface Attempts {
  fence: number
  attempt: number
  retries: number
  deferredMs: number
  unroutedMs: number
  deaths: number
  suspect: boolean
  reason?: string
}

const NO_RECORDS: StoredTask['records'] = []

export function newTask (
  clock: Clock, { id, message, delayMs, runAt, expiresMs = Infinity, priority = 'normal', key = '' }: NewTask
): StoredTask {
  const { due, dueAt } = clock.dueOf(delayMs, runAt)
  return {
    id,
    message,
    priority,
    key,
    state: 'waiting',
    place: undefined,
    due,
    dueAt,
    expires: expiresMs === Infinity ? Infinity : clock.now + expiresMs,
    fence: 0,
    attempt: 0,
    retries: 0,
    deferredMs: 0,
    unroutedMs: 0,
    deaths: 0,
    suspect: false,
    records: NO_RECORDS
  }
}

/** Whether a verdict says that its attempt does not count. */
export function isUncounted (verdict: Verdict): boolean {
  if (verdict.kind === 'release') return verdict.unseen === true
  return verdict.kind === 'defer' && verdict.unrouted === true
}

/** Adds the record of one more attempt. It leaves the former list as it is, since callers may hold it. */
export function addRecord (task: StoredTask, record: string | undefined): void {
  task.records = [...task.records.slice(1 - RECORD_LIMIT), record]
}

/** Makes a suspect of a task whose consumer has died. If another task was to replace it, the two become one. */
export function makeSuspect (task: StoredTask): void {
  // A death counts only if the task ran alone. Otherwise any of the consumer's tasks may have caused it.
  if (task.suspect) task.deaths++
  task.suspect = true
  task.expires = Infinity
  addRecord(task, undefined)
  if (task.next === undefined) return
  task.message = task.next.message
  task.retries = task.deferredMs = task.unroutedMs = 0
  task.next = undefined
}

/** Resets what counts against a dead task, as if it were new: its retries, deferrals and deaths. */
export function pardon (task: StoredTask): void {
  task.retries = task.deferredMs = task.unroutedMs = task.deaths = 0
  task.suspect = false
  task.endedAt = undefined
}

export function show (queue: string, task: StoredTask, now: number): Found {
  const { id, message, priority, key, due, dueAt, endedAt, attempt, reason, progress, records, startedAt } = task
  const isDue = task.state === 'delayed' && due <= now
  const state = isDue ? 'waiting' : task.state
  const isOver = state === 'done' || state === 'cancelled' || state === 'expired'
  return {
    queue,
    id,
    state,
    message: state === 'done' ? undefined : message,
    priority: isOver || priority === 'normal' ? undefined : priority,
    key: isOver || key === '' ? undefined : key,
    startedAt: state === 'running' ? startedAt : undefined,
    dueAt: state === 'delayed' ? dueAt : undefined,
    endedAt,
    attempt,
    reason,
    progress,
    records
  }
}

/** Shows a task with its whole message, if that is short, and who runs it. */
export function showWhole (queue: string, task: StoredTask, now: number): Found {
  const found = show(queue, task, now)
  const { state } = found
  const isOver = state === 'done' || state === 'cancelled' || state === 'expired'
  return {
    ...found,
    isWhole: isOver || Buffer.byteLength(task.message) > SHOWN_BYTES ? undefined : true,
    consumer: found.state === 'running' ? task.consumer : undefined
  }
}
