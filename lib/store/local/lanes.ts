import type { KeyLimits, KeyView, Limits } from '../limits.js'
import type { Priority } from '../tasks.js'
import type { Clock } from './clock.js'
import { Lane } from './lane.js'
import { Rates } from './rates.js'
import { ReadyKeys } from './ready-keys.js'
import type { StoredTask } from './task.js'
import { Timetable } from './timetable.js'

/** What a queue lets be claimed: how many tasks, and if none, after how long; Infinity if others have to end first. */
export interface Room { readonly allowed: number, readonly inMs: number }

/** The waiting tasks of a queue by their keys, and what bounds them. The lane '' has those without a key. */
export class Lanes {
  readonly #withoutKey = new Lane()
  readonly #lanes = new Map<string, Lane>([['', this.#withoutKey]])
  /** The ids of tasks that have a key or another level than normal. */
  readonly #special = new Set<string>()
  /** The tasks with a key that run or are suspects. */
  readonly #holding = new Map<string, Set<string>>()
  readonly #ready = new ReadyKeys()
  readonly #ownLimits = new Map<string, KeyLimits>()
  /** Keys by the time until which they rest; '' stands for the queue. */
  readonly #resting = new Timetable()
  /** Keys by the time from which on their rate allows a claim. */
  readonly #pacing = new Timetable()
  readonly #rates = new Rates()
  readonly #clock: Clock
  readonly #countAll: () => { readonly running: number, readonly suspects: number }
  #limits: Limits | undefined

  /** @param countAll counts the tasks of the queue that run, and its suspects */
  constructor (clock: Clock, countAll: () => { readonly running: number, readonly suspects: number }) {
    this.#clock = clock
    this.#countAll = countAll
  }

