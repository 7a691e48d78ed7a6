/**
 * @param {readonly number[]} values
 * @param {number} q Between 0 and 1.
 */
export function quantile (values, q) {
  const sorted = values.toSorted((a, b) => a - b)
  const position = (sorted.length - 1) * q
  const [low, high] = [sorted[Math.floor(position)], sorted[Math.ceil(position)]]
  return low + (high - low) * (position % 1)
}

/** @param {readonly number[]} values */
export function median (values) { return quantile(values, 0.5) }

/** @param {number} count */
export function range (count) { return Array.from({ length: count }, (_, n) => n) }

/**
 * Does something with each number below a count, so many at a time.
 *
 * @param {number} count
 * @param {number} atOnce
 * @param {(n: number) => Promise<unknown>} run
 */
export async function forEachOf (count, atOnce, run) {
  let next = 0
  await Promise.all(range(atOnce).map(async () => {
    while (next < count) await run(next++)
  }))
}
