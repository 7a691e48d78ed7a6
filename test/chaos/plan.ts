import { createHash } from 'node:crypto'
import type { Limits, Priority } from '../../lib/index.js'

/** What a run does, and when: the same for the same seed. */
export interface Plan {
  readonly seed: number
  readonly secs: number
  readonly requests: readonly PlannedRequest[]
  readonly faults: readonly PlannedFault[]
}

export interface PlannedRequest {
  readonly at: number
  readonly web: number
  readonly tasks: readonly PlannedTask[]
  readonly ending: Ending
  /** Whether a database transaction is joined, and whether the tasks are added with `app.taskqueue`. */
  readonly joins?: true
  readonly outside?: true
}

/**
 * `plain` tasks succeed, `chain` ones add tasks as well, `flaky` ones do so and fail the first time, `poison` kills its
 * process. `cancelled` ones are cancelled when their request has been answered, `replaced` ones take the place of
 * another one of their id, and `expiring` ones are added with an expiry.
 */
export type TaskKind = 'plain' | 'chain' | 'flaky' | 'poison' | 'cancelled' | 'replaced' | 'expiring'

export interface PlannedTask {
  readonly kind: TaskKind
  readonly queue: string
  /** How long an attempt takes. */
  readonly ms: number
  readonly delayMs?: number
  readonly expiresMs?: number
  readonly key?: string
  readonly priority?: Priority
}

/** How the handler ends that has added the tasks. */
export type Ending = 'succeeds' | 'throws' | 'refuses' | 'hook throws'

export interface PlannedFault {
  readonly at: number
  readonly fault: FaultKind
  /** The number of a process: first the web processes, then the consumers; -1: Redis. */
  readonly target: number
  readonly ms: number
  /** Between 0 and 1, for whatever else there is to choose. */
  readonly choice: number
}

/** When the owner of a client closes it: while the app closes, or although it does not. */
export const LEAVES = ['before', 'preClose', 'onClose', 'after', 'alone'] as const

export const WEBS = 2
export const CONSUMERS = 4
export const QUEUES = ['default', 'mail'] as const
/** The queue that has keys, levels and limits, and these limits. The rate of a key counts where many of its tasks wait. */
export const SHARED = 'shared'
export const LIMITS = { running: 3, perKey: { running: 1, rate: { max: 30, ms: 1000, burst: 3 } } } as const satisfies Limits
/** The schedules that all processes declare. Each of their slots has one task, whatever happens. */
export const SCHEDULES = ['s0', 's1', 's2'] as const
export const EVERY_MS = 1000
export const ALL_QUEUES = [...QUEUES, SHARED] as const
export const LEASE_MS = 1500
export const COMMIT_TIMEOUT_MS = 1000

/** The exit code of a process that does not start, since Redis is not there. */
export const CANNOT_START = 3

/** Of each fault: how often it is chosen, how many leases it lasts, and what it concerns. */
const FAULTS = {
  kill: { weight: 5, leases: [0.1, 0.7], target: 'process' },
  close: { weight: 2, leases: [0.1, 0.5], target: 'process' },
  leave: { weight: 0, leases: [0.1, 0.7], target: 'process' },
  stop: { weight: 3, leases: [0.3, 3], target: 'process' },
  block: { weight: 2, leases: [0.3, 2.5], target: 'process' },
  skew: { weight: 2, leases: [1, 4], target: 'process' },
  cut: { weight: 3, leases: [0, 0], target: 'process' },
  blackhole: { weight: 3, leases: [0.1, 2], target: 'process' },
  lose: { weight: 5, leases: [0.2, 1], target: 'process' },
  half: { weight: 3, leases: [0.1, 0.3], target: 'process' },
  slow: { weight: 2, leases: [0.5, 2], target: 'process' },
  restart: { weight: 3, leases: [0.1, 1], target: 'redis' },
  freeze: { weight: 3, leases: [0.5, 2.5], target: 'redis' },
  pause: { weight: 2, leases: [0.3, 1.5], target: 'redis' },
  full: { weight: 2, leases: [0.3, 1.2], target: 'redis' },
  flush: { weight: 2, leases: [0, 0], target: 'redis' },
  'kill clients': { weight: 2, leases: [0, 0], target: 'redis' },
  'kill subscribers': { weight: 2, leases: [0, 0], target: 'redis' },
  corrupt: { weight: 2, leases: [0, 0], target: 'redis' }
} as const

export type FaultKind = keyof typeof FAULTS
export const FAULT_KINDS = Object.keys(FAULTS) as FaultKind[]

