import type { Found, History, QueueView, State } from '../found.js'
import type { KeyView } from '../limits.js'
import type { Order } from '../order.js'
import type { NewTask } from '../tasks.js'
import type { Claim, Held, Keep, Lease, Outlook, Settlement, Verdict } from '../turn.js'
import { type Clock, LeaseClock } from './clock.js'
import { Consumers } from './consumers.js'
import { Minutes } from './history.js'
import { Listeners } from './listeners.js'
import { leaseName, Orders } from './orders.js'
import { Places } from './places.js'
import { Schedules } from './schedules.js'
import { addRecord, isUncounted, makeSuspect, newTask, show, showWhole, type StoredTask } from './task.js'
import { Timetable } from './timetable.js'

/** The most dead letters that one turn drops. */
const MOST_DROPPED = 1000

/** One queue: adds, claims and settles its tasks, and carries out orders. */
export class LocalQueue {
  readonly leaseClock = new LeaseClock()
  readonly consumers = new Consumers()
  readonly listeners = new Listeners()
  readonly schedules = new Schedules({
    add: task => {
      this.add(task)
      this.listeners.wake()
    },
    isTaken: id => this.isTaken(id),
    isLiving: id => this.isTaken(id) && this.#places.tasks.get(id)!.state !== 'dead',
    isPutOff: id => this.#places.isPutOff(id),
    cancel: (id, keep) => { this.operate({ kind: 'cancel', ids: [id], keep }) }
  })

  readonly #name: string
  readonly #clock: Clock
  readonly #done = new Minutes()
  readonly #failed = new Minutes()
  readonly #places: Places
  /** Ids of done tasks that still keep other tasks out, by the time until which they do. */
  readonly #recent = new Timetable()
  /** Leases that were lost by a cancellation, by the time until which the queue remembers it. */
  readonly #revoked = new Timetable()
  readonly #orders: Orders
  #paused = false
  #keep: Keep = { count: Infinity, ms: Infinity }
  #lastFence = 0

  constructor (name: string, clock: Clock) {
    this.#name = name
    this.#clock = clock
    this.#places = new Places(clock)
    this.#orders = new Orders(this.#places, this.listeners, this.#revoked, keep => { this.keep(keep) })
  }

