import { FST_TASKQUEUE_INVALID_METHOD } from '../errors.js'
import { show } from '../show.js'

export type TaskMethod = 'GET' | 'POST' | 'PUT' | 'PATCH' | 'DELETE'

export const METHODS: ReadonlySet<unknown> = new Set<TaskMethod>(['GET', 'POST', 'PUT', 'PATCH', 'DELETE'])

export function checkMethod (method: unknown): asserts method is TaskMethod {
  if (!METHODS.has(method)) throw new FST_TASKQUEUE_INVALID_METHOD(show(method))
}
