import { checkOptions, checkWhole } from '../check.js'
import type { KeyLimits, KeyView, Limits, Rate } from '../store/limits.js'
import { MAX_DELAY_MS } from '../task/time.js'

/** A key of which tasks wait or run. */
export interface KeyStatus {
  readonly key: string
  readonly waiting: number
  readonly running: number
  /** Until when none of its tasks is claimed, if it rests or its rate allows none before. */
  readonly restingUntil?: Date
  /** The limits that it has of its own. */
  readonly limits?: KeyLimits
}

export function keyStatusOf ({ key, waiting, running, restMs, limits }: KeyView, now = Date.now()): KeyStatus {
  const restingUntil = endOfRest(restMs, now)
  return {
    key,
    waiting,
    running,
    ...restingUntil !== undefined && { restingUntil },
    ...limits !== undefined && { limits }
  }
}

/** Returns when a rest of so many milliseconds ends; undefined if there is none. */
export function endOfRest (restMs: number, now = Date.now()): Date | undefined {
  return restMs > 0 ? new Date(now + restMs) : undefined
}

/** More tasks than these do not run in all processes together. */
const MOST_RUNNING = 8191

const MOST_IN_RATE = 1_000_000

/** Checks the limits of a queue and copies them, so that the caller cannot change them afterwards. */
export function readLimits (name: string, limits: Limits): Limits {
  checkOptions(name, limits, ['running', 'rate', 'perKey'], name)
  const { perKey, ...own } = limits
  return { ...boundsOf(name, own), ...perKey !== undefined && { perKey: readKeyLimits(`${name}.perKey`, perKey) } }
}

export function readKeyLimits (name: string, limits: KeyLimits): KeyLimits {
  checkOptions(name, limits, ['running', 'rate'], name)
  return boundsOf(name, limits)
}

function boundsOf (name: string, { running, rate }: KeyLimits): KeyLimits {
  checkWhole(`${name}.running`, running, 1, MOST_RUNNING)
  return {
    ...running !== undefined && { running },
    ...rate !== undefined && { rate: readRate(`${name}.rate`, rate) }
  }
}

function readRate (name: string, rate: Rate): Rate {
  checkOptions(name, rate, ['max', 'ms', 'burst'], name)
  const { max, ms, burst = 1 } = rate
  checkRequired(`${name}.max`, max, MOST_IN_RATE)
  checkRequired(`${name}.ms`, ms, MAX_DELAY_MS)
  checkWhole(`${name}.burst`, burst, 1, MOST_IN_RATE)
  return { max, ms, ...burst !== 1 && { burst } }
}

function checkRequired (name: string, value: number | undefined, max: number): void {
  // Null is no whole number either.
  checkWhole(name, value ?? NaN, 1, max)
}
