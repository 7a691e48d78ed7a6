import type { TaskStatus } from '../queue/status.js'
import { mask, maskUrl } from './redact.js'

/** Which contents of tasks are shown. */
export interface Show {
  /** The payload of a task. @default false */
  payload?: boolean
  /** The body of its answer. @default false */
  answer?: boolean
  /** Returns what to show of a payload, or of the body of an answer. */
  redact?: (value: unknown, task: TaskStatus) => unknown
}

/** A task as operators see it: without its secrets, and with its contents only where they are to be shown. */
export interface TaskView extends Omit<TaskStatus, 'answer'> {
  readonly answer?: {
    readonly status: number
    readonly headers: Readonly<Record<string, string>>
    readonly body?: unknown
  }
}

export function viewOf (
  task: TaskStatus, { payload = false, answer = false, redact = value => value }: Show = {}
): TaskView {
  const { payload: content, answer: given, url, progress, ...rest } = task
  const shown = (value: unknown) => mask(redact(value, task))
  return {
    ...rest,
    ...url !== undefined && { url: maskUrl(url) },
    ...progress !== undefined && { progress: mask(progress) },
    ...payload && content !== undefined && { payload: shown(content) },
    ...given !== undefined && {
      answer: { status: given.status, headers: given.headers, ...answer && { body: shown(bodyOf(given)) } }
    }
  }
}

function bodyOf (answer: NonNullable<TaskStatus['answer']>): unknown {
  try {
    return answer.json()
  } catch {
    return answer.text()
  }
}
