import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { FST_TASKQUEUE_DUPLICATE } from '../../errors.js'
import type { NewTask, Prepared } from '../tasks.js'
import { Batches, type Placed } from './batches.js'
import type { Arguments, Calls } from './calls.js'
import { encodeNew } from './commands/prepare-new.js'
import { encodeReserved } from './commands/reserved.js'
import type { Keyspace } from './keyspace.js'
import { encodeTasks, hasLane } from './lua/tasks.js'
import { MAX_PENDING, type PendingOutcome, type PendingOutcomes, type PendingPiece } from './outcomes.js'
import type { Replicas } from './replicas.js'
import { waitAtMost } from './wait.js'

type KeptOut = Prepared['keptOut'][number]

/** Queues by which of them one script can reach together. */
type Parts = ReadonlyArray<readonly string[]>

/** The tasks of one commit that one call prepares. */
interface Piece extends PendingPiece {
  readonly queues: readonly string[]
  readonly tasks: readonly NewTask[]
  bytes: number
}

/**
 * What Redis answers to a piece of a commit: 0, the queues and ids that are kept out; 1, an id for which the commit is
 * refused; or 2, an id for which the piece has to wait, and its queue.
 */
type Preparedness = [0, ...keptOut: Array<number | string>] | [1, id: string] | [2, id: string, queue: number]

/**
 * The most tasks, or ids, that one call takes in, so that it does not keep Redis from others for long. A task of
 * several KiB counts as several.
 */
export const MAX_AT_ONCE = 1000

/**
 * The same for tasks whose ids nobody has chosen, and how much their pieces may weigh together. Redis takes in what one
 * call has while this process makes the next.
 */
const MAX_NEW_AT_ONCE = 125
const MAX_LOAD = 80

const weightOf = (count: number, bytes: number): number => count + bytes / 4096

/**
 * What a piece weighs among the pieces that one call prepares. Bytes weigh more here than in a single commit, since no
 * commit should have to wait for the bytes of another.
 */
const loadOf = ({ tasks, bytes }: Piece): number => tasks.length + bytes / 128

/** Prepares commits, and tells Redis what becomes of them. */
export class RedisCommits {
  readonly #calls: Calls
  readonly #keyspace: Keyspace
  readonly #outcomes: PendingOutcomes
  readonly #replicas: Replicas
  readonly #timeoutMs: number
  /** The commits that wait for an id that another commit is about to add: the last one of the line for each id. */
  readonly #lines = new Map<string, Promise<void>>()
  readonly #newBatches = new Batches<Piece, boolean>(MAX_LOAD, true, pieces => this.#callNew(pieces))
  readonly #batches = new Batches<Piece, Preparedness>(MAX_AT_ONCE, true, pieces => this.#callChosen(pieces))

  #isClosed = false

  constructor (
    calls: Calls, keyspace: Keyspace, outcomes: PendingOutcomes, replicas: Replicas, timeoutMs: number
  ) {
    this.#calls = calls
    this.#keyspace = keyspace
    this.#outcomes = outcomes
    this.#replicas = replicas
    this.#timeoutMs = timeoutMs
  }

