import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import { isPlain } from '../check.js'
import { FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_UNREACHABLE } from '../errors.js'
import { userOf } from '../plugin/settings.js'
import { show as showValue } from '../show.js'
import type { State } from '../store/found.js'
import { checkKey } from '../task/id.js'
import { actions } from './actions.js'
import { ICON_FILE, SCRIPT_FILE, STYLE_FILE } from './assets.js'
import { boundsOf } from './bounds.js'
import { deadLettersPage, groupsOf } from './dead-letters.js'
import { allowAction, type Authorize, PAGE_HEADERS, type Role, roleOf } from './guard.js'
import { html } from './html.js'
import { KEYS_LENGTH, keysPage } from './keys-page.js'
import { type Frame, layout, offsetOf, type Page } from './layout.js'
import { overviewPage } from './overview.js'
import { processesPage } from './processes-page.js'
import { scheduleListOf, schedulesPage } from './schedules-page.js'
import { PAGE_LENGTH, STATES, taskListPage } from './task-list.js'
import { taskPage } from './task-page.js'
import { type Show, viewOf } from './task-view.js'

export type { Authorize, Role, Show }

export interface DashboardOptions {
  /** Says what the user of a request may do. The dashboard asks it for every page and every action. */
  authorize?: Authorize
  /** Lets everybody do everything, in place of `authorize`: for a machine that only you can reach. @default false */
  public?: true
  /** Which contents of tasks are shown. By default neither payloads nor answers are. */
  show?: Show
}

/** For how long the overview and the schedules stay the same, in milliseconds, however many operators look at them. */
const SNAPSHOT_MS = 1000

interface Query {
  name?: string, state?: string, offset?: string, after?: string, id?: string, ran?: string, added?: string
}

/**
 * Pages on which operators look at queues and tasks, and act on them. Register it with a `prefix`, after
 * `fastify-taskqueue`. Every page is JSON for a client that accepts only that.
 */
const dashboard = async (app: FastifyInstance, options: DashboardOptions): Promise<void> => {
  const { authorize, show } = readOptions(options)
  const { taskqueue } = app

  /** Sends a page, or what it shows as JSON. */
  const send = (
    request: FastifyRequest, reply: FastifyReply, role: Role, model: unknown, pageOf: (frame: Frame) => Page
  ): FastifyReply => {
    if (wantsJson(request)) return reply.type('application/json; charset=utf-8').send(JSON.stringify(model))
    const assets = { style: STYLE_FILE.name, script: SCRIPT_FILE.name, icon: ICON_FILE.name }
    const frame = { mayAct: role === 'operate', assets }
    return reply.type('text/html; charset=utf-8').send(String(layout(pageOf(frame), frame)))
  }
  const queueOf = (name: unknown) => taskqueue.queues.find(queue => queue.name === name)

  const snapshot = new Remembered(SNAPSHOT_MS, async () => {
    const [{ queues }, histories] = await Promise.all([taskqueue.health(), taskqueue.history()])
    return {
      queues: queues.map(health => {
        // It may name the address of the store.
        const { error, ...queue } = health
        const history = histories.get(queue.name)
        return { ...queue, ...history !== undefined && { history } }
      })
    }
  })

  const schedules = new Remembered(SNAPSHOT_MS, async () => await taskqueue.schedules())

  app.addHook('onSend', async (_request, reply) => { reply.headers(PAGE_HEADERS) })
  for (const { name, type, text } of [STYLE_FILE, SCRIPT_FILE, ICON_FILE]) {
    app.get(`/${name}`, {
      onSend: async (_request, reply) => { reply.header('cache-control', 'public, max-age=31536000, immutable') }
    }, async (_request, reply) => reply.type(type).send(text))
  }

  app.get('/', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const [path = ''] = request.url.split('?', 1)
    // Links are relative, so the root has to end with a slash.
    if (!path.endsWith('/')) return reply.redirect(`${path.slice(path.lastIndexOf('/') + 1)}/`, 308)
    const model = await snapshot.get()
    return send(request, reply, role, model, frame => overviewPage(model, frame))
  })

  app.get<{ Querystring: Query }>('/queue', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const queue = queueOf(request.query.name)
    if (queue === undefined) return reply.callNotFound()
    const state = STATES.find(state => state === request.query.state) ?? 'waiting' as State
    const offset = offsetOf(request.query.offset)
    const [found, bounds, keys] = await Promise.all([
      queue.list(state, { offset, limit: PAGE_LENGTH + 1 }), boundsOf(queue), queue.keys({ limit: 1 })
    ])
    const tasks = found.slice(0, PAGE_LENGTH).map(task => viewOf(task))
    const isMore = found.length > PAGE_LENGTH
    const model = { queue: queue.name, state, offset, tasks, isMore, hasKeys: keys.length > 0, ...bounds }
    return send(request, reply, role, model, frame => taskListPage(model, frame))
  })

  app.get<{ Querystring: Query }>('/keys', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const queue = queueOf(request.query.name)
    if (queue === undefined) return reply.callNotFound()
    const after = cursorOf(request.query.after)
    const [bounds, found] = await Promise.all([boundsOf(queue), queue.keys({ after, limit: KEYS_LENGTH + 1 })])
    const keys = found.slice(0, KEYS_LENGTH)
    const model = { queue: queue.name, after, keys, isMore: found.length > KEYS_LENGTH, ...bounds }
    return send(request, reply, role, model, frame => keysPage(model, frame))
  })

  app.get<{ Querystring: Query }>('/dead', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const queue = queueOf(request.query.name)
    if (queue === undefined) return reply.callNotFound()
    const [groups, { dead }] = await Promise.all([groupsOf(queue), queue.counts()])
    const model = { queue: queue.name, count: dead, groups }
    return send(request, reply, role, model, frame => deadLettersPage(model, frame))
  })

  app.get<{ Querystring: Query }>('/task', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const id = String(request.query.id).trim()
    const task = await taskqueue.get(id)
    if (task === undefined) {
      reply.code(404)
      const content = html`<p class="empty">Nothing is known of a task ${id}, or nothing is kept any longer.</p>`
      return send(request, reply, role, { error: 'Nothing is known of this task' }, () =>
        ({ title: 'No such task', trail: [['Queues', './']], content }))
    }
    const model = viewOf(task, show)
    return send(request, reply, role, model, frame => taskPage(model, show, frame))
  })

  app.get<{ Querystring: Query }>('/schedules', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const { offset, ran, added } = request.query
    const model = scheduleListOf(await schedules.get(), offsetOf(offset), ran, added)
    return send(request, reply, role, model, frame => schedulesPage(model, frame))
  })

  app.get('/processes', async (request, reply) => {
    const role = await roleOf(request, authorize)
    const processes = await taskqueue.processes()
    return send(request, reply, role, { processes }, () => processesPage(processes))
  })

  // The forms of the pages, and nothing else, whatever other parsers the app has.
  app.removeAllContentTypeParsers()
  app.addContentTypeParser('application/x-www-form-urlencoded', { parseAs: 'string', bodyLimit: 16 * 1024 },
    (_request, body, done) => { done(null, Object.fromEntries(new URLSearchParams(String(body)))) })
  for (const [name, act] of Object.entries(actions)) {
    app.post<{ Body: Record<string, string> | undefined }>(`/actions/${name}`, async (request, reply) => {
      await allowAction(request, authorize)
      const fields = request.body ?? {}
      const queue = queueOf(fields.queue)
      if (queue === undefined) return reply.callNotFound()
      const { changed, taskId, path } = await act(queue, fields, taskqueue).catch(blameFields)
      // The page that follows should show it.
      snapshot.forget()
      schedules.forget()
      const { id, schedule, group, key, priority, minutes } = fields
      const on = { queue: queue.name, schedule, taskId: taskId ?? id, group, key, priority, minutes }
      const about = { action: name, ...on, changed, userId: userOf(request) }
      request.log.info(about, 'an operator acts on a queue')
      if (wantsJson(request)) return { changed, taskId }
      return reply.redirect(`../${path}`, 303)
    })
  }

  const { errorHandler } = app
  app.setErrorHandler(async (error, request, reply) => {
    const isUnreachable = error instanceof FST_TASKQUEUE_UNREACHABLE && request.method === 'GET'
    if (!isUnreachable || wantsJson(request)) return errorHandler.call(app, error as never, request, reply)
    request.log.error({ err: error }, 'store does not answer the dashboard')
    reply.code(503)
    const content = html`<p class="said">The store does not answer. This page tries again by itself.</p>`
    return send(request, reply, 'read', undefined, () =>
      ({ title: 'The store does not answer', trail: [['Queues', './']], content }))
  })
}