/** Of each kind of request: how often it is chosen, what it adds, and how it ends. */
const REQUESTS: ReadonlyArray<{ weight: number, tasks: readonly TaskKind[], delayed?: true, ending?: Ending }> = [
  { weight: 20, tasks: ['plain'] },
  { weight: 10, tasks: ['plain', 'plain', 'plain'] },
  { weight: 10, tasks: ['plain', 'chain'] },
  { weight: 25, tasks: ['chain'] },
  { weight: 10, tasks: ['flaky'] },
  { weight: 10, tasks: ['plain', 'chain'], delayed: true },
  { weight: 5, tasks: ['plain', 'plain'], ending: 'throws' },
  { weight: 5, tasks: ['plain', 'plain'], ending: 'refuses' },
  { weight: 5, tasks: ['plain', 'plain'], ending: 'hook throws' }
]

const STEERED: ReadonlyArray<{ weight: number, kind: TaskKind }> = [
  { weight: 2, kind: 'cancelled' },
  { weight: 1, kind: 'replaced' },
  { weight: 2, kind: 'expiring' }
]

/** The tasks of the queue that is shared. */
const SHARED_KINDS: ReadonlyArray<{ weight: number, kind: TaskKind }> = [
  { weight: 10, kind: 'plain' },
  { weight: 2, kind: 'chain' },
  { weight: 2, kind: 'flaky' },
  { weight: 1, kind: 'cancelled' },
  { weight: 1, kind: 'replaced' },
  { weight: 1, kind: 'expiring' }
]

const SHARED_KEYS = ['a', 'b', 'c', 'd', undefined]
const PRIORITIES = ['high', 'normal', 'low'] as const

export interface PlanOptions {
  /** The faults to choose from. */
  readonly faults?: readonly FaultKind[]
  /** How many leases each of them lasts, instead of what is usual. */
  readonly leases?: readonly [least: number, most: number]
  /** How many requests there are in a second. */
  readonly rate?: number
  /** How many poison tasks. */
  readonly poison?: number
  /** The kinds of tasks that are added, but for poison. */
  readonly kinds?: readonly TaskKind[]
  /** The share of tasks that take one lease or two. */
  readonly long?: number
}

export function makePlan (seed: number, secs: number, options: PlanOptions = {}): Plan {
  return { seed, secs, requests: planLoad(seed, secs, options), faults: planFaults(seed, secs, options) }
}

function planLoad (seed: number, secs: number, { rate = 30, kinds, poison = 2, long = 0.04 }: PlanOptions): PlannedRequest[] {
  const random = randomOf(`load ${seed}`)
  const requests: PlannedRequest[] = []
  const choices = REQUESTS.filter(({ tasks }) => tasks.every(kind => kinds?.includes(kind) ?? true))
  for (let at = 0; at < secs * 1000; at += 1000 / rate) {
    const { tasks, delayed = false, ending = 'succeeds' } = choose(random, choices)
    requests.push({ at, web: Math.floor(random() * WEBS), ending, tasks: tasks.map(kind => planTask(random, kind, long, delayed)) })
  }
  // Apart from the others, whose plan for a seed stays what it was.
  const steering = randomOf(`steering ${seed}`)
  const steeredMs = kinds === undefined ? secs * 1000 : 0
  for (let at = 100; at < steeredMs; at += 150) {
    const kind = choose(steering, STEERED)
    const task = planTask(steering, kind.kind, 0, steering() < 0.5)
    const expiresMs = Math.round(between(steering, 100, LEASE_MS))
    requests.push({ at, web: Math.floor(steering() * WEBS), ending: 'succeeds', tasks: [{ ...task, ...kind.kind === 'expiring' && { expiresMs } }] })
  }
  const joining = randomOf(`joining ${seed}`)
  for (let at = 50; at < steeredMs; at += 100) {
    const tasks = Array.from({ length: 1 + Math.floor(joining() * 2) }, () => planTask(joining, 'plain', 0, joining() < 0.3))
    const ending = joining() < 0.15 ? 'throws' : 'succeeds'
    requests.push({ at, web: Math.floor(joining() * WEBS), ending, tasks, joins: true, ...joining() < 0.5 && { outside: true } })
  }
  // They need some time to die as often as they do.
  for (let i = 0; i < poison; i++) {
    const request = requests[Math.floor(random() * requests.length / 2)]!
    requests.push({ ...request, ending: 'succeeds', tasks: [planTask(random, 'poison', 0, false), planTask(random, 'plain', 1, false)] })
  }
  if (kinds === undefined) requests.push(...planSharing(seed, secs, poison, long))
  return requests.sort((a, b) => a.at - b.at)
}

