/** How an attempt ended: with an answer, without one, without a route, or before the app had seen the request. */
export type Outcome =
  /** `error` is what the last error of the request said, if there was one. */
  | { readonly kind: 'answered', readonly status: number, readonly answer: Answer, readonly error?: string }
  | { readonly kind: 'failed', readonly reason: string }
  | { readonly kind: 'unrouted', readonly reason: string }
  | { readonly kind: 'unseen' }

/** What is kept of the answer to a task. */
export interface Answer {
  /** Those of its headers that say what its body is, or where else to look. */
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer
  /** Whether that is all of its body. */
  readonly whole: boolean
}