function readOptions (options: DashboardOptions): { authorize: Authorize, show: Show } {
  const { authorize, public: isPublic = false, show = {} } = options
  if (typeof authorize !== 'function' && (isPublic as unknown) !== true) {
    const expected = 'a function that says what somebody may do, unless the dashboard is public: true'
    throw new FST_TASKQUEUE_INVALID_OPTION('authorize', expected, showValue(authorize))
  }
  if (typeof authorize === 'function' && isPublic !== false) {
    throw new FST_TASKQUEUE_INVALID_OPTION('public', 'left out where authorize is given', showValue(isPublic))
  }
  if (!isPlain(show)) throw new FST_TASKQUEUE_INVALID_OPTION('show', 'an object', showValue(show))
  return { authorize: authorize ?? (() => 'operate'), show }
}

/** Returns the key behind which a page begins. A text that can be no key leads to the first page. */
function cursorOf (after: unknown): string {
  try {
    return checkKey(after) ?? ''
  } catch {
    return ''
  }
}

/** Throws on. A value that an action refuses has come from a form, so the status says that the client is wrong. */
function blameFields (error: unknown): never {
  if (error instanceof FST_TASKQUEUE_INVALID_OPTION) Object.assign(error, { statusCode: 400 })
  throw error
}

/** Whether somebody wants JSON, and no page. */
function wantsJson ({ headers: { accept = '' } }: FastifyRequest): boolean {
  return accept.includes('application/json') && !accept.includes('text/html')
}

/** An answer that is asked for again only after a while. Meanwhile everybody gets the same. */
class Remembered<T> {
  readonly #ms: number
  readonly #ask: () => Promise<T>
  #last: { readonly answer: Promise<T>, readonly until: number } | undefined

  constructor (ms: number, ask: () => Promise<T>) {
    this.#ms = ms
    this.#ask = ask
  }

  async get (): Promise<T> {
    const now = performance.now()
    if (this.#last === undefined || this.#last.until < now) this.#last = { answer: this.#ask(), until: now + this.#ms }
    return await this.#last.answer
  }

  forget (): void { this.#last = undefined }
}

export default dashboard
