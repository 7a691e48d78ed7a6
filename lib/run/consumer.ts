import { setTimeout as sleep } from 'node:timers/promises'
import { AttemptWithdrawn } from '../dispatch/abort.js'
import type { Publish } from '../observe/events.js'
import type { Scheduler } from '../schedule/scheduler.js'
import type { Holding, Pulse } from '../store/heartbeat.js'
import type { Store } from '../store/store.js'
import type { Held, Lease, Outlook, Settlement } from '../store/turn.js'
import { admission } from './admission.js'
import { Allowance } from './allowance.js'
import type { Attempt } from './attempt.js'
import type { ConsumerStatus } from './consumer-status.js'
import type { InContext } from './context.js'
import { InFlight } from './in-flight.js'
import type { Isolation } from './isolation.js'
import { type ConsumerLimits, heartbeatMs } from './limits.js'
import { Outage } from './outage.js'
import { Phases } from './phase.js'
import { Prefetch } from './prefetch.js'
import { Reporter } from './reporter.js'
import { TurnLoop } from './turn-loop.js'

/**
 * Claims the tasks of one queue and runs them, up to `concurrency` at once. It knows stores and attempts, and nothing
 * of HTTP.
 *
 * Whatever may give it something to do wakes it: a notification, a task that ended, the time the next one is due, the
 * heartbeat. A wake-up takes a turn, in which one call to the store settles what has ended and claims what there is
 * room for.
 */
export class Consumer {
  readonly queue: string
  readonly #store: Store
  readonly #attempt: Attempt
  readonly #isolation: Isolation
  readonly #reporter: Reporter
  readonly #limits: ConsumerLimits
  readonly #inContext: InContext
  readonly #loop: TurnLoop
  readonly #scheduler: Scheduler
  readonly #prefetch: Prefetch
  readonly #inFlight = new InFlight()
  readonly #allowance = new Allowance()
  readonly #outage: Outage
  readonly #whenIdle: Array<() => void> = []
  readonly #phases = new Phases()
  /** Whether the queue has suspects. */
  #suspects = false
  /** How many turns the store was asked for. */
  #turns = 0
  /** Whether the store may claim something for this consumer. */
  #waits = false
  readonly #startedAt = Date.now()

  constructor (
    queue: string, store: Store, attempt: Attempt, isolation: Isolation, publish: Publish, limits: ConsumerLimits,
    inContext: InContext, schedulerWith: (onRest: () => void) => Scheduler
  ) {
    this.queue = queue
    this.#store = store
    this.#attempt = attempt
    this.#isolation = isolation
    this.#reporter = new Reporter(publish, queue, limits.name)
    this.#limits = limits
    this.#inContext = inContext
    this.#outage = new Outage(this.#reporter)
    this.#loop = new TurnLoop(() => this.#takeTurn(), () => { this.#rest() }, inContext)
    this.#scheduler = schedulerWith(() => { this.wake() })
    this.#prefetch = new Prefetch(limits.concurrency, this.#inFlight, {
      mayBegin: () => this.#admission().begins,
      begin: lease => { this.#beginAttempt(lease) },
      giveBack: () => {
        this.#returnPrefetched()
        this.wake()
      }
    })
    isolation.onChange(this.#wakeAfterIsolation)
  }

