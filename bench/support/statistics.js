export function quantile (values, q) {
  const sorted = values.toSorted((a, b) => a - b)
  const position = (sorted.length - 1) * q
  const [low, high] = [sorted[Math.floor(position)], sorted[Math.ceil(position)]]
  return low + (high - low) * (position % 1)
}

export function median (values) { return quantile(values, 0.5) }

export function range (count) { return Array.from({ length: count }, (_, n) => n) }

/** Does something with each number below a count, so many at a time. */
export async function forEachOf (count, atOnce, run) {
  let next = 0
  await Promise.all(range(atOnce).map(async () => {
    while (next < count) await run(next++)
  }))
}
