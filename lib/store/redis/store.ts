import { once } from 'node:events'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_OPTION } from '../../errors.js'
import { inSteps } from '../../in-steps.js'
import type { Counts, Found, History, QueueView, State } from '../found.js'
import type { Holding, Presence, Pulse } from '../heartbeat.js'
import type { KeyView } from '../limits.js'
import type { News } from '../news.js'
import type { Order } from '../order.js'
import type { ScheduleChange, ScheduleList, Tick, TickResult, WhichSchedules } from '../schedules.js'
import type { Store } from '../store.js'
import type { NewTask, Prepared } from '../tasks.js'
import type { Held, Keep, Turn, TurnResult } from '../turn.js'
import { Calls, CLIENT_IS_CLOSED } from './calls.js'
import { addressOf, type ClientTerms, CONNECT_TIMEOUT_MS, createClient, duplicate, termsOf } from './client.js'
import { readConsumers } from './commands/consumers.js'
import { readCounts } from './commands/counts.js'
import { encodeHoldings, readPulses } from './commands/extend.js'
import { encodeFind, readFound } from './commands/find.js'
import { readHistory } from './commands/history.js'
import { encodeList, encodeListMore, readList } from './commands/list.js'
import { encodeKeys, readKeys } from './commands/keys.js'
import { encodeOrder } from './commands/operate.js'
import { encodePlan } from './commands/plan.js'
import { encodeSchedules, readSchedules } from './commands/schedules.js'
import { encodeProgress } from './commands/set-progress.js'
import { encodeTicks, readTicks } from './commands/tick.js'
import { MAX_AT_ONCE, RedisCommits } from './commits.js'
import { Keyspace } from './keyspace.js'
import { type Client, isClosed, Link } from './link.js'
import { isClient, type RedisLocation } from './location.js'
import { newsOf, NewsSubscription } from './news.js'
import { PendingOutcomes } from './outcomes.js'
import { Replicas } from './replicas.js'
import { type ScriptName, scripts } from './scripts.js'
import { NO_OUTLOOK, Turns } from './turns.js'

/** How many queues one call asks about, so that it does not keep Redis from others for long. */
const QUEUES_AT_ONCE = 100

/**
 * Keeps tasks in Redis, where all processes with the same `prefix` share them. One connection carries the commands of
 * all queues, and a second one the notifications for the queues that this process consumes.
 *
 * If the answer to a command is lost, Redis may have carried it out, or may do so later. Commands that matter are
 * therefore sent again until Redis answers, and every script knows what it has done already.
 */
export class RedisStore implements Store {
  readonly location: string
  readonly #link: Link
  readonly #client: Client
  readonly #isOurs: boolean
  /** The terms of the clients that this store makes. */
  readonly #terms: ClientTerms
  readonly #keyspace: Keyspace
  readonly #calls: Calls
  readonly #outcomes: PendingOutcomes
  readonly #commits: RedisCommits
  readonly #turns: Turns
  readonly #news: NewsSubscription

