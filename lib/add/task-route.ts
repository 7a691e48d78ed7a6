import { isDeepStrictEqual } from 'node:util'
import type { FastifyInstance, FastifySchema, FastifySchemaCompiler, RouteOptions } from 'fastify'
import { isPlain } from '../check.js'
import { type Addressed, findRoute } from '../dispatch/routing.js'
import { FST_TASKQUEUE_INVALID_INPUT, FST_TASKQUEUE_INVALID_OPTION } from '../errors.js'
import type { ScheduleOptions } from '../schedule/plan.js'
import { cut, kindOf, show } from '../show.js'
import type { TaskMethod } from '../task/method.js'
import type { AddOptions, TaskDefaults } from '../task/options.js'
import type { Task } from '../task/task.js'
import { MAX_URL_LENGTH } from '../task/url.js'
import { isJson, mediaTypeOf } from './media-type.js'

/** Options of `app.task`, besides those of any other route. */
export interface TaskRouteOptions<Url extends string = string> {
  url: Url
  /** @default 'POST' */
  method?: TaskMethod
  /** Adds tasks for this route by a schedule, whose id is the url unless it is given another one. */
  schedule?: RouteSchedule
  /** Not allowed: the route has the constraint `taskOnly`. */
  constraints?: never
}

/** A schedule of a route, with the input of its tasks. */
export interface RouteSchedule extends ScheduleOptions {
  id?: string
  params?: object
}

type Validator = ReturnType<FastifySchemaCompiler<unknown>>
type ValidatorAnswer =
  false | { error?: Validator['errors'] | Error, then?: PromiseLike<unknown>['then'] } | null | undefined
/** The options that `add` is given with a handle, of whatever type. */
type Given = AddOptions & { readonly params?: object }
/** Parameters by the names that the router gives them. */
type Params = Readonly<Record<string, string>>