  keepsOut ({ id, onDuplicate }: NewTask): boolean {
    if (onDuplicate === 'replace') return false
    return this.isTaken(id) || (onDuplicate !== undefined && this.#recent.at(id) > this.#clock.now)
  }

  /** Whether a task of this id waits, is delayed, runs or is dead. A task that the next claim lets expire is none. */
  isTaken (id: string): boolean {
    const { tasks, ended, expiring } = this.#places
    return tasks.has(id) && !ended.has(id) && !(expiring.has(id) && expiring.at(id) <= this.#clock.now)
  }

  /** Adds a task. It takes the place of another task of its id, or follows that one if it runs. */
  add (task: NewTask): void {
    const added = newTask(this.#clock, task)
    const known = this.#places.tasks.get(task.id)
    if (known?.state === 'running') {
      known.next = added
    } else {
      if (known !== undefined) this.#places.forget(task.id)
      this.#places.add(added)
    }
  }

  settle (settlements: readonly Settlement[]): boolean[] {
    const released: StoredTask[] = []
    const replaced: StoredTask[] = []
    const settled = settlements.map(({ lease, verdict, record, dedupeMs = 0 }) => {
      if (!this.#holds(lease)) return false
      const task = this.#places.tasks.get(lease.id)!
      this.#places.running.delete(lease.id)
      this.#places.lanes.letGo(task)
      if (record !== undefined) addRecord(task, record)
      if (verdict.kind === 'release' && verdict.unseen === true) this.#places.lanes.refund(task)
      if (isUncounted(verdict)) task.attempt--
      else task.expires = Infinity
      const isBusy = verdict.kind === 'defer' && verdict.busy === true
      const rests = isBusy && this.#places.lanes.restAtLeast(task, verdict.delayMs)
      if (task.next !== undefined) replaced.push(task)
      else if (verdict.kind === 'release') released.push(task)
      else if (rests) released.push(deferred(task, verdict))
      else this.#carryOut(task, verdict, dedupeMs)
      return true
    })
    for (const task of replaced) this.#follow(task, task.next!)
    // A turn gives back all its tasks at once, so that the first of them becomes the foremost.
    this.#giveBack(released)
    return settled
  }

  #carryOut (task: StoredTask, verdict: Exclude<Verdict, { kind: 'release' }>, dedupeMs: number): void {
    switch (verdict.kind) {
      case 'done':
        this.#done.count()
        if (dedupeMs > 0) this.#recent.setAtLeast(task.id, this.#clock.now + dedupeMs)
        this.#end(task, 'done')
        break
      case 'retry':
        this.#failed.count()
        task.retries++
        this.#delay(task, verdict)
        break
      case 'defer':
        this.#delay(deferred(task, verdict), verdict)
        if (verdict.unrouted !== true) break
        task.unroutedMs += verdict.delayMs
        this.#places.watchExpiry(task)
        this.listeners.wake()
        break
      case 'dead':
        this.#failed.count()
        task.reason = verdict.reason
        this.#end(task, 'dead')
    }
  }

  #delay (task: StoredTask, verdict: Verdict & { kind: 'retry' | 'defer' }): void {
    task.suspect = false
    task.reason = verdict.reason
    Object.assign(task, this.#clock.dueOf(verdict.delayMs))
    this.#places.delay(task)
  }

  /** Adds the task that replaces another one whose attempt has ended, and numbers its attempts from there on. */
  #follow ({ fence, attempt, records }: StoredTask, next: StoredTask): void {
    this.#places.forget(next.id)
    this.#places.add(Object.assign(next, { fence, attempt, records }))
    this.listeners.wake()
  }

  #giveBack (tasks: readonly StoredTask[]): void {
    this.#places.giveBack(tasks)
    if (tasks.length > 0) this.listeners.wake()
  }

  /** @param isShared whether the queue has lanes or limits before time does what it demands */
  claim ({ limit, ahead = 0, alone, leaseMs }: Claim, isShared: boolean): Lease[] {
    this.#sweep()
    if (this.#paused) return []
    const { lanes, suspects, running, expiring } = this.#places
    const startedAt = this.#clock.timeOfDay
    const leases: Lease[] = []
    const begin = (task: StoredTask) => {
      const { id } = task
      task.state = 'running'
      task.fence = ++this.#lastFence
      task.attempt++
      task.startedAt = startedAt
      task.consumer = undefined
      expiring.delete(id)
      running.set(id, this.leaseClock.now + leaseMs)
      const { message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect } = task
      leases.push({ id, message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect })
    }
    if (!alone) lanes.take(limit, ahead, isShared, begin)
    else if (lanes.room(true).allowed > 0) {
      for (const task of suspects.take(1)) {
        begin(task)
        // What has died may not wait for its key, since all others wait for it.
        if (task.key !== '') lanes.spend(task.key)
        lanes.hold(task)
      }
    }
    lanes.spend('', leases.length)
    return leases
  }

  /** Does what time demands, in the order that `Store` prescribes. */
  #sweep (): void {
    const now = this.#clock.now
    const { tasks, running, expiring, delayed } = this.#places
    const abandoned = running.ids().slice(0, running.countUpTo(this.leaseClock.now)).map(id => tasks.get(id)!)
    for (const task of abandoned) {
      if (task.next !== undefined) this.#places.lanes.rehold(task, task.next)
      makeSuspect(task)
    }
    running.takeUpTo(this.leaseClock.now)
    this.#places.suspect(abandoned)
    if (abandoned.length > 0) this.listeners.wake()
    for (const id of expiring.takeUpTo(now)) this.#end(tasks.get(id)!, 'expired')
    for (const id of delayed.takeUpTo(now)) this.#places.push(tasks.get(id)!)
    this.#places.lanes.endRests()
    this.#recent.takeUpTo(now)
    this.#revoked.takeUpTo(now)
  }

  extend (lease: Held, leaseMs: number, consumer: string): boolean {
    if (!this.#holds(lease)) return false
    this.#places.tasks.get(lease.id)!.consumer = consumer
    this.#places.running.setAtLeast(lease.id, this.leaseClock.now + leaseMs)
    return true
  }

  setProgress (lease: Held, progress: string): boolean {
    if (!this.#holds(lease)) return false
    this.#places.tasks.get(lease.id)!.progress = progress
    return true
  }

  #holds ({ id, fence }: Held): boolean {
    return this.#places.running.has(id) && this.#places.tasks.get(id)!.fence === fence
  }

  wasRevoked (lease: Held): boolean {
    return this.#revoked.at(leaseName(lease)) > this.#clock.now
  }

  get isPaused (): boolean { return this.#paused }

  get isShared (): boolean { return this.#places.lanes.isShared }

  /** Whether nothing may be claimed at the moment. */
  get isBlocked (): boolean { return this.#paused || this.#places.lanes.claimableInMs > 0 }

  get outlook (): Outlook {
    if (this.#paused) return { wakeInMs: Infinity, suspects: false }
    const slotInMs = this.schedules.next - this.#clock.timeOfDay
    const { lanes, suspects, delayed, running } = this.#places
    const delayedMs = delayed.first - this.#clock.now
    const leasedMs = running.first - this.leaseClock.now
    const wakeInMs = Math.max(0, Math.min(lanes.claimableInMs, delayedMs, leasedMs))
    return { wakeInMs, suspects: suspects.size > 0, ...slotInMs < Infinity && { slotInMs: Math.max(0, slotInMs) } }
  }

  get history (): History {
    return { done: this.#done.counts, failed: this.#failed.counts }
  }

  view (): QueueView {
    this.trim()
    const { first, lanes: { restMs, limits } } = this.#places
    return {
      ...this.#places.counts(),
      paused: this.#paused,
      first: first && show(this.#name, first, this.#clock.now),
      ...restMs > 0 && { restMs },
      ...limits !== undefined && { limits }
    }
  }

  keys (after: string, limit: number): KeyView[] { return this.#places.lanes.keys(after, limit) }

  find (id: string): Found | undefined {
    this.trim()
    const task = this.#places.tasks.get(id)
    return task && showWhole(this.#name, task, this.#clock.now)
  }

  list (state: State, offset: number, limit: number): Found[] {
    this.trim()
    const found: Found[] = []
    let index = 0
    for (const id of this.#places.idsOf(state)) {
      if (index >= offset + limit) break
      if (index++ >= offset) found.push(show(this.#name, this.#places.tasks.get(id)!, this.#clock.now))
    }
    return found
  }

  /** Carries out an order, and returns how many tasks it has changed. */
  operate (order: Order): number {
    if (order.kind === 'pause') this.#paused = true
    if (order.kind === 'resume') this.#paused = false
    return this.#orders.carryOut(order)
  }

  #end (task: StoredTask, state: 'done' | 'dead' | 'cancelled' | 'expired'): void {
    this.#places.end(task, state)
    this.listeners.tellEnd(task.id)
  }

  /** Sets how many of the tasks that are done, cancelled or expired are kept, and forgets the others. */
  keep (keep: Keep): void {
    this.#keep = keep
    this.trim()
  }

  /** Forgets tasks that are done, cancelled or expired and are too old or too many. */
  trim (): void {
    const { count, ms } = this.#keep
    const { ended } = this.#places
    const old = ended.takeUpTo(this.#clock.now - ms)
    for (const id of [...old, ...ended.take(ended.size - count)]) this.#places.forget(id)
  }

  /** Forgets dead letters that are too old or too many, the oldest first, and returns how many it has forgotten. */
  dropDead ({ count, ms }: Keep): number {
    const { dead } = this.#places
    const surplus = Math.max(dead.size - count, dead.countUpTo(this.#clock.now - ms))
    const ids = dead.take(Math.min(surplus, MOST_DROPPED))
    for (const id of ids) this.#places.forget(id)
    return ids.length
  }
}

/** Takes note that a task was deferred. */
function deferred (task: StoredTask, { delayMs, reason }: Verdict & { kind: 'defer' }): StoredTask {
  task.suspect = false
  task.deferredMs += delayMs
  task.reason = reason
  return task
}
