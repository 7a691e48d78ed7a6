// The part of the store in SQLite that keeps schedules.
import type {
  Keep, NewTask, Overlap, ScheduleChange, ScheduleList, ScheduleView, Tick, TickResult, WhichSchedules
} from 'fastify-taskqueue'

/**
 * `next` is null if a schedule has no next slot. `taskId` and `at` are of the last task that it has added, and null
 * before that. A queue has a row in `task_revision` once its schedules were changed with a revision.
 */
export const scheduleSchema = `
  CREATE TABLE IF NOT EXISTS task_schedule (
    queue TEXT NOT NULL, id TEXT NOT NULL,
    plan TEXT NOT NULL, next INTEGER, paused INTEGER NOT NULL, declared INTEGER NOT NULL,
    taskId TEXT, at INTEGER, skipped INTEGER NOT NULL DEFAULT 0, missed INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (queue, id)
  );
  CREATE INDEX IF NOT EXISTS task_schedule_next ON task_schedule (queue, next);
  CREATE TABLE IF NOT EXISTS task_revision (queue TEXT PRIMARY KEY, revision INTEGER NOT NULL)`

type Values = Record<string, string | number | null>
type All = <Row>(sql: string, values: Values) => Row[]
type Run = (sql: string, values: Values) => number

/** What the schedules need of the tasks. */
interface Tasks {
  readonly add: (task: NewTask) => void
  /** Whether a task of this id waits, is delayed, runs or is dead. */
  readonly isTaken: (queue: string, id: string) => boolean
  readonly cancel: (queue: string, id: string, keep: Keep) => void
  readonly isPaused: (queue: string) => boolean
}

interface Row {
  readonly id: string
  readonly plan: string
  readonly next: number | null
  readonly paused: number
  readonly declared: number
  readonly taskId: string | null
  readonly at: number | null
  readonly skipped: number
  readonly missed: number
}

const one = 'queue = :queue AND id = :id'

/** Changes schedules, and does what their slots demand, as `Store` says. Its caller makes each step atomic. */
export class SqliteSchedules {
  readonly #all: All
  readonly #run: Run
  readonly #tasks: Tasks

  constructor (all: All, run: Run, tasks: Tasks) {
    this.#all = all
    this.#run = run
    this.#tasks = tasks
  }

  list (queue: string, which: WhichSchedules): ScheduleList {
    const schedules = this.#select(queue, which).map(viewOf)
    return { now: Date.now(), isPaused: this.#tasks.isPaused(queue), revision: this.#revision(queue), schedules }
  }

  #select (queue: string, which: WhichSchedules): Row[] {
    if ('ids' in which) return which.ids.flatMap(id => this.#schedule(queue, id) ?? [])
    if ('declared' in which) {
      return this.#all<Row>('SELECT * FROM task_schedule WHERE queue = :queue AND declared = 1', { queue })
    }
    return this.#all<Row>(`
      SELECT * FROM task_schedule WHERE queue = :queue ORDER BY next IS NULL, next, id LIMIT :limit OFFSET :offset`,
    { queue, ...which })
  }

  /** Milliseconds until the next slot; Infinity if there is none. */
  slotInMs (queue: string): number {
    const [first] = this.#all<{ next: number | null }>(
      'SELECT min(next) AS next FROM task_schedule WHERE queue = :queue', { queue })
    return Math.max(0, (first?.next ?? Infinity) - Date.now())
  }

  plan (queue: string, changes: readonly ScheduleChange[], revision?: number): boolean {
    if (revision !== undefined && revision < this.#revision(queue)) return false
    const now = Date.now()
    const isFit = ({ id, expects, next = Infinity }: ScheduleChange) => {
      const known = this.#schedule(queue, id)
      return known?.plan === expects && (next > now || next === known?.next)
    }
    if (!changes.every(isFit)) return false
    for (const change of changes) this.#change(queue, change)
    if (revision === undefined) return true
    this.#run(`
      INSERT INTO task_revision (queue, revision) VALUES (:queue, :revision)
      ON CONFLICT DO UPDATE SET revision = excluded.revision`, { queue, revision })
    return true
  }

  #change (queue: string, { id, plan, next, paused, declared }: ScheduleChange): void {
    if (plan === undefined) {
      this.#run(`DELETE FROM task_schedule WHERE ${one}`, { queue, id })
      return
    }
    const known = this.#schedule(queue, id)
    const isPaused = paused ?? known?.paused === 1
    const isDeclared = declared ?? known?.declared === 1
    this.#run(`
      INSERT INTO task_schedule (queue, id, plan, next, paused, declared)
      VALUES (:queue, :id, :plan, :next, :paused, :declared)
      ON CONFLICT DO UPDATE SET
        plan = excluded.plan, next = excluded.next, paused = excluded.paused, declared = excluded.declared`,
    { queue, id, plan, next: isPaused ? null : next ?? null, paused: Number(isPaused), declared: Number(isDeclared) })
  }

  tick (queue: string, { id, slot, next, missed, task, overlap }: Tick, keep: Keep): TickResult {
    const schedule = this.#schedule(queue, id)
    if (schedule === undefined || (slot !== undefined && schedule.next !== slot)) return 'over'
    if (slot !== undefined && this.#tasks.isPaused(queue)) return 'over'
    let result: TickResult = 'missed'
    if (task !== undefined) {
      const isFree = this.#makeWay(queue, schedule.taskId, overlap, keep) && !this.#tasks.isTaken(queue, task.id)
      result = isFree ? 'added' : 'skipped'
    }
    if (task !== undefined && result === 'added') {
      this.#tasks.add(task)
      this.#run(`UPDATE task_schedule SET taskId = :taskId, at = :at WHERE ${one}`,
        { queue, id, taskId: task.id, at: Date.now() })
    }
    this.#run(`UPDATE task_schedule SET missed = missed + :missed WHERE ${one}`, { queue, id, missed })
    if (slot === undefined) return result
    this.#run(`UPDATE task_schedule SET skipped = skipped + :skipped, next = :next WHERE ${one}`,
      { queue, id, skipped: Number(result === 'skipped'), next: next ?? null })
    return result
  }

  /** Makes way for the next task of a schedule. Returns whether it may be added. */
  #makeWay (queue: string, id: string | null, overlap: Overlap, keep: Keep): boolean {
    if (overlap === 'allow' || id === null) return true
    const [living] = this.#all<{ isPutOff: number }>(`
      SELECT state = 'delayed' AND due > :now AND attempt + deferredMs > 0 AS isPutOff FROM task
      WHERE ${one} AND (state = 'running' OR state IN ('waiting', 'delayed') AND (expires IS NULL OR expires > :now))`,
    { queue, id, now: Date.now() })
    if (living === undefined) return true
    if (overlap === 'skip' && living.isPutOff === 0) return false
    this.#tasks.cancel(queue, id, keep)
    return true
  }

  #schedule (queue: string, id: string): Row | undefined {
    return this.#all<Row>(`SELECT * FROM task_schedule WHERE ${one}`, { queue, id })[0]
  }

  #revision (queue: string): number {
    const [row] = this.#all<{ revision: number }>('SELECT revision FROM task_revision WHERE queue = :queue', { queue })
    return row?.revision ?? 0
  }
}

function viewOf ({ id, plan, next, paused, taskId, at, skipped, missed }: Row): ScheduleView {
  return {
    id,
    plan,
    ...next !== null && { next },
    paused: paused === 1,
    ...taskId !== null && at !== null && { last: { taskId, at } },
    skipped,
    missed
  }
}
