import { setTimeout as sleep } from 'node:timers/promises'
import type { FastifyBaseLogger } from 'fastify'
import { Halt, Withdrawn } from '../dispatch/abort.js'
import type { Isolation } from './isolation.js'
import { Pace } from './pace.js'
import type { Held, Holding, Keep, Lease, Outlook, Pulse, Settlement, Store } from '../store/store.js'

/** Makes one attempt at one task and decides what becomes of it. Never rejects. */
export type Attempt = (lease: Lease, halt: Halt) => Promise<Settlement>

/** Runs something in the asynchronous context that tasks run in, and returns what it returns. */
export type InContext = <T>(work: () => T) => T

export interface ConsumerLimits {
  readonly name: string
  readonly concurrency: number
  readonly leaseMs: number
  readonly closeGraceMs: number
  readonly keep: Keep
  readonly keepDead: Keep | undefined
}

interface Running {
  readonly lease: Lease
  readonly halt: Halt
}

const PAUSE_MS = 100

/** How long the store may wait to hear of an end while there is work at hand. */
const SETTLE_MS = 2

/** For how long a consumer that closes tries to tell the store what has ended. */
const LAST_TRIES_MS = 1500

/** How long a claimed task may wait for room here before it is left to others. */
const HOLD_MS = 100

/**
 * After a consumer has met a task without a route: how much later than others it looks for what has become due,
 * and for how long it does so.
 */
const YIELD_MS = 50
const YIELDING_MS = 2 * 60_000

/** How often to look for dead letters that have become too old. */
const DROP_MS = 60_000

/**
 * Claims the tasks of one queue and runs them, up to `concurrency` at once. It knows
 * stores and attempts, and nothing of HTTP.
 *
 * It has no loop of its own to keep turning. Whatever may give it something to do wakes
 * it: a notification, a task that ended, the time the next one is due, the heartbeat.
 * A wake-up takes a turn, in which one call to the store settles what has ended and
 * claims what there is room for; wake-ups during a turn make it take one more.
 *
 * Where tasks are short it claims a few more than there is room for, which start as others
 * end, and takes a turn when half of them have. Those that turn out to wait are given back.
 *
 * It claims as many tasks as it has been granted: all there are once it is started, or one, or
 * until nothing is due, for who steers it by hand.
 */
export class Consumer {
  readonly queue: string
  readonly #store: Store
  readonly #attempt: Attempt
  readonly #isolation: Isolation
  readonly #log: FastifyBaseLogger
  readonly #limits: ConsumerLimits
  readonly #inContext: InContext
  readonly #running = new Map<string, Running>()
  readonly #pace = new Pace()
  /** What was claimed ahead, in order, and since when none of it was started. */
  #ready: Lease[] = []
  #readySince = 0
  /** Ended attempts whose leases are held until the store has heard of it. */
  readonly #ended: Settlement[] = []
  #state: 'new' | 'consuming' | 'stopping' = 'new'
  #isStarted = false
  /** How many tasks may still be claimed. */
  #granted = 0
  /** How many have been begun. */
  #begun = 0
  /** Whether the last claim has found that nothing is due. */
  #isDry = false
  #turning = false
  #turns = 0
  #paused = false
  #woken = false
  #suspects = false
  #failures = 0
  /** Since when the store has failed to hear the last of what has ended. */
  #failingSince: number | undefined
  /** Until when others go first, who may have the route that was missed here. */
  #yieldsUntil = 0
  #alarm?: NodeJS.Timeout
  #dropping?: NodeJS.Timeout
  #settling: NodeJS.Timeout | undefined
  #holding: NodeJS.Timeout | undefined
  #breather: NodeJS.Immediate | undefined
  readonly #idlers: Array<() => void> = []

