import type { NewTask, Store } from '../../lib/index.js'

/** Has a store take tasks in, whole. */
export async function addTo (store: Store, tasks: readonly NewTask[]): Promise<void> {
  const prepared = await store.prepare(tasks)
  await prepared.commit()
}
