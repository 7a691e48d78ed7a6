import { FST_TASKQUEUE_NOT_CONFIRMED } from '../errors.js'
import type { Taskqueue } from '../plugin/app-taskqueue.js'
import type { Queue } from '../queue/queue.js'
import type { Priority } from '../store/tasks.js'
import { groupsOf } from './dead-letters.js'
import { offsetOf, pathOfDead, pathOfKeys, pathOfList, pathOfSchedules, pathOfTask } from './layout.js'

/** The fields of a form. */
type Fields = Readonly<Record<string, string>>

interface Done {
  /** How many tasks, queues or schedules were changed. */
  readonly changed: number
  /** The task that was added. */
  readonly taskId?: string
  /** Where to go on, relative to the root. */
  readonly path: string
}

/** Acts on a queue or its tasks. May be asked twice for the same. */
export type Action = (queue: Queue, fields: Fields, taskqueue: Taskqueue) => Promise<Done>

/** Acts on one task, and shows it again. */
const onTask = (act: (taskqueue: Taskqueue, id: string, fields: Fields) => Promise<boolean>): Action =>
  async (_queue, fields, taskqueue) => {
    const { id = '' } = fields
    return { changed: Number(await act(taskqueue, id, fields)), path: pathOfTask(id) }
  }

/** Acts on the dead letters of a group, as far as they are still dead. */
const onGroup = (act: 'redrive' | 'remove'): Action => async (queue, fields) => {
  const groups = await groupsOf(queue)
  const ids = groups.find(({ key }) => key === fields.group)?.ids ?? []
  return { changed: ids.length === 0 ? 0 : await queue[act](ids), path: pathOfDead(queue.name) }
}

/** Has one key rest, and shows its page of keys again. */
const onKey = (msFrom: (fields: Fields) => number): Action => async (queue, fields) => {
  // Without a key the whole queue would rest; an empty one is refused.
  const { key = '', after } = fields
  await queue.rest(msFrom(fields), key)
  return { changed: 1, path: pathOfKeys(queue.name, after) }
}

const onQueue = (msFrom: (fields: Fields) => number): Action => async (queue, fields) => {
  await queue.rest(msFrom(fields))
  return { changed: 1, path: pathOfList(queue.name, 'waiting') }
}

/** Acts on one schedule, and shows its page of schedules again. */
const onSchedule = (act: (taskqueue: Taskqueue, id: string) => Promise<boolean>): Action =>
  async (_queue, { schedule = '', offset }, taskqueue) =>
    ({ changed: Number(await act(taskqueue, schedule)), path: pathOfSchedules(offsetOf(offset)) })

/** Reads a time that an operator has written; NaN if it is none. */
const msOf = ({ minutes = '' }: Fields): number => Math.round(Number.parseFloat(minutes) * 60_000)

/** Throws unless the operator has written the name of the queue. */
function refuseUnconfirmed ({ name }: Queue, { confirm }: Fields): void {
  if (confirm?.trim() !== name) throw new FST_TASKQUEUE_NOT_CONFIRMED(name)
}

/** By their names in the paths of forms. */
export const actions: Readonly<Record<string, Action>> = {
  async pause (queue) {
    await queue.pause()
    return { changed: 1, path: './' }
  },
  async resume (queue) {
    await queue.resume()
    return { changed: 1, path: './' }
  },
  rest: onQueue(msOf),
  'end-rest': onQueue(() => 0),
  'rest-key': onKey(msOf),
  'end-rest-key': onKey(() => 0),
  async purge (queue, fields) {
    refuseUnconfirmed(queue, fields)
    return { changed: await queue.purge(), path: pathOfList(queue.name, 'waiting') }
  },
  async 'redrive-all' (queue) {
    return { changed: await queue.redrive(), path: pathOfDead(queue.name) }
  },
  async 'remove-all' (queue, fields) {
    refuseUnconfirmed(queue, fields)
    return { changed: await queue.remove(), path: pathOfDead(queue.name) }
  },
  'redrive-group': onGroup('redrive'),
  'remove-group': onGroup('remove'),
  cancel: onTask((taskqueue, id) => taskqueue.cancel(id)),
  run: onTask((taskqueue, id) => taskqueue.runNow(id)),
  reschedule: onTask((taskqueue, id, fields) => taskqueue.reschedule(id, { delayMs: msOf(fields) })),
  prioritize: onTask((taskqueue, id, { priority }) => taskqueue.prioritize(id, priority as Priority)),
  async redrive (queue, { id = '' }) {
    return { changed: await queue.redrive([id]), path: pathOfTask(id) }
  },
  async remove (queue, { id = '' }) {
    return { changed: await queue.remove([id]), path: pathOfList(queue.name, 'dead') }
  },
  'pause-schedule': onSchedule((taskqueue, id) => taskqueue.pauseSchedule(id)),
  'resume-schedule': onSchedule((taskqueue, id) => taskqueue.resumeSchedule(id)),
  'remove-schedule': onSchedule((taskqueue, id) => taskqueue.unschedule(id)),
  async 'run-schedule' (_queue, { schedule: id = '', offset }, taskqueue) {
    const taskId = await taskqueue.runSchedule(id)
    const path = pathOfSchedules(offsetOf(offset), { id, taskId })
    return taskId === null ? { changed: 0, path } : { changed: 1, taskId, path }
  }
}