  get size (): number {
    let size = 0
    for (const lane of this.#lanes.values()) size += lane.size
    return size
  }

  get limits (): Limits | undefined { return this.#limits }

  /** For how many milliseconds the queue rests. */
  get restMs (): number { return Math.max(0, Math.ceil(this.#resting.at('') - this.#clock.now)) }

  /** Whether there is more than one line of tasks without limits. */
  get isShared (): boolean {
    return this.#special.size > 0 || this.#withoutKey.isCounting || this.#limits !== undefined ||
      this.#ownLimits.size > 0 || this.#resting.size > 0
  }

  /** Takes note of a task that is in the queue from now on. */
  note (task: StoredTask): void {
    if (task.key === '' && task.priority === 'normal') return
    this.#becomeShared()
    this.#special.add(task.id)
  }

  /** Forgets a task that is in line no longer. */
  forget (task: StoredTask): void {
    if (!this.#special.delete(task.id)) return
    this.#holding.get(task.key)?.delete(task.id)
    this.#refresh(task.key)
  }

  push (task: StoredTask): void { this.#enter(task, lane => { lane.push(task) }) }

  unshift (task: StoredTask): void { this.#enter(task, lane => { lane.unshift(task) }) }

  delete (task: StoredTask): void {
    this.#lanes.get(task.key)?.delete(task)
    this.#refresh(task.key)
  }

  #enter (task: StoredTask, put: (lane: Lane) => void): void {
    let lane = this.#lanes.get(task.key)
    if (lane === undefined) this.#lanes.set(task.key, lane = new Lane())
    put(lane)
    this.#refresh(task.key)
  }

  /** Takes note of a task that runs, or is a suspect. */
  hold (task: StoredTask): void {
    this.#hold(task)
    this.#refresh(task.key)
  }

  #hold ({ key, id }: StoredTask): void {
    if (key === '') return
    const held = this.#holding.get(key)
    if (held === undefined) this.#holding.set(key, new Set([id]))
    else held.add(id)
  }

  /** Takes note of a task that has stopped running. */
  letGo (task: StoredTask): void {
    this.#holding.get(task.key)?.delete(task.id)
    this.#refresh(task.key)
  }

  /** Gives a task another level that is not in line. */
  regrade (task: StoredTask, priority: Priority): void {
    this.#special.delete(task.id)
    task.priority = priority
    this.note(task)
  }

  /** Gives a task that runs, or was running, another lane. */
  rehold (task: StoredTask, { priority, key }: Pick<StoredTask, 'priority' | 'key'>): void {
    const before = task.key
    this.#holding.get(before)?.delete(task.id)
    this.#special.delete(task.id)
    task.priority = priority
    task.key = key
    this.note(task)
    this.#hold(task)
    this.#refresh(before)
    this.#refresh(key)
  }

  /** Removes the tasks that may be claimed now, one after the other, at most as many as the limit, and begins each. */
  take (limit: number, ahead: number, isShared: boolean, begin: (task: StoredTask) => void): void {
    const count = isShared ? limit - ahead : limit
    if (!this.isShared) return this.#withoutKey.take(count).forEach(begin)
    const most = Math.min(count, this.room(false).allowed)
    for (let taken = 0; taken < most; taken++) {
      const key = this.#firstKey()
      if (key === undefined) break
      const task = this.#lanes.get(key)!.takeOne()!
      begin(task)
      if (key !== '') this.spend(key)
      this.hold(task)
    }
  }

  /** Takes back what an attempt has cost at the rates of its queue and its key, since the app has not seen the task. */
  refund ({ key }: StoredTask): void {
    this.spend('', -1)
    if (key === '') return
    this.spend(key, -1)
    this.#refresh(key)
  }

  /** Counts an attempt at a task of a key; '' stands for the queue. */
  spend (key: string, count = 1): void {
    const rate = key === '' ? this.#limits?.rate : this.#rateOf(key)
    this.#rates.spend(key, rate, count, this.#clock.now)
  }

  room (isAlone: boolean): Room {
    const now = this.#clock.now
    const { running: most = Infinity, rate } = this.#limits ?? {}
    const { due, allowed } = this.#rates.next('', rate, now)
    const { running, suspects } = this.#countAll()
    const free = most - running - (isAlone ? 0 : suspects)
    if (free <= 0) return { allowed: 0, inMs: Infinity }
    const rest = this.#resting.at('')
    return { allowed: rest > now ? 0 : Math.min(free, allowed), inMs: Math.max(0, Math.max(rest, due) - now) }
  }

  /** In how many milliseconds something that waits may be claimed; Infinity if nothing is known to come. */
  get claimableInMs (): number {
    const isAlone = this.#countAll().suspects > 0
    if (!this.isShared) return isAlone || this.#withoutKey.size > 0 ? 0 : Infinity
    const { inMs } = this.room(isAlone)
    if (isAlone || this.#firstKey() !== undefined) return inMs
    const rests = this.#resting.ids().slice(0, 2).filter(key => key !== '').map(key => this.#resting.at(key))
    return Math.max(inMs, Math.min(this.#pacing.first, ...rests) - this.#clock.now)
  }

  endRests (): void {
    const now = this.#clock.now
    for (const key of [...takeInOrder(this.#pacing, now), ...takeInOrder(this.#resting, now)]) this.#refresh(key)
    this.#rates.sweep(now)
  }

  /** Has a key rest; '' stands for the queue. */
  rest (key: string, ms: number): void {
    this.#becomeShared()
    if (ms > 0) this.#resting.set(key, this.#clock.now + ms)
    else this.#resting.delete(key)
    this.#refresh(key)
  }

  /**
   * Has the key of a task rest, or if it has none the queue, if that has limits: no shorter than it does already.
   * Returns whether either does.
   */
  restAtLeast ({ key }: StoredTask, ms: number): boolean {
    if (key === '' && this.#limits === undefined) return false
    this.#resting.setAtLeast(key, this.#clock.now + ms)
    this.#refresh(key)
    return true
  }

  limit (limits: Limits): void {
    this.#becomeShared()
    this.#limits = Object.keys(limits).length === 0 ? undefined : limits
    this.#refreshAll()
  }

  limitKey (key: string, limits: KeyLimits | undefined): void {
    this.#becomeShared()
    if (limits === undefined) this.#ownLimits.delete(key)
    else this.#ownLimits.set(key, limits)
    this.#refreshAll()
    this.#refresh(key)
  }

  /** Returns the keys behind one of which tasks wait or run. */
  keys (after: string, limit: number): KeyView[] {
    const now = this.#clock.now
    const waiting = [...this.#lanes].filter(([, { size }]) => size > 0).map(([key]) => key)
    const running = [...this.#holding].filter(([, { size }]) => size > 0).map(([key]) => key)
    return [...new Set([...waiting, ...running])].filter(key => key > after).sort().slice(0, limit).map(key => {
      const limits = this.#ownLimits.get(key)
      const until = Math.max(this.#resting.at(key), this.#pacing.at(key))
      return {
        key,
        waiting: this.#lanes.get(key)?.size ?? 0,
        running: this.#holding.get(key)?.size ?? 0,
        restMs: Math.max(0, Math.ceil(until - now)),
        ...limits !== undefined && { limits }
      }
    })
  }

  /** The waiting tasks: those without a key, then those of each key, in the order of the keys. */
  * tasks (): Iterable<StoredTask> {
    for (const key of [...this.#lanes.keys()].sort()) yield * this.#lanes.get(key)!.tasks()
  }

  /** The task that would be claimed first. */
  get first (): StoredTask | undefined {
    const [first] = this.#lanes.get(this.#ready.first?.key ?? '')?.tasks() ?? []
    if (first !== undefined) return first
    const [any] = this.tasks()
    return any
  }

  #becomeShared (): void {
    if (!this.isShared) this.#refresh('', true)
  }

  #refreshAll (): void {
    const keys = [...takeInOrder(this.#pacing, Infinity), '', ...this.#ownLimits.keys()]
    for (const key of keys) this.#refresh(key)
  }

  /**
   * Puts a lane in line behind the others of its class, unless it is there already. The class is the number of its
   * tasks that run.
   */
  #refresh (key: string, willBeShared = this.isShared): void {
    if (!willBeShared && !this.#ready.has(key)) return
    const lane = this.#lanes.get(key)
    if (lane?.size === 0 && key !== '') this.#lanes.delete(key)
    if (this.#holding.get(key)?.size === 0) this.#holding.delete(key)
    this.#ready.set(key, lane === undefined || lane.size === 0 ? undefined : this.#classOf(key))
  }

  /**
   * Returns the class of a lane; undefined if nothing of it may be claimed. A lane without limits of its own stays in
   * its class when that is too high for the limits of each key, since those may change. One with more room of its own
   * is put among those that have room.
   */
  #classOf (key: string): number | undefined {
    const now = this.#clock.now
    const common = this.#limits?.perKey ?? {}
    const own = key === '' ? {} : this.#ownLimits.get(key)
    if (key !== '') {
      if (this.#resting.at(key) > now) return undefined
      const { due } = this.#rates.next(key, this.#rateOf(key), now)
      if (due > now) {
        this.#pacing.set(key, due)
        return undefined
      }
    }
    const running = this.#countRunning(key)
    if (own === undefined) return running
    if (own.running !== undefined && running >= own.running) return undefined
    return common.running === undefined ? running : Math.min(running, common.running - 1)
  }

  #countRunning (key: string): number {
    if (key !== '') return this.#holding.get(key)?.size ?? 0
    const { running, suspects } = this.#countAll()
    let held = 0
    for (const { size } of this.#holding.values()) held += size
    return running + suspects - held
  }

  #rateOf (key: string) { return (this.#ownLimits.get(key) ?? this.#limits?.perKey)?.rate }

  /** Returns the first lane that may be claimed from. */
  #firstKey (): string | undefined {
    const { first } = this.#ready
    const { running: most = Infinity } = this.#limits?.perKey ?? {}
    return first !== undefined && first.place < most ? first.key : undefined
  }
}

/** Removes the keys up to a time, and returns them in the order of their times, and those of one time in their own. */
function takeInOrder (keys: Timetable, until: number): string[] {
  const timed = keys.ids().slice(0, keys.countUpTo(until)).map(key => ({ key, at: keys.at(key) }))
  keys.takeUpTo(until)
  return timed.sort((a, b) => a.at - b.at || (a.key < b.key ? -1 : 1)).map(({ key }) => key)
}