  /**
   * @param beatMs the longest time between two beats of the heartbeat of consumers that claim from this store
   * @param warn is told what people should know of the connection
   */
  constructor (
    location: RedisLocation, prefix: string, timeoutMs: number, replicas = 0, beatMs = Infinity,
    warn: (message: string) => void = () => {}
  ) {
    this.#isOurs = !isClient(location)
    if (replicas > 0 && isClient(location) && location.isCluster) {
      throw new FST_TASKQUEUE_INVALID_OPTION('replicas', '0 with a Cluster', String(replicas))
    }
    this.#terms = termsOf(timeoutMs, beatMs)
    this.#client = isClient(location) ? location : createClient(location, this.#terms)
    this.#link = new Link(this.#client, this.#isOurs, {
      duplicate: client => duplicate(client, this.#terms),
      onReady: client => {
        this.#outcomes.tellAgain()
        this.#load(client).catch(() => {})
      },
      onRefused: text => { warn(`${this.location} turns connections away: ${text}`) },
      isAwaited: () => this.#outcomes.size > 0
    })
    this.#keyspace = new Keyspace(prefix, this.#client.isCluster)
    const address = addressOf(this.#client)
    this.location = `${address}, prefix ${prefix}`
    this.#calls = new Calls(this.#link, this.#isOurs, timeoutMs, address)
    const replication = new Replicas(this.#link, this.#calls, replicas, timeoutMs)
    this.#outcomes = new PendingOutcomes(this.#link, this.#calls, this.#keyspace, replication, timeoutMs, MAX_AT_ONCE)
    this.#commits = new RedisCommits(this.#calls, this.#keyspace, this.#outcomes, replication, timeoutMs)
    const prepare = (tasks: readonly NewTask[]) => this.#commits.prepare(tasks)
    this.#turns = new Turns(this.#link, this.#calls, this.#keyspace, prepare, timeoutMs)
    this.#news = new NewsSubscription(() => this.#createSubscriber(), client => this.#connect(client), this.#calls)
  }

  async open (): Promise<void> {
    await this.#connect(this.#client)
    const { db = 0 } = this.#client.options as RedisOptions
    // A client that could not select its database when it connected says nothing and uses another database.
    if (this.#isOurs && db !== 0) await this.#calls.answerTo((this.#client as Redis).select(db))
    await this.#calls.answerTo(this.#load(this.#client))
    await this.#calls.run('vote', [this.#keyspace.voteKey], [])
    await this.#refuseEviction()
  }

  prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    return this.#link.isClosed ? Promise.reject(this.#calls.cannot(CLIENT_IS_CLOSED)) : this.#commits.prepare(tasks)
  }

  async turn (queue: string, turn: Turn): Promise<TurnResult> {
    return await this.#turns.take(queue, turn)
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    const { isClosed } = this.#link
    if (isClosed && holdings.every(({ leases }) => leases.length === 0)) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    const parts = this.#keyspace.together(holdings.map(({ queue }) => queue))
    const pulses = await Promise.allSettled(parts.map(async queues => {
      for (const { queue, consumer } of holdings) this.#turns.noteConsumer(queue, consumer)
      const args = encodeHoldings(holdings.filter(({ queue }) => queues.includes(queue)), queue =>
        this.#channelOf(this.#turns.nameOf(queue)))
      const pulses = readPulses(await this.#calls.run('extend', this.#keyspace.keysOf('extend', queues), args))
      return isClosed ? pulses.map(pulse => ({ ...pulse, outlook: NO_OUTLOOK })) : pulses
    }))
    const isWork = ({ outlook }: Pulse) => outlook.wakeInMs === 0
    if (pulses.some(pulse => pulse.status === 'fulfilled' && pulse.value.some(isWork))) this.#news.probe()
    // If a node of a cluster is down, only its queues have no pulse.
    const failed = pulses.find(pulse => pulse.status === 'rejected')
    if (failed !== undefined && pulses.every(({ status }) => status === 'rejected')) throw failed.reason
    return pulses.flatMap(pulse =>
      pulse.status === 'fulfilled' ? pulse.value : [{ lost: [], cancelled: [], outlook: NO_OUTLOOK }])
  }

  async watch (queue: string, listener: (news: News) => void): Promise<void> {
    const handed = (text: string): News | undefined => {
      const leases = this.#turns.accept(queue, text)
      return leases.length > 0 ? { kind: 'leases', leases } : undefined
    }
    await Promise.all([
      this.#news.listen(this.#channelOf(this.#keyspace.nameOf(queue)), newsOf, listener),
      this.#news.listen(this.#channelOf(this.#turns.nameOf(queue)), handed, listener)
    ])
  }

  /** Returns the name of a key as Redis knows it, and of the channel that has the same name. */
  #channelOf (key: string): string { return `${this.#client.options.keyPrefix ?? ''}${key}` }

  async counts (queues: readonly string[]): Promise<QueueView[]> {
    const views = new Map(await this.#ask('counts', queues, readCounts))
    return queues.map(queue => views.get(queue)!)
  }

  async history (queues: readonly string[]): Promise<History[]> {
    const histories = new Map(await this.#ask('history', queues, readHistory))
    return queues.map(queue => histories.get(queue)!)
  }

  async consumers (queues: readonly string[]): Promise<Presence[]> {
    return await this.#ask('consumers', queues, readConsumers)
  }

  /** Asks about many queues, some of them in one call, and all calls at once. */
  async #ask<T> (
    script: ScriptName, queues: readonly string[], read: (queues: readonly string[], reply: unknown) => T[]
  ): Promise<T[]> {
    const parts = this.#keyspace.together(queues).flatMap(part => inSteps(part, QUEUES_AT_ONCE))
    const answers = parts.map(async part =>
      read(part, await this.#calls.run(script, this.#keyspace.keysOf(script, part), [])))
    return (await Promise.all(answers)).flat()
  }

  async find (queues: readonly string[], id: string, awaitMs?: number): Promise<Found | undefined> {
    const args = encodeFind(textOnly(id), awaitMs)
    for (const part of this.#keyspace.together(queues)) {
      const found = readFound(part, await this.#calls.run('find', this.#keyspace.keysOf('find', part), args))
      if (found !== undefined) return found
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    const keys = this.#keyspace.keysOf('list', [queue])
    const all: Found[] = []
    // A long list comes in several replies, so that other commands need not wait for it.
    let reply = await this.#calls.run('list', keys, encodeList(state, offset, limit, this.#calls.replyBytes))
    for (;;) {
      const { found, left } = readList(queue, reply)
      all.push(...found)
      if (left.length === 0) return all
      reply = await this.#calls.run('listMore', keys, encodeListMore(state, this.#calls.replyBytes, left))
    }
  }

  async keys (queue: string, after: string, limit: number): Promise<KeyView[]> {
    const keys = this.#keyspace.keysOf('keys', [queue])
    return readKeys(await this.#calls.run('keys', keys, encodeKeys(textOnly(after), limit)))
  }

  async schedules (queue: string, which: WhichSchedules): Promise<ScheduleList> {
    const keys = this.#keyspace.keysOf('schedules', [queue])
    return readSchedules(await this.#calls.run('schedules', keys, encodeSchedules(which)))
  }

  async plan (queue: string, changes: readonly ScheduleChange[], revision?: number): Promise<boolean> {
    const keys = this.#keyspace.keysOf('plan', [queue])
    return await this.#calls.run('plan', keys, encodePlan(changes, revision)) === 1
  }

  async tick (queue: string, ticks: readonly Tick[], keep: Keep): Promise<TickResult[]> {
    const keys = this.#keyspace.keysOf('tick', [queue])
    return readTicks(await this.#calls.run('tick', keys, encodeTicks(ticks, keep)))
  }

  async operate (queue: string, order: Order): Promise<number> {
    const keys = this.#keyspace.keysOf('operate', [queue])
    const carryOut = async (ids?: readonly string[]) =>
      await this.#calls.run('operate', keys, encodeOrder(order, ids?.map(textOnly))) as number
    if (order.kind === 'purge') {
      return await this.#inParts(queue, ({ waiting, delayed }) => waiting + delayed, carryOut)
    }
    if (!concernsTasks(order)) return await carryOut()
    if (order.ids === undefined) return await this.#inParts(queue, ({ dead }) => dead, carryOut)
    let changed = 0
    for (const ids of inSteps(order.ids, MAX_AT_ONCE)) changed += await carryOut(ids)
    return changed
  }

  async setProgress (queue: string, lease: Held, progress: string): Promise<boolean> {
    const keys = this.#keyspace.keysOf('setProgress', [queue])
    return await this.#calls.run('setProgress', keys, encodeProgress(lease, progress)) === 1
  }

  async close (): Promise<void> {
    this.#commits.close()
    this.#news.close()
    await Promise.all([this.#turns.close(), this.#outcomes.tellLast()])
    this.#link.close()
    const { size } = this.#outcomes
    if (size > 0) throw this.#calls.cannot(`it has not heard what becomes of ${size} commits`)
  }

  /** Refuses a Redis that may drop any key when its memory is full. A Redis that does not let us look is trusted. */
  async #refuseEviction (): Promise<void> {
    const info = await this.#calls.answerTo(this.#client.info('memory')).catch(() => '')
    const policy = /^maxmemory_policy:(allkeys-\S+)/m.exec(info)?.[1]
    if (policy === undefined || /^maxmemory:0\b/m.test(info)) return
    const why = `with maxmemory-policy ${policy} it drops tasks when its memory is full; noeviction keeps them`
    throw this.#calls.unreachable(new Error(why))
  }

  /** Carries out an order on all tasks of some states, a thousand at a time. */
  async #inParts (queue: string, countOf: (counts: Counts) => number, doSome: () => Promise<number>): Promise<number> {
    const count = async () => countOf((await this.counts([queue]))[0]!)
    const all = await count()
    let changed = 0
    // It stops after as many as there were, so that tasks that come faster cannot keep it busy for ever.
    while (changed < all) {
      const some = await doSome()
      // The script may have found only places in line that tasks have left.
      if (some === 0 && await count() === 0) break
      changed += some
    }
    return changed
  }

  /** Loads the scripts into Redis beforehand, so that no call has to be sent a second time, and out of order. */
  async #load (client: Client): Promise<void> {
    const nodes = client.isCluster ? (client as Cluster).nodes('master') : [client as Redis]
    try {
      await Promise.all(nodes.flatMap(node => Object.values(scripts).map(({ body }) => node.script('LOAD', body))))
    } catch (error) {
      throw this.#calls.unreachable(error)
    }
  }

  #createSubscriber (): Client {
    if (!this.#isOurs) return duplicate(this.#client, this.#terms)
    // If ioredis subscribed again by itself, its promise would reject unhandled when the new connection is lost too.
    return (this.#client as Redis).duplicate({ autoResubscribe: false })
  }

  /** Connects, or waits for a client that connects by itself, for a bounded time. */
  async #connect (client: Client): Promise<void> {
    if (client.status === 'ready') return
    if (isClosed(client)) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    if (client.status === 'wait') return await client.connect().catch(error => this.#explain(error))
    const over = new AbortController()
    const { signal } = over
    const late = setTimeout(() => { over.abort() }, CONNECT_TIMEOUT_MS)
    try {
      const ended = once(client, 'end', { signal }).then(() => { throw new Error(CLIENT_IS_CLOSED) })
      await Promise.race([once(client, 'ready', { signal }), ended])
    } catch (error) {
      if (signal.aborted) throw this.#calls.cannot(`it has not answered within ${CONNECT_TIMEOUT_MS} ms`)
      await this.#explain(error)
    } finally {
      clearTimeout(late)
      over.abort()
    }
  }

  /** Throws the store's error of one of the client, once it is known what Redis has to say. */
  async #explain (error: unknown): Promise<never> {
    await this.#link.explained()
    throw this.#calls.unreachable(error)
  }
}

type OrderOfTasks = Extract<Order, { readonly ids?: readonly string[] }>

const concernsTasks = (order: Order): order is OrderOfTasks =>
  order.kind === 'cancel' || order.kind === 'reschedule' || order.kind === 'prioritize' || order.kind === 'redrive' ||
    order.kind === 'remove'

/** Refuses an id that is no text. The client would spread an array, and make each element another argument. */
function textOnly (id: string): string {
  if (typeof id !== 'string') throw new FST_TASKQUEUE_INVALID_ID(typeof id)
  return id
}
