import { appendFileSync, readFileSync } from 'node:fs'
import type { FaultKind, TaskKind } from './plan.js'

/** What happens in a run, as each process sees it. Requests are known by their number, processes by their pid. */
export type Event =
  /** Of the driver, and of a process that adds tasks of its own accord. */
  | { event: 'asked', request: number }
  | { event: 'answered', request: number, status: number }
  | { event: 'unanswered', request: number }
  | { event: 'started', name: string, pid: number }
  | { event: 'closing', pid: number }
  | { event: 'died', name: string, pid: number, cause: 'fault' | 'poison' | 'closed' | 'crash', how?: string | undefined }
  /** `pid` is that of the process whom the fault concerns; none: it is Redis, or there was nobody to harm. */
  | { event: 'fault', fault: FaultKind, pid?: number, ms?: number }
  | { event: 'healed', fault: FaultKind, pid?: number }
  | { event: 'corrupted', id: string }
  /** Of a web process, before the commit. */
  | { event: 'added', request: number, pid: number, tasks: AddedTask[], joins?: true }
  /** What was joined has been committed. */
  | { event: 'row', request: number, pid: number }
  /** Of a consumer. */
  | { event: 'begins', id: string, attempt: number, pid: number, queue?: string, schedule?: string, slot?: number }
  | { event: 'chains', id: string, attempt: number, pid: number, tasks: string[] }
  | { event: 'ends', id: string, attempt: number, pid: number, status: number }
  | { event: 'aborts', id: string, attempt: number, pid: number }
  /** Of a web process: before it cancels a task, and what came of it. */
  | { event: 'cancels', id: string, pid: number }
  | { event: 'cancelled', id: string, pid: number, was: boolean }
  /** Its event loop stood still until now. */
  | { event: 'stalled', pid: number, ms: number }

export interface AddedTask {
  id: string
  kind: TaskKind
  delayMs?: number
  expiresMs?: number
  key?: string
}

/** An event with its time, by the machine's monotonic clock, which all processes share. */
export type Entry = Event & { at: number }

export type Write = (event: Event) => void

/** All processes write to one file. A line is written at once and whole, so that a death loses and breaks none. */
export function writeTo (path: string): Write {
  return event => { appendFileSync(path, `${JSON.stringify({ at: clockMs(), ...event })}\n`) }
}

export function readLedger (path: string): Entry[] {
  const lines = readFileSync(path, 'utf8').split('\n').slice(0, -1)
  return lines.map(line => JSON.parse(line) as Entry).sort((a, b) => a.at - b.at)
}

/** Unlike Date.now it cannot be skewed, and unlike performance.now it begins with the machine. */
export function clockMs (): number {
  return Number(process.hrtime.bigint() / 1000n) / 1000
}
