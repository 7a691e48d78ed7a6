import { Batches, type Placed } from './batches.js'
import { isAnswer, type Calls } from './calls.js'
import { encodePieces } from './commands/commit.js'
import type { Keyspace } from './keyspace.js'
import type { Link } from './link.js'
import type { Replicas } from './replicas.js'
import { waitAtMost } from './wait.js'

/** A piece in which a commit was prepared. */
export interface PendingPiece {
  readonly id: string
  /** What it weighs in a call. */
  weight: number
  /** How often Redis may have got the piece. If it was sent more than once, a copy may still arrive later. */
  sends: number
}

/** What shall become of a prepared commit, until Redis has heard it. */
export interface PendingOutcome {
  readonly script: 'commitNew' | 'commit' | 'rollback'
  readonly queues: readonly string[]
  readonly pieces: readonly PendingPiece[]
  /** Whether Redis has answered that it cannot do this. */
  isRefused?: boolean
}

/** For how long a store that closes goes on telling Redis what becomes of commits, in milliseconds. */
const CLOSE_MS = 10_000

/** The pause before an outcome that Redis has refused is told again, in milliseconds. */
const REFUSED_MS = 1000

/** The most commits to a queue that may be without an answer. Further commits are refused. */
export const MAX_PENDING = 1000

/** Tells Redis what becomes of prepared commits, again and again until Redis has heard it. */
export class PendingOutcomes {
  readonly #link: Link
  readonly #calls: Calls
  readonly #keyspace: Keyspace
  readonly #replicas: Replicas
  readonly #timeoutMs: number
  readonly #pending = new Set<PendingOutcome>()
  /** Outcomes that Redis has refused, by their queues. One of them is tried for all. */
  readonly #refused = new Map<string, Set<PendingOutcome>>()
  readonly #batches: Readonly<Record<PendingOutcome['script'], Batches<PendingOutcome, void>>>

  constructor (
    link: Link, calls: Calls, keyspace: Keyspace, replicas: Replicas, timeoutMs: number, maxAtOnce: number
  ) {
    this.#link = link
    this.#calls = calls
    this.#keyspace = keyspace
    this.#replicas = replicas
    this.#timeoutMs = timeoutMs
    const batchesOf = (script: PendingOutcome['script']) =>
      new Batches<PendingOutcome, void>(maxAtOnce, false, outcomes => this.#call(script, outcomes))
    this.#batches = { commitNew: batchesOf('commitNew'), commit: batchesOf('commit'), rollback: batchesOf('rollback') }
  }

  get size (): number { return this.#pending.size }

  /** Whether so many commits to these queues are without an answer that another would only take memory. */
  hasTooMany (parts: ReadonlyArray<readonly string[]>): boolean {
    if (this.#pending.size < MAX_PENDING) return false
    const queues = parts.flat()
    const ofQueues = [...this.#pending].filter(outcome => outcome.queues.some(queue => queues.includes(queue)))
    return ofQueues.length >= MAX_PENDING
  }

  /**
   * Makes sure that Redis hears what becomes of a commit, now or when it is back. `made` resolves when the command is
   * under way; `results`, when Redis has heard it or cannot.
   */
  tell (outcome: PendingOutcome): Placed<void> {
    this.#pending.add(outcome)
    const weight = outcome.pieces.reduce((sum, { weight }) => sum + weight, 0)
    return this.#batches[outcome.script].add(outcome.queues.join(), outcome, weight)
  }

  /** Tells all outcomes once more, when a connection has come back. */
  tellAgain (): void {
    for (const outcome of this.#pending) this.tell(outcome)
  }

  /** Tells Redis all outcomes until it has heard them or says that it cannot, for a bounded time. */
  async tellLast (): Promise<void> {
    const start = performance.now()
    for (;;) {
      const outcomes = [...this.#pending]
      // A rollback may get lost: its tasks become dead letters after an hour, and nobody was promised that they run.
      const longestMs = outcomes.some(({ script }) => script !== 'rollback') ? CLOSE_MS : this.#timeoutMs
      const leftMs = start + longestMs - performance.now()
      if (outcomes.length === 0 || leftMs <= 0) return
      const told = Promise.all(outcomes.map(outcome => this.tell(outcome).results))
      await waitAtMost(told, Math.min(leftMs, this.#timeoutMs))
      if (outcomes.every(outcome => outcome.isRefused === true || !this.#pending.has(outcome))) return
      this.#link.bypass()
      await this.#link.reconnected(Math.min(leftMs, 100))
    }
  }

  async #call (script: PendingOutcome['script'], outcomes: readonly PendingOutcome[]): Promise<void[]> {
    const { queues } = outcomes[0]!
    const args = outcomes.flatMap(({ pieces }) => encodePieces(pieces))
    try {
      const isOusted = await this.#calls.run(script, this.#keyspace.keysOf(script, queues), args) === 1
      // Only `commitNew` says so: another task has the place where a message was.
      if (isOusted) await this.#calls.run('commit', this.#keyspace.keysOf('commit', queues), args)
      if (script !== 'rollback' && this.#replicas.areWanted) await this.#replicas.replicate()
      for (const outcome of outcomes) this.#pending.delete(outcome)
    } catch (error) {
      this.#keepRefused(queues.join(), outcomes, isAnswer(error))
    }
    return []
  }

  /** Keeps outcomes that Redis has not heard. If the connection is lost, they are told again when it is back. */
  #keepRefused (queues: string, outcomes: readonly PendingOutcome[], isRefused: boolean): void {
    for (const outcome of outcomes) outcome.isRefused = isRefused
    if (!isRefused && !this.#link.isUp) return
    const refused = this.#refused.get(queues) ?? new Set()
    if (refused.size === 0) setTimeout(() => { this.#tellRefused(queues) }, REFUSED_MS).unref()
    this.#refused.set(queues, refused)
    for (const outcome of outcomes) refused.add(outcome)
  }

  async #tellRefused (queues: string): Promise<void> {
    const [first, ...others] = [...this.#refused.get(queues)!].filter(outcome => this.#pending.has(outcome))
    this.#refused.delete(queues)
    if (first !== undefined) await this.tell(first).results
    const refused = this.#refused.get(queues)
    for (const other of others) {
      if (refused === undefined) this.tell(other)
      else refused.add(other)
    }
  }
}