  constructor (
    queue: string, store: Store, attempt: Attempt, isolation: Isolation, log: FastifyBaseLogger, limits: ConsumerLimits, inContext: InContext
  ) {
    this.queue = queue
    this.#store = store
    this.#attempt = attempt
    this.#isolation = isolation
    this.#log = log.child({ queue, consumer: limits.name })
    this.#limits = limits
    this.#inContext = inContext
    // While the store does not answer the alarm is what wakes it.
    isolation.onChange(() => { if (this.#failures === 0) this.wake() })
  }

  /** Has the store wake this consumer, which takes no task before it is started; calls `check` when leases may have been taken away. */
  async watch (check: () => void): Promise<void> {
    await this.#store.watch(this.queue, ({ kind }) => {
      if (kind === 'ended') return
      if (kind === 'change') check()
      this.wake()
    })
  }

  start (): void {
    this.#isStarted = true
    const { ms = Infinity } = this.#limits.keepDead ?? {}
    // A queue in which nothing happens would keep them longer.
    if (ms < Infinity) this.#dropping = setInterval(() => { this.wake() }, Math.min(ms, DROP_MS))
    this.#grant(Infinity)
  }

  /** Runs what is due, up to a number of tasks, and returns how many that were, once the store has heard of all their ends. */
  async run (limit = Infinity): Promise<number> {
    const before = this.#begun
    this.#grant(this.#isStarted ? Infinity : limit)
    do {
      await new Promise<void>(resolve => { this.#idlers.push(resolve) })
    } while (this.#state === 'consuming' && this.#granted > 0 && !this.#isDry)
    if (!this.#isStarted) this.#granted = 0
    return this.#begun - before
  }

  #grant (count: number): void {
    if (this.#state === 'stopping') return
    this.#state = 'consuming'
    this.#granted = count
    this.#isDry = false
    this.wake()
  }

  /**
   * Claims no more, waits for the running tasks as long as its grace and `longestMs`
   * allow, then aborts those left and gives them back. Resolves when the store knows how
   * each of them ended, or has failed to hear it.
   */
  async stop (longestMs: number): Promise<void> {
    this.#state = 'stopping'
    clearTimeout(this.#alarm)
    clearInterval(this.#dropping)
    // What is given back has to reach the store as well.
    const grace = setTimeout(() => { this.#giveBack() }, Math.min(this.#limits.closeGraceMs, longestMs - 1000))
    this.wake()
    if (!this.#isIdle()) {
      const idle = new Promise<void>(resolve => { this.#idlers.push(resolve) })
      await Promise.race([idle, sleep(longestMs, undefined, { ref: false })])
    }
    clearTimeout(grace)
    clearTimeout(this.#alarm)
    this.#forget()
  }

  wake (): void {
    this.#woken = true
    if (!this.#turning && this.#state !== 'new') this.#inContext(this.#takeTurns)
  }

  get leaseMs (): number { return this.#limits.leaseMs }

  /** The leases to prolong, as of the last turn. */
  holding (): Holding & { readonly turn: number } {
    const leases = [...[...this.#running.values(), ...this.#ended].map(({ lease }) => lease), ...this.#ready]
    return { queue: this.queue, leases, leaseMs: this.#limits.leaseMs, turn: this.#turns }
  }

  /** Takes in what the heartbeat has learned that was sent with this holding. */
  feel ({ lost, cancelled, outlook }: Pulse, { leases, turn }: ReturnType<Consumer['holding']>): void {
    for (const lease of leases) if (lost.includes(lease.id)) this.#lose(lease, cancelled.includes(lease.id))
    // A turn that was taken since knows better.
    if (turn === this.#turns) this.#look(outlook)
    // The store answers again, which is no time to go on waiting.
    if (this.#failures > 0) this.wake()
  }

  readonly #takeTurns = async (): Promise<void> => {
    this.#turning = true
    while (this.#woken) {
      this.#woken = false
      clearTimeout(this.#settling)
      this.#settling = undefined
      if (this.#ready.length > 0 && !this.#mayStart()) this.#returnReady()
      const settlements = this.#ended.slice()
      const claim = this.#plan()
      if (claim.limit > 0 || settlements.length > 0) await this.#exchange(settlements, claim)
    }
    this.#turning = false
    if (this.#ended.length > 0 && this.#failures === 0) this.#settle()
    if (this.#isIdle()) for (const resolve of this.#idlers.splice(0)) resolve()
  }

  /** Decides what to claim. Where there are suspects nothing else is, until nothing else runs and one of them can be. */
  #plan (): { limit: number, alone: boolean } {
    if (this.#state !== 'consuming' || this.#paused || this.#granted === 0) return { limit: 0, alone: false }
    if (this.#suspects) return this.#isolation.enter(() => { this.wake() }) ? { limit: 1, alone: true } : { limit: 0, alone: false }
    if (!this.#isolation.isOpen) return { limit: 0, alone: false }
    const { concurrency } = this.#limits
    const room = concurrency + this.#pace.ahead(concurrency) - this.#running.size - this.#ready.length
    return { limit: Math.max(0, Math.min(room, this.#granted)), alone: false }
  }

  #mayStart (): boolean {
    return this.#state === 'consuming' && !this.#paused && !this.#suspects && this.#isolation.isOpen
  }

  /** Tells the store what has ended, and starts what it hands out. */
  async #exchange (settlements: readonly Settlement[], { limit, alone }: { limit: number, alone: boolean }): Promise<void> {
    const { leaseMs, keep, keepDead } = this.#limits
    let started: readonly Lease[] = []
    const start = performance.now()
    this.#turns++
    this.#isolation.begin()
    try {
      const { settled, leases, outlook, dropped = 0 } = await this.#store.turn(this.queue, {
        settlements, limit, alone, leaseMs, keep, ...keepDead !== undefined && { keepDead }
      })
      if (this.#failures > 0) this.#log.info('store answers the consumer again')
      this.#failures = 0
      this.#failingSince = undefined
      const ended = this.#ended.splice(0, settled.length)
      ended.forEach(({ lease }, index) => { if (settled[index] === false) this.#warn(lease.id) })
      if (dropped > 0) this.#log.warn({ dropped }, 'dead letters are dropped: keepDead or keepDeadMs keeps no more')
      this.#granted -= leases.length
      this.#isDry = limit > 0 && leases.length === 0 && outlook.wakeInMs > 0
      if (alone) started = leases.filter(lease => this.#start(lease, alone))
      else this.#receive(leases)
      clearTimeout(this.#alarm)
      this.#look(outlook)
      // A turn brings no more than one reply carries.
      if (leases.length > 0 && leases.length < limit && outlook.wakeInMs === 0) this.#woken = true
    } catch (err) {
      this.#fail(err, start)
    }
    this.#isolation.end()
    if (alone && started.length === 0) this.#isolation.leave()
  }

  #receive (leases: readonly Lease[]): void {
    if (leases.length === 0) return
    if (this.#ready.length === 0) this.#readySince = performance.now()
    this.#ready.push(...leases)
    this.#fill()
  }

  /**
   * Starts what there is room for: one task, which may end within this tick, and then the next, and
   * in the next tick those that are left. Side by side, what only computes would take longer.
   */
  #fill (): void {
    while (this.#ready.length > 0 && this.#running.size < this.#limits.concurrency) {
      if (this.#running.size === 0) this.#breather ??= setImmediate(() => { this.#breathe() })
      else if (this.#breather !== undefined) break
      this.#start(this.#ready.shift()!, false)
    }
    if (this.#ready.length > 0) this.#holding ??= setTimeout(() => { this.#review() }, HOLD_MS).unref()
  }

  #breathe (): void {
    this.#breather = undefined
    if (this.#mayStart()) this.#fill()
  }

  /** Leaves to others what has waited too long. */
  #review (): void {
    this.#holding = undefined
    if (this.#ready.length === 0) return
    if (performance.now() - this.#readySince < HOLD_MS) return this.#fill()
    this.#pace.slow()
    this.#returnReady()
    this.wake()
  }

  #returnReady (): void {
    this.#granted += this.#ready.length
    for (const lease of this.#ready.splice(0)) this.#ended.push({ lease, verdict: { kind: 'release', unseen: true } })
  }

  /** Starts an attempt, or gives the task back: the answer to a claim may come late, when things have changed. */
  #start (lease: Lease, alone: boolean): boolean {
    if (this.#state === 'stopping' || lease.suspect !== alone || (!alone && this.#isolation.isAlone)) {
      this.#end({ lease, verdict: { kind: 'release' } })
      return false
    }
    const halt = new Halt()
    const start = performance.now()
    this.#readySince = start
    this.#running.set(lease.id, { lease, halt })
    this.#begun++
    this.#isolation.begin()
    this.#attempt(lease, halt).then(settlement => {
      this.#isolation.end()
      this.#pace.note(performance.now() - start)
      if (alone) this.#isolation.leave()
      const { verdict } = settlement
      if (verdict.kind === 'defer' && verdict.unrouted === true) this.#yieldsUntil = performance.now() + YIELDING_MS
      // The app has turned the task away because it is about to close.
      if (verdict.kind === 'release' && halt.reason === undefined) this.#pause()
      // Otherwise it has been given back or lost meanwhile.
      if (this.#running.get(lease.id)?.lease === lease) this.#end(settlement)
    })
    return true
  }

  /** Leaves the tasks to others, who may have more luck. */
  #pause (): void {
    this.#paused = true
    setTimeout(() => {
      this.#paused = false
      this.wake()
    }, PAUSE_MS).unref()
  }

  #end (settlement: Settlement): void {
    this.#running.delete(settlement.lease.id)
    this.#ended.push(settlement)
    if (this.#mayStart()) this.#fill()
    if (!this.#turning) this.#settle()
  }

  /** Tells the store of what has ended: at once, unless there is more than that at hand. */
  #settle (): void {
    if (this.#mayStart() && this.#ready.length > this.#ended.length) this.#settling ??= setTimeout(() => { this.wake() }, SETTLE_MS)
    else this.wake()
  }

  #giveBack (): void {
    const running = [...this.#running.values()]
    this.#running.clear()
    for (const { lease } of running) {
      this.#log.warn({ taskId: lease.id }, 'task is given back: the app closes and its grace is over')
      this.#ended.push({ lease, verdict: { kind: 'release' } })
    }
    // In one turn, which keeps their order.
    this.wake()
    for (const { halt } of running) halt.call(new Withdrawn('the app closes'))
  }

  /** Tells a task that others may run it, or that nobody is to, and leaves it to them. */
  #lose ({ id, fence }: Held, isCancelled: boolean): void {
    this.#ready = this.#ready.filter(lease => lease.id !== id || lease.fence !== fence)
    const running = this.#running.get(id)
    // It may have ended, or been claimed again, while the heartbeat was on its way.
    if (running?.lease.fence !== fence) return
    if (isCancelled) this.#log.info({ taskId: id }, 'task is cancelled')
    else this.#warn(id)
    this.#running.delete(id)
    running.halt.call(new Withdrawn(isCancelled ? 'the task is cancelled' : 'the lease is lost'))
    this.wake()
  }

  #warn (taskId: string): void {
    this.#log.warn({ taskId }, 'task lost its lease; it may run twice')
  }

  #look ({ wakeInMs, suspects }: Outlook): void {
    this.#suspects = suspects
    this.#wakeIn(wakeInMs)
  }

  /** The store did not answer. What has ended is kept, to be settled when it answers again. */
  #fail (err: unknown, start: number): void {
    this.#failures++
    if (this.#failures === 1) this.#log.error({ err }, 'store does not answer the consumer')
    if (this.#state === 'stopping' && this.#running.size === 0) {
      this.#failingSince ??= start
      if (performance.now() - this.#failingSince > LAST_TRIES_MS) return this.#forget()
    }
    this.#wakeIn(Math.min(50 * 2 ** this.#failures, 2000))
  }

  /** The leases of what could not be settled expire, and other consumers take the tasks over. */
  #forget (): void {
    const taskIds = this.#ended.splice(0).map(({ lease }) => lease.id)
    if (taskIds.length > 0) this.#log.warn({ taskIds }, 'tasks could not be settled before the app closed; they will run again')
  }

  #wakeIn (ms: number): void {
    // Longer than a timer can wait; the heartbeat looks again long before.
    if (ms > 0x7fffffff || this.#state === 'new' || (this.#state === 'stopping' && this.#ended.length === 0)) return
    clearTimeout(this.#alarm)
    const yieldMs = ms > 0 && performance.now() < this.#yieldsUntil ? YIELD_MS : 0
    this.#alarm = setTimeout(() => { this.wake() }, Math.ceil(ms) + yieldMs)
  }

  #isIdle (): boolean {
    return !this.#turning && this.#running.size + this.#ready.length + this.#ended.length === 0
  }
}
