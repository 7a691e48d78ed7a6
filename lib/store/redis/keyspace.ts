import { scripts, type ScriptName } from './scripts.js'

/** Knows the names of a store's keys, and which queues one script can reach. */
export class Keyspace {
  readonly #prefix: string
  readonly #isCluster: boolean

  constructor (prefix: string, isCluster: boolean) {
    this.#prefix = prefix
    this.#isCluster = isCluster
  }

  /** Returns what the keys of a queue begin with. The keys share a hash tag, and thereby a slot of a cluster. */
  nameOf (queue: string): string {
    return `${this.#prefix}:{${queue}}`
  }

  /** Returns the keys that a script takes for some queues. */
  keysOf (script: ScriptName, queues: readonly string[]): string[] {
    return queues.flatMap(queue => scripts[script].keys.map(key => `${this.nameOf(queue)}:${key}`))
  }

  /** Returns the key that holds a consumer's last turn. */
  turnKeyOf (queue: string, consumer: string): string {
    return `${this.nameOf(queue)}:turn:${consumer}`
  }

  /** Returns the key that holds what the consumers of a queue say of themselves. */
  consumersKeyOf (queue: string): string {
    return `${this.nameOf(queue)}:consumers`
  }

  /** Returns the key that holds the copy of a message while it is fetched in slices. */
  copyKeyOf (queue: string, fence: number): string {
    return `${this.nameOf(queue)}:copy:${fence}`
  }

  /** Returns the key with which `vote` tries whether Redis takes commands that write. */
  get voteKey (): string { return `${this.#prefix}:vote` }

  /** Groups queues that one script can reach together: all of them, or in a cluster each queue alone. */
  together (queues: readonly string[]): string[][] {
    if (queues.length === 1) return [[queues[0]!]]
    const distinct = [...new Set(queues)]
    return this.#isCluster ? distinct.map(queue => [queue]) : [distinct]
  }
}
