import { FST_TASKQUEUE_DUPLICATE } from '../../errors.js'
import { heartbeatMs } from '../../run/heartbeat.js'
import { Line } from './line.js'
import { Timetable } from './timetable.js'
import {
  CANCELLED_MS, RECORD_LIMIT, type Counts, type Found, type Held, type Holding, type Keep, type Lease, type NewTask, type News, type Order,
  type Outlook, type Prepared, type Pulse, type Settlement, type State, type Store, type Turn, type TurnResult, type Verdict
} from '../store.js'

/**
 * Keeps tasks in this process: fast, and gone with it. Written to be read beside the
 * scripts of the Redis store, which do the same with the same names.
 */
export class LocalStore implements Store {
  readonly #queues = new Map<string, LocalQueue>()
  /** Ids that a commit under way has taken, until it is concluded. */
  readonly #reserved = new Map<string, Promise<void>>()

  async open (): Promise<void> {}

  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    const named = tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(nameOf)
    for (let name; (name = named.find(name => this.#reserved.has(name))) !== undefined;) await this.#reserved.get(name)
    const isKeptOut = this.#decide(tasks)
    const taken = tasks.filter((_, index) => !isKeptOut[index])
    const free = this.#reserve(taken)
    return {
      keptOut: tasks.filter((_, index) => isKeptOut[index]).map(({ queue, id }) => ({ queue, id })),
      commit: async () => {
        this.#add(taken, (queue, { id, onDuplicate }) => onDuplicate === 'replace' || !queue.isTaken(id))
        free()
      },
      rollback: free
    }
  }

  /** Whether each is kept out; throws if one is refused. */
  #decide (tasks: readonly NewTask[]): boolean[] {
    const names = new Set<string>()
    return tasks.map(task => {
      const name = nameOf(task)
      const isDuplicate = names.has(name) || this.#queue(task.queue).keepsOut(task)
      names.add(name)
      if (isDuplicate && task.onDuplicate === 'reject') throw new FST_TASKQUEUE_DUPLICATE(task.id)
      return isDuplicate && task.onDuplicate === 'keep'
    })
  }

  #reserve (tasks: readonly NewTask[]): () => void {
    const names = tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(nameOf)
    let conclude: () => void
    const concluded = new Promise<void>(resolve => { conclude = resolve })
    for (const name of names) this.#reserved.set(name, concluded)
    return () => {
      for (const name of names) this.#reserved.delete(name)
      conclude()
    }
  }

  async turn (name: string, { settlements, limit, alone, leaseMs, keep, keepDead }: Turn): Promise<TurnResult> {
    const queue = this.#queue(name)
    queue.tick(leaseMs)
    const settled = queue.settle(settlements)
    this.#add(settlements.flatMap(({ chain = [] }, index) => settled[index] === true ? chain : []), (queue, task) => !queue.keepsOut(task))
    const leases = limit > 0 ? queue.claim(limit, alone, leaseMs) : []
    queue.trim(keep)
    const dropped = keepDead === undefined ? 0 : queue.dropDead(keepDead)
    return { settled, leases, outlook: queue.outlook, ...dropped > 0 && { dropped } }
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    return holdings.map(({ queue: name, leases, leaseMs }) => {
      const queue = this.#queue(name)
      queue.tick(leaseMs)
      const lost = leases.filter(lease => !queue.extend(lease, leaseMs))
      return { lost: lost.map(({ id }) => id), cancelled: lost.filter(lease => queue.wasCancelled(lease)).map(({ id }) => id), outlook: queue.outlook }
    })
  }

  async watch (queue: string, listener: (news: News) => void): Promise<void> {
    this.#queue(queue).listeners.push(listener)
  }

  async counts (queue: string): Promise<Counts & { readonly paused: boolean }> {
    return this.#queue(queue).counts()
  }

  async find (queues: readonly string[], id: string, awaitMs = 0): Promise<Found | undefined> {
    for (const name of queues) {
      const queue = this.#queue(name)
      const found = queue.find(id)
      if (found === undefined) continue
      if (awaitMs > 0 && found.endedAt === undefined) queue.await(id, awaitMs)
      return found
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    return this.#queue(queue).list(state, offset, limit)
  }

  async steer (name: string, order: Order): Promise<number> {
    const queue = this.#queue(name)
    switch (order.kind) {
      case 'cancel': return queue.cancel(order.ids, order.keep)
      case 'schedule': return queue.schedule(order.ids, order)
      case 'redrive': return queue.redrive(order.ids)
      case 'remove': return queue.remove(order.ids)
      case 'purge': return queue.purge()
      case 'pause': return queue.pause()
      case 'resume': return queue.resume()
    }
  }

  async note (queue: string, lease: Held, progress: string): Promise<boolean> {
    return this.#queue(queue).note(lease, progress)
  }

  async close (): Promise<void> {
    this.#queues.clear()
  }

  #add (tasks: readonly NewTask[], isMeant: (queue: LocalQueue, task: NewTask) => boolean): void {
    for (const task of tasks) {
      const queue = this.#queue(task.queue)
      if (isMeant(queue, task)) queue.add(task)
    }
    for (const queue of new Set(tasks.map(({ queue }) => queue))) this.#queue(queue).wake()
  }

