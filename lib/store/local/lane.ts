import { PRIORITIES, type Priority } from '../tasks.js'
import { Line } from './line.js'
import type { StoredTask } from './task.js'

/** The waiting tasks with one key, or those without a key: a line for each level. */
export class Lane {
  readonly #lines: Readonly<Record<Priority, Line<StoredTask>>> = {
    high: new Line(), normal: new Line(), low: new Line()
  }

  /** How many claims, modulo 8, it has had since several of its levels wait. */
  #claims = 0

  /** Whether several of its levels have waited, as of its last claim. */
  get isCounting (): boolean { return this.#claims > 0 }

  get size (): number { return PRIORITIES.reduce((sum, level) => sum + this.#lines[level].size, 0) }

  push (task: StoredTask): void { this.#lines[task.priority].push(task) }

  unshift (task: StoredTask): void { this.#lines[task.priority].unshift(task) }

  delete (task: StoredTask): void {
    this.#lines[task.priority].delete(task)
    if (this.size === 0) this.#claims = 0
  }

  /** Removes the first tasks of a lane that has one level, at most as many as the limit, and returns them in order. */
  take (limit: number): StoredTask[] {
    return this.#lines.normal.take(limit)
  }

  /** Removes the task that is to be claimed next, and returns it. */
  takeOne (): StoredTask | undefined {
    const waiting = PRIORITIES.map(level => this.#lines[level]).filter(({ size }) => size > 0)
    this.#claims = waiting.length > 1 ? (this.#claims + 1) % 8 : 0
    const isTurnOfMiddle = this.#claims === 4 && waiting.length === 3
    const isTurnOfLast = this.#claims === 0 && waiting.length > 1
    return waiting.at(isTurnOfLast ? -1 : isTurnOfMiddle ? 1 : 0)?.take(1)[0]
  }

  * tasks (): Iterable<StoredTask> {
    for (const level of PRIORITIES) yield * this.#lines[level].tasks()
  }
}