  get leaseMs (): number { return this.#limits.leaseMs }

  get status (): ConsumerStatus {
    const { name, concurrency, leaseMs } = this.#limits
    const [{ running }, { silentMs }] = [this.#inFlight, this.#outage]
    return { name, state: this.#phases.now, concurrency, running, ahead: this.#prefetch.size, leaseMs, silentMs }
  }

  /** Has the store wake this consumer once it is started. Calls `check` when leases may have been taken away. */
  async watch (check: () => void): Promise<void> {
    await this.#store.watch(this.queue, news => {
      if (news.kind === 'ended') return
      if (news.kind === 'leases') return this.#inContext(() => { this.#take(news.leases) })
      if (news.kind === 'change') check()
      this.wake()
    })
  }

  /** Claims all there is from now on. */
  start (): void {
    this.#allowance.grantAll()
    this.#begin()
  }

  /**
   * Runs what is due, up to a number of tasks. Returns how many tasks ran, once the store has heard of all their ends.
   */
  async run (limit = Infinity): Promise<number> {
    const before = this.#allowance.begun
    this.#allowance.grant(limit)
    this.#begin()
    do await this.#idle()
    while (this.#phases.now !== 'closing' && this.#allowance.isOpen)
    this.#allowance.withdraw()
    if (this.#allowance.left === 0) this.#scheduler.rest()
    return this.#allowance.begun - before
  }

  #begin (): void {
    if (this.#phases.now === 'new') this.#phases.enter('consuming')
    this.wake()
  }

  /**
   * Claims no more, and waits for the running tasks as long as its grace and `longestMs` allow. It then aborts those
   * that are left and gives them back. Resolves when the store knows how each of them ended, or has failed to hear it.
   */
  async stop (longestMs: number): Promise<void> {
    this.#phases.enter('closing')
    this.#loop.silence()
    this.#scheduler.close()
    // What is given back has to reach the store as well.
    const grace = setTimeout(() => { this.#giveBack() }, Math.min(this.#limits.closeGraceMs, longestMs - 1000))
    this.wake()
    if (!this.#isIdle()) await Promise.race([this.#idle(), sleep(longestMs, undefined, { ref: false })])
    clearTimeout(grace)
    this.#loop.silence()
    // The leases of what could not be settled expire, and other consumers take the tasks over.
    this.#reporter.tellUnsettled(this.#inFlight.takeEnded())
  }

  wake (): void {
    if (this.#phases.now !== 'new') this.#loop.wake()
  }

  /** Returns the leases to prolong, as of the last turn. */
  heldLeases (): Holding & { readonly turn: number } {
    const leases = [...this.#inFlight.leases(), ...this.#prefetch.leases]
    const { name: consumer, concurrency, leaseMs } = this.#limits
    const about = { queue: this.queue, consumer, startedAt: this.#startedAt, concurrency }
    return { ...about, leases, heartbeatMs: heartbeatMs(leaseMs), leaseMs, turn: this.#turns }
  }

  /** Takes in what a heartbeat has learned that prolonged these leases. */
  applyHeartbeat ({ lost, cancelled, outlook }: Pulse, { leases, turn }: ReturnType<Consumer['heldLeases']>): void {
    for (const lease of leases) if (lost.includes(lease.id)) this.#lose(lease, cancelled.includes(lease.id))
    // A turn that was taken since knows better.
    if (turn === this.#turns) this.#look(outlook)
    this.#outage.noteHeartbeat()
    // The store answers again, so that the consumer need not wait for its alarm.
    if (this.#outage.isOn) this.wake()
  }

  async #takeTurn (): Promise<void> {
    if (this.#prefetch.size > 0 && !this.#admission().begins) this.#returnPrefetched()
    const { claims, ahead, waits } = this.#admission()
    const leave = claims === 'suspect' ? this.#isolation.enter(this.#wakeAfterIsolation) : undefined
    const limit = claims === 'suspect' ? Number(leave !== undefined) : claims
    // A turn that claims nothing ends the waiting.
    const isLast = this.#phases.now === 'closing' && this.#waits
    if (limit > 0 || this.#inFlight.ended.length > 0 || isLast) await this.#exchange(limit, ahead, waits, leave)
  }

  /** While the store does not answer only the alarm wakes the consumer. Otherwise each turn that fails could do so. */
  readonly #wakeAfterIsolation = () => { if (!this.#outage.isOn) this.wake() }

  #admission () {
    const { concurrency } = this.#limits
    return admission({
      isOpen: this.#phases.now === 'consuming',
      suspects: this.#suspects,
      isShared: this.#isolation.isOpen,
      allowed: this.#allowance.left,
      isUnlimited: this.#allowance.isUnlimited,
      concurrency,
      ahead: this.#prefetch.ahead,
      running: this.#inFlight.running,
      ready: this.#prefetch.size
    })
  }

  /** Tells the store what has ended, and begins what it hands out. @param leave ends the isolation of a suspect */
  async #exchange (limit: number, ahead: number, waits: boolean, leave?: () => void): Promise<void> {
    const settlements = this.#inFlight.ended.slice()
    const { leaseMs, keep, keepDead } = this.#limits
    const start = performance.now()
    let begun = 0
    this.#turns++
    this.#waits = waits
    this.#isolation.begin()
    try {
      const { settled, leases, outlook, dropped = 0, isShared = false } = await this.#store.turn(this.queue, {
        settlements,
        heartbeatMs: heartbeatMs(leaseMs),
        claim: limit > 0 ? { limit, ahead, alone: leave !== undefined, leaseMs, ...waits && { waits } } : undefined,
        keep,
        ...keepDead !== undefined && { keepDead }
      })
      this.#outage.noteAnswer()
      this.#waits = waits && leases.length === 0
      this.#prefetch.noteTurn(performance.now() - start, isShared)
      this.#reporter.tellSettled(this.#inFlight.takeEnded(settled.length), settled)
      this.#reporter.tellClaimed(leases)
      if (dropped > 0) this.#reporter.tell('dead:dropped', { dropped })
      this.#allowance.noteClaim(leases.length, limit > 0 && leases.length === 0 && outlook.wakeInMs > 0)
      if (leave !== undefined) begun = leases.filter(lease => this.#beginAttempt(lease, leave)).length
      else this.#prefetch.add(leases)
      this.#loop.silence()
      const isMore = leases.length > 0 && outlook.wakeInMs === 0
      // The tasks that are left in line are claimed as others end. An alarm would cut that into turns of a few tasks.
      this.#look(isMore ? { ...outlook, wakeInMs: Infinity } : outlook)
      if (isMore && leases.length < limit) this.wake()
    } catch (err) {
      this.#tryAgainLater(err, start)
    }
    this.#isolation.end()
    if (begun === 0) leave?.()
  }

  /** Begins what the store has claimed for this consumer. */
  #take (leases: readonly Lease[]): void {
    this.#turns++
    this.#waits = false
    this.#reporter.tellClaimed(leases)
    this.#prefetch.add(leases)
    if (!this.#admission().begins) this.wake()
  }

  #returnPrefetched (): void {
    const leases = this.#prefetch.takeAll()
    this.#allowance.noteReturn(leases.length)
    for (const lease of leases) this.#inFlight.release(lease)
  }

  /** Begins an attempt, or gives the task back: the answer to a claim may come late, when things have changed. */
  #beginAttempt (lease: Lease, leave?: () => void): boolean {
    const isFit = lease.suspect ? leave !== undefined : leave === undefined && !this.#isolation.isAlone
    if (this.#phases.now === 'closing' || !isFit) {
      this.#end({ lease, verdict: { kind: 'release' } })
      return false
    }
    const start = performance.now()
    const aborter = this.#inFlight.begin(lease)
    this.#allowance.noteBegin()
    this.#isolation.begin()
    this.#attempt(lease, aborter).then(settlement => {
      this.#isolation.end()
      this.#prefetch.notePace(performance.now() - start)
      leave?.()
      const { verdict } = settlement
      if (verdict.kind === 'defer' && verdict.unrouted === true) this.#loop.yieldToOthers()
      // The app has turned the task away because it is about to close.
      if (verdict.kind === 'release' && aborter.reason === undefined) this.#phases.turnAway(() => { this.wake() })
      // Otherwise it has been given back or lost meanwhile.
      if (this.#inFlight.has(lease)) this.#end(settlement)
    })
    return true
  }

  #end (settlement: Settlement): void {
    this.#inFlight.end(settlement)
    this.#prefetch.fill()
    if (this.#loop.isResting) this.#settleSoon()
  }

  /** Tells the store of what has ended: at once, unless there is more than that at hand. */
  #settleSoon (): void {
    const isBusy = this.#prefetch.size > this.#inFlight.ended.length && this.#admission().begins
    if (isBusy) this.#loop.wakeSoon()
    else this.wake()
  }

  /** Aborts and gives back what still runs when the grace of a closing consumer is over. */
  #giveBack (): void {
    const running = this.#inFlight.giveBack()
    for (const { lease } of running) this.#reporter.tell('task:returned', { taskId: lease.id })
    // In one turn, which keeps their order.
    this.wake()
    for (const { aborter } of running) aborter.abort(new AttemptWithdrawn('the app closes'))
  }

  /** Leaves a task to others that may run it, or that nobody is to run. */
  #lose (lease: Held, isCancelled: boolean): void {
    this.#prefetch.drop(lease)
    if (!this.#inFlight.lose(lease, isCancelled ? 'the task is cancelled' : 'the lease is lost')) return
    this.#reporter.tell(isCancelled ? 'task:cancelled' : 'lease:lost', { taskId: lease.id })
    this.wake()
  }

  #look ({ wakeInMs, suspects, slotInMs = Infinity }: Outlook): void {
    this.#suspects = suspects
    this.#wakeIn(wakeInMs)
    // Where tasks run on demand only, they are added on demand only.
    if (this.#allowance.left > 0) this.#scheduler.note(slotInMs)
  }

  #wakeIn (ms: number): void {
    const isOver = this.#phases.now === 'new' || (this.#phases.now === 'closing' && this.#inFlight.ended.length === 0)
    if (!isOver) this.#loop.wakeIn(ms)
  }

  /** The store did not answer. What has ended is kept, to be settled when the store answers again. */
  #tryAgainLater (err: unknown, start: number): void {
    const isLastTries = this.#phases.now === 'closing' && this.#inFlight.running === 0
    const pauseMs = this.#outage.noteFailure(err, start, isLastTries)
    if (pauseMs === undefined) this.#reporter.tellUnsettled(this.#inFlight.takeEnded())
    else this.#wakeIn(pauseMs)
  }

  /** No turn follows. */
  #rest (): void {
    if (this.#inFlight.ended.length > 0 && !this.#outage.isOn) this.#settleSoon()
    if (this.#isIdle()) for (const resolve of this.#whenIdle.splice(0)) resolve()
  }

  #isIdle (): boolean {
    return this.#loop.isResting && this.#inFlight.isEmpty && this.#prefetch.size === 0 && !this.#scheduler.isTicking
  }

  #idle (): Promise<void> { return new Promise(resolve => { this.#whenIdle.push(resolve) }) }
}
