/** Where a consumer stands when it decides what to claim. */
export interface Standing {
  /** Whether it claims at all: it was started, is not closing, and the app does not turn its tasks away. */
  readonly isOpen: boolean
  /** Whether there are suspects in the queue. */
  readonly suspects: boolean
  /** Whether no suspect runs in this process, and none waits to. */
  readonly isShared: boolean
  /** How many tasks it may still claim. */
  readonly allowed: number
  /** Whether it claims whatever there is, without having to be asked. */
  readonly isUnlimited: boolean
  /** How many tasks may run at once, and how many more it claims ahead unless others are to have a share. */
  readonly concurrency: number
  readonly ahead: number
  /** How many tasks run, and how many are claimed and not begun. */
  readonly running: number
  readonly ready: number
}

export interface Admission {
  /** Whether tasks that are claimed may begin. */
  readonly begins: boolean
  /** What to claim: a suspect that then runs alone, a number of tasks, or nothing. */
  readonly claims: 'suspect' | number
  /** How many of these have to wait for room. */
  readonly ahead: number
  /** Whether it has nothing else to do, so that the store may later claim something for it. */
  readonly waits: boolean
}

const NOTHING: Admission = { begins: false, claims: 0, ahead: 0, waits: false }

/** Decides what a consumer may begin and claim. Suspects go first, and run beside nothing else. */
export function admission (standing: Standing): Admission {
  const { isOpen, suspects, isShared, allowed, isUnlimited, concurrency, ahead, running, ready } = standing
  if (!isOpen) return NOTHING
  if (suspects) return allowed > 0 ? { ...NOTHING, claims: 'suspect' } : NOTHING
  if (!isShared) return NOTHING
  const claims = Math.max(0, Math.min(concurrency + ahead - running - ready, allowed))
  const room = Math.max(0, concurrency - running - ready)
  const waits = isUnlimited && claims > 0 && running + ready === 0
  return { begins: true, claims, ahead: Math.max(0, claims - room), waits }
}
