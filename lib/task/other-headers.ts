import { areSame, checkHeader } from './headers.js'
import type { Task } from './task.js'

/** Returns a task with other headers; the task itself if they are its own, or one of them is no valid header. */
export function withHeaders (task: Task, headers: Readonly<Record<string, string>>): Task {
  if (areSame(headers, task.headers)) return task
  const names = Object.keys(headers)
  try {
    for (const name of names) if (headers[name] !== task.headers[name]) checkHeader(name, headers[name])
  } catch {
    return task
  }
  const inherited = Object.keys(task.headers).slice(0, task.inherited ?? 0).filter(name => Object.hasOwn(headers, name))
  const others = names.filter(name => !inherited.includes(name))
  return {
    ...task,
    headers: Object.fromEntries([...inherited, ...others].map(name => [name.toLowerCase(), headers[name]!])),
    inherited: inherited.length > 0 ? inherited.length : undefined
  } as Task
}
