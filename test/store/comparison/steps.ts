import type { State } from '../../../lib/store/found.js'
import type { KeyLimits, Limits, Rate } from '../../../lib/store/limits.js'
import type { Overlap, Tick } from '../../../lib/store/schedules.js'
import type { NewTask, OnDuplicate, Priority } from '../../../lib/store/tasks.js'
import { START_MS } from './virtual-time.js'

/** What happens to the stores, one step after the other. A lease is named by how many were handed out after it. */
export type Step =
  | { readonly kind: 'add', readonly tasks: readonly NewTask[] }
  | { readonly kind: 'prepare', readonly commit: number, readonly tasks: readonly NewTask[] }
  | { readonly kind: 'commit' | 'rollback', readonly commit: number }
  | {
    readonly kind: 'turn',
    readonly queue: string,
    readonly limit: number,
    readonly alone: boolean,
    readonly ahead?: number,
    readonly leaseMs: number
    readonly settlements: readonly PlannedSettlement[]
    /** Whether the answer is lost, so that the next turn of the queue asks for it again. */
    readonly isLost?: boolean
  }
  | { readonly kind: 'extend', readonly queue: string, readonly leases: readonly number[], readonly leaseMs: number }
  | { readonly kind: 'note', readonly queue: string, readonly lease: number, readonly text: string }
  | { readonly kind: 'steer', readonly queue: string, readonly order: PlannedOrder }
  | {
    readonly kind: 'plan'
    readonly queue: string
    readonly changes: readonly PlannedChange[]
    /** By how much the revision is higher than the highest one; missing to give none. */
    readonly ahead?: number
  }
  | { readonly kind: 'tick', readonly queue: string, readonly ticks: readonly PlannedTick[] }
  | { readonly kind: 'look', readonly queue: string, readonly id: string, readonly state: State, readonly offset: number, readonly limit: number }
  | { readonly kind: 'pass', readonly units: number }

export interface PlannedSettlement {
  readonly lease: number
  readonly verdict: 'done' | 'retry' | 'defer' | 'busy' | 'unrouted' | 'release' | 'unseen' | 'dead'
  readonly delayMs?: number
  readonly record?: string
  readonly chain?: readonly NewTask[]
  readonly dedupeMs?: number
}

/** A change of a schedule. What it expects, and a time, is given by what the schedule is then. */
export interface PlannedChange {
  readonly id: string
  readonly expects: 'right' | 'wrong' | 'none'
  readonly plan?: string
  /** In how many units the next slot comes, or whether it stays the same. 0 is the present moment. */
  readonly next?: number | 'same'
  readonly paused?: boolean
  readonly declared?: boolean
}

/** What a schedule is to do at its next slot, at another one or besides its slots. */
export interface PlannedTick extends Pick<Tick, 'missed' | 'task' | 'overlap'> {
  /** The place of the schedule in the list, which begins anew behind its end. */
  readonly place: number
  readonly slot: 'right' | 'wrong' | 'none'
  /** In how many units the following slot comes. 0 is the present moment. */
  readonly next?: number
}

/** An order without what is to be kept of tasks that end, which is the same for a whole sequence. */
export type PlannedOrder =
  | { readonly kind: 'cancel', readonly ids: readonly string[] }
  | { readonly kind: 'reschedule', readonly ids: readonly string[], readonly delayMs?: number, readonly runAt?: number }
  | { readonly kind: 'redrive' | 'remove', readonly ids?: readonly string[] }
  | { readonly kind: 'purge' | 'pause' | 'resume' }
  | { readonly kind: 'prioritize', readonly ids: readonly string[], readonly priority: Priority }
  | { readonly kind: 'limit', readonly limits: Limits }
  | { readonly kind: 'limitKey', readonly key: string, readonly limits?: KeyLimits }
  | { readonly kind: 'rest', readonly ms: number, readonly key?: string }

export interface Sequence {
  readonly seed: number
  /** How many tasks that have ended are kept. */
  readonly keepCount: number
  /** How many dead letters are kept; all without. */
  readonly keepDeadCount?: number
  /** Whether nobody is in contact while time passes, so that the clock of the leases stands still. */
  readonly isOutOfTouch: boolean
  readonly steps: readonly Step[]
}

/** By far longer than a sequence takes, whose keys expire by the clock of the machine. Each step takes a millisecond besides: nothing is due at that very moment. */
export const UNIT_MS = 30_000

export const QUEUES = ['one', 'two'] as const
export const STATES = ['waiting', 'delayed', 'running', 'dead', 'done', 'cancelled', 'expired'] as const satisfies readonly State[]
export const IDS = ['a', 'b', 'c', 'd', 'e', 'f', 'g', 'h']
const SCHEDULES = ['x', 'y', 'x y', '+x']
export const KEYS = ['k', 'k k', 'kk', 'l']
const LEVELS = ['high', 'normal', 'low'] as const

