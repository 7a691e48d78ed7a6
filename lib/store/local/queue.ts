import type { Found, History, QueueView, State } from '../found.js'
import { CANCELLED_MS } from '../heartbeat.js'
import type { Order } from '../order.js'
import type { NewTask } from '../tasks.js'
import type { Claim, Held, Keep, Lease, Outlook, Settlement, Verdict } from '../turn.js'
import { dueOf, LeaseClock } from './clock.js'
import { Consumers } from './consumers.js'
import { Minutes } from './history.js'
import { Listeners } from './listeners.js'
import { Places } from './places.js'
import { addRecord, isUncounted, makeSuspect, newTask, pardon, show, showWhole, type StoredTask } from './task.js'
import { Timetable } from './timetable.js'

/** The most dead letters that one turn drops. */
const MOST_DROPPED = 1000

/** One queue: adds, claims and settles its tasks, and carries out orders. */
export class LocalQueue {
  readonly clock = new LeaseClock()
  readonly consumers = new Consumers()
  readonly listeners = new Listeners()
  readonly #name: string
  readonly #done = new Minutes()
  readonly #failed = new Minutes()
  readonly #places = new Places()
  /** Ids of done tasks that still keep other tasks out, by the time until which they do. */
  readonly #recent = new Timetable()
  /** Leases that were lost by a cancellation, by the time until which the queue remembers it. */
  readonly #revoked = new Timetable()
  #paused = false
  #keep: Keep = { count: Infinity, ms: Infinity }
  #lastFence = 0

  constructor (name: string) {
    this.#name = name
  }

  keepsOut ({ id, onDuplicate }: NewTask): boolean {
    if (onDuplicate === 'replace') return false
    return this.isTaken(id) || (onDuplicate !== undefined && this.#recent.at(id) > performance.now())
  }

  /** Whether a task of this id waits, is delayed, runs or is dead. A task that the next claim lets expire is none. */
  isTaken (id: string): boolean {
    const { tasks, ended, expiring } = this.#places
    return tasks.has(id) && !ended.has(id) && !(expiring.has(id) && expiring.at(id) <= performance.now())
  }

  /** Adds a task. It takes the place of another task of its id, or follows that one if it runs. */
  add (task: NewTask): void {
    const added = newTask(task)
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
    const settled = settlements.map(({ lease, verdict, record, dedupeMs = 0 }) => {
      if (!this.#holds(lease)) return false
      const task = this.#places.tasks.get(lease.id)!
      this.#places.running.delete(lease.id)
      if (record !== undefined) addRecord(task, record)
      if (isUncounted(verdict)) task.attempt--
      else task.expires = Infinity
      if (task.next !== undefined) this.#follow(task, task.next)
      else if (verdict.kind === 'release') released.push(task)
      else this.#carryOut(task, verdict, dedupeMs)
      return true
    })
    // A turn gives back all its tasks at once, so that the first of them becomes the foremost.
    this.#giveBack(released)
    return settled
  }

  #carryOut (task: StoredTask, verdict: Exclude<Verdict, { kind: 'release' }>, dedupeMs: number): void {
    switch (verdict.kind) {
      case 'done':
        this.#done.count()
        if (dedupeMs > 0) this.#recent.setAtLeast(task.id, performance.now() + dedupeMs)
        this.#end(task, 'done')
        break
      case 'retry':
        this.#failed.count()
        task.retries++
        this.#delay(task, verdict)
        break
      case 'defer':
        task.deferredMs += verdict.delayMs
        this.#delay(task, verdict)
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
    Object.assign(task, dueOf(verdict.delayMs))
    this.#places.delay(task)
  }

  /** Adds the task that replaces another one whose attempt has ended, and numbers its attempts from there on. */
  #follow ({ fence, attempt, records }: StoredTask, next: StoredTask): void {
    this.#places.add(Object.assign(next, { fence, attempt, records }))
    this.listeners.wake()
  }

  #giveBack (tasks: readonly StoredTask[]): void {
    this.#places.giveBack(tasks)
    if (tasks.length > 0) this.listeners.wake()
  }

  claim ({ limit, alone, leaseMs }: Claim): Lease[] {
    this.#sweep()
    if (this.#paused) return []
    const { waiting, suspects, running, expiring } = this.#places
    const startedAt = Date.now()
    const claimed = alone ? suspects.take(1) : waiting.take(limit)
    return claimed.map(task => {
      const { id } = task
      task.state = 'running'
      task.fence = ++this.#lastFence
      task.attempt++
      task.startedAt = startedAt
      task.consumer = undefined
      expiring.delete(id)
      running.set(id, this.clock.now + leaseMs)
      const { message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect } = task
      return { id, message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect }
    })
  }

  /** Does what time demands, in the order that `Store` prescribes. */
  #sweep (): void {
    const now = performance.now()
    const { tasks, running, expiring, delayed } = this.#places
    const abandoned = running.takeUpTo(this.clock.now).map(id => tasks.get(id)!)
    for (const task of abandoned) makeSuspect(task)
    this.#giveBack(abandoned)
    for (const id of expiring.takeUpTo(now)) this.#end(tasks.get(id)!, 'expired')
    for (const id of delayed.takeUpTo(now)) this.#places.push(tasks.get(id)!)
    this.#recent.takeUpTo(now)
    this.#revoked.takeUpTo(now)
  }

