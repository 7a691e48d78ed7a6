import { isDeepStrictEqual } from 'node:util'
import type { FastifyBaseLogger } from 'fastify'
import { FST_TASKQUEUE_INVALID_SCHEDULE } from '../errors.js'
import { inSteps } from '../in-steps.js'
import type { Queue } from '../queue/queue.js'
import type { Queues } from '../queue/queues.js'
import { reach } from '../queue/reach.js'
import type { Overlap, ScheduleChange, ScheduleView } from '../store/schedules.js'
import type { Codec } from '../task/codec.js'
import { LATEST_TIME_MS } from '../task/time.js'
import type { TaskMethod } from '../task/method.js'
import {
  checkScheduleId, type ComposeTask, type Plan, planOf, readPlan, type ScheduleOptions, taskAt, writePlan
} from './plan.js'
import { type CatchUp, slotAfter, type Timing } from './slots.js'

/** A schedule as it is at the moment. What its plan says is missing if that cannot be read. */
export interface ScheduleStatus {
  readonly id: string
  readonly queue: string
  readonly cron?: string
  /** The time zone of `cron`. */
  readonly tz?: string
  readonly everyMs?: number
  readonly overlap?: Overlap
  readonly catchUp?: CatchUp
  /** The request that its tasks are. */
  readonly method?: TaskMethod
  readonly url?: string
  /** Whether it is declared with the plugin or a route. Otherwise `app.taskqueue.schedule` has made it. */
  readonly declared?: boolean
  /** Its next slot; missing if it has none, or is paused. */
  readonly next?: Date
  /** The last task that it has added, and when. */
  readonly last?: { readonly taskId: string, readonly at: Date }
  readonly paused: boolean
  /** How many slots have added no task since the last task had not ended. */
  readonly skipped: number
  /** How many slots have added no task since no process was there in time; at most 100 are counted at once. */
  readonly missed: number
}

/** How many schedules to read at once, and to change in one step. */
const AT_ONCE = 100

/** How often a change is tried if others change the same schedules. */
const TRIES = 100

/** The schedules of an app. */
export class Schedules {
  readonly #queues: Queues
  readonly #codec: Codec
  readonly #compose: ComposeTask

  constructor (queues: Queues, codec: Codec, compose: ComposeTask) {
    this.#queues = queues
    this.#codec = codec
    this.#compose = compose
  }

  /**
   * Makes the declared schedules what they are declared to be, and, in the queues that this process consumes, removes
   * those that are declared no longer. Those that have not changed are left alone.
   *
   * @param revision changes nothing in a queue that has seen a higher one
   */
  async declare (
    declared: ReadonlyMap<string, ScheduleOptions>, revision: number | undefined, consumed: readonly string[],
    log: FastifyBaseLogger
  ): Promise<void> {
    const plans = [...declared].map(([id, given]) => planOf(id, given, true, this.#compose))
    await Promise.all(this.#queues.all.map(async queue => {
      const own = new Map(plans.filter(plan => plan.queue === queue.name).map(({ plan }) => [plan.task.id, plan]))
      const isConsumed = consumed.includes(queue.name)
      if (own.size === 0 && !isConsumed) return
      const isDone = await this.#again(() => this.#declareIn(queue, own, isConsumed, revision))
      if (isDone === 'outdated') {
        log.warn({ queue: queue.name, scheduleRevision: revision },
          'schedules are left as they are: a process with a higher scheduleRevision has declared them')
      }
    }))
  }

