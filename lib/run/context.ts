/** Runs something in the asynchronous context that tasks run in, and returns what it returns. */
export type InContext = <T>(work: () => T) => T
