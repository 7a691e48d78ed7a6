import { checkOptions, checkWhole } from '../check.js'
import { FST_TASKQUEUE_INVALID_KEY, FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import { show } from '../show.js'
import type { Counts, QueueView, State } from '../store/found.js'
import type { KeyLimits, Limits } from '../store/limits.js'
import type { Order } from '../store/order.js'
import type { Store } from '../store/store.js'
import type { Codec } from '../task/codec.js'
import { checkIds, checkKey } from '../task/id.js'
import { MAX_DELAY_MS } from '../task/time.js'
import { endOfRest, keyStatusOf, type KeyStatus, readKeyLimits, readLimits } from './limits.js'
import { reach } from './reach.js'
import { statusOf, type TaskStatus } from './status.js'

/** The part of a list to return. */
export interface Page {
  /** How many tasks to skip. @default 0 */
  offset?: number
  /** How many to return at most, up to 1000. @default 100 */
  limit?: number
}

const STATES: ReadonlySet<unknown> = new Set<State>([
  'waiting', 'delayed', 'running', 'dead', 'done', 'cancelled', 'expired'
])

/**
 * A queue, to be looked at and operated. Every method rejects with `FST_TASKQUEUE_UNREACHABLE` if the store does not
 * answer or refuses.
 */
export class Queue {
  readonly name: string
  /** @internal */
  readonly store: Store
  /** @internal */
  readonly location: string
  readonly #codec: Codec

  /** @internal */
  constructor (name: string, store: Store, codec: Codec, location: string) {
    this.name = name
    this.store = store
    this.location = location
    this.#codec = codec
  }

  /** Counts the tasks that are due and waiting for a consumer. */
  async length (): Promise<number> {
    return (await this.counts()).waiting
  }

  /** Counts the tasks by state. */
  async counts (): Promise<Counts> {
    const { waiting, delayed, running, dead } = await this.#look()
    return { waiting, delayed, running, dead }
  }

  /**
   * Lists tasks of one state as they are at the moment. Tasks that have ended are listed the newest first, others in
   * the order in which they will run or have begun.
   */
  async list (state: State, page: Page = {}): Promise<TaskStatus[]> {
    checkOptions('page', page, ['offset', 'limit'], 'list')
    const { offset = 0, limit = 100 } = page
    if (!STATES.has(state)) {
      throw new FST_TASKQUEUE_INVALID_OPTION('state', `one of ${[...STATES].join(', ')}`, show(state))
    }
    checkWhole('offset', offset, 0)
    checkWhole('limit', limit, 1, 1000)
    const found = await reach(this.store.list(this.name, state, offset, limit))
    return found.map(task => statusOf(this.#codec, task))
  }

  /**
   * Keeps consumers, in every process, from claiming tasks of this queue until it is resumed. Running tasks go on, and
   * tasks can be added.
   */
  async pause (): Promise<void> {
    await this.operate({ kind: 'pause' })
  }

  /** Ends the pause. Does nothing if the queue is not paused. */
  async resume (): Promise<void> {
    await this.operate({ kind: 'resume' })
  }

  /** Says whether the queue is paused. */
  async isPaused (): Promise<boolean> {
    return (await this.#look()).paused
  }

  /**
   * Puts dead letters back in line, with all their retries, and returns how many.
   * @param ids the ids of the dead letters to redrive. @default all dead letters
   */
  async redrive (ids?: readonly string[]): Promise<number> {
    return await this.operate({ kind: 'redrive', ...ids !== undefined && { ids: checkIds(ids) } })
  }

  /**
   * Removes dead letters, and returns how many.
   * @param ids the ids of the dead letters to remove. @default all dead letters
   */
  async remove (ids?: readonly string[]): Promise<number> {
    return await this.operate({ kind: 'remove', ...ids !== undefined && { ids: checkIds(ids) } })
  }

  /** Returns the limits of the queue; none are an empty object. */
  async limits (): Promise<Limits> {
    return (await this.#look()).limits ?? {}
  }

  /**
   * Sets the limits of the queue for all processes, in place of those that it has. They hold from the next claim on,
   * until a process starts whose `limits` option says otherwise. Rejects with `FST_TASKQUEUE_INVALID_OPTION`.
   */
  async setLimits (limits: Limits): Promise<void> {
    await this.operate({ kind: 'limit', limits: readLimits('limits', limits) })
  }

  /**
   * Gives one key limits of its own, in place of those that `perKey` sets for each; null takes them back. Rejects with
   * `FST_TASKQUEUE_INVALID_OPTION`.
   */
  async setKeyLimits (key: string | number, limits: KeyLimits | null): Promise<void> {
    const own = limits === null ? undefined : readKeyLimits('limits', limits)
    await this.operate({ kind: 'limitKey', key: namedKey(key), ...own !== undefined && { limits: own } })
  }

  /**
   * Lists the keys of which tasks wait or run, in the order of their bytes.
   * @param page `after` is the last key of the page before; `limit` is how many to return at most, up to 1000.
   * `@default { limit: 100 }`
   */
  async keys (page: { after?: string, limit?: number } = {}): Promise<KeyStatus[]> {
    checkOptions('page', page, ['after', 'limit'], 'keys')
    const { after = '', limit = 100 } = page
    checkWhole('limit', limit, 1, 1000)
    const views = await reach(this.store.keys(this.name, after === '' ? '' : namedKey(after), limit))
    return views.map(view => keyStatusOf(view))
  }

  /**
   * Has the tasks of one key, or of the whole queue, not be claimed for so many milliseconds from now on, in any
   * process; at most 30 days. With 0 a rest ends. Running tasks go on.
   */
  async rest (ms: number, key?: string | number): Promise<void> {
    checkWhole('ms', ms, 0, MAX_DELAY_MS)
    await this.operate({ kind: 'rest', ms, ...key !== undefined && { key: namedKey(key) } })
  }

  /** Returns until when the whole queue rests; undefined if it does not. */
  async restingUntil (): Promise<Date | undefined> {
    const { restMs = 0 } = await this.#look()
    return endOfRest(restMs)
  }

  /** Drops the waiting and the delayed tasks, and returns how many. Running tasks go on, and dead letters stay. */
  async purge (): Promise<number> {
    return await this.operate({ kind: 'purge' })
  }

  async #look (): Promise<QueueView> {
    return (await reach(this.store.counts([this.name])))[0]!
  }

  /** @internal */
  async operate (order: Order): Promise<number> {
    return await reach(this.store.operate(this.name, order))
  }
}

/** Checks a key that has to be given. */
function namedKey (key: string | number): string {
  const name = checkKey(key)
  if (name !== undefined) return name
  throw new FST_TASKQUEUE_INVALID_KEY(show(key))
}
