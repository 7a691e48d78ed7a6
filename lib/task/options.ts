import type { OnDuplicate } from '../store/tasks.js'
import type { TaskMethod } from './method.js'
import type { Protocol } from './origin.js'
import type { Payload } from './payload.js'

type QueryValue = string | number | boolean

export interface AddOptions {
  /** @default 'POST' when a payload is given, else 'GET' */
  method?: TaskMethod
  /** Appended to the url's own query string; an array repeats its name, undefined leaves it out. */
  query?: Readonly<Record<string, QueryValue | readonly QueryValue[] | undefined>>
  /** Added to the copied headers and replacing them, without regard to case; null removes one. */
  headers?: Readonly<Record<string, string | null>>
  /**
   * An object is sent as JSON, a string as plain text, a URLSearchParams as a form
   * and a Buffer as it is, unless `headers` names another content type; null sends none.
   * @default the body of the current request, where the method is POST, PUT or PATCH
   */
  payload?: object | string | Uint8Array | URLSearchParams | null
  /** @default the alphabetically first queue */
  queue?: string
  /** 1 to 255 printable ASCII characters without spaces. @default a UUID v7 */
  id?: string
  /**
   * What becomes of this task when one of the same `id` waits, is delayed, runs or is dead in the queue:
   * `'keep'` adds nothing, `'reject'` fails the commit with `FST_TASKQUEUE_DUPLICATE`, and `'replace'`
   * puts this one in its place, or behind it if it runs. @default 'keep'
   */
  onDuplicate?: OnDuplicate
  /** For how many milliseconds after this task is done its `id` still keeps others out, at most 30 days. @default 0 */
  dedupeMs?: number
  /** Milliseconds from the commit after which the task is not begun any more, at most 30 days. @default never */
  expiresMs?: number
  /** Milliseconds from the commit until the task may run, at most 30 days. @default 0 */
  delayMs?: number
  /** The time at which the task may run, at most 30 days ahead: a Date, an ISO 8601 string or milliseconds since the epoch. */
  runAt?: Date | string | number
  /** How often to try again. @default the consumer's */
  maxRetries?: number
  /** How long one attempt may take, in milliseconds. @default the consumer's */
  timeoutMs?: number
}

/** What a task takes over from the request that adds it, where `add` does not say otherwise. */
export interface Inheritance {
  /** Without the host. */
  readonly headers: Readonly<Record<string, string>>
  readonly host?: string
  readonly ip?: string
  readonly protocol?: Protocol
  /** Copies the body; throws when that cannot be done faithfully. */
  payload (): Payload | undefined
}
