import type {
  ContextConfigDefault, FastifyBaseLogger, FastifyInstance, FastifyReply, FastifyRequest, FastifySchema,
  FastifyTypeProvider, RawReplyDefaultExpression, RawRequestDefaultExpression, RawServerBase, RawServerDefault,
  RouteGenericInterface, RouteShorthandOptions
} from 'fastify'
import type { ResolveFastifyReplyReturnType } from 'fastify/types/type-provider.js'
import type { RequestTask } from '../dispatch/identity.js'
import type { AddOptions } from '../task/options.js'
import type { TaskRoute, TaskRouteOptions } from './task-route.js'

declare module 'fastify' {
  interface FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider> {
    /**
     * Makes a route that exists for tasks only, and returns a handle to add: `request.taskqueue.add(handle, …)`. In its
     * handler `request.task` is never null.
     */
    task<
      RouteGeneric extends RouteGenericInterface = RouteGenericInterface,
      const Schema extends FastifySchema = FastifySchema,
      const Url extends string = string
    > (
      options: TaskRouteOptions<Url> & HandledRouteOptions<
        RawServer, RawRequest, RawReply, RouteGeneric, Schema, TypeProvider, Logger
      >
    ): TaskRoute<TaskInput<Url, RouteGeneric, Schema, TypeProvider>>
  }
}

/** The options of a route whose requests are tasks. */
interface HandledRouteOptions<
  RawServer extends RawServerBase, RawRequest extends RawRequestDefaultExpression<RawServer>,
  RawReply extends RawReplyDefaultExpression<RawServer>, RouteGeneric extends RouteGenericInterface,
  Schema extends FastifySchema, TypeProvider extends FastifyTypeProvider, Logger extends FastifyBaseLogger
> extends RouteShorthandOptions<
  RawServer, RawRequest, RawReply, RouteGeneric, ContextConfigDefault, Schema, TypeProvider, Logger
  > {
  handler: (
    this: FastifyInstance<RawServer, RawRequest, RawReply, Logger, TypeProvider>,
    request: FastifyRequest<
      RouteGeneric, RawServer, RawRequest, NoInfer<Schema>, TypeProvider, ContextConfigDefault, Logger
    > & { readonly task: RequestTask },
    reply: FastifyReply<
      RouteGeneric, RawServer, RawRequest, RawReply, ContextConfigDefault, NoInfer<Schema>, TypeProvider
    >
  ) => ResolveFastifyReplyReturnType<TypeProvider, NoInfer<Schema>, RouteGeneric>
}

/**
 * The options of `add` for a handle: the payload, query and params that the route's schemas expect, and otherwise the
 * options for a url.
 */
export type TaskInput<
  Url extends string, RouteGeneric extends RouteGenericInterface, Schema extends FastifySchema,
  TypeProvider extends FastifyTypeProvider
> =
  Omit<AddOptions, 'method' | 'payload' | 'query'> &
  (Accepted<Schema['body'], RequestOf<RouteGeneric, Schema, TypeProvider>['body']> extends infer Body
    ? unknown extends Body
      ? Schema extends { body: {} } ? { payload: NonNullable<AddOptions['payload']> } : Pick<AddOptions, 'payload'>
      : { payload: Body }
    : never) &
  Entry<
    'query',
    Accepted<Schema['querystring'], RequestOf<RouteGeneric, Schema, TypeProvider>['query']>,
    NonNullable<AddOptions['query']>
  > &
  Entry<'params', Accepted<Schema['params'], RequestOf<RouteGeneric, Schema, TypeProvider>['params']>, UrlParams<Url>>

type RequestOf<
  RouteGeneric extends RouteGenericInterface, Schema extends FastifySchema, TypeProvider extends FastifyTypeProvider
> = FastifyRequest<RouteGeneric, RawServerDefault, RawRequestDefaultExpression, Schema, TypeProvider>

/**
 * The type that a schema accepts. A type provider only tells the type that the schema makes of it. A Standard Schema,
 * like Zod's, can make another one.
 */
type Accepted<Schema, Made> = Schema extends { readonly '~standard': { readonly types?: infer Types } }
  ? NonNullable<Types> extends { readonly input: infer Input } ? Input : Made
  : Made

type Entry<Name extends string, Type, Unknown> =
  unknown extends Type ? keyof Unknown extends never ? {} : Optional<Name, Unknown> : Optional<Name, Type>
type Optional<Name extends string, Type> = {} extends Type ? { [K in Name]?: Type } : { [K in Name]: Type }

type Param = string | number | boolean
type UrlParams<Url extends string> =
  string extends Url ? { [name: string]: Param }
    : Url extends `${infer Piece}/${infer Rest}` ? UrlParams<Piece> & UrlParams<Rest>
      : Url extends `::${string}` ? {}
        : Url extends `:${infer Name}?` ? { [K in Name]?: Param }
          : Url extends `:${string}${'(' | '.' | '-'}${string}` ? { [name: string]: Param }
            : Url extends `:${infer Name}::${string}` ? { [K in Name]: Param }
              : Url extends `:${infer Name}` ? { [K in Name]: Param }
                : Url extends '*' ? { '*': Param } : {}
