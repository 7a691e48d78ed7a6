import { subscribe, unsubscribe } from 'node:diagnostics_channel'
import type { EventName, Events } from '../observe/events.js'
import { commits, type CommitTrace } from '../observe/tracing.js'
import type { Maker } from './client.js'

/** Stands for the route of an attempt that no route has taken, so that no url becomes a label. */
const OTHER = 'other'

type Listeners = { readonly [Name in EventName]?: (event: Events[Name]) => void }

/** Metrics of what happens in this process, from the events of all of its apps. */
export class Counters {
  readonly #subscriptions: ReadonlyArray<readonly [name: string, listener: (event: unknown) => void]>

  constructor (make: Maker) {
    const { onStart, onEnd } = commitsWith(make)
    const listeners = Object.entries(listenersWith(make)).map(([name, listener]) =>
      [`fastify-taskqueue:${name}`, listener as (event: unknown) => void] as const)
    this.#subscriptions = [...listeners, [String(commits.start.name), onStart], [String(commits.asyncEnd.name), onEnd]]
  }

  begin (): void {
    for (const [name, listener] of this.#subscriptions) subscribe(name, listener)
  }

  end (): void {
    for (const [name, listener] of this.#subscriptions) unsubscribe(name, listener)
  }
}

function listenersWith (make: Maker): Listeners {
  const ended = make.counter(
    'attempts_total', 'Attempts that have ended here, by what becomes of the task.', 'queue', 'route', 'outcome')
  const seconds = make.histogram('attempt_duration_seconds', 'How long attempts took.', 'queue', 'route')
  const waited = make.histogram(
    'wait_seconds', 'How long tasks waited for their first attempt since they were due.', 'queue')
  const takenOver = make.counter(
    'taken_over_total', 'Tasks that were claimed here once more since their lease had expired.', 'queue')
  const lost = make.counter('leases_lost_total', 'Tasks whose lease has expired while they ran here.', 'queue')
  const cancelled = make.counter('cancelled_total', 'Tasks that were cancelled while they ran here.', 'queue')
  const dropped = make.counter('dead_dropped_total', 'Dead letters that were dropped.', 'queue')
  const slots = make.counter(
    'schedule_slots_total', 'Slots of schedules for which this process has added a task or none.', 'queue', 'outcome')
  const missed = make.counter(
    'schedule_missed_total', 'Slots of schedules that were over before a process could add their tasks.', 'queue')
  return {
    'attempt:end' ({ queue, route = OTHER, verdict, durationMs, waitedMs = NaN }) {
      ended.inc({ queue, route, outcome: verdict })
      seconds.observe({ queue, route }, durationMs / 1000)
      if (waitedMs >= 0) waited.observe({ queue }, waitedMs / 1000)
    },
    'task:buried' ({ queue }) { ended.inc({ queue, route: OTHER, outcome: 'dead' }) },
    'tasks:claimed' ({ queue, suspects }) { if (suspects > 0) takenOver.inc({ queue }, suspects) },
    'lease:lost' ({ queue }) { lost.inc({ queue }) },
    'task:cancelled' ({ queue }) { cancelled.inc({ queue }) },
    'dead:dropped' ({ queue, dropped: count }) { dropped.inc({ queue }, count) },
    'schedule:tick' ({ queue, result, missed: count }) {
      if (result !== 'missed') slots.inc({ queue, outcome: result })
      if (count > 0) missed.inc({ queue }, count)
    }
  }
}

/** Makes metrics of the commits of this process. Returns what is to be told of their beginnings and ends. */
function commitsWith (make: Maker): { onStart (event: unknown): void, onEnd (event: unknown): void } {
  const added = make.counter('added_total', 'Tasks that commits of this process have added.', 'queue')
  const seconds = make.histogram('commit_duration_seconds', 'How long commits of this process took.')
  const failed = make.counter('commit_failures_total', 'Commits of this process that have failed.')
  const starts = new WeakMap<CommitTrace, number>()
  return {
    onStart: trace => { starts.set(trace as CommitTrace, performance.now()) },
    onEnd (trace) {
      const { tasks, keptOut, error } = trace as CommitTrace
      const start = starts.get(trace as CommitTrace)
      // Somebody may subscribe while a commit is under way.
      if (start !== undefined) seconds.observe({}, (performance.now() - start) / 1000)
      if (error !== undefined) return failed.inc({})
      const kept = new Set(keptOut)
      for (const { queue, taskId } of tasks) if (!kept.has(taskId)) added.inc({ queue })
    }
  }
}