  /** Refuses every prepare and commit from now on. */
  close (): void { this.#isClosed = true }

  /**
   * Prepares tasks, in one round trip unless some of them wait for others. If the answer is lost, it is open whether
   * the tasks are prepared. The pieces are then sent again for as long as there is time. If it is still open after
   * that, a rollback is sent after them.
   */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    this.#refuseClosed()
    const parts = this.#keyspace.together(queuesOf(tasks))
    if (this.#outcomes.hasTooMany(parts)) throw this.#calls.cannot(`it has not answered ${MAX_PENDING} commits`)
    // If nobody has chosen the ids, there are no duplicates to look for.
    if (tasks.some(({ onDuplicate }) => onDuplicate !== undefined)) return await this.#prepareChosen(tasks, parts)
    const pieces = piecesOf(`+${randomUUID()}`, MAX_NEW_AT_ONCE, tasks, parts)
    let areNew = true
    try {
      const placed = pieces.map(piece => this.#newBatches.add(piece.queues.join(), piece, loadOf(piece)))
      for (const { results, index } of placed) areNew = (await results)[index]! && areNew
      if (this.#replicas.areWanted) await this.#replicas.replicate()
    } catch (error) {
      this.#tell('rollback', parts, pieces)
      throw error
    }
    if (areNew) return this.#prepared(tasks.some(hasLane) ? 'commit' : 'commitNew', parts, pieces)
    // One is known all the same.
    this.#tell('rollback', parts, pieces)
    return await this.#prepareChosen(tasks, parts)
  }

  async #prepareChosen (tasks: readonly NewTask[], parts: Parts): Promise<Prepared> {
    const pieces = piecesOf(randomUUID(), MAX_AT_ONCE, tasks, parts)
    const keptOut: KeptOut[] = []
    try {
      for (const piece of pieces) keptOut.push(...await this.#insist(piece))
      if (this.#replicas.areWanted) await this.#replicas.replicate()
    } catch (error) {
      this.#tell('rollback', parts, pieces)
      throw error
    }
    return this.#prepared('commit', parts, pieces, keptOut)
  }

  #prepared (
    script: PendingOutcome['script'], parts: Parts, pieces: readonly Piece[], keptOut: readonly KeptOut[] = []
  ): Prepared {
    return {
      keptOut,
      // The commits are under way when this resolves, so Redis carries out later commands after them.
      commit: async () => {
        this.#refuseClosed()
        for (const { made } of this.#tell(script, parts, pieces)) await made
      },
      rollback: () => { this.#tell('rollback', parts, pieces) }
    }
  }

  /** Tells what becomes of the pieces that Redis may have got: in one call for each part. */
  #tell (script: PendingOutcome['script'], parts: Parts, pieces: readonly Piece[]): Array<Placed<void>> {
    const told: Array<Placed<void>> = []
    for (const queues of parts) {
      const sent = pieces.filter(piece => piece.queues === queues && piece.sends > 0)
      if (sent.length > 0) told.push(this.#outcomes.tell({ script, queues, pieces: sent }))
    }
    return told
  }

  #refuseClosed (): void {
    if (this.#isClosed) throw this.#calls.cannot('it has been closed')
  }

  /** Sends a piece, and returns what is kept out. Waits for an id that another commit is about to add. */
  async #insist (piece: Piece): Promise<readonly KeptOut[]> {
    const { queues } = piece
    const deadline = performance.now() + this.#timeoutMs
    let place: { readonly line: string, readonly leave: () => void } | undefined
    try {
      for (;;) {
        const { results, index } = this.#batches.add(queues.join(), piece, loadOf(piece))
        const answer = (await results)[index]!
        switch (answer[0]) {
          case 0: return keptOutOf(queues, answer.slice(1))
          case 1: throw new FST_TASKQUEUE_DUPLICATE(answer[1])
        }
        const [, id, queue] = answer
        const line = `${queues[queue]!} ${id}`
        if (place?.line !== line) {
          place?.leave()
          place = { line, leave: await this.#lineUp(line, deadline) }
        }
        await this.#untilReleased(queues[queue]!, id, piece.id.replace(/:.*/, ''), deadline)
        if (performance.now() > deadline) {
          throw this.#calls.cannot(`it has not heard what becomes of another task with the id ${id}`)
        }
      }
    } finally {
      place?.leave()
    }
  }

  /**
   * Waits until all other commits of this process that want the same id have left the line. Without it all of them
   * would send their messages again, for one of them to get the id.
   */
  async #lineUp (line: string, deadline: number): Promise<() => void> {
    const before = this.#lines.get(line)
    let leave = () => {}
    const left = new Promise<void>(resolve => { leave = resolve })
    const last = before === undefined ? left : before.then(() => left)
    this.#lines.set(line, last)
    last.then(() => { if (this.#lines.get(line) === last) this.#lines.delete(line) })
    if (before !== undefined) await waitAtMost(before, deadline - performance.now())
    return leave
  }

  /** Asks now and then whether another commit is still about to add an id. */
  async #untilReleased (queue: string, id: string, commit: string, deadline: number): Promise<void> {
    const keys = this.#keyspace.keysOf('reserved', [queue])
    for (let pauseMs = 5; performance.now() < deadline; pauseMs = Math.min(pauseMs * 2, 50)) {
      await sleep(pauseMs)
      if (await this.#calls.run('reserved', keys, encodeReserved(id, commit)) === 0) return
    }
  }

  /** Returns for each piece whether all of its ids are new. */
  async #callNew (pieces: readonly Piece[]): Promise<boolean[]> {
    const args = encodeNew(pieces, pieces[0]!.queues)
    const known = await this.#call('prepareNew', pieces, args) as string[]
    return pieces.map(({ id }) => !known.includes(id))
  }

  async #callChosen (pieces: readonly Piece[]): Promise<Preparedness[]> {
    const args = pieces.flatMap(({ id, tasks, queues }) => [id, tasks.length, ...encodeTasks(tasks, queues)])
    return await this.#call('prepare', pieces, args) as Preparedness[]
  }

  async #call (script: 'prepareNew' | 'prepare', pieces: readonly Piece[], args: Arguments): Promise<unknown> {
    const { queues } = pieces[0]!
    const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0)
    const keys = this.#keyspace.keysOf(script, queues)
    const call = this.#calls.callOf(script, keys, args, bytes, this.#keyspace.nameOf(queues[0]!))
    return await this.#calls.insist(call, () => { for (const piece of pieces) piece.sends++ })
  }
}

/** Divides the tasks of a commit into pieces for one call each. All pieces are committed, or none. */
function piecesOf (id: string, maxWeight: number, tasks: readonly NewTask[], parts: Parts): Piece[] {
  const pieces: Array<Piece & { readonly tasks: NewTask[] }> = []
  for (const queues of parts) {
    for (const task of tasks) {
      if (!queues.includes(task.queue)) continue
      const bytes = task.message.length
      let piece = pieces.at(-1)
      if (piece?.queues !== queues || weightOf(piece.tasks.length + 1, piece.bytes + bytes) > maxWeight) {
        const name = pieces.length === 0 ? id : `${id}:${pieces.length}`
        piece = { id: name, queues, tasks: [], bytes: 0, weight: 0, sends: 0 }
        pieces.push(piece)
      }
      piece.tasks.push(task)
      piece.bytes += bytes
      piece.weight = weightOf(piece.tasks.length, piece.bytes)
    }
  }
  return pieces
}

/** Returns the queues of tasks, always in the same order. */
function queuesOf (tasks: readonly NewTask[]): string[] {
  return tasks.length === 1 ? [tasks[0]!.queue] : [...new Set(tasks.map(({ queue }) => queue))].sort()
}

function keptOutOf (queues: readonly string[], flat: ReadonlyArray<number | string>): KeptOut[] {
  const keptOut: KeptOut[] = []
  for (let i = 0; i < flat.length; i += 2) {
    keptOut.push({ queue: queues[flat[i] as number]!, id: flat[i + 1] as string })
  }
  return keptOut
}