  #queue (name: string): LocalQueue {
    let queue = this.#queues.get(name)
    if (queue === undefined) this.#queues.set(name, queue = new LocalQueue(name))
    return queue
  }
}

/** There is no newline in an id. */
const nameOf = ({ queue, id }: NewTask) => `${queue}\n${id}`

interface Entry {
  readonly id: string
  message: string
  state: State
  /** When it becomes due, on the clock of this process, and since the epoch. */
  due: number
  dueAt: number
  /** When it expires, until an attempt at it counts. */
  expires: number
  fence: number
  attempt: number
  retries: number
  deferredMs: number
  unroutedMs: number
  deaths: number
  suspect: boolean
  records: ReadonlyArray<string | undefined>
  reason?: string
  progress?: string
  endedAt?: number
  /** What takes its place when the attempt that runs has ended. */
  next?: Entry
}

class LocalQueue {
  readonly listeners: Array<(news: News) => void> = []
  readonly #name: string
  /** All that are known, by id. */
  readonly #tasks = new Map<string, Entry>()
  readonly #waiting = new Line()
  readonly #suspects = new Line()
  readonly #delayed = new Timetable()
  readonly #running = new Timetable()
  readonly #dead = new Timetable()
  /** Done, cancelled or expired. */
  readonly #ended = new Timetable()
  /** Those of the tasks that wait or are delayed which expire. */
  readonly #expiring = new Timetable()
  /** Ids that keep others out after their task is done, until then. */
  readonly #deduped = new Timetable()
  /** Ids whose end somebody awaits, until then. */
  readonly #awaited = new Timetable()
  /** Leases of cancelled tasks, for as long as that is to be known. */
  readonly #cancelled = new Timetable()
  #paused = false
  #keep: Keep = { count: Infinity, ms: Infinity }
  /** The time on which leases run out; it stands still while nobody is in contact, a blocked event loop included. */
  #leaseClock = 0
  #lastContact = performance.now()
  #claims = 0

  constructor (name: string) {
    this.#name = name
  }

  /** Moves the lease clock on by the time since the last contact, one heartbeat at most. */
  tick (leaseMs: number): void {
    const now = performance.now()
    this.#leaseClock += Math.min(now - this.#lastContact, heartbeatMs(leaseMs))
    this.#lastContact = now
  }

  keepsOut ({ id, onDuplicate }: NewTask): boolean {
    if (onDuplicate === 'replace') return false
    return this.isTaken(id) || (onDuplicate !== undefined && this.#deduped.at(id) > performance.now())
  }

  /** Adds a task; it takes the place of another one of its id, or follows that one if it runs. */
  add (task: NewTask): void {
    const { id } = task
    const entry = newEntry(task)
    if (this.#running.has(id)) {
      this.#tasks.get(id)!.next = entry
    } else {
      this.#forget(id)
      this.#lineUp(entry)
    }
  }

  /** Carries out the verdicts; what is given back is given back together. */
  settle (settlements: readonly Settlement[]): boolean[] {
    const released: Entry[] = []
    const settled = settlements.map(({ lease, verdict, record, dedupeMs = 0 }) => {
      if (!this.#holds(lease)) return false
      const entry = this.#tasks.get(lease.id)!
      this.#running.delete(lease.id)
      if (record !== undefined) entry.records = [...entry.records.slice(1 - RECORD_LIMIT), record]
      if (isUncounted(verdict)) entry.attempt--
      else entry.expires = Infinity
      if (entry.next !== undefined) this.#follow(entry, entry.next)
      else if (verdict.kind === 'release') released.push(entry)
      else this.#carryOut(entry, verdict, dedupeMs)
      return true
    })
    this.#giveBack(released)
    return settled
  }

  #carryOut (entry: Entry, verdict: Exclude<Verdict, { kind: 'release' }>, dedupeMs: number): void {
    switch (verdict.kind) {
      case 'done':
        if (dedupeMs > 0) this.#deduped.setAtLeast(entry.id, performance.now() + dedupeMs)
        this.#end(entry, 'done')
        break
      case 'retry':
        entry.retries++
        entry.suspect = false
        entry.reason = verdict.reason
        Object.assign(entry, dueOf(verdict))
        this.#hold(entry)
        break
      case 'defer':
        entry.deferredMs += verdict.delayMs
        entry.suspect = false
        entry.reason = verdict.reason
        Object.assign(entry, dueOf(verdict))
        this.#hold(entry)
        if (verdict.unrouted !== true) break
        entry.unroutedMs += verdict.delayMs
        if (entry.expires < Infinity) this.#expiring.set(entry.id, entry.expires)
        this.wake()
        break
      case 'dead':
        entry.reason = verdict.reason
        this.#end(entry, 'dead')
    }
  }

  /** Puts in line what has replaced a task while it ran, with all its retries. */
  #follow ({ fence, attempt, records }: Entry, next: Entry): void {
    this.#lineUp(Object.assign(next, { fence, attempt, records }))
    this.wake()
  }

