/** Where an item is: in a batch of which this is the place. */
export interface Placed<R> {
  /** Resolves once the batch's call is under way. */
  readonly made: Promise<void>
  /** Resolves to the results of the batch. */
  readonly results: Promise<readonly R[]>
  /** Which of them is the item's. */
  readonly index: number
}

interface Batch<T, R> {
  readonly items: T[]
  weight: number
  isSent: boolean
  readonly made: Promise<void>
  readonly results: Promise<readonly R[]>
  readonly send: () => void
}

/**
 * Makes one call for several items of one key. A batch is sent when the code that runs now has ended; or, if the
 * batches may wait and another call of the key is under way, at the end of the tick. A full batch is sent at once, so
 * that Redis works on it while this process makes the next.
 */
export class Batches<T, R> {
  readonly #maxWeight: number
  readonly #mayWait: boolean
  readonly #call: (items: readonly T[]) => Promise<readonly R[]>
  readonly #filling = new Map<string, Batch<T, R>>()
  /** How many calls are under way, by key. */
  readonly #underWay = new Map<string, number>()

  /** @param call returns a result for each item, or fails for all of them */
  constructor (maxWeight: number, mayWait: boolean, call: (items: readonly T[]) => Promise<readonly R[]>) {
    this.#maxWeight = maxWeight
    this.#mayWait = mayWait
    this.#call = call
  }

  add (key: string, item: T, weight: number): Placed<R> {
    let batch = this.#filling.get(key)
    if (batch !== undefined && batch.weight + weight > this.#maxWeight) {
      batch.send()
      batch = undefined
    }
    batch ??= this.#begin(key)
    batch.weight += weight
    const { made, results } = batch
    const index = batch.items.push(item) - 1
    if (batch.weight >= this.#maxWeight) batch.send()
    return { made, results, index }
  }

  #begin (key: string): Batch<T, R> {
    let isMade!: () => void
    let isAnswered!: (results: Promise<readonly R[]>) => void
    const batch: Batch<T, R> = {
      items: [],
      weight: 0,
      isSent: false,
      made: new Promise(resolve => { isMade = resolve }),
      results: new Promise(resolve => { isAnswered = resolve }),
      send: () => {
        if (batch.isSent) return
        batch.isSent = true
        this.#filling.delete(key)
        isAnswered(this.#send(key, batch.items))
        isMade()
      }
    }
    // A caller that waits for its item gets the failure from its own promise.
    batch.results.catch(() => {})
    this.#filling.set(key, batch)
    if (this.#mayWait && this.#underWay.has(key)) setImmediate(batch.send)
    else process.nextTick(batch.send)
    return batch
  }

  async #send (key: string, items: readonly T[]): Promise<readonly R[]> {
    this.#underWay.set(key, (this.#underWay.get(key) ?? 0) + 1)
    try {
      return await this.#call(items)
    } finally {
      const left = this.#underWay.get(key)! - 1
      if (left === 0) this.#underWay.delete(key)
      else this.#underWay.set(key, left)
    }
  }
}
