import type { Entry } from './ledger.js'
import { ALL_QUEUES, EVERY_MS, LEASE_MS, LIMITS, SCHEDULES, SHARED } from './plan.js'
import { readStory, type Attempt, type Story, type Task } from './story.js'

/** What Redis holds once everything has closed. */
export interface FinalState {
  /** How many tasks are in each of the places in which none should be left. */
  readonly places: Readonly<Record<string, number>>
  readonly dead: readonly string[]
  /** The tasks of commits of which nobody knows what was to become, as they are kept. */
  readonly prepared: readonly string[]
  /** The ids of which something is kept. */
  readonly kept: readonly string[]
  /** How many commits are prepared, or may still come late. */
  readonly commits: number
  readonly keys: readonly string[]
}

export type Rule =
  | 'lost' | 'ghost' | 'torn' | 'duplicate' | 'attempt' | 'chain' | 'fence' | 'innocent' | 'poison' | 'stranger' | 'left' | 'crash' | 'cancelled' | 'expired' | 'limit' | 'slot'

export interface Violation {
  readonly rule: Rule
  readonly text: string
  /** Whom it concerns: a task or a request. */
  readonly id?: string
  readonly request?: number
  /** Other tasks that have to do with it. */
  readonly beside?: readonly string[]
}

export interface Findings {
  readonly violations: readonly Violation[]
  readonly figures: Figures
}

export interface Figures {
  requests: number
  ok: number
  failed: number
  unknown: number
  /** Tasks of which an attempt has begun, and attempts. */
  tasks: number
  attempts: number
  /** Attempts at what was attempted before and had not failed, by what had become of the attempt before. */
  duplicates: Record<string, number>
  faults: Story['faults']
  lost: number
  ghosts: number
  /** Tasks whose commit was answered, but not concluded before its process died: see `inDoubt`. */
  inDoubt: number
  /** From the answer to the first attempt, less the delay. */
  longestWaitMs: number
  /** From a request to its answer, less the time in which the web process stood still. */
  longestAnswerMs: number
  keys: number
}

/**
 * A consumer whose heartbeats are kept from Redis for this long may lose its leases: some
 * of each is over when the last one arrives, and the next one takes its time.
 */
const EXCUSE_MS = 0.4 * LEASE_MS

/** A request that takes no longer has not had to send anything twice. */
const UNDISTURBED_MS = 10

/** How often a task may die alone before it is dead, and once beside others. */
const MAX_DEATHS = 4

/** Finds out whether what happened keeps every promise. */
export function check (ledger: readonly Entry[], state: FinalState): Findings {
  const story = readStory(ledger)
  const found = new Checker(story, state)
  found.checkRequests()
  for (const task of story.tasks.values()) {
    found.checkTask(task)
    found.checkOver(task)
  }
  found.checkChains()
  found.checkLimits()
  found.checkSlots()
  found.checkDead()
  found.checkLeft()
  return { violations: found.violations, figures: figuresOf(story, found, state) }
}

class Checker {
  readonly violations: Violation[] = []
  readonly duplicates: Record<string, number> = {}
  inDoubt = 0
  readonly #story: Story
  readonly #state: FinalState
  readonly #dead: ReadonlySet<string>

  constructor (story: Story, state: FinalState) {
    this.#story = story
    this.#state = state
    this.#dead = new Set(state.dead)
  }

