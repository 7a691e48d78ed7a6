import { setImmediate } from 'node:timers/promises'
import { LONGEST_TIMER_MS } from '../check.js'
import type { Publish } from '../observe/events.js'
import type { ScheduleView, Tick, TickResult } from '../store/schedules.js'
import type { Store } from '../store/store.js'
import type { Keep } from '../store/turn.js'
import type { Codec } from '../task/codec.js'
import { readPlan, taskAt, writePlan } from './plan.js'
import { dueAt } from './slots.js'

/** How many schedules to look at in one step. */
const AT_ONCE = 100

/** How many steps in a row may come after those of others before it pauses. */
const MOST_IN_VAIN = 20

/** Of how many schedules that cannot be read it tells. */
const MOST_REMEMBERED = 1000

/** For how long it computes slots before other work goes on, in milliseconds. */
const LONGEST_BLOCK_MS = 10

/** When to look again if the store has failed, or there are schedules that cannot be read, in milliseconds. */
const AGAIN_MS = 5000

/** What a scheduler depends on. */
export interface SchedulerContext {
  readonly store: Store
  readonly codec: Codec
  readonly keep: Keep
  readonly publish: Publish
  /** Called when the scheduler has nothing to do for now. */
  readonly onRest: () => void
}

/**
 * Adds the tasks of a queue's schedules when their slots are over. Every process that consumes the queue has one, and
 * all of them try: the store adds the task of a slot once. So no process has to be the leader, and if one dies between
 * any two steps, another one does the same.
 *
 *     waiting ── the slot is over ──▶ ticking ── nothing is due ──▶ waiting
 *        └────── close ──▶ closed        └── close ──▶ closing ──▶ closed
 */
export class Scheduler {
  readonly #queue: string
  readonly #context: SchedulerContext
  #alarm: NodeJS.Timeout | undefined
  #phase: 'waiting' | 'ticking' | 'closing' | 'closed' = 'waiting'
  /** The time before which it does not look, since it could do nothing. */
  #notBefore = 0
  /** The schedules that cannot be read, and of which it has told. */
  readonly #unreadable = new Map<string, string>()
  #isFailing = false

  constructor (queue: string, context: SchedulerContext) {
    this.#queue = queue
    this.#context = context
  }

