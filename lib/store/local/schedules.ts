import type {
  Overlap, ScheduleChange, ScheduleList, ScheduleView, Tick, TickResult, WhichSchedules
} from '../schedules.js'
import type { NewTask } from '../tasks.js'
import type { Keep } from '../turn.js'

type Schedule = { -readonly [Name in keyof ScheduleView]: ScheduleView[Name] }

/** What the schedules of a queue need of its tasks. */
interface Tasks {
  readonly add: (task: NewTask) => void
  /** Whether a task of this id waits, is delayed, runs or is dead. */
  readonly isTaken: (id: string) => boolean
  /** Whether a task waits, is delayed or runs. */
  readonly isLiving: (id: string) => boolean
  /** Whether a task is delayed after an attempt. */
  readonly isPutOff: (id: string) => boolean
  readonly cancel: (id: string, keep: Keep) => void
}

/** The schedules of one queue. */
export class Schedules {
  readonly #tasks: Tasks
  readonly #byId = new Map<string, Schedule>()
  readonly #declared = new Set<string>()
  #revision = 0
  /** The schedules in order; undefined while it has to be found anew. */
  #order: Schedule[] | undefined

  constructor (tasks: Tasks) { this.#tasks = tasks }

  /** The next slot of all; Infinity if there is none. */
  get next (): number { return this.#ordered()[0]?.next ?? Infinity }

  list (now: number, isPaused: boolean, which: WhichSchedules): ScheduleList {
    const schedules = this.#select(which).map(schedule => ({ ...schedule }))
    return { now, isPaused, revision: this.#revision, schedules }
  }

  #select (which: WhichSchedules): Schedule[] {
    const idsOf = (ids: Iterable<string>) => [...ids].flatMap(id => this.#byId.get(id) ?? [])
    if ('ids' in which) return idsOf(which.ids)
    if ('declared' in which) return idsOf(this.#declared)
    return this.#ordered().slice(which.offset, which.offset + which.limit)
  }

  plan (now: number, changes: readonly ScheduleChange[], revision: number | undefined): boolean {
    if (revision !== undefined && revision < this.#revision) return false
    const isFit = ({ id, expects, next = Infinity }: ScheduleChange) => {
      const known = this.#byId.get(id)
      return known?.plan === expects && (next > now || next === known?.next)
    }
    if (!changes.every(isFit)) return false
    for (const change of changes) this.#change(change)
    this.#revision = revision ?? this.#revision
    this.#order = undefined
    return true
  }

  #change ({ id, plan, next, paused, declared }: ScheduleChange): void {
    if (plan === undefined || declared === false) this.#declared.delete(id)
    else if (declared === true) this.#declared.add(id)
    if (plan === undefined) {
      this.#byId.delete(id)
      return
    }
    const known = this.#byId.get(id) ?? { id, plan, paused: false, skipped: 0, missed: 0 }
    const isPaused = paused ?? known.paused
    this.#byId.set(id, { ...known, plan, paused: isPaused, next: isPaused ? undefined : next })
  }

  tick (now: number, { id, slot, next, missed, task, overlap }: Tick, keep: Keep): TickResult {
    const schedule = this.#byId.get(id)
    if (schedule === undefined || (slot !== undefined && schedule.next !== slot)) return 'over'
    schedule.missed += missed
    let result: TickResult = 'missed'
    if (task !== undefined) {
      const isFree = this.#makeWay(schedule.last?.taskId, overlap, keep) && !this.#tasks.isTaken(task.id)
      result = isFree ? 'added' : 'skipped'
      if (isFree) {
        this.#tasks.add(task)
        schedule.last = { taskId: task.id, at: now }
      } else if (slot !== undefined) {
        schedule.skipped++
      }
    }
    if (slot !== undefined) schedule.next = next
    this.#order = undefined
    return result
  }

  /** Makes way for the next task of a schedule. Returns whether it may be added. */
  #makeWay (taskId: string | undefined, overlap: Overlap, keep: Keep): boolean {
    if (overlap === 'allow' || taskId === undefined || !this.#tasks.isLiving(taskId)) return true
    if (overlap === 'skip' && !this.#tasks.isPutOff(taskId)) return false
    this.#tasks.cancel(taskId, keep)
    return true
  }

  #ordered (): Schedule[] {
    this.#order ??= [...this.#byId.values()].sort((a, b) =>
      (a.next ?? Infinity) - (b.next ?? Infinity) || Number(a.id > b.id) - Number(a.id < b.id))
    return this.#order
  }
}
