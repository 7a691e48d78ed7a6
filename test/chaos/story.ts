import type { AddedTask, Entry, Event } from './ledger.js'
import type { FaultKind } from './plan.js'

/** An attempt at a task, as far as it came. */
export interface Attempt {
  id: string
  number: number
  pid: number
  at: number
  queue?: string | undefined
  /** When its handler was told to stop, which it does at once. */
  abortedAt?: number
  end?: { at: number, status: number }
  chained?: readonly string[]
}

export interface Task extends AddedTask {
  request?: number
  /** The schedule that has added it, and for which slot. */
  schedule?: string
  slot?: number
  /** When somebody first tried to cancel it, and when it was. */
  cancelsAt?: number
  cancelledAt?: number
  /** By their numbers. */
  attempts: Attempt[]
}

export interface Request {
  number: number
  at: number
  status?: number
  answeredAt?: number
  /** How long it took. */
  ms?: number
  pid?: number
  ids: readonly string[]
  /** Whether it joined a database transaction, and whether that was committed. */
  joins?: boolean
  row?: boolean
}

export interface Life {
  diedAt?: number
  cause?: string
  how?: string | undefined
  closingAt?: number
  /** When it stood still, and when only its connection to Redis did. */
  still: Array<[from: number, to: number]>
  away: Array<[from: number, to: number]>
}

export interface Story {
  requests: Map<number, Request>
  tasks: Map<string, Task>
  strangers: string[]
  lives: Map<number, Life>
  corrupted: Set<string>
  faults: Partial<Record<FaultKind | 'poison', number>>
}

type Of<K extends Event['event']> = Extract<Event, { event: K }> & { at: number }

/** Puts together what belongs together. */
export function readStory (ledger: readonly Entry[]): Story {
  const story: Story = { requests: new Map(), tasks: new Map(), strangers: [], lives: new Map(), corrupted: new Set(), faults: {} }
  const of = <K extends Event['event']>(event: K) => ledger.filter((entry): entry is Of<K> & Entry => entry.event === event)
  const life = (pid: number) => {
    if (!story.lives.has(pid)) story.lives.set(pid, { still: [], away: [] })
    return story.lives.get(pid)!
  }
  for (const { request: number, at } of of('asked')) story.requests.set(number, { number, at, ids: [] })
  for (const { request, status, at } of of('answered')) {
    const asked = story.requests.get(request)!
    Object.assign(asked, { status, answeredAt: at, ms: at - asked.at })
  }
  for (const { request, pid, tasks, joins } of of('added')) {
    Object.assign(story.requests.get(request)!, { pid, ids: tasks.map(({ id }) => id), joins })
    for (const task of tasks) story.tasks.set(task.id, { ...task, request, attempts: [] })
  }

  for (const { request } of of('row')) story.requests.get(request)!.row = true

  const attempts = new Map<string, Attempt>()
  const keyOf = ({ id, attempt, pid }: { id: string, attempt: number, pid: number }) => `${id} ${attempt} ${pid}`
  for (const entry of of('begins')) attempts.set(keyOf(entry), { id: entry.id, number: entry.attempt, pid: entry.pid, at: entry.at, queue: entry.queue })
  for (const entry of of('ends')) attempts.get(keyOf(entry))!.end = entry
  for (const entry of of('aborts')) attempts.get(keyOf(entry))!.abortedAt = entry.at
  for (const entry of of('chains')) {
    const attempt = attempts.get(keyOf(entry))!
    attempt.chained = entry.tasks
    for (const id of entry.tasks) story.tasks.set(id, { id, kind: 'plain', attempts: [] })
  }
  for (const { id, schedule, slot } of of('begins')) {
    if (schedule !== undefined && !story.tasks.has(id)) story.tasks.set(id, { id, kind: 'plain', schedule, slot: slot!, attempts: [] })
  }
  for (const attempt of attempts.values()) {
    const task = story.tasks.get(attempt.id)
    if (task === undefined) story.strangers.push(attempt.id)
    else task.attempts.push(attempt)
  }
  for (const task of story.tasks.values()) task.attempts.sort((a, b) => a.number - b.number || a.at - b.at)

  for (const { id, at } of of('cancels')) story.tasks.get(id)!.cancelsAt ??= at
  for (const { id, at, was } of of('cancelled')) if (was) Object.assign(story.tasks.get(id)!, { cancelledAt: at })

  for (const { pid } of of('started')) life(pid)
  for (const { pid, at, cause, how } of of('died')) {
    Object.assign(life(pid), { diedAt: at, cause, how })
    if (cause === 'poison') story.faults.poison = (story.faults.poison ?? 0) + 1
  }
  for (const { pid, at } of of('closing')) life(pid).closingAt ??= at
  for (const { pid, at, ms } of of('stalled')) life(pid).still.push([at - ms, at])
  for (const { id } of of('corrupted')) story.corrupted.add(id)
  const healed = of('healed')
  for (const { fault, pid, at } of of('fault')) {
    story.faults[fault] = (story.faults[fault] ?? 0) + 1
    if (pid === undefined) continue
    const { at: end = Infinity } = healed.find(other => other.fault === fault && other.pid === pid && other.at >= at) ?? {}
    if (fault === 'stop' || fault === 'block') life(pid).still.push([at, end])
    if (fault === 'blackhole' || fault === 'lose') life(pid).away.push([at, end])
  }
  return story
}
