import type { FastifyRequest } from 'fastify'
import type { OnDuplicate, Priority } from '../store/tasks.js'
import type { BackoffList } from './backoff.js'
import type { TaskMethod } from './method.js'
import type { Protocol } from './origin.js'

type QueryValue = string | number | boolean

/** Options of `add`. Times are in milliseconds. */
export interface AddOptions {
  /** The method of the request. @default 'POST' if a payload is given, else 'GET' */
  method?: TaskMethod
  /** Parameters to append to the url's own query string. An array repeats its name; undefined leaves the name out. */
  query?: Readonly<Record<string, QueryValue | readonly QueryValue[] | undefined>>
  /** Headers that add to the copied ones and replace them, without regard to case. Null removes a copied header. */
  headers?: Readonly<Record<string, string | null>>
  /**
   * The body of the request: an object is sent as JSON, a string as plain text, a URLSearchParams as a form and a
   * Buffer as it is. `headers` may name another content type. Null sends no body.
   * @default the body of the current request if the method is POST, PUT or PATCH, else none
   */
  payload?: object | string | Uint8Array | URLSearchParams | null
  /** The name of the queue. @default the alphabetically first queue */
  queue?: string
  /** The id of the task: 1 to 255 printable ASCII characters without spaces. @default a UUID v7 */
  id?: string
  /**
   * What to do if a task with the same `id` is waiting, delayed, running or dead in the queue. `'keep'` adds nothing.
   * `'reject'` fails the commit with `FST_TASKQUEUE_DUPLICATE`. `'replace'` puts this task in the place of the other
   * one, or behind it if that is running. Needs an `id`. @default 'keep'
   */
  onDuplicate?: OnDuplicate
  /**
   * For how many milliseconds after this task is done its `id` still keeps others out, at most 30 days. Needs an `id`.
   * @default 0
   */
  dedupeMs?: number
  /** A task that has not begun this many milliseconds after the commit expires; at most 30 days. @default never */
  expiresMs?: number
  /** How many milliseconds after the commit the task may run, at most 30 days. Excludes `runAt`. @default 0 */
  delayMs?: number
  /**
   * The time from which on the task may run, at most 30 days ahead: a Date, milliseconds since the epoch, or a text of
   * RFC 3339 with its zone, like 2030-01-31T18:00:00+01:00. Excludes `delayMs`. @default now
   */
  runAt?: Date | string | number
  /**
   * Its level among the tasks with its `key`, or among those without one: tasks of a higher level run first. Of eight
   * tasks at least one is of each lower level that waits. A task keeps its level when it is tried again or redriven.
   * @default 'normal'
   */
  priority?: Priority
  /**
   * Whose task it is, like the id of a tenant: 1 to 255 printable ASCII characters, or a number. Keys share the
   * consumers of the queue fairly, and the queue's `limits` may bound each of them. Null for none. @default none
   */
  key?: string | number | null
  /** How often a failed task is tried again. @default the consumer's `maxRetries` */
  maxRetries?: number
  /**
   * The milliseconds before each retry, the last of which serves all further retries. @default the route's or else the
   * consumer's `backoff`
   */
  backoff?: BackoffList
  /** How long one attempt may take, in milliseconds. @default the consumer's `timeoutMs` */
  timeoutMs?: number
  /**
   * The id of the user as whom the task runs, if that is not who makes the current request; null for nobody. The task
   * then inherits neither `cookie` nor `authorization`. Nothing checks that there is such a user before the task runs.
   * @default the user of the current request, if there is one
   */
  user?: string | number | null
}

/** What `config.task` of a route can say of its tasks, as `add` can. */
export interface TaskDefaults extends Pick<AddOptions, 'queue' | 'priority' | 'maxRetries' | 'timeoutMs'> {
  /** Returns the key of a task that a request adds. It is not called for a task that is added outside of a request. */
  key?: (request: FastifyRequest) => AddOptions['key']
}

/** What a task takes over from the request that adds it, unless `add` says otherwise. */
export interface Inheritance {
  /** The headers to inherit, without the host. */
  readonly headers: Readonly<Record<string, string>>
  readonly host?: string
  readonly ip?: string
  readonly protocol?: Protocol
  /** Copies the body of the request. Throws `FST_TASKQUEUE_INVALID_PAYLOAD` if the copy would not be faithful. */
  payload (): Payload | undefined
}

/** A body to send, and its media type. */
export interface Payload { readonly content: string | Buffer, readonly contentType?: string }
