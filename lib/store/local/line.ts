/** Something that can stand in a line. */
export interface InLine {
  /** The place that it holds; undefined while it is in no line. */
  place?: Place<this> | undefined
}

/** A place in a line. It is a gap once whoever took it holds another one, or none. */
interface Place<T> { readonly holder: T }

/** Tasks in line. A task enters at either end and leaves from any place in constant time, on average. */
export class Line<T extends InLine> {
  /** The places before those of `#rest`, in reverse order. */
  #front: Array<Place<T>> = []
  #rest: Array<Place<T>> = []
  /** Where `#rest` begins. Removing the first element of a long array takes long. */
  #start = 0
  #size = 0

  get size (): number { return this.#size }

  push (task: T): void { this.#rest.push(this.#placeOf(task)) }

  unshift (task: T): void { this.#front.push(this.#placeOf(task)) }

  delete (task: T): void {
    if (task.place === undefined) return
    task.place = undefined
    this.#size--
    const gaps = this.#front.length + this.#rest.length - this.#start - this.#size
    if (gaps <= 1024 || gaps < this.#size) return
    this.#front = this.#front.filter(isHeld)
    this.#rest = this.#rest.slice(this.#start).filter(isHeld)
    this.#start = 0
  }

  /** Removes the first tasks, at most as many as the limit, and returns them in order. */
  take (limit: number): T[] {
    const tasks: T[] = []
    while (tasks.length < limit && this.#size > 0) {
      const place = this.#front.pop() ?? this.#rest[this.#start++]!
      if (!isHeld(place)) continue
      place.holder.place = undefined
      this.#size--
      tasks.push(place.holder)
    }
    if (this.#start > 1024 && this.#start * 2 > this.#rest.length) {
      this.#rest = this.#rest.slice(this.#start)
      this.#start = 0
    }
    return tasks
  }

  * tasks (): Iterable<T> {
    for (let index = this.#front.length - 1; index >= 0; index--) {
      const place = this.#front[index]!
      if (isHeld(place)) yield place.holder
    }
    for (let index = this.#start; index < this.#rest.length; index++) {
      const place = this.#rest[index]!
      if (isHeld(place)) yield place.holder
    }
  }

  #placeOf (task: T): Place<T> {
    this.#size++
    const place = { holder: task }
    task.place = place
    return place
  }
}

function isHeld<T extends InLine> (place: Place<T>): boolean { return place.holder.place === place }