  extend (lease: Held, leaseMs: number, consumer: string): boolean {
    if (!this.#holds(lease)) return false
    this.#places.tasks.get(lease.id)!.consumer = consumer
    this.#places.running.setAtLeast(lease.id, this.clock.now + leaseMs)
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
    return this.#revoked.at(leaseName(lease)) > performance.now()
  }

  get outlook (): Outlook {
    if (this.#paused) return { wakeInMs: Infinity, suspects: false }
    const { waiting, suspects, delayed, running } = this.#places
    const hasSuspects = suspects.size > 0
    if (hasSuspects || waiting.size > 0) return { wakeInMs: 0, suspects: hasSuspects }
    const delayedMs = delayed.first - performance.now()
    const leasedMs = running.first - this.clock.now
    return { wakeInMs: Math.max(0, Math.min(delayedMs, leasedMs)), suspects: hasSuspects }
  }

  get history (): History {
    return { done: this.#done.counts, failed: this.#failed.counts }
  }

  view (): QueueView {
    return { ...this.#places.counts(), paused: this.#paused, first: this.list('waiting', 0, 1)[0] }
  }

  find (id: string): Found | undefined {
    this.trim()
    const task = this.#places.tasks.get(id)
    return task && showWhole(this.#name, task)
  }

  list (state: State, offset: number, limit: number): Found[] {
    this.trim()
    const found: Found[] = []
    let index = 0
    for (const id of this.#places.idsOf(state)) {
      if (index >= offset + limit) break
      if (index++ >= offset) found.push(show(this.#name, this.#places.tasks.get(id)!))
    }
    return found
  }

  /** Carries out an order, and returns how many tasks it has changed. */
  operate (order: Order): number {
    switch (order.kind) {
      case 'cancel': return this.#cancel(order.ids, order.keep)
      case 'schedule': return this.#schedule(order.ids, order)
      case 'redrive': return this.#redrive(order.ids)
      case 'remove': return this.#remove(order.ids)
      case 'purge': return this.#purge()
      case 'pause':
        this.#paused = true
        return 0
      case 'resume':
        this.#paused = false
        this.listeners.wake()
        return 0
    }
  }

  #cancel (ids: readonly string[], keep: Keep): number {
    const tasks = this.#places.select(ids, 'waiting', 'delayed', 'running')
    for (const task of tasks) {
      if (task.state === 'running') {
        this.#revoked.set(leaseName(task), performance.now() + CANCELLED_MS)
        this.listeners.tell({ kind: 'change' })
      }
      this.#end(task, 'cancelled')
    }
    this.keep(keep)
    return tasks.length
  }

  #schedule (ids: readonly string[], when: Pick<NewTask, 'delayMs' | 'runAt'>): number {
    const { waiting, delayed } = this.#places
    // Suspects wait to run alone, not for a time.
    const tasks = this.#places.select(ids, 'waiting', 'delayed').filter(({ suspect }) => !suspect)
    for (const task of tasks) {
      Object.assign(task, dueOf(when.delayMs, when.runAt))
      const isLate = task.due > performance.now()
      // A waiting task that is due at once keeps its place in line.
      if (!isLate && task.state === 'waiting') continue
      waiting.delete(task)
      delayed.delete(task.id)
      if (isLate) this.#places.delay(task)
      else this.#places.push(task)
    }
    if (tasks.length > 0) this.listeners.wake()
    return tasks.length
  }

  #redrive (ids: readonly string[] = this.#places.dead.ids()): number {
    const tasks = this.#places.select(ids, 'dead')
    for (const task of tasks) {
      this.#places.dead.delete(task.id)
      pardon(task)
      this.#places.push(task)
    }
    if (tasks.length > 0) this.listeners.wake()
    return tasks.length
  }

  #remove (ids: readonly string[] = this.#places.dead.ids()): number {
    const tasks = this.#places.select(ids, 'dead')
    for (const { id } of tasks) this.#places.forget(id)
    return tasks.length
  }

  #purge (): number {
    const { waiting, suspects, delayed } = this.#places
    const lined = [...waiting.take(Infinity), ...suspects.take(Infinity)]
    const ids = [...lined.map(({ id }) => id), ...delayed.takeUpTo(Infinity)]
    for (const id of ids) {
      this.#places.forget(id)
      this.listeners.tellEnd(id)
    }
    return ids.length
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
    const old = ended.takeUpTo(performance.now() - ms)
    for (const id of [...old, ...ended.take(ended.size - count)]) this.#places.forget(id)
  }

  /** Forgets dead letters that are too old or too many, the oldest first, and returns how many it has forgotten. */
  dropDead ({ count, ms }: Keep): number {
    const { dead } = this.#places
    const surplus = Math.max(dead.size - count, dead.countUpTo(performance.now() - ms))
    const ids = dead.take(Math.min(surplus, MOST_DROPPED))
    for (const id of ids) this.#places.forget(id)
    return ids.length
  }
}

/** The name under which a lease is revoked. */
const leaseName = ({ id, fence }: Held) => `${fence} ${id}`
