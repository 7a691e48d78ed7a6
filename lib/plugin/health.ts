import { Deadlines } from '../deadlines.js'
import type { Queue } from '../queue/queue.js'
import { namesOf, type Queues } from '../queue/queues.js'
import { waitingSince } from '../queue/status.js'
import type { Consumer } from '../run/consumer.js'
import type { ConsumerStatus } from '../run/consumer-status.js'
import type { QueueView } from '../store/found.js'
import type { Codec } from '../task/codec.js'

/** How an app and its queues fare. */
export interface Health {
  /**
   * Whether every store answers, and every consumer that starts by itself has started and is not about to close: for a
   * probe of readiness.
   */
  readonly isReady: boolean
  /**
   * False if a store answers now and a consumer has heard nothing from it for the time of two leases, so that only a
   * restart can help: for a probe of liveness. A store that is away is no reason to restart.
   */
  readonly isLive: boolean
  /** All queues of the app, in the order of their names. */
  readonly queues: readonly QueueHealth[]
}

/** How a queue fares. Members that its store knows are missing if that does not answer. */
export interface QueueHealth {
  readonly name: string
  /** Whether the store has answered, within two seconds. */
  readonly isReachable: boolean
  /** Why it has not, for operators. It may name the address of the store. */
  readonly error?: string
  readonly waiting?: number
  readonly delayed?: number
  readonly running?: number
  readonly dead?: number
  readonly isPaused?: boolean
  /** For how many milliseconds the whole queue rests; 0 if it does not. */
  readonly restMs?: number
  /**
   * For how many milliseconds the task that is first in line has waited since it was due; 0 if none waits. It is the
   * difference of two clocks if another machine has added the task.
   */
  readonly oldestMs?: number
  /** The consumer of the queue in this process, if there is one. */
  readonly consumer?: ConsumerStatus
}

/** How long a store may take to answer, in milliseconds. */
const PROBE_MS = 2000

/** Makes the function that asks all stores at once how their queues fare. It never rejects. */
export function healthOf (
  queues: Queues, codec: Codec, consumers: ReadonlyMap<string, Consumer>
): () => Promise<Health> {
  const deadlines = new Deadlines(PROBE_MS)
  const late = () => new Error(`no answer within ${PROBE_MS} ms`)
  const healthOfQueue = ({ name }: Queue, view: QueueView | Error, now: number): QueueHealth => {
    const consumer = consumers.get(name)?.status
    const base = { name, ...consumer !== undefined && { consumer } }
    if (view instanceof Error) return { ...base, isReachable: false, error: view.message }
    const { waiting, delayed, running, dead, paused: isPaused, restMs = 0, first } = view
    const oldestMs = first === undefined ? 0 : Math.max(0, now - waitingSince(codec, first)) || 0
    return { ...base, isReachable: true, waiting, delayed, running, dead, isPaused, restMs, oldestMs }
  }
  return async () => {
    const answers = await Promise.all(queues.byStore.map(async ([store, ofStore]) => {
      const ask = async () => await store.counts(namesOf(ofStore))
      const views = await deadlines.within(ask(), late).catch((error: unknown) => {
        // Any value can be thrown.
        const failure = error instanceof Error ? error : new Error(String(error))
        return ofStore.map(() => failure)
      })
      const now = Date.now()
      return ofStore.map((queue, index) => healthOfQueue(queue, views[index]!, now))
    }))
    const all = answers.flat().sort((a, b) => a.name < b.name ? -1 : 1)
    const known = all.flatMap(({ consumer, isReachable }) => consumer === undefined ? [] : { ...consumer, isReachable })
    return {
      isReady: all.every(({ isReachable }) => isReachable) && known.every(({ state }) => state !== 'closing'),
      isLive: known.every(({ isReachable, silentMs, leaseMs }) => !isReachable || silentMs <= 2 * leaseMs),
      queues: all
    }
  }
}
