import { scripts, type ScriptName } from './scripts.js'

/** The names of a store's keys, and which queues one script can reach. */
export class Keyspace {
  readonly #prefix: string
  readonly #isCluster: boolean

  constructor (prefix: string, isCluster: boolean) {
    this.#prefix = prefix
    this.#isCluster = isCluster
  }

  /** Returns what the keys of a queue begin with. They share a hash tag, and with it a slot of a cluster. */
  nameOf (queue: string): string {
    return `${this.#prefix}:{${queue}}`
  }

  /** Returns the keys that a script is passed for some queues. */
  keysOf (script: ScriptName, queues: readonly string[]): string[] {
    return queues.flatMap(queue => scripts[script].keys.map(key => `${this.nameOf(queue)}:${key}`))
  }

  /** Returns the key of a consumer's turns. */
  turnKeyOf (queue: string, consumer: string): string {
    return `${this.nameOf(queue)}:turn:${consumer}`
  }

  /** Returns the key for the copy of a message that is fetched in slices. */
  copyKeyOf (queue: string, fence: number): string {
    return `${this.nameOf(queue)}:copy:${fence}`
  }

  /** Returns the key under which it is tried out whether Redis takes commands that write. */
  get voteKey (): string { return `${this.#prefix}:vote` }

  /** Groups queues by what one script can reach: all of them, but in a cluster each alone. */
  together (queues: readonly string[]): string[][] {
    const distinct = [...new Set(queues)]
    return this.#isCluster ? distinct.map(queue => [queue]) : [distinct]
  }
}
