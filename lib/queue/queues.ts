import { FST_TASKQUEUE_UNKNOWN_QUEUE } from '../errors.js'
import type { Settings } from '../plugin/options.js'
import { storeMaker } from '../plugin/stores.js'
import { show } from '../show.js'
import type { Keep, Store } from '../store/store.js'
import type { Codec } from '../task/codec.js'
import { Queue } from './queue.js'

/** The queues of an app, in the order of their names. */
export class Queues {
  readonly all: readonly Queue[]
  readonly keep: Keep

  constructor (settings: Settings, codec: Codec) {
    this.keep = settings.keep
    const storeOf = storeMaker(settings)
    this.all = settings.queues.map(queue => new Queue(queue.name, storeOf(queue), codec))
  }

  /** Finds a queue, the alphabetically first one where there is no name; throws `FST_TASKQUEUE_UNKNOWN_QUEUE` unless there is one. */
  get (name: string = this.all[0]!.name): Queue {
    const queue = this.all.find(queue => queue.name === name)
    if (queue !== undefined) return queue
    throw new FST_TASKQUEUE_UNKNOWN_QUEUE(show(name), this.all.map(({ name }) => name).join(', '))
  }

  get stores (): Store[] { return [...new Set(this.all.map(({ store }) => store))] }
}