  checkRequests (): void {
    for (const { number: request, status, ids, joins = false, row = false } of this.#story.requests.values()) {
      const begun = ids.filter(id => this.#attemptsOf(id).length > 0)
      const isSuccess = status === undefined ? row : status < 400
      if (joins && row !== isSuccess) this.#find('torn', { request }, `was answered ${status}, and what it joined ${row ? 'is' : 'is not'} committed`)
      if (joins && !row) for (const id of begun) this.#find('ghost', { request, id }, 'what its request joined is not committed, and it ran')
      if (row) {
        for (const id of ids) this.#checkNotLost(id, 'what its request joined is committed')
      } else if (status === undefined) {
        if (begun.length > 0 && begun.length < ids.length) this.#find('torn', { request }, `has no answer, and ${begun.length} of its ${ids.length} tasks ran`)
      } else if (status >= 400) {
        for (const id of begun) this.#find('ghost', { request, id }, `was answered ${status}, and its task ran`)
      } else if (ids.length === 0) {
        this.#find('lost', { request }, `was answered ${status} without having added anything`)
      } else {
        for (const id of ids) this.#checkNotLost(id, `its request was answered ${status}`)
      }
    }
    for (const id of this.#story.strangers) this.#find('stranger', { id }, 'ran, and nobody has added it')
    for (const [pid, { cause, how }] of this.#story.lives) if (cause === 'crash') this.#find('crash', {}, `process ${pid} crashed: ${how}`)
  }

  checkTask ({ id, kind, attempts }: Task): void {
    if (kind === 'poison' && attempts.length > MAX_DEATHS) this.#find('poison', { id }, `killed ${attempts.length} processes`)
    attempts.slice(1).forEach((next, index) => {
      const attempt = attempts[index]!
      if (attempt.number === next.number) return this.#find('attempt', { id }, `its attempt ${next.number} was made twice`)
      if (attempt.end !== undefined && attempt.end.status >= 400) return
      const reason = this.#reasonFor(attempt, next)
      if (reason === undefined) this.#find('duplicate', { id }, `began attempt ${next.number} although nothing was wrong with attempt ${attempt.number}`)
      else this.duplicates[reason] = (this.duplicates[reason] ?? 0) + 1
    })
  }

  /** What was cancelled or has expired is not begun, but for what was claimed before: that is known within a lease. */
  checkOver ({ id, request, expiresMs, cancelledAt = Infinity, attempts }: Task): void {
    const { answeredAt = Infinity } = this.#story.requests.get(request!) ?? {}
    const isLate = ({ at, pid }: Attempt, since: number) => at > since + LEASE_MS && !this.#stoodStill(pid, since, at)
    for (const attempt of attempts) if (isLate(attempt, cancelledAt)) this.#find('cancelled', { id }, `began attempt ${attempt.number} after it was cancelled`)
    const [first] = attempts
    // What was claimed before, by a process that died, does not expire any more.
    if (first?.number === 1 && expiresMs !== undefined && isLate(first, answeredAt + expiresMs)) this.#find('expired', { id }, 'was begun after it had expired')
  }

  #stoodStill (pid: number, from: number, to: number): boolean {
    return this.#story.lives.get(pid)?.still.some(([begin, end]) => begin < to && end > from) === true
  }

  /** What an attempt chains is stored if that is the one that is settled, of all attempts at the task. */
  checkChains (): void {
    for (const { id, attempts } of this.#story.tasks.values()) {
      const chaining = attempts.filter(({ chained }) => chained !== undefined)
      const settled = chaining.filter(({ chained }) => chained!.some(id => this.#attemptsOf(id).length > 0))
      const [winner] = settled
      if (settled.length > 1) this.#find('chain', { id }, `was settled ${settled.length} times: so many of its attempts have chains`)
      if (winner === undefined) {
        if (chaining.some(({ end }) => end !== undefined && end.status < 400) && !this.#isKept(id)) this.#find('chain', { id }, 'is done, and its chain is lost')
        continue
      }
      for (const id of winner.chained!) this.#checkNotLost(id, `attempt ${winner.number} has added it`)
      if (winner.end === undefined || winner.end.status >= 400) this.#find('chain', { id }, `has a chain of attempt ${winner.number}, which did not succeed`)
      const last = attempts.at(-1)!
      if (last.number > winner.number) this.#find('fence', { id }, `was settled by attempt ${winner.number}, although attempt ${last.number} had been claimed`)
    }
  }

  /** No more attempts of the shared queue, or of one of its keys, run at a moment than its limits allow. */
  checkLimits (): void {
    const runs = [...this.#story.tasks.values()].flatMap(task => task.attempts
      .filter(({ queue }) => queue === SHARED)
      .map(attempt => ({ ...attempt, key: task.key, until: this.#countsUntil(attempt, task) })))
    const checkMost = (which: string, most: number, together: typeof runs, { id }: Attempt) => {
      if (together.length <= most) return
      const list = together.map(({ id, number, pid }) => `attempt ${number} at ${id} in process ${pid}`).join(', ')
      this.#find('limit', { id, beside: together.map(({ id }) => id) }, `makes ${together.length} run ${which}, where ${most} may: ${list}`)
    }
    for (const run of runs) {
      const together = runs.filter(({ at, until }) => at <= run.at && run.at < until)
      checkMost('of its queue', LIMITS.running, together, run)
      if (run.key !== undefined) checkMost(`of the key ${run.key}`, LIMITS.perKey.running, together.filter(({ key }) => key === run.key), run)
    }
  }

  /** An attempt counts until it ends, or its task is cancelled, or its lease may have been lost though it still runs. */
  #countsUntil ({ at, pid, end, abortedAt = Infinity }: Attempt, { cancelsAt = Infinity }: Task): number {
    const { diedAt = Infinity, still, away } = this.#story.lives.get(pid) ?? { still: [], away: [] }
    const lostAt = whenCovered([...still, ...away], at - LEASE_MS, EXCUSE_MS)
    return Math.min(end?.at ?? Infinity, abortedAt, diedAt, cancelsAt, lostAt)
  }

  /** Each slot of a schedule has a task, which comes to an end, and no task has two slots. */
  checkSlots (): void {
    for (const schedule of SCHEDULES) {
      const tasks = [...this.#story.tasks.values()].filter(task => task.schedule === schedule)
      const slots = tasks.map(({ slot }) => slot!).sort((a, b) => a - b)
      for (const { id } of tasks) this.#checkNotLost(id, `it is of the schedule ${schedule}`)
      slots.slice(1).forEach((slot, index) => {
        const gapMs = slot - slots[index]!
        if (gapMs !== EVERY_MS) this.#find('slot', {}, `${schedule} has slots ${gapMs} ms apart: ${new Date(slot).toISOString()} is the second`)
      })
    }
  }

  checkDead (): void {
    const { tasks, corrupted } = this.#story
    for (const id of this.#dead) {
      const task = tasks.get(id)
      if (task?.kind === 'poison' || (task === undefined && corrupted.has(id))) continue
      // One that dies alone, with process after process that somebody else kills, has bad luck.
      const unlucky = (task?.attempts ?? []).filter(attempt => this.#reasonFor(attempt) !== undefined && this.#story.lives.get(attempt.pid)?.cause !== 'poison')
      if (unlucky.length < MAX_DEATHS) this.#find('innocent', { id }, 'is dead, and has killed nobody')
    }
    for (const id of corrupted) if (!this.#dead.has(id)) this.#find('left', { id }, 'is corrupt, and was not set aside')
    for (const { id, kind, attempts } of tasks.values()) {
      if (kind === 'poison' && attempts.length > 0 && !this.#dead.has(id)) this.#find('poison', { id }, 'is not dead')
    }
  }

  checkLeft (): void {
    const { places, kept, prepared, commits, keys } = this.#state
    const { requests, lives } = this.#story
    for (const [place, count] of Object.entries(places)) if (count > 0) this.#find('left', {}, `${count} tasks in ${place}`)
    for (const id of kept) if (!this.#dead.has(id) && !this.#isPrepared(id)) this.#find('left', { id }, 'is gone, and something of it is kept')
    for (const tasks of prepared) {
      const owner = [...requests.values()].find(({ ids }) => ids.some(id => tasks.includes(id)))
      if (owner?.pid === undefined || lives.get(owner.pid)?.diedAt === undefined) this.#find('left', { request: owner?.number }, 'its commit is prepared, and its process lives')
    }
    // A rollback keeps out a prepare that may come late, and a commit one that was sent again, in each of two queues.
    const repeated = [...requests.values()].filter(({ status, ms }) => status === undefined || status >= 500 || ms! > UNDISTURBED_MS)
    if (commits > prepared.length + 2 * repeated.length) this.#find('left', {}, `${commits} commits of ${repeated.length} requests that may have been sent twice`)
    const turns = keys.filter(key => /:turn:/.test(key))
    const dead = [...lives.values()].filter(({ cause }) => cause !== undefined && cause !== 'closed')
    const abandoned = dead.length + [...lives.values()].filter(({ cause, closingAt }) => cause === 'closed' && closingAt !== undefined).length
    if (turns.length > ALL_QUEUES.length * abandoned) this.#find('left', {}, `${turns.length} turns of ${abandoned} consumers that have died`)
    // A commit of a process that has died keeps its ids as long as it is in doubt.
    const isExpected = (key: string) => /^taskqueue:\{[a-z]+\}:(dead|message|attempts|clock|prepared|ended|summary|revoked|consumers|idle|history|lane|limits|tat|schedules?|turn:[-0-9a-f]{36})$/.test(key) ||
      (prepared.length > 0 && key.endsWith(':reserved'))
    const strange = keys.filter(key => !isExpected(key))
    if (strange.length > 0) this.#find('left', {}, `keys ${strange.join(', ')}`)
  }

  #checkNotLost (id: string, why: string): void {
    const task = this.#story.tasks.get(id)!
    if (this.#attemptsOf(id).some(({ end }) => end !== undefined && end.status < 400)) return
    if (this.#dead.has(id) || task.cancelsAt !== undefined || task.expiresMs !== undefined) return
    // The double fault: its process lost Redis after the answer, and died before it was back. One that closes waits for it.
    const pid = task.request === undefined ? undefined : this.#story.requests.get(task.request)!.pid
    const { diedAt, cause } = this.#story.lives.get(pid!) ?? {}
    if (diedAt !== undefined && cause !== 'closed' && this.#isPrepared(id)) this.inDoubt++
    else this.#find('lost', { id }, `never came to an end, and ${why}`)
  }

  /** Why a task may be claimed again while, or after, an attempt at it runs. */
  #reasonFor (attempt: Attempt, next?: Attempt): string | undefined {
    const { diedAt = Infinity, closingAt = Infinity, still, away } = this.#story.lives.get(attempt.pid) ?? { still: [], away: [] }
    // An attempt may also begin late, of a claim that had been answered before its process stood still.
    const from = attempt.at - LEASE_MS
    const to = Math.max(attempt.at, next?.at ?? Infinity)
    if (diedAt >= attempt.at && diedAt <= to) return 'died'
    if (closingAt >= attempt.at - LEASE_MS && closingAt <= to) return 'given back'
    if (covered(still, from, to) >= EXCUSE_MS) return 'stood still'
    if (covered([...still, ...away], from, to) >= EXCUSE_MS) return 'cut off'
    return undefined
  }

  #attemptsOf (id: string): readonly Attempt[] {
    return this.#story.tasks.get(id)?.attempts ?? []
  }

  #isPrepared (id: string): boolean {
    return this.#state.prepared.some(tasks => tasks.includes(id))
  }

  #isKept (id: string): boolean {
    return this.#dead.has(id) || this.#state.kept.includes(id)
  }

  #find (rule: Rule, whom: { id?: string, request?: number, beside?: string[] }, text: string): void {
    this.violations.push({ rule, ...whom, text })
  }
}

/** How much of the time between two moments lies in the given ones. */
function covered (times: ReadonlyArray<[from: number, to: number]>, from: number, to: number): number {
  let sum = 0
  let until = from
  for (const [start, end] of times.toSorted(([a], [b]) => a - b)) {
    sum += Math.max(0, Math.min(end, to) - Math.max(start, until))
    until = Math.max(until, Math.min(end, to))
  }
  return sum
}

/** When so much of the time since a moment lay in the given times; Infinity if it never did. */
function whenCovered (times: ReadonlyArray<[from: number, to: number]>, from: number, ms: number): number {
  let left = ms
  let until = from
  for (const [start, end] of times.toSorted(([a], [b]) => a - b)) {
    const begin = Math.max(start, until)
    if (end - begin >= left) return begin + left
    left -= Math.max(0, end - begin)
    until = Math.max(until, end)
  }
  return Infinity
}

function figuresOf ({ requests, tasks, lives, faults }: Story, { violations, duplicates, inDoubt }: Checker, { keys }: FinalState): Figures {
  const statuses = [...requests.values()].map(({ status }) => status)
  const answers = [...requests.values()].map(({ at, answeredAt = at, pid }) =>
    answeredAt - at - covered(lives.get(pid!)?.still ?? [], at, answeredAt))
  const ran = [...tasks.values()].filter(({ attempts }) => attempts.length > 0)
  const waits = ran.map(({ request, delayMs = 0, attempts }) => {
    const { answeredAt = Infinity } = requests.get(request!) ?? {}
    return Math.min(...attempts.map(({ at }) => at)) - answeredAt - delayMs
  })
  return {
    requests: statuses.length,
    ok: statuses.filter(status => status !== undefined && status < 400).length,
    failed: statuses.filter(status => status !== undefined && status >= 400).length,
    unknown: statuses.filter(status => status === undefined).length,
    tasks: ran.length,
    attempts: ran.reduce((sum, { attempts }) => sum + attempts.length, 0),
    duplicates,
    faults,
    lost: violations.filter(({ rule }) => rule === 'lost').length,
    ghosts: violations.filter(({ rule }) => rule === 'ghost').length,
    inDoubt,
    longestWaitMs: Math.round(Math.max(0, ...waits)),
    longestAnswerMs: Math.round(Math.max(0, ...answers)),
    keys: keys.length
  }
}
