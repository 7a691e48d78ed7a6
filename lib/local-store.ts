import { heartbeatMs } from './heartbeat.js'
import {
  DEAD_LIMIT, type Counts, type Held, type Holding, type Lease, type NewTask, type Outlook, type Prepared, type Pulse, type Settlement, type Store, type Turn, type TurnResult, type Verdict
} from './store.js'

/**
 * Keeps tasks in this process: fast, and gone with it. Written to be read beside the
 * scripts of the Redis store, which do the same with the same names.
 */
export class LocalStore implements Store {
  readonly #queues = new Map<string, LocalQueue>()

  async open (): Promise<void> {}

  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    return { commit: async () => { this.#add(tasks) }, rollback () {} }
  }

  async turn (name: string, { settlements, limit, alone, leaseMs }: Turn): Promise<TurnResult> {
    const queue = this.#queue(name)
    queue.tick(leaseMs)
    const settled = settlements.map(settlement => queue.settle(settlement))
    const carriedOut = settlements.filter((_, index) => settled[index])
    queue.giveBack(carriedOut.filter(({ verdict }) => verdict.kind === 'release').map(({ lease }) => lease.id))
    this.#add(carriedOut.flatMap(({ chain = [] }) => chain))
    const leases = limit > 0 ? queue.claim(limit, alone, leaseMs) : []
    return { settled, leases, outlook: queue.outlook }
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    return holdings.map(({ queue: name, leases, leaseMs }) => {
      const queue = this.#queue(name)
      queue.tick(leaseMs)
      return { lost: leases.filter(lease => !queue.extend(lease, leaseMs)).map(({ id }) => id), outlook: queue.outlook }
    })
  }

  async watch (queue: string, wake: () => void): Promise<void> {
    this.#queue(queue).watchers.push(wake)
  }

  async counts (queue: string): Promise<Counts> {
    return this.#queue(queue).counts()
  }

  async purge (queue: string): Promise<number> {
    return this.#queue(queue).purge()
  }

  async close (): Promise<void> {
    this.#queues.clear()
  }

  #add (tasks: readonly NewTask[]): void {
    for (const task of tasks) this.#queue(task.queue).add(task)
    for (const queue of new Set(tasks.map(({ queue }) => queue))) this.#queue(queue).wake()
  }

  #queue (name: string): LocalQueue {
    let queue = this.#queues.get(name)
    if (queue === undefined) this.#queues.set(name, queue = new LocalQueue())
    return queue
  }
}

interface Entry {
  readonly id: string
  readonly message: string
  fence: number
  attempt: number
  retries: number
  deaths: number
  suspect: boolean
  reason?: string
}

class LocalQueue {
  readonly watchers: Array<() => void> = []
  /** Tasks that wait, are delayed or run, by id. */
  readonly #tasks = new Map<string, Entry>()
  readonly #dead = new Map<string, Entry>()
  readonly #waiting = new Line()
  readonly #suspects = new Line()
  readonly #delayed = new Schedule()
  readonly #running = new Schedule()
  /** The time on which leases run out; it stands still while nobody is in contact, a blocked event loop included. */
  #leaseClock = 0
  #lastContact = performance.now()
  #claims = 0

  /** Moves the lease clock on by the time since the last contact, one heartbeat at most. */
  tick (leaseMs: number): void {
    const now = performance.now()
    this.#leaseClock += Math.min(now - this.#lastContact, heartbeatMs(leaseMs))
    this.#lastContact = now
  }

