import { endOfRest } from '../queue/limits.js'
import type { Queue } from '../queue/queue.js'
import { reach } from '../queue/reach.js'
import type { KeyLimits, Limits } from '../store/limits.js'
import { count, period, time } from './format.js'
import { type Content, html } from './html.js'
import { action, type Frame, timedAction } from './layout.js'

/** What keeps consumers from claiming tasks of a queue. */
export interface Bounds {
  readonly isPaused: boolean
  /** Missing if the queue does not rest. */
  readonly restingUntil?: Date
  /** Missing if the queue has none. */
  readonly limits?: Limits
}

/** Asks the store of a queue once for all of them. */
export async function boundsOf (queue: Queue): Promise<Bounds> {
  const { name, store } = queue
  const [view] = await reach(store.counts([name]))
  const { paused: isPaused, restMs = 0, limits } = view!
  const restingUntil = endOfRest(restMs)
  return {
    isPaused,
    ...restingUntil !== undefined && { restingUntil },
    ...limits !== undefined && { limits }
  }
}

/** How many minutes a rest lasts, unless the operator writes others. */
const REST = { min: 1, usual: 60 }

/** Shows whether a queue rests, and has operators change that. */
export function restOf (queue: string, { restingUntil }: Bounds, frame: Frame, now: number): Content {
  const fields = { queue }
  return [
    restingUntil !== undefined && html`<span class="badge">rests, ends ${time(restingUntil, now)}</span>`,
    restingUntil !== undefined && action(frame, 'end-rest', 'End rest', fields),
    timedAction(frame, 'rest', 'Rest', fields, 'Rest for', REST)
  ]
}

/** The forms by which operators have a key rest and end that. `after` leads back to the same page of keys. */
export function keyActions (
  fields: { readonly queue: string, readonly key: string, readonly after: string }, rests: boolean, frame: Frame
): Content {
  return [
    timedAction(frame, 'rest-key', 'Rest', fields, 'Rest for', REST), ' ',
    rests && action(frame, 'end-rest-key', 'End rest', fields)
  ]
}

/** Shows the limits of a queue in words; nothing if it has none. */
export function limitsOf ({ limits: { perKey = {}, ...own } = {} }: Bounds): Content {
  const facts = [['Limits', wordsOf(own)], ['Limits of each key', wordsOf(perKey)]].filter(([, words]) => words !== '')
  return facts.length > 0 && html`<dl>${facts.map(([name, words]) => html`<dt>${name}</dt><dd>${words}</dd>`)}</dl>`
}

/** Says in sentences what limits allow; '' if they allow everything. */
export function wordsOf ({ running, rate }: KeyLimits): string {
  const sentences: string[] = []
  if (running !== undefined) sentences.push(`At most ${tasks(running, 'run')} at once.`)
  if (rate !== undefined) {
    const { max, ms, burst = 1 } = rate
    const begin = `At most ${tasks(max, 'begin')} per ${period(ms)}`
    const further = burst === 1 ? ', evenly spaced.' : `. After a pause ${count(burst)} can begin at once.`
    sentences.push(begin + further)
  }
  return sentences.join(' ')
}

const tasks = (value: number, verb: string): string =>
  value === 1 ? `1 task ${verb}s` : `${count(value)} tasks ${verb}`