  claim (limit: number, alone: boolean, leaseMs: number): Lease[] {
    this.#sweep()
    if (this.#paused) return []
    const claimed = alone ? this.#suspects.take(1) : this.#waiting.take(limit)
    return claimed.map(id => {
      const entry = this.#tasks.get(id)!
      entry.state = 'running'
      entry.fence = ++this.#claims
      entry.attempt++
      this.#expiring.delete(id)
      this.#running.set(id, this.#leaseClock + leaseMs)
      const { message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect } = entry
      return { id, message, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect }
    })
  }

  /** Does what time demands: leases run out, tasks expire or become due. */
  #sweep (): void {
    const now = performance.now()
    const abandoned = this.#running.takeUpTo(this.#leaseClock).map(id => this.#tasks.get(id)!)
    for (const entry of abandoned) {
      // Only a death that it died alone is certainly its own.
      if (entry.suspect) entry.deaths++
      entry.suspect = true
      entry.expires = Infinity
      entry.records = [...entry.records, undefined].slice(-RECORD_LIMIT)
      if (entry.next !== undefined) {
        const { message } = entry.next
        Object.assign(entry, { message, retries: 0, deferredMs: 0, unroutedMs: 0, next: undefined })
      }
    }
    this.#giveBack(abandoned)
    for (const id of this.#expiring.takeUpTo(now)) this.#end(this.#tasks.get(id)!, 'expired')
    for (const id of this.#delayed.takeUpTo(now)) this.#push(this.#tasks.get(id)!)
    this.#deduped.takeUpTo(now)
    this.#cancelled.takeUpTo(now)
  }

  extend (lease: Held, leaseMs: number): boolean {
    if (!this.#holds(lease)) return false
    this.#running.setAtLeast(lease.id, this.#leaseClock + leaseMs)
    return true
  }

  note (lease: Held, progress: string): boolean {
    if (!this.#holds(lease)) return false
    this.#tasks.get(lease.id)!.progress = progress
    return true
  }

  /** Tells it later, so that who makes the news need not wait for it. */
  #tell (news: News): void {
    for (const listener of this.listeners) setImmediate(listener, news)
  }

  wake (): void {
    this.#tell({ kind: 'work' })
  }

  get outlook (): Outlook {
    if (this.#paused) return { wakeInMs: Infinity, suspects: false }
    const suspects = this.#suspects.size > 0
    if (suspects || this.#waiting.size > 0) return { wakeInMs: 0, suspects }
    const delayedMs = this.#delayed.first - performance.now()
    const leasedMs = this.#running.first - this.#leaseClock
    return { wakeInMs: Math.max(0, Math.min(delayedMs, leasedMs)), suspects }
  }

  counts (): Counts & { readonly paused: boolean } {
    const due = this.#delayed.countUpTo(performance.now())
    return {
      waiting: this.#waiting.size + this.#suspects.size + due,
      delayed: this.#delayed.size - due,
      running: this.#running.size,
      dead: this.#dead.size,
      paused: this.#paused
    }
  }

  find (id: string): Found | undefined {
    this.trim()
    const entry = this.#tasks.get(id)
    return entry === undefined ? undefined : this.#show(entry)
  }

  list (state: State, offset: number, limit: number): Found[] {
    this.trim()
    const found: Found[] = []
    let index = 0
    for (const id of this.#idsOf(state)) {
      if (index >= offset + limit) break
      if (index++ >= offset) found.push(this.#show(this.#tasks.get(id)!))
    }
    return found
  }

  * #idsOf (state: State): Iterable<string> {
    switch (state) {
      case 'waiting':
        yield * this.#suspects.ids()
        yield * this.#waiting.ids()
        yield * this.#delayed.ids().slice(0, this.#delayed.countUpTo(performance.now()))
        break
      case 'delayed':
        yield * this.#delayed.ids().slice(this.#delayed.countUpTo(performance.now()))
        break
      case 'running':
        yield * this.#running.ids()
        break
      case 'dead':
        yield * this.#dead.ids().reverse()
        break
      default:
        yield * this.#ended.ids().reverse().filter(id => this.#tasks.get(id)!.state === state)
    }
  }

  #show ({ id, state, message, due, dueAt, endedAt, attempt, reason, progress, records }: Entry): Found {
    const isDelayed = state === 'delayed' && due > performance.now()
    return {
      queue: this.#name,
      id,
      state: state === 'delayed' && !isDelayed ? 'waiting' : state,
      message: state === 'done' ? undefined : message,
      dueAt: isDelayed ? dueAt : undefined,
      endedAt,
      attempt,
      reason,
      progress,
      records
    }
  }

  await (id: string, ms: number): void {
    const now = performance.now()
    this.#awaited.takeUpTo(now)
    this.#awaited.setAtLeast(id, now + ms)
  }

  cancel (ids: readonly string[], keep: Keep): number {
    const entries = this.#entriesOf(ids, ({ state }) => state === 'waiting' || state === 'delayed' || state === 'running')
    for (const entry of entries) {
      if (entry.state === 'running') {
        this.#cancelled.set(leaseOf(entry), performance.now() + CANCELLED_MS)
        this.#tell({ kind: 'change' })
      }
      this.#end(entry, 'cancelled')
    }
    this.trim(keep)
    return entries.length
  }

  wasCancelled (lease: Held): boolean {
    return this.#cancelled.at(leaseOf(lease)) > performance.now()
  }

  /** Suspects stay where they are: nothing keeps them waiting but that they run alone. */
  schedule (ids: readonly string[], when: When): number {
    const entries = this.#entriesOf(ids, ({ state, suspect }) => !suspect && (state === 'delayed' || state === 'waiting'))
    for (const entry of entries) {
      Object.assign(entry, dueOf(when))
      const isLate = entry.due > performance.now()
      // What waits and is due at once keeps its place.
      if (!isLate && entry.state === 'waiting') continue
      this.#waiting.delete(entry.id)
      this.#delayed.delete(entry.id)
      if (isLate) this.#hold(entry)
      else this.#push(entry)
    }
    if (entries.length > 0) this.wake()
    return entries.length
  }

  redrive (ids: readonly string[] = this.#dead.ids()): number {
    const entries = this.#entriesOf(ids, ({ state }) => state === 'dead')
    for (const entry of entries) {
      this.#dead.delete(entry.id)
      Object.assign(entry, { retries: 0, deferredMs: 0, unroutedMs: 0, deaths: 0, suspect: false, endedAt: undefined })
      this.#push(entry)
    }
    if (entries.length > 0) this.wake()
    return entries.length
  }

  remove (ids: readonly string[] = this.#dead.ids()): number {
    const entries = this.#entriesOf(ids, ({ state }) => state === 'dead')
    for (const { id } of entries) this.#forget(id)
    return entries.length
  }

  purge (): number {
    const ids = [...this.#waiting.take(Infinity), ...this.#suspects.take(Infinity), ...this.#delayed.takeUpTo(Infinity)]
    for (const id of ids) {
      this.#forget(id)
      this.#tellEnd(id)
    }
    return ids.length
  }

  pause (): number {
    this.#paused = true
    return 0
  }

  resume (): number {
    this.#paused = false
    this.wake()
    return 0
  }

  /** Forgets what has ended too long ago. */
  trim (keep = this.#keep): void {
    this.#keep = keep
    const old = this.#ended.takeUpTo(performance.now() - keep.ms)
    for (const id of [...old, ...this.#ended.take(this.#ended.size - keep.count)]) this.#forget(id)
  }

  /** Drops the oldest dead letters, and returns how many. */
  dropDead ({ count, ms }: Keep): number {
    const surplus = Math.max(this.#dead.size - count, this.#dead.countUpTo(performance.now() - ms))
    const ids = this.#dead.take(Math.min(surplus, MOST_DROPPED))
    for (const id of ids) this.#forget(id)
    return ids.length
  }

  #lineUp (entry: Entry): void {
    this.#tasks.set(entry.id, entry)
    if (entry.expires < Infinity) this.#expiring.set(entry.id, entry.expires)
    if (entry.due > performance.now()) this.#hold(entry)
    else this.#push(entry)
  }

  #hold (entry: Entry): void {
    entry.state = 'delayed'
    this.#delayed.set(entry.id, entry.due)
  }

  #push (entry: Entry): void {
    entry.state = 'waiting'
    this.#waiting.push(entry.id)
  }

  /** To the front, the first of them foremost. */
  #giveBack (entries: readonly Entry[]): void {
    for (const entry of entries.toReversed()) {
      entry.state = 'waiting'
      if (entry.expires < Infinity) this.#expiring.set(entry.id, entry.expires);
      (entry.suspect ? this.#suspects : this.#waiting).unshift(entry.id)
    }
    if (entries.length > 0) this.wake()
  }

  #end (entry: Entry, state: 'done' | 'dead' | 'cancelled' | 'expired'): void {
    const { id } = entry
    this.#takeOut(entry)
    entry.state = state
    entry.endedAt = Date.now()
    entry.progress = undefined
    entry.next = undefined
    if (state === 'done') {
      entry.message = ''
      entry.reason = undefined
    }
    const place = state === 'dead' ? this.#dead : this.#ended
    place.set(id, performance.now())
    this.#tellEnd(id)
  }

  #tellEnd (id: string): void {
    if (this.#awaited.at(id) > performance.now()) this.#tell({ kind: 'ended', id })
    this.#awaited.delete(id)
  }

  #forget (id: string): void {
    const entry = this.#tasks.get(id)
    if (entry === undefined) return
    this.#tasks.delete(id)
    this.#takeOut(entry)
  }

  #takeOut (entry: Entry): void {
    this.#placeOf(entry).delete(entry.id)
    if (entry.expires < Infinity) this.#expiring.delete(entry.id)
  }

  #placeOf ({ state, suspect }: Entry): Line | Timetable {
    switch (state) {
      case 'waiting': return suspect ? this.#suspects : this.#waiting
      case 'delayed': return this.#delayed
      case 'running': return this.#running
      case 'dead': return this.#dead
      default: return this.#ended
    }
  }

  /** Of each id once. */
  #entriesOf (ids: readonly string[], isMeant: (entry: Entry) => boolean): Entry[] {
    return [...new Set(ids)].map(id => this.#tasks.get(id)).filter(entry => entry !== undefined && isMeant(entry)) as Entry[]
  }

  #holds ({ id, fence }: Held): boolean {
    return this.#running.has(id) && this.#tasks.get(id)!.fence === fence
  }

