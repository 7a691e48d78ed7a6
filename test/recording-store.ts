import { LocalStore } from '../lib/local-store.js'
import type { NewTask } from '../lib/store.js'

/** A local store that writes down what it is asked to do, and fails when told to. */
export class RecordingStore extends LocalStore {
  readonly name: string
  readonly events: string[]
  /** The tasks of each call of `add` that succeeded. */
  readonly batches: Array<readonly NewTask[]> = []
  /** What happens at the beginning of each call. */
  before: { vote?: () => Promise<void>, add?: () => Promise<void> } = {}

  constructor (name = 'store', events: string[] = []) {
    super()
    this.name = name
    this.events = events
  }

  /** Of all tasks stored so far. */
  get ids (): string[] { return this.batches.flat().map(({ id }) => id) }

  override async vote (): Promise<void> {
    this.events.push(`${this.name} votes`)
    await this.before.vote?.()
  }

  override async add (tasks: readonly NewTask[]): Promise<void> {
    this.events.push(`${this.name} stores ${tasks.map(({ id }) => id).join(', ')}`)
    await this.before.add?.()
    await super.add(tasks)
    this.batches.push(tasks)
  }
}
