import { LocalStore } from '../../lib/store/local/store.js'
import type { NewTask, Prepared } from '../../lib/store/tasks.js'

/** A local store that writes down what it is asked to do, and fails when told to. */
export class RecordingStore extends LocalStore {
  readonly name: string
  readonly events: string[]
  /** The tasks of each commit that succeeded. */
  readonly batches: Array<readonly NewTask[]> = []
  /** What happens at the beginning of each call. */
  before: { prepare?: () => Promise<void>, commit?: () => Promise<void> } = {}

  constructor (name = 'store', events: string[] = []) {
    super()
    this.name = name
    this.events = events
  }

  /** Of all tasks stored so far. */
  get ids (): string[] { return this.batches.flat().map(({ id }) => id) }

  override async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    const ids = tasks.map(({ id }) => id).join(', ')
    this.events.push(`${this.name} prepares ${ids}`)
    await this.before.prepare?.()
    const prepared = await super.prepare(tasks)
    return {
      keptOut: prepared.keptOut,
      commit: async () => {
        this.events.push(`${this.name} commits ${ids}`)
        await this.before.commit?.()
        await prepared.commit()
        this.batches.push(tasks)
      },
      rollback: () => {
        this.events.push(`${this.name} rolls back ${ids}`)
        prepared.rollback()
      }
    }
  }
}
