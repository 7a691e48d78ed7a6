/** Keys by their classes, in each class in the order in which they came. */
export class ReadyKeys {
  readonly #classes: Array<Set<string>> = []
  readonly #classOf = new Map<string, number>()

  /** The first key of the lowest class. */
  get first (): { readonly key: string, readonly place: number } | undefined {
    const place = this.#classes.findIndex(({ size }) => size > 0)
    if (place === -1) return undefined
    const [key] = this.#classes[place]!
    return { key: key!, place }
  }

  has (key: string): boolean { return this.#classOf.has(key) }

  /** Puts a key into a class, or takes it out. */
  set (key: string, place: number | undefined): void {
    const before = this.#classOf.get(key)
    if (before === place) return
    if (before !== undefined) this.#classes[before]!.delete(key)
    if (place === undefined) {
      this.#classOf.delete(key)
    } else {
      while (this.#classes.length <= place) this.#classes.push(new Set())
      this.#classes[place]!.add(key)
      this.#classOf.set(key, place)
    }
  }
}