  add ({ id, message, delayMs, runAt }: NewTask): void {
    if (this.#tasks.has(id)) return
    this.#dead.delete(id)
    this.#tasks.set(id, { id, message, fence: 0, attempt: 0, retries: 0, deaths: 0, suspect: false })
    const dueInMs = delayMs ?? (runAt === undefined ? 0 : runAt - Date.now())
    if (dueInMs > 0) this.#delayed.set(id, performance.now() + dueInMs)
    else this.#waiting.push(id)
  }

  claim (limit: number, alone: boolean, leaseMs: number): Lease[] {
    const abandoned = this.#running.takeUpTo(this.#leaseClock)
    for (const id of abandoned) {
      const entry = this.#tasks.get(id)!
      // Only a death that it died alone is certainly its own.
      if (entry.suspect) entry.deaths++
      entry.suspect = true
    }
    this.giveBack(abandoned)
    for (const id of this.#delayed.takeUpTo(performance.now())) this.#waiting.push(id)
    const claimed = alone ? this.#suspects.take(1) : this.#waiting.take(limit)
    return claimed.map(id => {
      const entry = this.#tasks.get(id)!
      entry.fence = ++this.#claims
      entry.attempt++
      this.#running.set(id, this.#leaseClock + leaseMs)
      const { message, fence, attempt, retries, deaths, suspect } = entry
      return { id, message, fence, attempt, retries, deaths, suspect }
    })
  }

  extend (lease: Held, leaseMs: number): boolean {
    if (!this.#holds(lease)) return false
    this.#running.set(lease.id, this.#leaseClock + leaseMs)
    return true
  }

  settle ({ lease, verdict }: Settlement): boolean {
    if (!this.#holds(lease)) return false
    this.#running.delete(lease.id)
    this.#carryOut(this.#tasks.get(lease.id)!, verdict)
    return true
  }

  /** To the front, the first of them foremost. */
  giveBack (ids: readonly string[]): void {
    for (const id of ids.toReversed()) (this.#tasks.get(id)!.suspect ? this.#suspects : this.#waiting).unshift(id)
    if (ids.length > 0) this.wake()
  }

  /** But puts nothing in line: what a turn gives back is given back together. */
  #carryOut (entry: Entry, verdict: Verdict): void {
    const { id } = entry
    switch (verdict.kind) {
      case 'release':
        if (verdict.unseen === true) entry.attempt--
        break
      case 'done':
        this.#tasks.delete(id)
        break
      case 'retry':
        entry.retries++
        entry.suspect = false
        entry.reason = verdict.reason
        this.#delayed.set(id, performance.now() + verdict.delayMs)
        break
      case 'dead':
        entry.reason = verdict.reason
        this.#tasks.delete(id)
        this.#dead.set(id, entry)
        if (this.#dead.size > DEAD_LIMIT) this.#dead.delete(this.#dead.keys().next().value!)
    }
  }

  /** Not at once, so that the adder need not wait for it. */
  wake (): void {
    for (const watcher of this.watchers) setImmediate(watcher)
  }

  get outlook (): Outlook {
    const suspects = this.#suspects.size > 0
    if (suspects || this.#waiting.size > 0) return { wakeInMs: 0, suspects }
    const delayedMs = this.#delayed.first - performance.now()
    const leasedMs = this.#running.first - this.#leaseClock
    return { wakeInMs: Math.max(0, Math.min(delayedMs, leasedMs)), suspects }
  }

  counts (): Counts {
    const due = this.#delayed.countUpTo(performance.now())
    return {
      waiting: this.#waiting.size + this.#suspects.size + due,
      delayed: this.#delayed.size - due,
      running: this.#running.size,
      dead: this.#dead.size
    }
  }

  purge (): number {
    const ids = [...this.#waiting.take(Infinity), ...this.#suspects.take(Infinity), ...this.#delayed.takeUpTo(Infinity)]
    for (const id of ids) this.#tasks.delete(id)
    return ids.length
  }

  #holds ({ id, fence }: Held): boolean {
    return this.#running.has(id) && this.#tasks.get(id)!.fence === fence
  }
}

/** Ids in line; both ends are reached in constant time. */
class Line {
  /** What was put before the rest, last first. */
  #front: string[] = []
  #rest: string[] = []
  #taken = 0

  get size (): number { return this.#front.length + this.#rest.length - this.#taken }

  push (id: string): void { this.#rest.push(id) }

  unshift (id: string): void { this.#front.push(id) }

  take (limit: number): string[] {
    const ids: string[] = []
    while (ids.length < limit && this.#front.length > 0) ids.push(this.#front.pop()!)
    const end = Math.min(this.#taken + limit - ids.length, this.#rest.length)
    while (this.#taken < end) ids.push(this.#rest[this.#taken++]!)
    if (this.#taken > 1024 && this.#taken * 2 > this.#rest.length) {
      this.#rest = this.#rest.slice(this.#taken)
      this.#taken = 0
    }
    return ids
  }
}

/** Ids by time, then by arrival: the part of a Redis sorted set that is needed here. */
class Schedule {
  readonly #entries: Array<readonly [id: string, at: number]> = []
  readonly #at = new Map<string, number>()

  get size (): number { return this.#at.size }

  get first (): number { return this.#entries[0]?.[1] ?? Infinity }

  has (id: string): boolean { return this.#at.has(id) }

  set (id: string, at: number): void {
    this.delete(id)
    this.#at.set(id, at)
    this.#entries.splice(this.countUpTo(at), 0, [id, at])
  }

  delete (id: string): void {
    const at = this.#at.get(id)
    if (at === undefined) return
    let index = this.countUpTo(at) - 1
    while (this.#entries[index]![0] !== id) index--
    this.#entries.splice(index, 1)
    this.#at.delete(id)
  }

  takeUpTo (at: number): string[] {
    return this.#entries.splice(0, this.countUpTo(at)).map(([id]) => {
      this.#at.delete(id)
      return id
    })
  }

  countUpTo (at: number): number {
    let low = 0
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#entries[middle]![1] <= at) low = middle + 1
      else high = middle
    }
    return low
  }
}
