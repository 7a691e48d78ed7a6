import { channel, type Channel } from 'node:diagnostics_channel'

/** A queue that a consumer of this process consumes. */
interface OfConsumer {
  readonly queue: string
  /** The name of the consumer. */
  readonly consumer: string
}

interface OfTask {
  readonly queue: string
  readonly taskId: string
}

interface OfSchedule {
  readonly queue: string
  /** The id of the schedule. */
  readonly schedule: string
}

/** How an attempt has ended, and what becomes of its task. */
export interface AttemptEnd extends OfTask, OfConsumer {
  readonly url: string
  /** The pattern of the route that has taken the request, if a hook of the plugin has seen it. */
  readonly route: string | undefined
  /** Counts the attempts at the task from 1. */
  readonly attempt: number
  readonly verdict: 'done' | 'retry' | 'defer' | 'release' | 'dead'
  /** The status of the answer, if there was one, and two of its headers. */
  readonly status: number | undefined
  readonly location: string | undefined
  readonly retryAfter: string | undefined
  readonly durationMs: number
  /**
   * How long the task has waited for its first attempt since it was due, in milliseconds; undefined of later attempts.
   * It is the difference of two clocks if another machine has added the task. A `reschedule` does not change when the
   * task counts as due.
   */
  readonly waitedMs: number | undefined
  /** The id of the request that the task was, and of the one that added the first task of its chain. */
  readonly reqId: string | undefined
  readonly originReqId: string | undefined
  /** True if no route of this app takes the task. */
  readonly unrouted: true | undefined
  /** Why the verdict is none of success. */
  readonly reason: string | undefined
  /** How long the task waits for its next attempt. */
  readonly delayMs: number | undefined
  /** What the request has thrown, if the verdict is none of success. Any value can be thrown. */
  readonly err: unknown
}

/** What happens while tasks run, by the names of the events. */
export interface Events {
  /** A consumer begins to claim. `location` says where its store keeps the tasks. */
  'consumer:start': OfConsumer & { readonly concurrency: number, readonly location: string }
  /**
   * Tasks are claimed. `suspects` of them are claimed once more since their lease has expired, and run alone.
   */
  'tasks:claimed': OfConsumer & { readonly taskIds: readonly string[], readonly suspects: number }
  /** The store knows how the attempts at these tasks have ended. */
  'tasks:settled': OfConsumer & { readonly taskIds: readonly string[] }
  'attempt:end': AttemptEnd
  /** A task became a dead letter without an attempt: it has killed too many processes, or it cannot be read. */
  'task:buried': OfTask & { readonly attempt: number, readonly reason: string, readonly err?: unknown }
  /** `onDead` has failed. The dead letter is kept without the tasks that it would have added. */
  'onDead:failed': OfTask & { readonly err: unknown }
  'task:cancelled': OfTask & OfConsumer
  /** A closing app has waited long enough for a task, and gives it back. */
  'task:returned': OfTask & OfConsumer
  /** The lease of a running task has expired, so that another process may run the task as well. */
  'lease:lost': OfTask & OfConsumer
  /** The store could not be told before the app closed how these tasks ended. They run again. */
  'tasks:unsettled': OfConsumer & { readonly taskIds: readonly string[] }
  /** Dead letters were dropped, since only so many are kept, or for so long. */
  'dead:dropped': OfConsumer & { readonly dropped: number }
  /**
   * A slot of a schedule has added its task, or has added none since the last task has not ended (`skipped`) or the
   * slot is too late (`missed`). Only the process that has done it tells of it. `slot` is in milliseconds since the
   * epoch; `missed` is how many slots before it were missed.
   */
  'schedule:tick': OfSchedule & {
    readonly slot: number
    readonly result: 'added' | 'skipped' | 'missed'
    readonly missed: number
    /** The id of the task, if it was added. */
    readonly taskId: string | undefined
  }
  /** This process cannot read what a schedule is to do, so it leaves the schedule to others. */
  'schedule:unreadable': OfSchedule & { readonly err: unknown }
  'schedules:failed': { readonly queue: string, readonly err: unknown }
  'store:failed': OfConsumer & { readonly err: unknown }
  'store:recovered': OfConsumer
  'heartbeat:failed': { readonly err: unknown }
  /** The store answers and cannot do all that it should for a queue. */
  'queue:fault': { readonly queue: string, readonly fault: string }
}

export type EventName = keyof Events

/** Events that only subscribers hear of: they are too many for the log. */
export type QuietName = 'tasks:claimed' | 'tasks:settled'

/** Tells of an event. It never throws. */
export type Publish = <Name extends EventName>(name: Name, event: Events[Name]) => void

/** The channels of `node:diagnostics_channel` that carry the events of all apps of a process, each once it is used. */
const channels: Partial<Record<EventName, Channel>> = {}

/**
 * Makes the function by which an app tells of its events: first to `first`, and then to whoever has subscribed to the
 * channel `fastify-taskqueue:<name>`. A first subscriber that throws must not change what becomes of a task.
 */
export function publishTo (first: Publish): Publish {
  return (name, event) => {
    try {
      first(name, event)
    } catch {}
    if (isHeard(name)) channels[name]!.publish(event)
  }
}

/** Whether anybody has subscribed to an event. */
export function isHeard (name: EventName): boolean {
  return (channels[name] ??= channel(`fastify-taskqueue:${name}`)).hasSubscribers
}
