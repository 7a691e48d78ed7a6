/**
 * How fast attempts may begin: `max` in `ms` milliseconds, evenly spaced. `burst` of them may begin at once after a
 * pause. So in any `ms` milliseconds at most `max + burst - 1` begin. This is the generic cell rate algorithm of
 * ITU-T I.371, with an increment of `ms / max` and a tolerance of `burst - 1` increments.
 */
export interface Rate {
  readonly max: number
  readonly ms: number
  /** @default 1 */
  readonly burst?: number
}

/** What bounds the tasks of one key. What is left out is not bounded. */
export interface KeyLimits {
  /** How many of them may run at once, in all processes. Suspects count as running. */
  readonly running?: number
  readonly rate?: Rate
}

/** What bounds the tasks of a queue, in all processes. */
export interface Limits extends KeyLimits {
  /** What bounds the tasks of each key that has no limits of its own. Tasks without a key are not bounded by it. */
  readonly perKey?: KeyLimits
}

/** A key of which tasks wait or run, as it is at the moment. */
export interface KeyView {
  readonly key: string
  readonly waiting: number
  readonly running: number
  /** For how many milliseconds no task of the key is claimed; 0 if it does not rest. */
  readonly restMs: number
  /** The limits of its own, if the key has any. */
  readonly limits?: KeyLimits
}
