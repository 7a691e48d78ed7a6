import type { Taskqueue } from '../plugin/app-taskqueue.js'
import { FST_TASKQUEUE_NOT_CONFIRMED } from '../errors.js'
import { groupDead, MOST_GROUPED } from './dead-letters.js'
import { pathOfList, pathOfTask } from './layout.js'
import { viewOf } from './task-view.js'

/** The fields of a form. */
type Fields = Readonly<Record<string, string>>

interface Done {
  /** How many tasks or queues were changed. */
  readonly changed: number
  /** Where to go on, relative to the root. */
  readonly path: string
}

/** Acts on queues and tasks. May be asked twice for the same. */
export type Action = (taskqueue: Taskqueue, fields: Fields) => Promise<Done>

const queueIn = (taskqueue: Taskqueue, { queue }: Fields) => taskqueue.queue(queue!)

const pathOfDead = (queue: string): string => `dead?name=${encodeURIComponent(queue)}`

/** Acts on one task, and shows it again. */
const onTask = (act: (taskqueue: Taskqueue, id: string, fields: Fields) => Promise<boolean | number>): Action =>
  async (taskqueue, fields) => {
    const { id = '' } = fields
    return { changed: Number(await act(taskqueue, id, fields)), path: pathOfTask(id) }
  }

/** Acts on the dead letters of a group, as far as they are still dead. */
const onGroup = (act: 'redrive' | 'remove'): Action => async (taskqueue, fields) => {
  const queue = queueIn(taskqueue, fields)
  const groups = groupDead((await queue.list('dead', { limit: MOST_GROUPED })).map(task => viewOf(task)))
  const ids = groups.find(({ key }) => key === fields.group)?.ids ?? []
  return { changed: ids.length === 0 ? 0 : await queue[act](ids), path: pathOfDead(queue.name) }
}

/** Throws unless whoever acts has written the name of the queue. */
function refuseUnconfirmed ({ queue, confirm }: Fields): void {
  if (confirm?.trim() !== queue) throw new FST_TASKQUEUE_NOT_CONFIRMED(String(queue))
}

/** By their names in the paths of forms. */
export const actions: Readonly<Record<string, Action>> = {
  async pause (taskqueue, fields) {
    await queueIn(taskqueue, fields).pause()
    return { changed: 1, path: './' }
  },
  async resume (taskqueue, fields) {
    await queueIn(taskqueue, fields).resume()
    return { changed: 1, path: './' }
  },
  async purge (taskqueue, fields) {
    const queue = queueIn(taskqueue, fields)
    refuseUnconfirmed(fields)
    return { changed: await queue.purge(), path: pathOfList(queue.name, 'waiting') }
  },
  async 'redrive-all' (taskqueue, fields) {
    const queue = queueIn(taskqueue, fields)
    return { changed: await queue.redrive(), path: pathOfDead(queue.name) }
  },
  async 'remove-all' (taskqueue, fields) {
    const queue = queueIn(taskqueue, fields)
    refuseUnconfirmed(fields)
    return { changed: await queue.remove(), path: pathOfDead(queue.name) }
  },
  'redrive-group': onGroup('redrive'),
  'remove-group': onGroup('remove'),
  cancel: onTask((taskqueue, id) => taskqueue.cancel(id)),
  run: onTask((taskqueue, id) => taskqueue.runNow(id)),
  reschedule: onTask((taskqueue, id, { minutes }) => taskqueue.reschedule(id, { delayMs: Number(minutes) * 60_000 })),
  redrive: onTask((taskqueue, id, { queue }) => taskqueue.queue(queue!).redrive([id])),
  async remove (taskqueue, fields) {
    const queue = queueIn(taskqueue, fields)
    return { changed: await queue.remove([fields.id!]), path: pathOfList(queue.name, 'dead') }
  }
}
