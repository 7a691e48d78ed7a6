import { randomUUID } from 'node:crypto'
import type { NewTask, Prepared } from '../tasks.js'
import type { Lease, Outlook, Settlement, Turn, TurnResult } from '../turn.js'
import { type Call, type Calls, CLIENT_IS_CLOSED, isAnswer, MAX_ARGS } from './calls.js'
import {
  encodeSettlements, encodeTurn, type FetchMessage, type Handed, readHanded, readTurn, type TurnTerms
} from './commands/turn.js'
import type { Keyspace } from './keyspace.js'
import type { Link } from './link.js'
import { SETTLEMENT_ARGS } from './lua/settling.js'
import { TASK_ARGS } from './lua/tasks.js'
import { waitAtMost } from './wait.js'

/** The outlook of a consumer that may claim nothing. */
export const NO_OUTLOOK: Outlook = { wakeInMs: Infinity, suspects: false }

/** The most bytes of settlements that one turn carries. */
const MAX_TURN_BYTES = 4 * 1024 * 1024

/** A turn that Redis may or may not have taken. */
interface OpenTurn {
  /** What it asks for. How much its reply may hold is decided whenever it is handed in. */
  readonly terms: Omit<TurnTerms, 'replyBytes'>
  readonly settlements: readonly Settlement[]
  /** The settlements as arguments. */
  readonly encoded: ReadonlyArray<string | number>
  call: Call
  /** The answer, while it may still come. */
  answer?: Promise<unknown> | undefined
}

/** The turns of the consumer of one queue. */
interface QueueTurns {
  /** The key that holds the last turn. */
  key: string
  number: number
  open?: OpenTurn | undefined
  /** Whether each turn carries only one settlement, since Redis may refuse one of them. */
  isWary: boolean
  /** The name of the consumer, once a heartbeat has told it. */
  consumer?: string | undefined
  /** What was handed over before the reply to the turn came in which the consumer began to wait. */
  early?: Handed | undefined
}

/**
 * Takes the turns of consumers. A turn whose answer is lost is handed in again until Redis answers. Redis knows the
 * last turn of each consumer, so it takes none twice.
 */
export class Turns {
  readonly #link: Link
  readonly #calls: Calls
  readonly #keyspace: Keyspace
  readonly #prepare: (tasks: readonly NewTask[]) => Promise<Prepared>
  readonly #timeoutMs: number
  /** The name of this process among the consumers of a queue. */
  readonly #id = randomUUID()
  readonly #byQueue = new Map<string, QueueTurns>()

  constructor (
    link: Link, calls: Calls, keyspace: Keyspace, prepare: (tasks: readonly NewTask[]) => Promise<Prepared>,
    timeoutMs: number
  ) {
    this.#link = link
    this.#calls = calls
    this.#keyspace = keyspace
    this.#prepare = prepare
    this.#timeoutMs = timeoutMs
  }