/** Matches the parameters of a path (`:name`, `:name(pattern)`, `:name?`, `*`) and escaped colons (`::`). */
const PARAMETERS = /::|\*|(\/?):(?!:)([^/(.?-]+)(?:\((?:[^()]|\([^()]*\))*\))?(\?)?/g
/** The longest reason, in characters: a validator may find fault with each of a thousand elements. */
const MAX_REASON_LENGTH = 1000

/** A route that takes no requests but tasks, and the handle by which they are added. */
export class TaskRoute<Input = unknown> {
  readonly method: TaskMethod
  /** The path with the prefix of its plugin, its parameters not filled in. */
  readonly url: string
  readonly #app: FastifyInstance
  readonly #route: RouteOptions
  readonly #validators = new Map<string, Validator>()
  declare protected readonly input: Input

  /** @internal */
  constructor (app: FastifyInstance, route: RouteOptions) {
    this.#app = app
    this.#route = route
    this.method = route.method as TaskMethod
    this.url = route.url
  }

  /** @internal */
  get config (): TaskDefaults { return this.#route.config?.task ?? {} }

  /**
   * @internal Translates the options given with this handle into a url and the options given with a url, and says which
   * parameters the route will see. A task added by a handle never copies the body of the current request.
   */
  address (given: Given): [url: string, options: AddOptions, params: Params] {
    if (!isPlain(given)) throw new FST_TASKQUEUE_INVALID_OPTION('options', 'an object', kindOf(given))
    const { params, ...options } = given
    if (params !== null && params !== undefined && !isPlain(params)) throw this.#refuse('params must be an object')
    if (options.method !== undefined) {
      throw new FST_TASKQUEUE_INVALID_OPTION('method', 'left out, since the route has one', show(options.method))
    }
    const [url, seen] = this.#fill(params ?? {})
    return [url, {
      ...options,
      method: this.method,
      payload: options.payload ?? null
    }, seen]
  }

  /**
   * @internal Throws unless the route will accept the task. The check is made on the values that the route will see, so
   * a validator that converts values or adds defaults changes no object of the caller.
   */
  check (task: Addressed & Pick<Task, 'payload'>, params: Params): void {
    const found = findRoute(this.#app, task)
    const { headers, payload } = task
    if (found === null || !isDeepStrictEqual({ ...found.params }, params)) {
      const reason = headers['accept-version'] === undefined ? 'params do' : 'headers/accept-version does'
      throw this.#refuse(`${reason} not lead to it`)
    }
    const { schema } = this.#route
    if (schema === undefined) return
    this.#validate('params', schema.params, found.params)
    this.#validate('querystring', schema.querystring, found.searchParams)
    const mediaType = mediaTypeOf(headers['content-type'])
    const { content } = (schema.body ?? {}) as { content?: Record<string, { schema: unknown }> }
    const isOfType = content !== undefined && Object.hasOwn(content, mediaType)
    const bodySchema = content === undefined ? schema.body : isOfType ? content[mediaType]!.schema : undefined
    // Only types of the schema get a validator of their own: callers can make up any number of others.
    const contentType = isOfType ? mediaType : undefined
    if (payload === undefined) this.#validate('body', bodySchema, null)
    else if (isJson(mediaType)) this.#validate('body', bodySchema, this.#parse(payload), contentType)
    else if (mediaType === 'text/plain') this.#validate('body', bodySchema, String(payload), contentType)
  }

  /** Fills the parameters into the url. Each becomes one segment or part of one, and `*` becomes all the rest. */
  #fill (params: object): [url: string, seen: Params] {
    const left = new Map<string, unknown>(Object.entries(params))
    const tooLong = [...left.values()].some(value => typeof value === 'string' && value.length > MAX_URL_LENGTH)
    if (tooLong) throw this.#refuse(`its url would have more than ${MAX_URL_LENGTH} characters`)
    const seen: Record<string, string> = {}
    const url = this.url.replace(PARAMETERS, (found, slash: string = '', whole: string = '*', optional?: string) => {
      if (found === '::') return ':'
      // The router takes `:id::run` for one parameter of that name, although only its beginning can vary.
      const [name, more] = left.has(whole) ? [whole, ''] : splitAt(whole, whole.indexOf('::'))
      const value = left.get(name)
      left.delete(name)
      if (value === undefined && optional !== undefined) return ''
      const isText = ['string', 'number', 'boolean'].includes(typeof value)
      const text = isText ? String(value) : ''
      const rest = more.replaceAll('::', ':')
      if (!isText || /\p{Surrogate}/u.test(text)) {
        throw this.#refuse(`params/${name} must be a string, number or boolean`)
      }
      Object.defineProperty(seen, whole, { value: text + rest, enumerable: true })
      const piece = name === '*' ? text.split('/').map(encodeURIComponent).join('/') : encodeURIComponent(text)
      return slash + piece + rest
    })
    for (const [name, value] of left) {
      if (value !== undefined) throw this.#refuse(`params/${cut(name)} is not in its url`)
    }
    return [url === '' ? '/' : url, seen]
  }

  #parse (json: string | Buffer): unknown {
    try {
      return JSON.parse(String(json))
    } catch {
      // The parser's own message would quote the body.
      throw this.#refuse('body is not JSON')
    }
  }

  #validate (part: string, schema: unknown, input: unknown, contentType?: string): void {
    if (schema === undefined) return
    const validate = this.#validatorOf(part, schema, contentType)
    const answer = validate(input) as ValidatorAnswer
    const errors = answer === false ? validate.errors : answer?.error
    // A promise comes too late for `add`. Only the route will learn its result.
    if (answer !== false) answer?.then?.(undefined, () => {})
    if (errors === undefined || errors === null) return
    throw this.#refuse(errors instanceof Error
      ? `${part}: ${errors.message}`
      : errors.map(({ instancePath = '', message }) => `${part}${instancePath} ${message}`).join(', '))
  }

  /** Compiles a schema as Fastify does for the route, with the same schemas to refer to. */
  #validatorOf (httpPart: string, schema: unknown, contentType?: string): Validator {
    const key = `${httpPart} ${contentType}`
    let validate = this.#validators.get(key)
    if (validate !== undefined) return validate
    const compile = this.#route.validatorCompiler ?? this.#app.validatorCompiler
    if (compile === undefined) throw this.#refuse('its schemas are compiled by app.ready(), which has not been called')
    validate = compile({ schema: schema as FastifySchema, method: this.method, url: this.url, httpPart, contentType })
    this.#validators.set(key, validate)
    return validate
  }

  #refuse (reason: string) {
    return new FST_TASKQUEUE_INVALID_INPUT(this.method, this.url, reason.slice(0, MAX_REASON_LENGTH))
  }
}

function splitAt (text: string, at: number): [string, string] {
  return at === -1 ? [text, ''] : [text.slice(0, at), text.slice(at)]
}
