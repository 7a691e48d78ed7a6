import type { FastifyReply, FastifyRequest } from 'fastify'
import { FST_TASKQUEUE_UNSUPPORTED_FASTIFY } from '../errors.js'

export interface Keyed { [key: symbol]: unknown }

/** Properties of Fastify's own that no API shows. Their keys are symbols, and `rehearse` finds them by their values. */
export interface Internals {
  /** The key on a request of the context of its route. */
  readonly context: symbol
  /** The key on a reply of the headers that were set on it. */
  readonly headers: symbol
  /** The key on a reply of the functions of its trailers by name, or null. */
  readonly trailers: symbol
}

/** A hook of the kind `onSend` or `preHandler`. */
export type Hook = (request: FastifyRequest, reply: FastifyReply, ...rest: any[]) => unknown
type Hooks = Record<'onSend' | 'preHandler', Hook[] | null>
interface Context extends Hooks {
  readonly contentTypeParser: { getParser (contentType: string): Parser | undefined }
}

/** What parses bodies of a content type. */
export interface Parser {
  /** Whether the parser takes the whole body, as a string or as a Buffer. */
  readonly asString: boolean
  readonly asBuffer: boolean
  fn (request: FastifyRequest, body: unknown, done: (error: unknown, body?: unknown) => void): unknown
}

/** Returns the parser that has parsed the body of a request. */
export function parserOf (request: FastifyRequest, { context }: Internals): Parser | undefined {
  const { contentTypeParser } = (request as unknown as Keyed)[context] as Context
  return contentTypeParser.getParser(request.headers['content-type'] ?? '')
}

/** Returns the list of hooks of one kind that run for a request. Throws if Fastify keeps none. */
export function hooksOf (request: FastifyRequest, { context }: Internals, kind: keyof Hooks): Hook[] {
  const hooks = ((request as unknown as Keyed)[context] as Context)[kind]
  if (hooks === null) throw new FST_TASKQUEUE_UNSUPPORTED_FASTIFY(request.server.version)
  return hooks
}