  async #declareIn (
    { name, store }: Queue, plans: ReadonlyMap<string, Plan>, removes: boolean, revision: number | undefined
  ): Promise<'done' | 'outdated' | undefined> {
    const list = await reach(store.schedules(name, { declared: true }))
    if (revision !== undefined && revision < list.revision) return 'outdated'
    const known = new Map(list.schedules.map(view => [view.id, view]))
    // They may be there without being declared.
    for (const ids of inSteps([...plans.keys()].filter(id => !known.has(id)), AT_ONCE)) {
      for (const view of (await reach(store.schedules(name, { ids }))).schedules) known.set(view.id, view)
    }
    const changes = [...plans].flatMap(([id, plan]) => this.#changeOf(name, plan, list.now, known.get(id)) ?? [])
    for (const { id, plan } of removes ? list.schedules : []) if (!plans.has(id)) changes.push({ id, expects: plan })
    // A revision is noted even if nothing else has changed.
    for (const some of changes.length === 0 && revision !== undefined ? [[]] : inSteps(changes, AT_ONCE)) {
      if (!await reach(store.plan(name, some, revision))) return undefined
    }
    return 'done'
  }

  /**
   * Returns the change that gives a schedule its plan; undefined if it has that already.
   * @param moved what the schedule is in a queue that it leaves
   */
  #changeOf (
    queue: string, plan: Plan, now: number, view?: ScheduleView, moved?: FoundSchedule
  ): ScheduleChange | undefined {
    const { task: { id }, declared } = plan
    const text = writePlan(this.#codec, queue, plan)
    const written = readPlan(this.#codec, queue, id, text)!
    const known = view && readPlan(this.#codec, queue, id, view.plan)
    // One that was made with an old secret is written anew.
    if (isDeepStrictEqual(known, written) && this.#codec.isCurrent(view!.plan)) return undefined
    // What is due stays due if only the task has changed.
    const isOnTime = view?.next !== undefined && known !== undefined && isSameTiming(known, written)
    const next = isOnTime ? view.next : slotAfter(written, now)
    return {
      id,
      plan: text,
      declared,
      ...view !== undefined && { expects: view.plan },
      ...view === undefined && moved !== undefined && { paused: moved.view.paused },
      ...next !== undefined && { next }
    }
  }

  /** Makes a schedule, or changes the one of this id. */
  async set (id: string, given: ScheduleOptions): Promise<void> {
    const { queue: name, plan } = planOf(id, given, false, this.#compose)
    const { store } = this.#queues.get(name)
    const before = await this.#find(id)
    if (before.some(({ plan }) => plan?.declared === true)) {
      throw new FST_TASKQUEUE_INVALID_SCHEDULE(id, 'it is declared with the plugin or a route, and is changed there')
    }
    await this.#again(async () => {
      const { now, schedules: [view] } = await reach(store.schedules(name, { ids: [id] }))
      const change = this.#changeOf(name, plan, now, view, before[0])
      return change === undefined || await reach(store.plan(name, [change])) ? true : undefined
    })
    // It leaves other queues afterwards, so that a crash in between cannot lose it. If it has been moved to one of them
    // meanwhile, it stays in the first of these queues.
    for (const { queue: other, view } of await this.#find(id)) {
      const isOld = before.some(found => found.queue === other && found.view.plan === view.plan)
      if (other.name !== name && (isOld || other.name > name)) {
        await reach(other.store.plan(other.name, [{ id, expects: view.plan }]))
      }
    }
  }

  /** Forgets a schedule. Returns whether there was one. */
  async remove (id: string): Promise<boolean> {
    return await this.#change(id, ({ plan, view }) => {
      if (plan?.declared !== true) return { id, expects: view.plan }
      const where = 'it is declared with the plugin or a route: remove it there, or pause it'
      throw new FST_TASKQUEUE_INVALID_SCHEDULE(id, where)
    })
  }

  async pause (id: string): Promise<boolean> {
    return await this.#change(id, ({ view }) => ({ id, expects: view.plan, plan: view.plan, paused: true }))
  }

  /** Ends a pause. The slots that have passed meanwhile are not missed. */
  async resume (id: string): Promise<boolean> {
    return await this.#change(id, ({ view, plan, now }) => {
      if (!view.paused) return undefined
      if (plan === undefined) throw new FST_TASKQUEUE_INVALID_SCHEDULE(id, 'it cannot be read by this process')
      const next = slotAfter(plan, now)
      return { id, expects: view.plan, plan: view.plan, paused: false, ...next !== undefined && { next } }
    })
  }

  /** Adds a task now, and leaves the slots as they are. Returns its id; null if nothing was added. */
  async run (id: string, force: boolean): Promise<string | null> {
    const [found] = await this.#find(id)
    if (found === undefined) return null
    const { queue: { name, store }, plan, now } = found
    if (plan === undefined) throw new FST_TASKQUEUE_INVALID_SCHEDULE(id, 'it cannot be read by this process')
    const overlap = force ? 'allow' : plan.overlap
    // Another one may have been added in the same millisecond.
    for (let slot = now; slot < now + TRIES; slot++) {
      const task = taskAt(this.#codec, name, { ...plan, jitterMs: 0 }, { slot, missed: 0 }, now)
      const [result] = await reach(store.tick(name, [{ id, missed: 0, overlap, task }], this.#queues.keep))
      if (result === 'added') return task.id
      if (result === 'over' || overlap !== 'allow') return null
    }
    return null
  }

  async list (): Promise<ScheduleStatus[]> {
    const all = await Promise.all(this.#queues.all.map(async queue => {
      const found: ScheduleStatus[] = []
      for (;;) {
        const { schedules } = await reach(queue.store.schedules(queue.name, { offset: found.length, limit: AT_ONCE }))
        found.push(...schedules.map(view => this.#statusOf(queue.name, view)))
        if (schedules.length < AT_ONCE) return found
      }
    }))
    const timeOf = ({ next }: ScheduleStatus) => next?.getTime() ?? Infinity
    return all.flat().sort((a, b) => timeOf(a) < timeOf(b) ? -1 : Number(timeOf(a) > timeOf(b)))
  }

  #statusOf (queue: string, view: ScheduleView): ScheduleStatus {
    return statusOf(queue, view, readPlan(this.#codec, queue, view.id, view.plan))
  }

  /** Changes a schedule wherever it is. Returns whether there is one. */
  async #change (id: string, changeOf: (found: FoundSchedule) => ScheduleChange | undefined): Promise<boolean> {
    return await this.#again(async () => {
      const all = await this.#find(id)
      for (const found of all) {
        const change = changeOf(found)
        if (change !== undefined && !await reach(found.queue.store.plan(found.queue.name, [change]))) return undefined
      }
      return all.length > 0
    })
  }

  /** Finds a schedule in all queues: while it moves to another one, it may be in both. */
  async #find (id: string): Promise<FoundSchedule[]> {
    checkScheduleId(id)
    const all = await Promise.all(this.#queues.all.map(async queue => {
      const { now, schedules } = await reach(queue.store.schedules(queue.name, { ids: [id] }))
      return schedules.map(view => ({ queue, view, now, plan: readPlan(this.#codec, queue.name, id, view.plan) }))
    }))
    return all.flat()
  }

  /** Repeats a change while others come first. */
  async #again<T> (change: () => Promise<T | undefined>): Promise<T> {
    for (let tries = 0; tries < TRIES; tries++) {
      const result = await change()
      if (result !== undefined) return result
    }
    throw new Error(`schedules were changed by others ${TRIES} times in a row`)
  }
}

interface FoundSchedule {
  readonly queue: Queue
  readonly view: ScheduleView
  /** Undefined if it cannot be read. */
  readonly plan: Plan | undefined
  /** The time by the clock of the store. */
  readonly now: number
}

function isSameTiming (a: Timing, b: Timing): boolean {
  return a.cron === b.cron && a.tz === b.tz && a.everyMs === b.everyMs && a.startAt === b.startAt && a.endAt === b.endAt
}

function statusOf (queue: string, view: ScheduleView, plan: Plan | undefined): ScheduleStatus {
  const { id, next, last, paused, skipped, missed } = view
  return {
    id,
    queue,
    ...plan !== undefined && readable(plan),
    ...next !== undefined && Math.abs(next) <= LATEST_TIME_MS && { next: new Date(next) },
    ...last !== undefined && { last: { taskId: last.taskId, at: new Date(last.at) } },
    paused,
    skipped,
    missed
  }
}

function readable ({ cron, tz = 'UTC', everyMs, overlap, catchUp, declared, task: { method, url } }: Plan) {
  const times = cron === undefined ? { everyMs: everyMs! } : { cron, tz }
  return { ...times, overlap, catchUp, method, url, declared }
}
