import type { Counts, State } from '../found.js'
import type { Clock } from './clock.js'
import { Lanes } from './lanes.js'
import { Line } from './line.js'
import type { StoredTask } from './task.js'
import { Timetable } from './timetable.js'

/** The tasks of one queue, each in exactly one place. A task that waits or is delayed may be in `expiring` as well. */
export class Places {
  readonly clock: Clock
  readonly tasks = new Map<string, StoredTask>()
  readonly suspects = new Line<StoredTask>()
  readonly delayed = new Timetable()
  /** Running tasks, by the end of their lease on the lease clock. */
  readonly running = new Timetable()
  readonly lanes: Lanes
  readonly dead = new Timetable()
  /** Tasks that are done, cancelled or expired. */
  readonly ended = new Timetable()
  readonly expiring = new Timetable()

  constructor (clock: Clock) {
    this.clock = clock
    this.lanes = new Lanes(clock, () => ({ running: this.running.size, suspects: this.suspects.size }))
  }

  add (task: StoredTask): void {
    this.tasks.set(task.id, task)
    this.lanes.note(task)
    this.watchExpiry(task)
    if (task.due > 0 && task.due > this.clock.now) this.delay(task)
    else this.push(task)
  }

  push (task: StoredTask): void {
    task.state = 'waiting'
    this.lanes.push(task)
  }

  delay (task: StoredTask): void {
    task.state = 'delayed'
    this.delayed.set(task.id, task.due)
  }

  /** Lets a task expire in the place where it is, unless it never expires. */
  watchExpiry ({ id, expires }: StoredTask): void {
    if (expires < Infinity) this.expiring.set(id, expires)
  }

  /** Whether a task waits for a time after an attempt. */
  isPutOff (id: string): boolean {
    const task = this.tasks.get(id)
    return task?.state === 'delayed' && task.due > this.clock.now && task.attempt + task.deferredMs > 0
  }

  /** Puts tasks at the front of the line, the first of them foremost. */
  giveBack (tasks: readonly StoredTask[]): void {
    for (const task of tasks.toReversed()) {
      task.state = 'waiting'
      this.watchExpiry(task)
      if (task.suspect) {
        this.suspects.unshift(task)
        this.lanes.hold(task)
      } else {
        this.lanes.unshift(task)
      }
    }
  }

  /** Puts suspects at the front, the first of them foremost. They count as running, as they did before. */
  suspect (tasks: readonly StoredTask[]): void {
    for (const task of tasks.toReversed()) {
      task.state = 'waiting'
      this.suspects.unshift(task)
    }
  }

  /** The task that would be claimed first. */
  get first (): StoredTask | undefined {
    const [suspect] = this.suspects.tasks()
    const first = suspect ?? this.lanes.first
    if (first !== undefined) return first
    return this.delayed.first <= this.clock.now ? this.tasks.get(this.delayed.ids()[0]!) : undefined
  }

  end (task: StoredTask, state: 'done' | 'dead' | 'cancelled' | 'expired'): void {
    this.#takeOut(task)
    task.state = state
    task.endedAt = this.clock.timeOfDay
    task.progress = undefined
    task.next = undefined
    if (state === 'done') {
      task.message = ''
      task.reason = undefined
    }
    if (state !== 'dead') this.lanes.forget(task)
    const place = state === 'dead' ? this.dead : this.ended
    place.set(task.id, this.clock.now)
  }

  forget (id: string): void {
    const task = this.tasks.get(id)
    if (task === undefined) return
    this.tasks.delete(id)
    this.#takeOut(task)
    this.lanes.forget(task)
  }

  /** Returns the tasks of these ids that are in one of these states, each once. */
  select (ids: readonly string[], ...states: readonly State[]): StoredTask[] {
    return [...new Set(ids)].flatMap(id => {
      const task = this.tasks.get(id)
      return task !== undefined && states.includes(task.state) ? task : []
    })
  }

  counts (): Counts {
    const due = this.delayed.countUpTo(this.clock.now)
    return {
      waiting: this.lanes.size + this.suspects.size + due,
      delayed: this.delayed.size - due,
      running: this.running.size,
      dead: this.dead.size
    }
  }

  /** Returns the ids of the tasks that show this state, in the order of `Store.list`. */
  * idsOf (state: State): Iterable<string> {
    switch (state) {
      case 'waiting':
        for (const { id } of this.suspects.tasks()) yield id
        for (const { id } of this.lanes.tasks()) yield id
        yield * this.delayed.ids().slice(0, this.delayed.countUpTo(this.clock.now))
        break
      case 'delayed':
        yield * this.delayed.ids().slice(this.delayed.countUpTo(this.clock.now))
        break
      case 'running':
        yield * this.running.ids()
        break
      case 'dead':
        yield * this.dead.ids().reverse()
        break
      default:
        yield * this.ended.ids().reverse().filter(id => this.tasks.get(id)!.state === state)
    }
  }

  #takeOut (task: StoredTask): void {
    if (task.place === undefined) {
      this.#timetableOf(task).delete(task.id)
      if (task.state === 'running') this.lanes.letGo(task)
    } else if (task.suspect) {
      this.suspects.delete(task)
      this.lanes.letGo(task)
    } else {
      this.lanes.delete(task)
    }
    if (task.expires < Infinity) this.expiring.delete(task.id)
  }

  #timetableOf ({ state }: StoredTask): Timetable {
    switch (state) {
      case 'delayed': return this.delayed
      case 'running': return this.running
      case 'dead': return this.dead
      default: return this.ended
    }
  }
}
