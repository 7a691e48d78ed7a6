/** Divides a list into pieces of a length, and one that may be shorter. */
export function inSteps<T> (list: readonly T[], length: number): T[][] {
  return Array.from({ length: Math.ceil(list.length / length) }, (_, index) =>
    list.slice(index * length, (index + 1) * length))
}