  async take (queue: string, turn: Turn): Promise<TurnResult> {
    const turns = this.#of(queue)
    // Once the client is closed, tasks that run are still settled, but nothing else begins.
    const { isClosed } = this.#link
    const hasNothingToEnd = turn.settlements.length === 0 && turns.open === undefined
    if (isClosed && hasNothingToEnd) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    const open = turns.open ??= await this.#open(queue, isClosed ? withoutClaim(turn) : turn, turns)
    try {
      const start = performance.now()
      // An answer that is on its way is waited for. The turn is not handed in again meanwhile.
      if (open.answer === undefined) {
        open.answer = this.#calls.send(open.call)
        open.answer.catch(() => { open.answer = undefined })
      }
      const reply = await this.#calls.whileItFlows(open.answer)
      turns.open = undefined
      turns.isWary = false
      const result = this.#withEarly(turns, readTurn(reply, this.#fetcherOf(queue)))
      this.#calls.noteReply(sizeOfMessages(result.leases), performance.now() - start)
      return isClosed ? { ...result, outlook: NO_OUTLOOK } : result
    } catch (error) {
      // An error is an answer as well, unless it comes from the connection.
      if (isAnswer(error)) return await this.#takeRefusal(queue, turn, turns, open, error as Error)
      this.#calls.noteNoReply()
      // The next try asks for a reply of a size that the link carries.
      if (open.call.upload === undefined) open.call = { ...open.call, args: this.#argsOf(open) }
      throw error
    }
  }

  /** Takes note of the name under which the store knows the consumer of a queue, so that it can be forgotten. */
  noteConsumer (queue: string, consumer: string): void {
    this.#of(queue).consumer = consumer
  }

  /** Returns the name of the turns of a consumer, under which they wait and news are told. */
  nameOf (queue: string): string { return this.#of(queue).key }

  /** Takes in what was handed over. Returns the leases, or none if a turn that is under way returns them. */
  accept (queue: string, text: string): readonly Lease[] {
    const turns = this.#of(queue)
    const handed = readHanded(text, this.#fetcherOf(queue))
    if (handed?.number !== turns.number + 1) return []
    if (turns.open !== undefined) {
      // The news have overtaken the reply, since they come by another connection.
      turns.early = handed
      return []
    }
    turns.number++
    return handed.leases
  }

  #withEarly (turns: QueueTurns, result: TurnResult): TurnResult {
    const { early } = turns
    turns.early = undefined
    if (early?.number !== turns.number + 1) return result
    turns.number++
    return { ...result, leases: [...result.leases, ...early.leases] }
  }

  #of (queue: string): QueueTurns {
    let turns = this.#byQueue.get(queue)
    if (turns === undefined) {
      this.#byQueue.set(queue, turns = { key: this.#keyspace.turnKeyOf(queue, this.#id), number: 0, isWary: false })
    }
    return turns
  }

  /**
   * Deletes the keys that hold the last turns, and has Redis forget the consumers. It keeps them if the client may
   * still send a turn: without its key Redis would not know that this turn is over, and it would claim for nobody.
   */
  async close (): Promise<void> {
    const turns = this.#link.keepsCommands ? [] : [...this.#byQueue]
    const left = turns.filter(([, { number, consumer }]) => number > 0 || consumer !== undefined)
    const farewells = left.map(([queue, { key, consumer }]) => consumer === undefined
      ? this.#calls.run('leave', [key], [])
      : this.#calls.run('leave', [key, this.#keyspace.consumersKeyOf(queue)], [consumer]))
    await waitAtMost(Promise.allSettled(farewells), this.#timeoutMs)
  }

  /**
   * Opens a turn with as many of the settlements as one call carries, and at least one. A turn that leaves settlements
   * out, or does not fit into one message, claims nothing.
   */
  async #open (queue: string, turn: Turn, turns: QueueTurns): Promise<OpenTurn> {
    const { heartbeatMs, claim, keep, keepDead } = turn
    const settlements = turn.settlements.slice(0, turns.isWary ? 1 : countWithin(turn.settlements))
    const queues = this.#queuesOf(queue, settlements)
    // Chained tasks out of reach of this turn's script are added before it: at worst twice, rather than never.
    const elsewhere = settlements.flatMap(({ chain = [] }) => chain.filter(task => !queues.includes(task.queue)))
    if (elsewhere.length > 0) await (await this.#prepare(elsewhere)).commit()
    const encoded = encodeSettlements(settlements, queues)
    const bytes = sizeOf(settlements)
    const isLarge = settlements.length < turn.settlements.length || !this.#calls.fits(encoded, bytes)
    const terms = { number: ++turns.number, heartbeatMs, claim: isLarge ? undefined : claim, keep, keepDead }
    const keys = [...this.#keyspace.keysOf('turn', queues), turns.key]
    const args = this.#argsOf({ terms, encoded })
    const call = this.#calls.callOf('turn', keys, args, bytes, this.#keyspace.nameOf(queue))
    return { terms, settlements, encoded, call }
  }

  #argsOf ({ terms, encoded }: Pick<OpenTurn, 'terms' | 'encoded'>): Array<string | number> {
    return encodeTurn({ ...terms, replyBytes: this.#calls.replyBytes }, encoded)
  }

  /** Returns the queue, and those queues of chained tasks that the script of its turn can reach. */
  #queuesOf (queue: string, settlements: readonly Settlement[]): readonly string[] {
    const chained = settlements.flatMap(({ chain = [] }) => chain.map(task => task.queue))
    const [queues = []] = this.#keyspace.together([queue, ...chained])
    return queues
  }

  /**
   * Goes on after Redis has refused a turn. One settlement may be the cause, so each is handed in alone next. If Redis
   * refuses one alone, its task becomes a dead letter instead, unless Redis refuses that as well.
   */
  async #takeRefusal (queue: string, turn: Turn, turns: QueueTurns, open: OpenTurn, error: Error): Promise<TurnResult> {
    turns.open = undefined
    // Somebody has written to the key of the turns. The consumer goes on under another key.
    if (error.message.includes('this turn is over')) {
      turns.key = this.#keyspace.turnKeyOf(queue, randomUUID())
      throw error
    }
    const [settlement, ...others] = open.settlements
    const wasAlone = turns.isWary && others.length === 0
    turns.isWary = open.settlements.length > 0
    if (settlement === undefined || !wasAlone) throw error
    const { id, fence } = settlement.lease
    const buried: Settlement = {
      lease: { id, fence }, verdict: { kind: 'dead', reason: `its outcome could not be stored: ${error.message}` }
    }
    const burial = { ...withoutClaim(turn), settlements: [buried] }
    const { call: { script, keys, args } } = await this.#open(queue, burial, turns)
    return readTurn(await this.#calls.run(script, keys, args), this.#fetcherOf(queue))
  }

  #fetcherOf (queue: string): FetchMessage {
    return async (lease, length, signal) => {
      const keys = [...this.#keyspace.keysOf('slice', [queue]), this.#keyspace.copyKeyOf(queue, lease.fence)]
      return await this.#calls.fetch(keys, lease, length, signal)
    }
  }
}

function withoutClaim ({ claim: _, ...turn }: Turn): Turn { return turn }

const sizeOfMessages = (leases: readonly Lease[]): number =>
  leases.reduce((sum, { message }) => sum + (typeof message === 'string' ? message.length : 0), 0)

const bytesOf = ({ chain = [], record = '' }: Settlement): number =>
  chain.reduce((sum, { message }) => sum + message.length, record.length)

const sizeOf = (settlements: readonly Settlement[]): number =>
  settlements.reduce((sum, settlement) => sum + bytesOf(settlement), 0)

/** Counts the settlements that one turn carries, from the first one on: at least one. */
function countWithin (settlements: readonly Settlement[]): number {
  let bytes = 0
  let args = 0
  const end = settlements.findIndex((settlement, index) => {
    bytes += bytesOf(settlement)
    args += SETTLEMENT_ARGS + TASK_ARGS * (settlement.chain?.length ?? 0)
    return index > 0 && (bytes > MAX_TURN_BYTES || args > MAX_ARGS)
  })
  return end === -1 ? settlements.length : end
}