/** Adds tasks with keys and levels to the queue that has limits. Apart from the others as well. */
function planSharing (seed: number, secs: number, poison: number, long: number): PlannedRequest[] {
  const random = randomOf(`sharing ${seed}`)
  const pick = <T>(values: readonly T[]): T => values[Math.floor(random() * values.length)]!
  const planShared = (kind: TaskKind): PlannedTask => {
    const task = { ...planTask(random, kind, long, random() < 0.2), queue: SHARED, key: pick(SHARED_KEYS), priority: pick(PRIORITIES) }
    return kind === 'expiring' ? { ...task, expiresMs: Math.round(between(random, 100, LEASE_MS)) } : task
  }
  const requests: PlannedRequest[] = []
  for (let at = 25; at < secs * 1000; at += 100) {
    const tasks = Array.from({ length: 1 + Math.floor(random() * 3) }, () => planShared(choose(random, SHARED_KINDS).kind))
    requests.push({ at, web: Math.floor(random() * WEBS), ending: random() < 0.1 ? 'throws' : 'succeeds', tasks })
  }
  if (poison > 0) requests.push({ ...pick(requests.slice(0, requests.length / 2)), ending: 'succeeds', tasks: [planShared('poison')] })
  return requests
}

function planTask (random: () => number, kind: TaskKind, long: number, delayed: boolean): PlannedTask {
  return {
    kind,
    queue: QUEUES[Math.floor(random() * QUEUES.length)]!,
    ms: Math.round(random() < long ? between(random, LEASE_MS, 2 * LEASE_MS) : between(random, 5, 50)),
    ...delayed && { delayMs: Math.round(between(random, 200, 2 * LEASE_MS)) }
  }
}

/** A process, or Redis, suffers one fault at a time; several of them may each suffer one. */
function planFaults (seed: number, secs: number, { faults = FAULT_KINDS, leases }: PlanOptions): PlannedFault[] {
  const random = randomOf(`faults ${seed}`)
  const chosen = faults.filter(fault => FAULTS[fault].weight > 0)
  const busyUntil = new Map<number, number>()
  const planned: PlannedFault[] = []
  for (let at = 500; chosen.length > 0 && at < secs * 1000; at += between(random, 200, 700)) {
    const { fault, target: whom, leases: [least, most] } = choose(random, chosen.map(fault => ({ fault, ...FAULTS[fault], ...leases && { leases } })))
    const target = whom === 'redis' ? -1 : Math.floor(random() * (WEBS + CONSUMERS))
    const ms = Math.round(between(random, least, most) * LEASE_MS)
    const choice = random()
    if (at < (busyUntil.get(target) ?? 0) || at + ms > secs * 1000) continue
    busyUntil.set(target, at + ms + 300)
    planned.push({ at: Math.round(at), fault, target, ms, choice })
  }
  return faults.includes('leave') ? [...planned, ...planLeaves(seed, secs, planned)] : planned
}

/** Closes apps, and clients that belong to somebody else, some of them as Redis goes away. Apart from the other faults, whose plan stays what it was. */
function planLeaves (seed: number, secs: number, others: readonly PlannedFault[]): PlannedFault[] {
  const random = randomOf(`leaves ${seed}`)
  const planned: PlannedFault[] = []
  const add = (at: number, fault: FaultKind, target: number, choice: number) => {
    const [least, most] = FAULTS[fault].leases
    const ms = Math.round(between(random, least, most) * LEASE_MS)
    const isBusy = [...others, ...planned].some(other => other.target === target && at < other.at + other.ms + 300 && other.at < at + ms + 300)
    if (!isBusy && at + ms <= secs * 1000) planned.push({ at: Math.round(at), fault, target, ms, choice })
  }
  for (let at = 1000; at < secs * 1000; at += between(random, 600, 1200)) {
    add(at, random() < 0.25 ? 'close' : 'leave', Math.floor(random() * (WEBS + CONSUMERS)), random())
    if (random() < 0.3) add(at + between(random, -50, 150), random() < 0.5 ? 'restart' : 'freeze', -1, random())
  }
  return planned
}

/** Numbers from 0 to below 1, which a text determines. */
export function randomOf (text: string): () => number {
  let count = 0
  return () => createHash('sha1').update(`${text} ${count++}`).digest().readUInt32BE() / 2 ** 32
}

function between (random: () => number, low: number, high: number): number {
  return low + random() * (high - low)
}

function choose<T extends { weight: number }> (random: () => number, options: readonly T[]): T {
  let left = random() * options.reduce((sum, { weight }) => sum + weight, 0)
  return options.find(({ weight }) => (left -= weight) < 0) ?? options.at(-1)!
}
