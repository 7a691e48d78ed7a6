import { BEATS_PER_LEASE, type Presence } from '../store/heartbeat.js'

/** A process that consumes queues, as the stores know it: all consumers of one name. */
export interface ProcessStatus {
  readonly name: string
  readonly startedAt: Date
  /** When a store has last heard of it. */
  readonly heardAt: Date
  /** Whether that is no longer ago than its leases last. Afterwards other processes take over what it ran. */
  readonly isAlive: boolean
  readonly queues: readonly ConsumedQueue[]
}

/** A queue that a process consumes. */
export interface ConsumedQueue {
  readonly queue: string
  /** How many tasks the process runs at once. */
  readonly concurrency: number
  /** How many tasks it held at its last heartbeat: those that run, and those that it has claimed ahead. */
  readonly held: number
  /** The ids of these, at most `SHOWN_LEASES`. */
  readonly taskIds: readonly string[]
}

/** Puts consumers together that have one name, in the order of their names. */
export function processesOf (consumers: readonly Presence[], now = Date.now()): ProcessStatus[] {
  const names = [...new Set(consumers.map(({ consumer }) => consumer))].sort()
  return names.map(name => {
    const all = consumers.filter(({ consumer }) => consumer === name)
    return {
      name,
      startedAt: new Date(Math.min(...all.map(({ startedAt }) => startedAt))),
      heardAt: new Date(now - Math.min(...all.map(({ silentMs }) => silentMs))),
      isAlive: all.some(({ silentMs, heartbeatMs }) => silentMs <= heartbeatMs * BEATS_PER_LEASE),
      queues: all.map(({ queue, concurrency, held, taskIds }) => ({ queue, concurrency, held, taskIds }))
        .sort((a, b) => a.queue < b.queue ? -1 : 1)
    }
  })
}
