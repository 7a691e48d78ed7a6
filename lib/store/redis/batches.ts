import { setImmediate as endOfTick } from 'node:timers/promises'

interface Batch<T, R> {
  readonly items: T[]
  weight: number
  /** Resolves once the batch's call is under way. */
  readonly made: Promise<void>
  readonly results: Promise<readonly R[]>
}

/**
 * Makes one call for several items. A batch holds the items that are added under one key at once; or, while another
 * call under that key is under way, those that are added until the end of the tick.
 */
export class Batches<T, R> {
  readonly #call: (items: readonly T[]) => Promise<readonly R[]>
  readonly #maxWeight: number
  readonly #filling = new Map<string, Batch<T, R>>()
  /** How many calls are under way, by key. */
  readonly #underWay = new Map<string, number>()

  /** @param call returns a result for each item, or fails for all of them */
  constructor (maxWeight: number, call: (items: readonly T[]) => Promise<readonly R[]>) {
    this.#maxWeight = maxWeight
    this.#call = call
  }

  /** Adds an item. `made` resolves once its call is under way; `result`, to the result of the item. */
  add (key: string, item: T, weight: number): { readonly made: Promise<void>, readonly result: Promise<R> } {
    let batch = this.#filling.get(key)
    if (batch === undefined || batch.weight + weight > this.#maxWeight) this.#filling.set(key, batch = this.#begin(key))
    batch.weight += weight
    const index = batch.items.push(item) - 1
    return { made: batch.made, result: batch.results.then(results => results[index]!) }
  }

  #begin (key: string): Batch<T, R> {
    const items: T[] = []
    const full = (this.#underWay.get(key) ?? 0) === 0 ? Promise.resolve() : endOfTick()
    const results = full.then(async () => {
      if (this.#filling.get(key)?.items === items) this.#filling.delete(key)
      this.#underWay.set(key, (this.#underWay.get(key) ?? 0) + 1)
      try {
        return await this.#call(items)
      } finally {
        const left = this.#underWay.get(key)! - 1
        if (left === 0) this.#underWay.delete(key)
        else this.#underWay.set(key, left)
      }
    })
    // A caller that waits for its item gets the failure by `result`.
    results.catch(() => {})
    return { items, weight: 0, made: full.then(() => {}), results }
  }
}
