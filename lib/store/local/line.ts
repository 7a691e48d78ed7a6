/** Ids in line. An id enters at either end and leaves from any place in constant time, on average. */
export class Line {
  /** The positions before those of `#rest`, in reverse order. */
  #front: Position[] = []
  #rest: Position[] = []
  /** Where `#rest` begins. Removing the first element of a long array takes long. */
  #start = 0
  /** The position that each id holds. Every other position is a gap that an id has left. */
  readonly #positions = new Map<string, Position>()

  get size (): number { return this.#positions.size }

  push (id: string): void { this.#rest.push(this.#position(id)) }

  unshift (id: string): void { this.#front.push(this.#position(id)) }

  delete (id: string): void {
    if (!this.#positions.delete(id)) return
    const gaps = this.#front.length + this.#rest.length - this.#start - this.size
    if (gaps <= 1024 || gaps < this.size) return
    this.#front = this.#front.filter(position => this.#isHeld(position))
    this.#rest = this.#rest.filter(position => this.#isHeld(position))
    this.#start = 0
  }

  /** Removes the first ids, at most as many as the limit, and returns them in order. */
  take (limit: number): string[] {
    const ids: string[] = []
    while (ids.length < limit && this.size > 0) {
      const position = this.#front.pop() ?? this.#rest[this.#start++]!
      if (!this.#isHeld(position)) continue
      this.#positions.delete(position.id)
      ids.push(position.id)
    }
    if (this.#start > 1024 && this.#start * 2 > this.#rest.length) {
      this.#rest = this.#rest.slice(this.#start)
      this.#start = 0
    }
    return ids
  }

  * ids (): Iterable<string> {
    for (let index = this.#front.length - 1; index >= 0; index--) {
      const position = this.#front[index]!
      if (this.#isHeld(position)) yield position.id
    }
    for (let index = this.#start; index < this.#rest.length; index++) {
      const position = this.#rest[index]!
      if (this.#isHeld(position)) yield position.id
    }
  }

  #position (id: string): Position {
    const position = { id }
    this.#positions.set(id, position)
    return position
  }

  #isHeld (position: Position): boolean { return this.#positions.get(position.id) === position }
}

interface Position { readonly id: string }