  /** Whether it waits, is delayed, runs or is dead, except for one that the next turn finds expired. */
  isTaken (id: string): boolean {
    return this.#tasks.has(id) && !this.#ended.has(id) &&
      !(this.#expiring.has(id) && this.#expiring.at(id) <= performance.now())
  }
}

/** Whether the attempt that a verdict is on does not count. */
function isUncounted (verdict: Verdict): boolean {
  if (verdict.kind === 'release') return verdict.unseen === true
  return verdict.kind === 'defer' && verdict.unrouted === true
}

/** How many dead letters one turn drops. */
const MOST_DROPPED = 1000

type When = Pick<NewTask, 'delayMs' | 'runAt'>

/** By how much the time of day was ahead of the clock of this process when somebody last set it. */
let aheadMs = Date.now() - performance.now()

function dueOf ({ delayMs, runAt }: When): Pick<Entry, 'due' | 'dueAt'> {
  if (delayMs === undefined && runAt === undefined) return { due: 0, dueAt: 0 }
  const now = Date.now()
  if (delayMs !== undefined) return { due: performance.now() + delayMs, dueAt: now + delayMs }
  // Whole milliseconds go by unevenly; the same time is to be the same for all the same.
  const nowAheadMs = now - performance.now()
  if (Math.abs(nowAheadMs - aheadMs) > 2) aheadMs = nowAheadMs
  return { due: runAt! - aheadMs, dueAt: runAt! }
}

function newEntry ({ id, message, delayMs, runAt, expiresMs = Infinity }: NewTask): Entry {
  return {
    id,
    message,
    state: 'waiting',
    ...dueOf({ delayMs, runAt }),
    expires: expiresMs === Infinity ? Infinity : performance.now() + expiresMs,
    fence: 0,
    attempt: 0,
    retries: 0,
    deferredMs: 0,
    unroutedMs: 0,
    deaths: 0,
    suspect: false,
    records: []
  }
}

const leaseOf = ({ id, fence }: Held) => `${fence} ${id}`
