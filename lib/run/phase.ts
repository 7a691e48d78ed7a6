/**
 * What a consumer does at the moment.
 *
 *     new ── start, run ──▶ consuming ── the app turns a task away ──▶ turned away
 *      │                      │     ▲                                   │     │
 *      │                      │     └────────── after 100 ms ───────────┘     │
 *      └────── stop ──────▶ closing ◀──────────────── stop ───────────────────┘
 */
export type Phase = 'new' | 'consuming' | 'turned away' | 'closing'

/** Which phases may follow each. */
const NEXT: Readonly<Record<Phase, readonly Phase[]>> = {
  new: ['consuming', 'closing'],
  consuming: ['turned away', 'closing'],
  'turned away': ['consuming', 'closing'],
  closing: []
}

/** Returns the phase that follows when a consumer is to enter another one: the same one, if that may not follow. */
export function next (phase: Phase, wanted: Phase): Phase {
  return NEXT[phase].includes(wanted) ? wanted : phase
}
