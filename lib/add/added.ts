import type { TracedTask } from '../observe/tracing.js'
import type { Store } from '../store/store.js'
import type { NewTask, Prepared } from '../store/tasks.js'
import type { Codec } from '../task/codec.js'
import { withHeaders } from '../task/other-headers.js'
import { valueOf } from '../task/payload.js'
import type { Task } from '../task/task.js'

/** A task that was added, ready for its store. */
export interface Added {
  readonly store: Store
  /** Writes its message. */
  readonly codec: Codec
  readonly task: Task
  /** The task for its store. Its message is empty until the id of the user is known. */
  readonly entry: NewTask
  /** The id of the user and the message with it, if the id is a promise. */
  readonly sealing?: Promise<{ readonly userId: string | undefined, readonly message: string }>
  /** The length of the message in characters, as far as it is known. */
  readonly length: number
}

type AddedRequest = Pick<Task, 'id' | 'method' | 'url' | 'headers' | 'userId'>
type AddedPlace = Pick<NewTask, 'queue' | 'delayMs' | 'runAt' | 'expiresMs' | 'priority' | 'key'>

/** A task as it was queued, for tests. */
export interface AddedTask extends AddedRequest, AddedPlace {
  /** A value if it is JSON, a string if it is text, otherwise bytes. */
  readonly payload?: unknown
}

/** Completes the messages of tasks whose user has to be awaited. */
export async function sealAll (added: readonly Added[]): Promise<Added[]> {
  return await Promise.all(added.map(async one => {
    if (one.sealing === undefined) return one
    const { userId, message } = await one.sealing
    return { ...one, task: { ...one.task, userId }, entry: { ...one.entry, message } }
  }))
}

/** Gives a task the headers that it has in its trace. If they make it too large, it keeps its own. */
export function asTraced (added: Added, { headers }: TracedTask): Added {
  const { codec, entry } = added
  const task = withHeaders(added.task, headers)
  if (task === added.task) return added
  try {
    return { ...added, task, entry: { ...entry, message: codec.encode(entry.queue, task) } }
  } catch {
    return added
  }
}

/** Groups tasks by their stores. */
export function byStore (added: readonly Added[]): Map<Store, NewTask[]> {
  const batches = new Map<Store, NewTask[]>()
  for (const { store, entry } of added) {
    const batch = batches.get(store)
    if (batch === undefined) batches.set(store, [entry])
    else batch.push(entry)
  }
  return batches
}

/** Says of each task of a commit whether it was added. If several share an id and a queue, the first ones were. */
export function whichWereAdded (added: readonly Added[], keptOut: Prepared['keptOut']): boolean[] {
  if (keptOut.length === 0) return added.map(() => true)
  const nameOf = ({ queue, id }: Pick<NewTask, 'queue' | 'id'>) => `${queue}\n${id}`
  const left = new Map<string, number>()
  for (const kept of keptOut) left.set(nameOf(kept), (left.get(nameOf(kept)) ?? 0) + 1)
  return added.toReversed().map(({ entry }) => {
    const count = left.get(nameOf(entry)) ?? 0
    left.set(nameOf(entry), count - 1)
    return count <= 0
  }).toReversed()
}

/** Describes a task for `app.taskqueue.added`. */
export function describe ({ task, entry }: Added): AddedTask {
  const { id, method, url, headers, payload, userId } = task
  const { queue, delayMs, runAt, expiresMs, priority, key } = entry
  return {
    id,
    queue,
    method,
    url,
    headers,
    ...userId !== undefined && { userId },
    ...payload !== undefined && { payload: valueOf(payload, headers['content-type']) },
    ...delayMs !== undefined && { delayMs },
    ...runAt !== undefined && { runAt },
    ...expiresMs !== undefined && { expiresMs },
    ...priority !== undefined && { priority },
    ...key !== undefined && { key }
  }
}
