/** A promise, and what resolves it. */
export function withResolvers () {
  let resolve
  const promise = new Promise(_resolve => { resolve = _resolve })
  return { promise, resolve }
}
