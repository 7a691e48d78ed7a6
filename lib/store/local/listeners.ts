import type { News } from '../news.js'
import { Timetable } from './timetable.js'

/** The listeners of one queue, and the ids of the tasks whose ends they await. */
export class Listeners {
  readonly #listeners: Array<(news: News) => void> = []
  /** Awaited ids, by the time until which they are awaited. */
  readonly #awaited = new Timetable()

  add (listener: (news: News) => void): void {
    this.#listeners.push(listener)
  }

  /** Tells the listeners after the current step, which therefore neither waits for them nor fails with them. */
  tell (news: News): void {
    for (const listener of this.#listeners) setImmediate(listener, news)
  }

  wake (): void {
    this.tell({ kind: 'work' })
  }

  await (id: string, ms: number): void {
    const now = performance.now()
    this.#awaited.takeUpTo(now)
    this.#awaited.setAtLeast(id, now + ms)
  }

  /** Tells the listeners that a task has ended, if they await that. */
  tellEnd (id: string): void {
    if (this.#awaited.at(id) > performance.now()) this.tell({ kind: 'ended', id })
    this.#awaited.delete(id)
  }
}
