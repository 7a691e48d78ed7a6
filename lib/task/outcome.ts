/** How an attempt ended: with an answer, without one, without a route, or before the app had seen the request. */
export type Outcome =
  /** `error` is the message of the last error of the request, if there was one; `cause` is that error. */
  | {
    readonly kind: 'answered',
    readonly status: number,
    readonly answer: Answer,
    readonly error?: string,
    readonly cause?: unknown
  }
  | { readonly kind: 'failed', readonly reason: string, readonly cause?: unknown }
  | { readonly kind: 'unrouted', readonly reason: string }
  | { readonly kind: 'unseen' }

/** The part of the answer to a task that is kept. */
export interface Answer {
  /** The headers that describe the body or say where else to look, by name in lower case. */
  readonly headers: Readonly<Record<string, string>>
  /** The body, at most its first 64 KiB. */
  readonly body: Buffer
  /** Whether `body` is all of it. */
  readonly whole: boolean
}
