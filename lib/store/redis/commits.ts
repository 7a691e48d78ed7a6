import { randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import { FST_TASKQUEUE_DUPLICATE } from '../../errors.js'
import type { NewTask, Prepared } from '../tasks.js'
import { Batches } from './batches.js'
import type { Calls } from './calls.js'
import { encodeReserved } from './commands/reserved.js'
import type { Keyspace } from './keyspace.js'
import { encodeTasks } from './lua/tasks.js'
import { MAX_PENDING, type PendingOutcome, type PendingOutcomes } from './outcomes.js'
import type { Replicas } from './replicas.js'
import { waitAtMost } from './wait.js'

type KeptOut = Prepared['keptOut'][number]

/** The tasks of one commit that one call prepares. */
interface Piece {
  readonly id: string
  readonly queues: readonly string[]
  readonly tasks: readonly NewTask[]
  readonly bytes: number
  /** How often Redis may have got the piece. If it was sent more than once, a copy may still arrive later. */
  sends: number
}

/**
 * What Redis answers to a piece of a commit: 0, the queues and ids that are kept out; 1, an id for which the commit is
 * refused; 2, an id for which the piece has to wait, and its queue; or 3, that an id is known already.
 */
type Preparedness = [0, ...keptOut: Array<number | string>] | [1, id: string] | [2, id: string, queue: number] | [3]

/**
 * The most tasks, or ids, that one call takes in, so that it does not keep Redis from others for long. A task of
 * several KiB counts as several.
 */
export const MAX_AT_ONCE = 1000

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
  readonly #batches = {
    prepareNew: new Batches<Piece, Preparedness>(MAX_AT_ONCE, pieces => this.#call('prepareNew', pieces)),
    prepare: new Batches<Piece, Preparedness>(MAX_AT_ONCE, pieces => this.#call('prepare', pieces))
  }

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
   * Prepares tasks, in one round trip unless there are many. If the answer is lost, it is open whether the tasks are
   * prepared. The pieces are then sent again for as long as there is time. If it is still open after that, a rollback
   * is sent after them.
   */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    this.#refuseClosed()
    const parts = this.#keyspace.together(tasks.map(({ queue }) => queue).sort())
    if (this.#outcomes.hasTooMany(parts.flat())) throw this.#calls.cannot(`it has not answered ${MAX_PENDING} commits`)
    const pieces = piecesOf(tasks, parts)
    // If nobody has chosen the ids, there are no duplicates to look for.
    let isNew = tasks.every(({ onDuplicate }) => onDuplicate === undefined)
    const tell = (script: PendingOutcome['script']) => parts.map(queues => {
      const sent = pieces.filter(piece => piece.queues === queues && piece.sends > 0)
        .map(({ id, tasks, bytes, sends }) => ({ id, sends, weight: weightOf(tasks.length, bytes) }))
      return sent.length > 0 ? this.#outcomes.tell({ script, queues, pieces: sent }) : undefined
    })
    const keptOut: KeptOut[] = []
    try {
      for (const piece of pieces) {
        const kept = isNew ? await this.#prepare('prepareNew', piece) : undefined
        isNew &&= kept !== undefined
        keptOut.push(...kept ?? await this.#prepare('prepare', piece) ?? [])
      }
      await this.#replicas.replicate()
    } catch (error) {
      tell('rollback')
      throw error
    }
    return {
      keptOut,
      commit: async () => {
        this.#refuseClosed()
        // The commits are under way when this resolves, so Redis carries out later commands after them.
        for (const told of tell(isNew ? 'commitNew' : 'commit')) await told?.made
      },
      rollback () { tell('rollback') }
    }
  }

  #refuseClosed (): void {
    if (this.#isClosed) throw this.#calls.cannot('it has been closed')
  }

  /**
   * Returns what is kept out; undefined if the piece needs `prepare`, since an id is known. Waits for an id that
   * another commit is about to add.
   */
  async #prepare (script: 'prepareNew' | 'prepare', piece: Piece): Promise<readonly KeptOut[] | undefined> {
    const { queues } = piece
    const deadline = performance.now() + this.#timeoutMs
    let place: { readonly line: string, readonly leave: () => void } | undefined
    try {
      for (;;) {
        const answer = await this.#batches[script].add(queues.join(), piece, loadOf(piece)).result
        switch (answer[0]) {
          case 0: return keptOutOf(queues, answer.slice(1))
          case 1: throw new FST_TASKQUEUE_DUPLICATE(answer[1])
          case 3:
            if (piece.sends === 1) piece.sends = 0
            return undefined
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

  async #call (script: 'prepareNew' | 'prepare', pieces: readonly Piece[]): Promise<Preparedness[]> {
    const { queues } = pieces[0]!
    const args = pieces.flatMap(({ id, tasks }) => [id, tasks.length, ...encodeTasks(tasks, queues)])
    const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0)
    const keys = this.#keyspace.keysOf(script, queues)
    const call = this.#calls.callOf(script, keys, args, bytes, this.#keyspace.nameOf(queues[0]!))
    return await this.#calls.insist(call, () => { for (const piece of pieces) piece.sends++ }) as Preparedness[]
  }
}

/** Divides the tasks of a commit into pieces for one call each. All pieces are committed, or none. */
function piecesOf (tasks: readonly NewTask[], parts: ReadonlyArray<readonly string[]>): Piece[] {
  const id = randomUUID()
  const pieces: Array<Piece & { readonly tasks: NewTask[], bytes: number }> = []
  for (const queues of parts) {
    for (const task of tasks) {
      if (!queues.includes(task.queue)) continue
      const bytes = task.message.length
      let piece = pieces.at(-1)
      if (piece?.queues !== queues || weightOf(piece.tasks.length + 1, piece.bytes + bytes) > MAX_AT_ONCE) {
        piece = { id: pieces.length === 0 ? id : `${id}:${pieces.length}`, queues, tasks: [], bytes: 0, sends: 0 }
        pieces.push(piece)
      }
      piece.tasks.push(task)
      piece.bytes += bytes
    }
  }
  return pieces
}

function keptOutOf (queues: readonly string[], flat: ReadonlyArray<number | string>): KeptOut[] {
  const keptOut: KeptOut[] = []
  for (let i = 0; i < flat.length; i += 2) {
    keptOut.push({ queue: queues[flat[i] as number]!, id: flat[i + 1] as string })
  }
  return keptOut
}
