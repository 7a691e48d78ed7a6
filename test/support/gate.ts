/** Something to wait for until the test says so. */
export interface Gate<T = void> {
  readonly opened: Promise<T>
  readonly open: (value: T) => void
}

/** A promise that is resolved from outside. */
export function gate<T = void> (): Gate<T> {
  let open!: (value: T) => void
  const opened = new Promise<T>(resolve => { open = resolve })
  return { opened, open }
}
