/** The counts of a queue without tasks. */
export const NOTHING = { waiting: 0, delayed: 0, running: 0, dead: 0 }
