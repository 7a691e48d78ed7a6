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

/** Tasks of one commit that are prepared in one call. */
interface Piece {
  readonly id: string
  readonly queues: readonly string[]
  readonly tasks: readonly NewTask[]
  readonly bytes: number
  /** How often Redis may have got it: what it has got twice it may get once more. */
  sends: number
}

/**
 * What becomes of a piece of a commit that is prepared: the ids that are kept out; an id for which it
 * is refused; one for which it has to wait; or that its ids are not new.
 */
type Preparedness = [0, ...keptOut: Array<number | string>] | [1, id: string] | [2, id: string, queue: number] | [3]

/**
 * How many tasks, or ids, one call takes in, so that Redis is not kept from others; one of several KiB counts as
 * several.
 */
export const MAX_AT_ONCE = 1000

const weightOf = (count: number, bytes: number): number => count + bytes / 4096

/**
 * What a piece weighs among those that are prepared with it in one call, where none should have to wait for the bytes
 * of another.
 */
const loadOf = ({ tasks, bytes }: Piece): number => tasks.length + bytes / 128

/** Prepares commits, and lets Redis hear what becomes of them. */
export class Commits {
  readonly #calls: Calls
  readonly #keyspace: Keyspace
  readonly #outcomes: PendingOutcomes
  readonly #replicas: Replicas
  readonly #timeoutMs: number
  /** Commits that wait for an id that another commit is about to add: the last one of each line. */
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

  /** Lets none begin, and none be committed. */
  close (): void { this.#isClosed = true }

  /**
   * Takes one round trip. An answer that is lost leaves it open whether the tasks are
   * prepared: so the commit is sent again for as long as there is time, and what remains
   * open then is rolled back behind itself.
   */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    this.#refuseClosed()
    const parts = this.#keyspace.together(tasks.map(({ queue }) => queue).sort())
    if (this.#outcomes.hasTooMany(parts.flat())) throw this.#calls.cannot(`it has not answered ${MAX_PENDING} commits`)
    const pieces = piecesOf(tasks, parts)
    // A task whose id nobody has chosen has no duplicates to look for.
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
        // It is under way then, and whatever is asked next is asked behind it.
        for (const told of tell(isNew ? 'commitNew' : 'commit')) await told?.made
      },
      rollback () { tell('rollback') }
    }
  }

  #refuseClosed (): void {
    if (this.#isClosed) throw this.#calls.cannot('it has been closed')
  }

  /**
   * Returns what is kept out; undefined if there are ids that are not new. An id that another commit is about to add
   * is waited for.
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
   * Waits until all others here that want the same have left the line: otherwise all would send their messages again,
   * for one of them to get it.
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

/** Divides the tasks of a commit into what one call may prepare. They are committed in one, all or none. */
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
