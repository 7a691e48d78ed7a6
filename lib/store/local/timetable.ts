/** Ids in the order of their times, then of their arrival: as much of a Redis sorted set as the local store needs. */
export class Timetable {
  #entries: Array<readonly [id: string, at: number]> = []
  /** Where the entries begin. Removing the first element of a long array takes long. */
  #start = 0
  readonly #times = new Map<string, number>()

  get size (): number { return this.#times.size }

  /** The earliest time; Infinity if there is no id. */
  get first (): number { return this.#entries[this.#start]?.[1] ?? Infinity }

  has (id: string): boolean { return this.#times.has(id) }

  /** The time of an id; -Infinity if the id is not in the timetable. */
  at (id: string): number { return this.#times.get(id) ?? -Infinity }

  ids (): string[] { return this.#entries.slice(this.#start).map(([id]) => id) }

  set (id: string, at: number): void {
    this.delete(id)
    this.#times.set(id, at)
    this.#entries.splice(this.#end(at), 0, [id, at])
  }

  /** Moves an id to a later time, never to an earlier one. */
  setAtLeast (id: string, at: number): void { if (at > this.at(id)) this.set(id, at) }

  delete (id: string): void {
    const at = this.#times.get(id)
    if (at === undefined) return
    this.#times.delete(id)
    if (this.#entries[this.#start]![0] === id) {
      this.#drop(1)
      return
    }
    let index = this.#end(at) - 1
    while (this.#entries[index]![0] !== id) index--
    this.#entries.splice(index, 1)
  }

  countUpTo (at: number): number { return this.#end(at) - this.#start }

  /** Removes the ids up to a time, and returns them in order. */
  takeUpTo (at: number): string[] { return this.take(this.countUpTo(at)) }

  /** Removes the earliest ids, at most as many as the limit, and returns them in order. */
  take (limit: number): string[] {
    if (limit <= 0) return []
    const ids = this.#entries.slice(this.#start, this.#start + limit).map(([id]) => id)
    for (const id of ids) this.#times.delete(id)
    this.#drop(ids.length)
    return ids
  }

  #drop (count: number): void {
    this.#start += count
    const isMostlyFull = this.#start * 2 <= this.#entries.length
    const isShort = this.#start < 64 && this.#start < this.#entries.length
    if (isMostlyFull || isShort) return
    this.#entries = this.#entries.slice(this.#start)
    this.#start = 0
  }

  /** The index behind the entries up to a time. */
  #end (at: number): number {
    let low = this.#start
    let high = this.#entries.length
    while (low < high) {
      const middle = (low + high) >>> 1
      if (this.#entries[middle]![1] <= at) low = middle + 1
      else high = middle
    }
    return low
  }
}
