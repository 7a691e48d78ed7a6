import { CANCELLED_MS } from '../heartbeat.js'
import type { Order } from '../order.js'
import type { NewTask, Priority } from '../tasks.js'
import type { Held, Keep } from '../turn.js'
import type { Listeners } from './listeners.js'
import type { Places } from './places.js'
import { pardon } from './task.js'
import type { Timetable } from './timetable.js'

/** Carries out the orders that one queue is given. */
export class Orders {
  readonly #places: Places
  readonly #listeners: Listeners
  readonly #revoked: Timetable
  readonly #keep: (keep: Keep) => void

  /**
   * @param revoked leases that were lost by a cancellation, by the time until which the queue remembers it
   * @param keep has the queue forget tasks that have ended and are too many
   */
  constructor (places: Places, listeners: Listeners, revoked: Timetable, keep: (keep: Keep) => void) {
    this.#places = places
    this.#listeners = listeners
    this.#revoked = revoked
    this.#keep = keep
  }

  /** Carries out an order, and returns how many tasks it has changed. The queue itself pauses and resumes. */
  carryOut (order: Order): number {
    switch (order.kind) {
      case 'cancel': return this.#cancel(order.ids, order.keep)
      case 'reschedule': return this.#reschedule(order.ids, order)
      case 'redrive': return this.#redrive(order.ids)
      case 'remove': return this.#remove(order.ids)
      case 'purge': return this.#purge()
      case 'pause': return 0
      case 'resume': break
      case 'limit':
        this.#places.lanes.limit(order.limits)
        break
      case 'limitKey':
        this.#places.lanes.limitKey(order.key, order.limits)
        break
      case 'rest':
        this.#places.lanes.rest(order.key ?? '', order.ms)
        break
      case 'prioritize': return this.#prioritize(order.ids, order.priority)
    }
    this.#listeners.wake()
    return 0
  }

  #prioritize (ids: readonly string[], priority: Priority): number {
    const { lanes } = this.#places
    const tasks = this.#places.select(ids, 'waiting', 'delayed', 'running')
    for (const task of tasks) {
      if (task.priority === priority) continue
      const isInLine = task.place !== undefined && !task.suspect
      if (isInLine) lanes.delete(task)
      lanes.regrade(task, priority)
      if (isInLine) lanes.push(task)
    }
    if (tasks.length > 0) this.#listeners.wake()
    return tasks.length
  }

  #cancel (ids: readonly string[], keep: Keep): number {
    const tasks = this.#places.select(ids, 'waiting', 'delayed', 'running')
    for (const task of tasks) {
      if (task.state === 'running') {
        this.#revoked.set(leaseName(task), this.#places.clock.now + CANCELLED_MS)
        this.#listeners.tell({ kind: 'change' })
      }
      this.#places.end(task, 'cancelled')
      this.#listeners.tellEnd(task.id)
    }
    this.#keep(keep)
    return tasks.length
  }

  #reschedule (ids: readonly string[], when: Pick<NewTask, 'delayMs' | 'runAt'>): number {
    const { lanes, delayed } = this.#places
    // Suspects wait to run alone, not for a time.
    const tasks = this.#places.select(ids, 'waiting', 'delayed').filter(({ suspect }) => !suspect)
    for (const task of tasks) {
      Object.assign(task, this.#places.clock.dueOf(when.delayMs, when.runAt))
      const isLate = task.due > this.#places.clock.now
      // A waiting task that is due at once keeps its place in line.
      if (!isLate && task.state === 'waiting') continue
      if (task.state === 'waiting') lanes.delete(task)
      delayed.delete(task.id)
      if (isLate) this.#places.delay(task)
      else this.#places.push(task)
    }
    if (tasks.length > 0) this.#listeners.wake()
    return tasks.length
  }

  #redrive (ids: readonly string[] = this.#places.dead.ids()): number {
    const tasks = this.#places.select(ids, 'dead')
    for (const task of tasks) {
      this.#places.dead.delete(task.id)
      pardon(task)
      this.#places.push(task)
    }
    if (tasks.length > 0) this.#listeners.wake()
    return tasks.length
  }

  #remove (ids: readonly string[] = this.#places.dead.ids()): number {
    const tasks = this.#places.select(ids, 'dead')
    for (const { id } of tasks) this.#places.forget(id)
    return tasks.length
  }

  #purge (): number {
    const { lanes, suspects, delayed } = this.#places
    const ids = [...lanes.tasks(), ...suspects.tasks()].map(({ id }) => id).concat(delayed.ids())
    for (const id of ids) {
      this.#places.forget(id)
      this.#listeners.tellEnd(id)
    }
    return ids.length
  }
}

/** The name under which a lease is revoked. */
export const leaseName = ({ id, fence }: Held): string => `${fence} ${id}`
