import { tracingChannel } from 'node:diagnostics_channel'
import type { Task } from '../task/task.js'
import type { AttemptEnd } from './events.js'

/** A task as the subscribers of a tracing channel see it. */
export interface TracedTask {
  readonly taskId: string
  readonly queue: string
  readonly method: string
  readonly url: string
  /**
   * The headers of its request, by name in lower case. A subscriber of `start` may set or delete some, such as
   * `traceparent`: those of a commit are stored with the task, and those of an attempt are for this attempt only. What
   * is no valid header, or makes the task too large, is ignored.
   */
  readonly headers: Record<string, string>
}

/** Describes a task to the subscribers of a tracing channel. */
export function tracedTask ({ id: taskId, method, url, headers }: Task, queue: string): TracedTask {
  return { taskId, queue, method, url, headers: { ...headers } }
}

/** A commit of tasks, from the first call to a store until all stores have been told. */
export interface CommitTrace {
  /** The tasks, in the order of adding. */
  readonly tasks: readonly TracedTask[]
  /** The ids of those that other tasks of the same id keep out, once the commit has ended. */
  keptOut?: readonly string[]
  /** Why the commit failed, if it did. */
  readonly error?: unknown
}

/** An attempt, from when its message was read until its verdict is known. It never fails. */
export interface AttemptTrace extends TracedTask {
  /** The name of the consumer. */
  readonly consumer: string
  /** Counts the attempts at the task from 1. */
  readonly attempt: number
  /** How it has ended, once it has; left out if the app withdraws the attempt. */
  end?: AttemptEnd
}

/**
 * The channels `tracing:fastify-taskqueue.commit:*` and `tracing:fastify-taskqueue.attempt:*` of
 * `node:diagnostics_channel`. Nothing is made for them while nobody subscribes.
 */
export const commits = tracingChannel<unknown, CommitTrace>('fastify-taskqueue.commit')
export const attempts = tracingChannel<unknown, AttemptTrace>('fastify-taskqueue.attempt')