  /** Whether it waits for the store at the moment. */
  get isTicking (): boolean { return this.#phase === 'ticking' || this.#phase === 'closing' }

  /** Takes note of when the next slot comes. */
  note (slotInMs: number): void {
    if (this.#phase !== 'waiting') return
    this.rest()
    const ms = Math.max(slotInMs, this.#notBefore - performance.now())
    // A heartbeat tells of it again before a longer time is over.
    if (ms > LONGEST_TIMER_MS) return
    if (ms > 0) this.#alarm = setTimeout(this.#tick, Math.ceil(ms))
    else this.#tick()
  }

  /** Adds nothing until the next note. */
  rest (): void { clearTimeout(this.#alarm) }

  close (): void {
    this.rest()
    this.#phase = this.#phase === 'ticking' ? 'closing' : 'closed'
  }

  readonly #tick = async (): Promise<void> => {
    if (this.#phase !== 'waiting') return
    this.#phase = 'ticking'
    let nextInMs: number
    try {
      nextInMs = await this.#doDue()
      this.#isFailing = false
    } catch (err) {
      nextInMs = this.#pause()
      if (!this.#isFailing) this.#context.publish('schedules:failed', { queue: this.#queue, err })
      this.#isFailing = true
    }
    this.#phase = this.#isClosing() ? 'closed' : 'waiting'
    this.note(nextInMs)
    this.#context.onRest()
  }

  /** Does what the slots demand that are over. Returns in how many milliseconds the next one comes. */
  async #doDue (): Promise<number> {
    const { store, codec, keep } = this.#context
    let unreadable = 0
    let vain = 0
    while (!this.#isClosing()) {
      const { now, isPaused, schedules } = await store.schedules(this.#queue, { offset: unreadable, limit: AT_ONCE })
      // The store wakes this process when the queue is resumed.
      if (isPaused) return Infinity
      const due = schedules.filter(({ next = Infinity }) => next <= now)
      const ticks = await this.#ticksOf(due, now)
      const old = due.filter(({ plan }) => !codec.isCurrent(plan))
      const results = ticks.length > 0 ? await store.tick(this.#queue, ticks, keep) : []
      this.#tell(ticks, results)
      if (old.length > 0) await this.#rewrite(old, ticks, results)
      unreadable += due.length - ticks.length
      // Others have done all of it, or somebody has tampered with the slots.
      vain = ticks.length > 0 && results.every(result => result === 'over') ? vain + 1 : 0
      if (vain > MOST_IN_VAIN) return this.#pause()
      if (due.length > 0) continue
      const nextInMs = (schedules[0]?.next ?? Infinity) - now
      // Until then the store can only tell of those that cannot be read.
      return unreadable > 0 ? this.#pause(nextInMs) : nextInMs
    }
    return Infinity
  }

  /** Looks at nothing for a while, whatever the store tells. Returns for how many milliseconds. */
  #pause (mostMs = Infinity): number {
    const ms = Math.min(mostMs, AGAIN_MS)
    this.#notBefore = performance.now() + ms
    return ms
  }

  /** Says what slots demand that are over. Many that were missed take time, in which other work goes on. */
  async #ticksOf (due: readonly ScheduleView[], now: number): Promise<Tick[]> {
    const ticks: Tick[] = []
    let since = performance.now()
    for (const view of due) {
      const tick = this.#tickOf(view, now)
      if (tick !== undefined) ticks.push(tick)
      if (performance.now() - since < LONGEST_BLOCK_MS) continue
      await setImmediate()
      since = performance.now()
    }
    return ticks
  }

  /** Says what a slot demands that is over; undefined if the schedule cannot be read. */
  #tickOf ({ id, plan: text, next: slot }: ScheduleView, now: number): Tick | undefined {
    const { codec, publish } = this.#context
    try {
      const plan = readPlan(codec, this.#queue, id, text)
      if (plan === undefined) throw new Error('it cannot be read')
      const { slot: served, next, missed } = dueAt(plan, plan.catchUp, slot!, now)
      const { overlap } = plan
      const tick: Tick = { id, slot: slot!, missed, overlap, ...next !== undefined && { next } }
      if (served === undefined) return tick
      return { ...tick, task: taskAt(codec, this.#queue, plan, { slot: served, next, missed }, now) }
    } catch (err) {
      const isNew = this.#unreadable.get(id) !== text
      if (isNew && this.#unreadable.size < MOST_REMEMBERED) {
        this.#unreadable.set(id, text)
        publish('schedule:unreadable', { queue: this.#queue, schedule: id, err })
      }
      return undefined
    }
  }

  /** Writes plans anew that were made with an old secret, so that it is no longer needed after a slot of each. */
  async #rewrite (old: readonly ScheduleView[], ticks: readonly Tick[], results: readonly TickResult[]): Promise<void> {
    const { store, codec } = this.#context
    for (const { id, plan: expects } of old) {
      const index = ticks.findIndex(tick => tick.id === id)
      if (index === -1 || results[index] === 'over') continue
      const plan = writePlan(codec, this.#queue, readPlan(codec, this.#queue, id, expects)!)
      // It fails if somebody else has changed the schedule, or the next slot is over already: the next tick does it.
      await store.plan(this.#queue, [{ id, expects, plan, next: ticks[index]!.next }])
    }
  }

  /** It may be closed while it ticks, which the compiler does not see. */
  #isClosing (): boolean { return this.#phase === 'closing' }

  #tell (ticks: readonly Tick[], results: readonly TickResult[]): void {
    for (const [index, { id, slot, missed, task }] of ticks.entries()) {
      const result = results[index]!
      // Another process has done it.
      if (result === 'over') continue
      const taskId = result === 'added' ? task!.id : undefined
      this.#context.publish('schedule:tick', { queue: this.#queue, schedule: id, slot: slot!, result, missed, taskId })
    }
  }
}