/** Makes the sequence of a seed. */
export function makeSequence (seed: number, length?: number): Sequence {
  const random = randomOf(seed)
  const below = (limit: number): number => Math.floor(random() * limit)
  const chance = (share: number): boolean => random() < share
  const pick = <T>(values: readonly T[]): T => values[below(values.length)]!
  const times = <T>(count: number, make: (index: number) => T): T[] => Array.from({ length: count }, (_, index) => make(index))
  // Most often few ids, so that they meet.
  const ids = IDS.slice(0, pick([1, 2, 4, 8]))
  const keepCount = pick([0, 3, 100, 100])
  // Most sequences have no lanes, some have levels, keys or limits, and some all of them.
  const uses = pick([[], [], ['levels'], ['keys'], ['levels', 'keys'], ['limits'], ['keys', 'limits'], ['levels', 'keys', 'limits']])
  const schedules = SCHEDULES.slice(0, pick([0, 0, 0, 1, 2, 4]))
  const hasSchedules = schedules.length > 0
  const rate = (): Rate => ({ max: pick([1, 2, 3]), ms: 6 * UNIT_MS, ...chance(0.5) && { burst: pick([1, 2, 4]) } })
  const keyLimits = (): KeyLimits => ({ ...chance(0.6) && { running: 1 + below(3) }, ...chance(0.4) && { rate: rate() } })
  const leaseMs = () => pick([5.5, 5.5, 9.13]) * UNIT_MS
  const units = (...counts: number[]) => pick(counts) * UNIT_MS
  let made = 0

  const task = (queue: string = pick(QUEUES)): NewTask => {
    // What ids of their own making leave behind when they come again is not told apart where little is kept.
    const isOwn = chance(0.2)
    const isNew = isOwn && (keepCount < 100 || chance(0.5))
    const mode = isOwn ? {} : { onDuplicate: pick<OnDuplicate>(['keep', 'keep', 'keep', 'reject', 'replace', 'replace', 'replace', 'replace']) }
    const when = chance(0.2) ? { delayMs: units(0, 1, 2, 3) } : chance(0.15) ? { runAt: START_MS + units(0, 2, 5, 8, 20) } : {}
    const lane = {
      ...uses.includes('levels') && chance(0.6) && { priority: pick(LEVELS) },
      ...uses.includes('keys') && chance(0.8) && { key: pick(KEYS) }
    }
    return { queue, id: isNew ? `new ${made}` : pick(ids), message: `message ${made++}`, ...mode, ...when, ...lane, ...chance(0.2) && { expiresMs: units(1, 2, 4, 9) + 100 * (made % 10) } }
  }
  const tasks = () => times(1 + below(4), () => task(chance(0.7) ? QUEUES[0] : undefined))
  const settlement = (): PlannedSettlement => ({
    lease: below(chance(0.6) ? 3 : 8),
    verdict: pick(['done', 'done', 'done', 'done', 'retry', 'retry', 'defer', 'busy', 'unrouted', 'release', 'unseen', 'dead', ...hasSchedules ? (['retry', 'defer', 'unrouted', 'unrouted'] as const) : []]),
    ...chance(0.7) && { delayMs: units(0, 0, 1, 2, 3) },
    ...chance(0.4) && { record: `record ${made++}` },
    ...chance(0.25) && { chain: tasks().slice(0, 2) },
    ...chance(0.6) && { dedupeMs: units(1, 9) }
  })
  const change = (): PlannedChange => ({
    id: pick(schedules),
    expects: chance(0.85) ? 'right' : pick(['wrong', 'none']),
    ...chance(0.9) && { plan: chance(0.1) ? '' : `plan ${made++}` },
    ...chance(0.9) && { next: chance(0.07) ? 0 : pick<number | 'same'>(['same', 1, 1, 2, 2, 3, 5]) },
    ...chance(0.4) && { paused: chance(0.3) },
    ...chance(0.4) && { declared: chance(0.7) }
  })
  const tick = (queue: string): PlannedTick => ({
    place: pick([0, 0, 0, 1, 2]),
    slot: pick(['right', 'right', 'right', 'right', 'right', 'right', 'right', 'wrong', 'none', 'none']),
    ...chance(0.93) && { next: below(4) },
    missed: pick([0, 0, 1, 2]),
    overlap: pick<Overlap>(['skip', 'skip', 'allow', 'replace']),
    ...chance(0.85) && { task: { ...task(queue), ...chance(0.6) && { id: `slot ${made++}` } } }
  })
  const some = () => times(1 + below(3), () => pick(ids))

  const kinds: ReadonlyArray<readonly [weight: number, make: () => Step]> = [
    [hasSchedules ? 10 : 24, () => ({ kind: 'add', tasks: tasks() })],
    [6, () => ({ kind: 'prepare', commit: below(2), tasks: tasks() })],
    [6, () => ({ kind: pick(['commit', 'commit', 'rollback']), commit: below(2) })],
    [40, () => ({
      kind: 'turn',
      queue: pick(['one', 'one', 'two']),
      limit: pick([0, 1, 2, 4]),
      alone: chance(0.2),
      ...chance(0.2) && { ahead: 1 },
      leaseMs: leaseMs(),
      settlements: times(below(5), settlement),
      ...chance(0.1) && { isLost: true }
    })],
    [4, () => ({ kind: 'extend', queue: pick(QUEUES), leases: [...new Set(times(below(4), () => below(6)))], leaseMs: leaseMs() })],
    [2, () => ({ kind: 'note', queue: pick(QUEUES), lease: below(4), text: `note ${made++}` })],
    [10, () => ({
      kind: 'steer',
      queue: pick(['one', 'one', 'two']),
      order: pick<() => PlannedOrder>([
        () => ({ kind: 'cancel', ids: some() }),
        () => ({ kind: 'cancel', ids: some() }),
        () => ({ kind: 'reschedule', ids: some(), ...pick([{}, { delayMs: units(0, 1, 2) }, { runAt: START_MS + units(0, 2, 5, 8, 20) }]) }),
        () => ({ kind: 'reschedule', ids: some(), ...pick([{}, { delayMs: units(0, 1, 2) }, { runAt: START_MS + units(0, 2, 5, 8, 20) }]) }),
        () => ({ kind: 'redrive', ...chance(0.5) && { ids: some() } }),
        () => ({ kind: 'remove', ...chance(0.8) && { ids: some() } }),
        () => ({ kind: pick(['purge', 'pause', 'resume', 'resume']) })
      ])()
    })],
    [uses.includes('levels') ? 4 : 0, () => ({ kind: 'steer', queue: pick(QUEUES), order: { kind: 'prioritize', ids: some(), priority: pick(LEVELS) } })],
    [uses.includes('limits') ? 6 : 0, () => ({
      kind: 'steer',
      queue: pick(['one', 'one', 'two']),
      order: pick<() => PlannedOrder>([
        () => ({ kind: 'limit', limits: { ...keyLimits(), ...chance(0.7) && { perKey: keyLimits() } } }),
        () => ({ kind: 'limitKey', key: pick(KEYS), ...chance(0.7) && { limits: keyLimits() } }),
        () => ({ kind: 'rest', ms: units(0, 1, 2, 4), ...chance(0.7) && { key: pick(KEYS) } })
      ])()
    })],
    [hasSchedules ? 10 : 0, () => ({
      kind: 'plan', queue: pick(['one', 'one', 'two']), changes: times(below(4), change), ...chance(0.3) && { ahead: pick([-1, 0, 0, 1]) }
    })],
    [hasSchedules ? 24 : 0, () => {
      const queue = pick(['one', 'one', 'two'])
      return { kind: 'tick', queue, ticks: times(pick([1, 1, 1, 2, 3]), () => tick(queue)) }
    }],
    [4, () => ({ kind: 'look', queue: pick(QUEUES), id: pick(ids), state: pick(STATES), offset: below(4), limit: below(4) })],
    [16, () => ({ kind: 'pass', units: 1 + below(3) })]
  ]
  const total = kinds.reduce((sum, [weight]) => sum + weight, 0)
  const step = (): Step => {
    let left = random() * total
    return (kinds.find(([weight]) => (left -= weight) < 0) ?? kinds[0]!)[1]()
  }
  const begin = (queue: string): Step => ({
    kind: 'plan', queue, changes: schedules.map(id => ({ id, expects: 'right', plan: `first plan of ${id}`, next: 1 + below(4) }))
  })
  return { seed, keepCount, ...chance(0.2) && { keepDeadCount: below(3) }, isOutOfTouch: chance(0.2), steps: [...hasSchedules ? QUEUES.map(begin) : [], ...times(length ?? pick([20, 45, 45, 120]), step)] }
}

/** Numbers between 0 and 1, the same for the same seed. */
function randomOf (seed: number): () => number {
  let state = Math.imul(seed, 0x9e3779b1) | 0
  return () => {
    state = state + 0x6d2b79f5 | 0
    let mixed = Math.imul(state ^ state >>> 15, 1 | state)
    mixed = mixed + Math.imul(mixed ^ mixed >>> 7, 61 | mixed) ^ mixed
    return ((mixed ^ mixed >>> 14) >>> 0) / 2 ** 32
  }
}
