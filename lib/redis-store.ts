import { createHash, randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { Batches } from './batches.js'
import { FST_TASKQUEUE_DUPLICATE, FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_OPTION, FST_TASKQUEUE_UNREACHABLE } from './errors.js'
import { heartbeatMs } from './heartbeat.js'
import { isClosed, Link, type Client } from './redis-link.js'
import { scripts } from './redis-scripts.js'
import {
  type Counts, type Found, type Held, type Holding, type Lease, type NewTask, type News, type Order, type Outlook, type Prepared, type Pulse,
  type State, type Store, type Turn, type TurnResult, type Verdict
} from './store.js'

type KeptOut = Prepared['keptOut'][number]

/** Where Redis is: a URL, the options of ioredis, or a client that the user has made and closes. */
export type RedisLocation = string | RedisOptions | Redis | Cluster

/** Tasks of one commit that are prepared in one call. */
interface Piece {
  readonly id: string
  readonly queues: readonly string[]
  readonly tasks: readonly NewTask[]
  readonly weight: number
  /** How often Redis may have got it: one that it has got twice it may get once more. */
  sends: number
}

/** What has to become of a prepared commit, until Redis has heard it. */
interface Conclusion {
  readonly script: 'commitNew' | 'commit' | 'rollback'
  readonly queues: readonly string[]
  /** Without their tasks, which Redis has. */
  readonly pieces: ReadonlyArray<Pick<Piece, 'id' | 'weight' | 'sends'>>
  /** Whether Redis has answered that it cannot. */
  isRefused?: boolean
}

/**
 * What becomes of a piece of a commit that is prepared: the ids that are kept out; an id for which it
 * is refused; one for which it has to wait; or that its ids are not new.
 */
type Preparedness = [0, ...keptOut: Array<number | string>] | [1 | 2, id: string] | [3]

/** The arguments of a turn to which there is no answer yet. */
interface Call { readonly keys: readonly string[], readonly args: ReadonlyArray<string | number> }

/**
 * Keeps tasks in Redis, where all processes with the same `prefix` share them. One
 * connection carries the commands of all queues, and a second one the notifications for
 * those that are consumed here.
 *
 * A command whose answer is lost may have been carried out, or may still be: so what
 * matters is sent again until it is answered, and every script knows what it has done.
 */
export class RedisStore implements Store {
  readonly #link: Link
  readonly #client: Client
  readonly #isOurs: boolean
  /** Of the clients that are made here. */
  readonly #settings: ReturnType<typeof settingsOf>
  readonly #prefix: string
  readonly #timeoutMs: number
  /** How many replicas must have a task before it counts as kept. */
  readonly #replicas: number
  readonly #address: string
  /** Of this process among the consumers of a queue. */
  readonly #id = randomUUID()
  readonly #watchers = new Map<string, Array<(news: News) => void>>()
  readonly #turns = new Map<string, { number: number, unanswered?: Call }>()
  readonly #preparing = {
    prepareNew: new Batches<Piece, Preparedness>(MAX_AT_ONCE, pieces => this.#callPrepare('prepareNew', pieces)),
    prepare: new Batches<Piece, Preparedness>(MAX_AT_ONCE, pieces => this.#callPrepare('prepare', pieces))
  }

  readonly #concluding = {
    commitNew: new Batches<Conclusion, void>(MAX_AT_ONCE, conclusions => this.#callConclude('commitNew', conclusions)),
    commit: new Batches<Conclusion, void>(MAX_AT_ONCE, conclusions => this.#callConclude('commit', conclusions)),
    rollback: new Batches<Conclusion, void>(MAX_AT_ONCE, conclusions => this.#callConclude('rollback', conclusions))
  }

  readonly #conclusions = new Set<Conclusion>()
  /** Those that Redis has refused, by their queues: one of them tries for all. */
  readonly #refused = new Map<string, Set<Conclusion>>()
  #subscriber: Client | undefined
  /** Its connection, for which all queues wait together. */
  #subscribing: Promise<void> | undefined
  #isOver = false
  /** The last WAIT that was sent, and the one that will be when that is answered. */
  #lastWait: Promise<unknown> = Promise.resolve()
  #nextWait: Promise<number> | undefined

  /** @param leaseMs the shortest lease of those who claim tasks here */
  constructor (location: RedisLocation, prefix: string, timeoutMs: number, replicas = 0, leaseMs = Infinity) {
    this.#prefix = prefix
    this.#timeoutMs = timeoutMs
    this.#replicas = replicas
    if (replicas > 0 && isClient(location) && location.isCluster) throw new FST_TASKQUEUE_INVALID_OPTION('replicas', '0 with a Cluster', String(replicas))
    this.#isOurs = !isClient(location)
    this.#settings = settingsOf(timeoutMs, leaseMs)
    this.#client = isClient(location) ? location : connect(location, this.#settings)
    this.#address = addressOf(this.#client)
    this.#link = new Link(this.#client, this.#isOurs, {
      duplicate: client => duplicate(client, this.#settings),
      onReady: client => {
        for (const conclusion of this.#conclusions) this.#conclude(conclusion)
        this.#load(client).catch(() => {})
      },
      isAwaited: () => this.#conclusions.size > 0
    })
  }

  async open (): Promise<void> {
    await this.#connect(this.#client)
    const { db = 0 } = this.#client.options as RedisOptions
    // A client that could not select its database when it connected says nothing, and uses another.
    if (this.#isOurs && db !== 0) await (this.#client as Redis).select(db).catch(error => { throw this.#unreachable(error) })
    await this.#load(this.#client)
    await this.#run('vote', [`${this.#prefix}:vote`], [])
    await this.#refuseEviction()
  }

  /** A full Redis that may drop any key to make room drops tasks. One that does not let us look is trusted. */
  async #refuseEviction (): Promise<void> {
    const info = await this.#client.info('memory').catch(() => '')
    const policy = /^maxmemory_policy:(allkeys-\S+)/m.exec(info)?.[1]
    if (policy === undefined || /^maxmemory:0\b/m.test(info)) return
    throw this.#unreachable(new Error(`with maxmemory-policy ${policy} it drops tasks when its memory is full; noeviction keeps them`))
  }

  /**
   * Takes one round trip. An answer that is lost leaves it open whether the tasks are
   * prepared: so the commit is sent again for as long as there is time, and what remains
   * open then is rolled back behind itself.
   */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    if (this.#isOver) throw this.#cannot('it has been closed')
    if (this.#link.isClosed) throw this.#cannot(CLIENT_IS_CLOSED)
    return await this.#prepareAll(tasks)
  }

  async #prepareAll (tasks: readonly NewTask[]): Promise<Prepared> {
    const parts = this.#together(tasks.map(({ queue }) => queue).sort())
    if (this.#isInArrears(parts.flat())) throw this.#cannot(`it has not answered ${MAX_CONCLUSIONS} commits`)
    const pieces = piecesOf(tasks, parts)
    // Whose id nobody has chosen has no duplicates to look for.
    let isNew = tasks.every(({ onDuplicate }) => onDuplicate === undefined)
    const conclude = (script: Conclusion['script']) => parts.map(queues => {
      const sent = pieces.filter(piece => piece.queues === queues && piece.sends > 0).map(({ id, weight, sends }) => ({ id, weight, sends }))
      return sent.length > 0 ? this.#conclude({ script, queues, pieces: sent }) : undefined
    })
    const keptOut: KeptOut[] = []
    try {
      for (const piece of pieces) {
        const kept = isNew ? await this.#prepare('prepareNew', piece) : undefined
        isNew &&= kept !== undefined
        keptOut.push(...kept ?? await this.#prepare('prepare', piece) ?? [])
      }
      await this.#replicate()
    } catch (error) {
      conclude('rollback')
      throw error
    }
    return {
      keptOut,
      commit: async () => {
        if (this.#isOver) throw this.#cannot('it has been closed')
        // It is under way then, and whatever is asked next is asked behind it.
        for (const under of conclude(isNew ? 'commitNew' : 'commit')) await under?.made
      },
      rollback () { conclude('rollback') }
    }
  }

  /** Returns what is kept out; undefined if there are ids that are not new. An id that another commit is about to add is waited for. */
  async #prepare (script: 'prepareNew' | 'prepare', piece: Piece): Promise<readonly KeptOut[] | undefined> {
    const { queues, weight } = piece
    const deadline = performance.now() + this.#timeoutMs
    for (;;) {
      const answer = await this.#preparing[script].add(queues.join(), piece, weight).result
      switch (answer[0]) {
        case 0: return keptOutOf(queues, answer.slice(1))
        case 1: throw new FST_TASKQUEUE_DUPLICATE(answer[1])
        case 3:
          if (piece.sends === 1) piece.sends = 0
          return undefined
      }
      if (performance.now() > deadline) throw this.#cannot(`it has not heard what becomes of another task with the id ${answer[1]}`)
      await sleep(5)
    }
  }

  async #callPrepare (script: 'prepareNew' | 'prepare', pieces: readonly Piece[]): Promise<Preparedness[]> {
    const args = pieces.flatMap(({ id, queues, tasks }) => [id, tasks.length, ...argsOf(tasks, queues)])
    return await this.#insist(script, this.#keysOf(script, pieces[0]!.queues), args, () => { for (const piece of pieces) piece.sends++ }) as Preparedness[]
  }

  async turn (queue: string, turn: Turn): Promise<TurnResult> {
    let state = this.#turns.get(queue)
    if (state === undefined) this.#turns.set(queue, state = { number: 0 })
    // What has begun comes to its end, and nothing else begins.
    const { isClosed } = this.#link
    if (isClosed && turn.settlements.length === 0 && state.unanswered === undefined) throw this.#cannot(CLIENT_IS_CLOSED)
    state.unanswered ??= await this.#callOf(queue, isClosed ? { ...turn, limit: 0 } : turn, ++state.number)
    const { keys, args } = state.unanswered
    try {
      const reply = await this.#run('turn', keys, args)
      const [outlook, settled, flat, dropped] = reply as [[number, number], number[], string[], number]
      state.unanswered = undefined
      return {
        outlook: isClosed ? NO_OUTLOOK : outlookOf(outlook),
        settled: settled.map(Boolean),
        leases: leasesOf(flat),
        ...dropped > 0 && { dropped }
      }
    } catch (error) {
      // An error is an answer as well, unless it is one of the connection.
      if (isAnswer(error)) state.unanswered = undefined
      throw error
    }
  }

  async #callOf (queue: string, { settlements, limit, alone, leaseMs, keep, keepDead }: Turn, number: number): Promise<Call> {
    const chains = settlements.map(({ chain = [] }) => chain)
    const [queues = []] = this.#together([queue, ...chains.flat().map(task => task.queue)])
    // What is out of reach of this turn's script is added before it: twice, if it comes to the worst, rather than never.
    const elsewhere = chains.flat().filter(task => !queues.includes(task.queue))
    if (elsewhere.length > 0) await (await this.#prepareAll(elsewhere)).commit()
    const args = settlements.flatMap(({ lease: { id, fence }, verdict, record = '', dedupeMs }, index) => {
      const chain = chains[index]!.filter(task => queues.includes(task.queue))
      return [id, fence, textOf(verdict, dedupeMs), record, chain.length, ...argsOf(chain, queues)]
    })
    return {
      keys: [...this.#keysOf('turn', queues), this.#turnKeyOf(queue)],
      args: [
        number, Math.ceil(heartbeatMs(leaseMs)), leaseMs, limit, alone ? 1 : 0,
        keep.count, keep.ms, boundOf(keepDead?.count), boundOf(keepDead?.ms), ...args
      ]
    }
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    const { isClosed } = this.#link
    if (isClosed && holdings.every(({ leases }) => leases.length === 0)) throw this.#cannot(CLIENT_IS_CLOSED)
    const parts = this.#together(holdings.map(({ queue }) => queue))
    const pulses = await Promise.allSettled(parts.map(async queues => {
      const args = holdings.filter(({ queue }) => queues.includes(queue)).flatMap(({ leases, leaseMs }) =>
        [Math.ceil(heartbeatMs(leaseMs)), leaseMs, leases.length, ...leases.flatMap(({ id, fence }) => [id, fence])])
      const reply = await this.#run('extend', this.#keysOf('extend', queues), [IN_DOUBT_MS, ...args]) as Array<[number, number, string[], string[]]>
      return reply.map(([wakeInMs, suspects, lost, cancelled]): Pulse => ({ lost, cancelled, outlook: isClosed ? NO_OUTLOOK : outlookOf([wakeInMs, suspects]) }))
    }))
    if (pulses.some(pulse => pulse.status === 'fulfilled' && pulse.value.some(({ outlook }) => outlook.wakeInMs === 0))) this.#probe()
    // Queues on a node of a cluster that is down have no pulse; the others do.
    const failed = pulses.find(pulse => pulse.status === 'rejected')
    if (failed !== undefined && pulses.every(({ status }) => status === 'rejected')) throw failed.reason
    return pulses.flatMap(pulse => pulse.status === 'fulfilled' ? pulse.value : [{ lost: [], cancelled: [], outlook: NO_OUTLOOK }])
  }

  async watch (queue: string, listener: (news: News) => void): Promise<void> {
    const channel = `${this.#client.options.keyPrefix ?? ''}${this.#nameOf(queue)}`
    const watchers = this.#watchers.get(channel) ?? []
    // It is here already if this is tried again.
    if (!watchers.includes(listener)) this.#watchers.set(channel, [...watchers, listener])
    const subscriber = this.#subscriber ??= this.#makeSubscriber()
    this.#subscribing ??= this.#connect(subscriber).catch(error => {
      this.#subscribing = undefined
      throw error
    })
    await this.#subscribing
    await subscriber.subscribe(channel).catch(error => { throw this.#unreachable(error) })
  }

  async counts (queue: string): Promise<Counts & { paused: boolean }> {
    const [waiting, delayed, running, dead, paused] = await this.#run('counts', this.#keysOf('counts', [queue]), []) as [number, number, number, number, number]
    return { waiting, delayed, running, dead, paused: paused === 1 }
  }

  async find (queues: readonly string[], id: string, awaitMs: number | '' = ''): Promise<Found | undefined> {
    for (const part of this.#together(queues)) {
      const reply = await this.#run('find', this.#keysOf('find', part), [textOnly(id), awaitMs]) as [number, Described] | null
      if (reply !== null) return foundOf(part[reply[0]]!, reply[1])
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    const reply = await this.#run('list', this.#keysOf('list', [queue]), [state, offset, limit]) as Described[]
    return reply.map(described => foundOf(queue, described))
  }

  async steer (queue: string, order: Order): Promise<number> {
    const steer = async (values: ReadonlyArray<string | number>, ids: readonly string[] = []) =>
      await this.#run('steer', this.#keysOf('steer', [queue]), [order.kind, ...values, ...ids.map(textOnly)]) as number
    if (order.kind === 'pause' || order.kind === 'resume') return await steer([])
    if (order.kind === 'purge') {
      return await this.#inParts(queue, ({ waiting, delayed }) => waiting + delayed, () => steer([]))
    }
    if (order.kind !== 'cancel' && order.kind !== 'schedule' && order.ids === undefined) {
      return await this.#inParts(queue, ({ dead }) => dead, () => steer(['all', '']))
    }
    const values = order.kind === 'cancel' ? [order.keep.count, order.keep.ms] : order.kind === 'schedule' ? [dueOf(order.delayMs, order.runAt), ''] : ['', '']
    let changed = 0
    for (let i = 0; i < order.ids!.length; i += MAX_AT_ONCE) changed += await steer(values, order.ids!.slice(i, i + MAX_AT_ONCE))
    return changed
  }

  /** Has something done to all tasks of some states, which is a thousand of them at a time. */
  async #inParts (queue: string, countOf: (counts: Counts) => number, doSome: () => Promise<number>): Promise<number> {
    const all = countOf(await this.counts(queue))
    let changed = 0
    // As many as there were, so that what comes faster than this cannot keep it busy for ever.
    while (changed < all) {
      const count = await doSome()
      // It may have found only what had left the line.
      if (count === 0 && countOf(await this.counts(queue)) === 0) break
      changed += count
    }
    return changed
  }

  async note (queue: string, { id, fence }: Held, progress: string): Promise<boolean> {
    return await this.#run('note', this.#keysOf('note', [queue]), [id, fence, progress]) === 1
  }

  async close (): Promise<void> {
    this.#isOver = true
    this.#subscriber?.disconnect()
    // A turn that a client has kept would claim anew for nobody, if nothing told it that it is over.
    const queues = this.#link.keepsCommands ? [] : [...this.#turns.keys()]
    const farewells = queues.map(queue => this.#run('leave', [this.#turnKeyOf(queue)], []))
    await Promise.all([inTime(Promise.allSettled(farewells), this.#timeoutMs), this.#concludeAll()])
    this.#link.close()
    if (this.#conclusions.size > 0) throw this.#cannot(`it has not heard what becomes of ${this.#conclusions.size} commits`)
  }

  /** Tells Redis what becomes of every commit until it has heard it or says that it cannot, for a bounded time. */
  async #concludeAll (): Promise<void> {
    const start = performance.now()
    for (;;) {
      const conclusions = [...this.#conclusions]
      // What is not rolled back is a dead letter after an hour, and has been promised to nobody.
      const longestMs = conclusions.some(({ script }) => script !== 'rollback') ? CONCLUDE_MS : this.#timeoutMs
      const leftMs = start + longestMs - performance.now()
      if (conclusions.length === 0 || leftMs <= 0) return
      await inTime(Promise.all(conclusions.map(conclusion => this.#conclude(conclusion).result)), Math.min(leftMs, this.#timeoutMs))
      if (conclusions.every(conclusion => conclusion.isRefused === true || !this.#conclusions.has(conclusion))) return
      this.#link.bypass()
      await this.#link.reconnected(Math.min(leftMs, 100))
    }
  }

  /** The keys of one queue share a hash tag, and with it a slot of a cluster. */
  #nameOf (queue: string): string {
    return `${this.#prefix}:{${queue}}`
  }

  #keysOf (script: keyof typeof scripts, queues: readonly string[]): string[] {
    return queues.flatMap(queue => scripts[script].keys.map(key => `${this.#nameOf(queue)}:${key}`))
  }

  #turnKeyOf (queue: string): string {
    return `${this.#nameOf(queue)}:turn:${this.#id}`
  }

  /** Queues by what one script can reach: all of them, but in a cluster each alone. */
  #together (queues: readonly string[]): string[][] {
    const distinct = [...new Set(queues)]
    return this.#client.isCluster ? distinct.map(queue => [queue]) : [distinct]
  }

  /** Has Redis learn the scripts beforehand, so that none has to be sent a second time, and out of order. */
  async #load (client: Client): Promise<void> {
    const nodes = client.isCluster ? (client as Cluster).nodes('master') : [client as Redis]
    try {
      await Promise.all(nodes.flatMap(node => Object.values(scripts).map(({ body }) => node.script('LOAD', body))))
    } catch (error) {
      throw this.#unreachable(error)
    }
  }

  /** Calls `sent` if Redis may get the command, whatever its answer. */
  async #run (
    script: keyof typeof scripts, keys: readonly string[], args: ReadonlyArray<string | number>, sent?: () => void
  ): Promise<unknown> {
    try {
      return await this.#link.run(client => {
        // A client of the user's may keep it and send it later.
        if (client.status === 'ready' || !this.#isOurs) sent?.()
        return client.evalsha(digests[script], keys.length, ...keys, ...args).catch(async (error: Error) => {
          if (!error.message.startsWith('NOSCRIPT')) throw error
          return await client.eval(scripts[script].body, keys.length, ...keys, ...args)
        })
      })
    } catch (error) {
      throw this.#unreachable(error)
    }
  }

  /** Runs a script again after each loss of the connection while there is time; calls `sent` each time that Redis may have got it. */
  async #insist (script: keyof typeof scripts, keys: readonly string[], args: ReadonlyArray<string | number>, sent: () => void): Promise<unknown> {
    const start = performance.now()
    while (true) {
      try {
        return await this.#run(script, keys, args, sent)
      } catch (error) {
        const leftMs = Math.min(start, this.#link.downSince ?? start) + this.#timeoutMs - performance.now()
        if (isAnswer(error) || leftMs <= 0) throw error
        // Where it seems to be up it has turned us away, or its end has not been noticed yet.
        await this.#link.reconnected(this.#link.isUp ? Math.min(leftMs, 100) : leftMs)
      }
    }
  }

  /**
   * Waits until enough replicas have what was written so far. While WAIT waits, its connection
   * does nothing else: so it does for a few milliseconds at a time, and for all commits at once.
   */
  async #replicate (): Promise<void> {
    if (this.#replicas === 0) return
    const deadline = performance.now() + this.#timeoutMs
    while (await this.#countReplicas() < this.#replicas) {
      if (performance.now() > deadline) throw this.#cannot(`fewer than ${this.#replicas} replicas have the tasks`)
    }
  }

  #countReplicas (): Promise<number> {
    this.#nextWait ??= this.#lastWait.then(async () => {
      this.#nextWait = undefined
      try {
        return await this.#link.run(client => (client as Redis).wait(this.#replicas, 20))
      } catch (error) {
        throw this.#unreachable(error)
      }
    })
    this.#lastWait = this.#nextWait.catch(() => {})
    return this.#nextWait
  }

  /** Whether too many commits to any of these queues are without an answer: more would only take memory. */
  #isInArrears (queues: readonly string[]): boolean {
    if (this.#conclusions.size < MAX_CONCLUSIONS) return false
    return [...this.#conclusions].filter(conclusion => conclusion.queues.some(queue => queues.includes(queue))).length >= MAX_CONCLUSIONS
  }

  /** Sees to it that Redis hears what becomes of a commit: now, or when it is back. Returns when it has been told, and has heard it or cannot. */
  #conclude (conclusion: Conclusion): { readonly made: Promise<void>, readonly result: Promise<void> } {
    const { script, queues, pieces } = conclusion
    this.#conclusions.add(conclusion)
    return this.#concluding[script].add(queues.join(), conclusion, pieces.reduce((sum, { weight }) => sum + weight, 0))
  }

  async #callConclude (script: Conclusion['script'], conclusions: readonly Conclusion[]): Promise<void[]> {
    const { queues } = conclusions[0]!
    const args = conclusions.flatMap(({ pieces }) => pieces.flatMap(({ id, sends }) => [id, sends > 1 ? 1 : 0]))
    try {
      const isRefused = await this.#run(script, this.#keysOf(script, queues), args) === 1
      if (isRefused) await this.#run('commit', this.#keysOf('commit', queues), args)
      if (script !== 'rollback') await this.#replicate()
      for (const conclusion of conclusions) this.#conclusions.delete(conclusion)
    } catch (error) {
      for (const conclusion of conclusions) conclusion.isRefused = isAnswer(error)
      // Of the connection: its return is when it is sent again.
      if (!isAnswer(error) && !this.#link.isUp) return []
      const refused = this.#refused.get(queues.join()) ?? new Set()
      if (refused.size === 0) setTimeout(() => { this.#concludeRefused(queues.join()) }, 1000).unref()
      this.#refused.set(queues.join(), refused)
      for (const conclusion of conclusions) refused.add(conclusion)
    }
    return []
  }

  async #concludeRefused (queues: string): Promise<void> {
    const [first, ...others] = [...this.#refused.get(queues)!].filter(conclusion => this.#conclusions.has(conclusion))
    this.#refused.delete(queues)
    if (first !== undefined) await this.#conclude(first).result
    const refused = this.#refused.get(queues)
    for (const other of others) {
      if (refused === undefined) this.#conclude(other)
      else refused.add(other)
    }
  }

  #makeSubscriber (): Client {
    // What ioredis subscribes to by itself on a new connection rejects, unhandled, when that one is lost as well.
    const subscriber = this.#isOurs ? (this.#client as Redis).duplicate({ autoResubscribe: false }) : duplicate(this.#client, this.#settings)
    // Its errors are those of the client; without a listener they would be printed.
    subscriber.on('error', () => {})
    subscriber.on('message', (channel: string, text: string) => { for (const tell of this.#watchers.get(channel) ?? []) tell(newsOf(text)) })
    subscriber.on('ready', async () => {
      await subscriber.subscribe(...this.#watchers.keys()).catch(() => {})
      // News were missed while it was away.
      for (const tell of [...this.#watchers.values()].flat()) tell({ kind: 'change' })
    })
    return subscriber
  }

  /**
   * Asks the connection for notifications for a sign of life, now that there is work of which it may
   * have said nothing. One that gives none is given up by its client, and made anew.
   */
  #probe (): void {
    if (this.#subscriber?.status === 'ready') this.#subscriber.ping().catch(() => {})
  }

  /** Connects, or waits for a client that connects by itself, but not for ever. */
  async #connect (client: Client): Promise<void> {
    if (client.status === 'ready') return
    if (isClosed(client)) throw this.#cannot(CLIENT_IS_CLOSED)
    if (client.status === 'wait') return await client.connect().catch(error => { throw this.#unreachable(error) })
    const over = new AbortController()
    const { signal } = over
    const late = setTimeout(() => { over.abort() }, CONNECT_TIMEOUT_MS)
    try {
      await Promise.race([once(client, 'ready', { signal }), once(client, 'end', { signal }).then(() => { throw new Error(CLIENT_IS_CLOSED) })])
    } catch (error) {
      if (signal.aborted) throw this.#cannot(`it has not answered within ${CONNECT_TIMEOUT_MS} ms`)
      throw this.#unreachable(error)
    } finally {
      clearTimeout(late)
      over.abort()
    }
  }

  #cannot (why: string): Error {
    return new FST_TASKQUEUE_UNREACHABLE(this.#address, why)
  }

  /** An error of the client carries its command, and with it payloads and passwords that do not belong in a log: only its message is passed on. */
  #unreachable (error: unknown): Error {
    const isReply = (error as Error).name === 'ReplyError'
    if (!isReply && !this.#isOver && this.#link.isClosed) return this.#cannot(CLIENT_IS_CLOSED)
    const { message, code } = (isReply ? error : this.#link.lastError ?? error) as NodeJS.ErrnoException
    // The error of a host with several addresses, none of which answers, has a code and no message.
    const unreachable = this.#cannot(message || String(code))
    if (isReply && !TURNS_AWAY.test(unreachable.message)) answers.add(unreachable)
    return unreachable
  }
}

/** Errors with which Redis has answered, rather than not. */
const answers = new WeakSet<object>()
const isAnswer = (error: unknown): boolean => answers.has(error as object)

/** Replies of a Redis that is not the master, any more, or not yet: they answer nothing. */
const TURNS_AWAY = /: (?:READONLY|LOADING|MASTERDOWN|CLUSTERDOWN|TRYAGAIN) /

const CLIENT_IS_CLOSED = 'its client was closed by its owner, or has given up connecting'

/** For how long a store that closes tells Redis what becomes of commits. */
const CONCLUDE_MS = 10_000

/** What there is to claim for somebody who must not. */
const NO_OUTLOOK: Outlook = { wakeInMs: Infinity, suspects: false }

/** How many commits to a queue may be without an answer before there are no more. */
const MAX_CONCLUSIONS = 1000

/** How many tasks, or ids, one call takes in, so that Redis is not kept from others; one of several KiB counts as several. */
const MAX_AT_ONCE = 1000

const weightOf = ({ message }: NewTask): number => 1 + message.length / 4096

/** Divides the tasks of a commit into what one call may prepare. They are committed in one, all or none. */
function piecesOf (tasks: readonly NewTask[], parts: ReadonlyArray<readonly string[]>): Piece[] {
  const id = randomUUID()
  const pieces: Array<Piece & { readonly tasks: NewTask[], weight: number }> = []
  for (const queues of parts) {
    for (const task of tasks) {
      if (!queues.includes(task.queue)) continue
      const weight = weightOf(task)
      let piece = pieces.at(-1)
      if (piece?.queues !== queues || piece.weight + weight > MAX_AT_ONCE) {
        piece = { id: pieces.length === 0 ? id : `${id}:${pieces.length}`, queues, tasks: [], weight: 0, sends: 0 }
        pieces.push(piece)
      }
      piece.tasks.push(task)
      piece.weight += weight
    }
  }
  return pieces
}

/** For how long nobody can know what was to become of a commit. */
const IN_DOUBT_MS = 60 * 60 * 1000

/** How long to wait for a connection at the start. */
const CONNECT_TIMEOUT_MS = 5000

const digests = Object.fromEntries(
  Object.entries(scripts).map(([name, { body }]) => [name, createHash('sha1').update(body).digest('hex')])
) as Record<keyof typeof scripts, string>

/** Without a bound Redis is passed nothing. */
const boundOf = (bound: number = Infinity): number | '' => bound === Infinity ? '' : bound

function outlookOf ([wakeInMs, suspects]: readonly [number, number]): Outlook {
  return { wakeInMs: wakeInMs === -1 ? Infinity : wakeInMs, suspects: suspects > 0 }
}

function textOf (verdict: Verdict, dedupeMs = 0): string {
  switch (verdict.kind) {
    case 'done': return dedupeMs === 0 ? 'done' : `done ${dedupeMs} `
    case 'retry': return `retry ${Math.ceil(verdict.delayMs)} ${verdict.reason}`
    case 'defer': {
      const kind = verdict.unrouted === true ? 'unrouted' : 'defer'
      return `${kind} ${Math.ceil(verdict.delayMs)} ${verdict.reason}`
    }
    case 'dead': return `dead 0 ${verdict.reason}`
    case 'release': return `${verdict.unseen === true ? 'unseen' : 'release'} 0 `
  }
}

function leasesOf (flat: readonly string[]): Lease[] {
  const leases: Lease[] = []
  for (let i = 0; i < flat.length; i += 3) {
    const [fence, attempt = 1, retries = 0, deaths = 0, suspect = 0, , deferredMs = 0, unroutedMs = 0] =
      flat[i + 2]!.split(' ', 8).map(Number) as [number, ...number[]]
    leases.push({
      id: flat[i]!, message: flat[i + 1]!, fence, attempt, retries, deferredMs, unroutedMs, deaths, suspect: suspect === 1
    })
  }
  return leases
}

function keptOutOf (queues: readonly string[], flat: ReadonlyArray<number | string>): KeptOut[] {
  const keptOut: KeptOut[] = []
  for (let i = 0; i < flat.length; i += 2) keptOut.push({ queue: queues[flat[i] as number]!, id: flat[i + 1] as string })
  return keptOut
}

function argsOf (tasks: readonly NewTask[], queues: readonly string[]): Array<string | number> {
  return tasks.flatMap(task => [queues.indexOf(task.queue), task.id, task.message, howOf(task)])
}

function howOf ({ delayMs, runAt, expiresMs, onDuplicate }: NewTask): string {
  const how = `${dueOf(delayMs, runAt)} ${expiresMs ?? ''} ${onDuplicate ?? ''}`
  return how === '  ' ? '' : how
}

const dueOf = (delayMs?: number, runAt?: number): string => delayMs !== undefined ? String(delayMs) : runAt !== undefined ? `=${runAt}` : ''

type Described = [
  id: string, state: State, message: string, dueAt: number | '', endedAt: number | '', attempt: number, reason: string, progress: string | null,
  records: Array<string | null>
]

function foundOf (queue: string, [id, state, message, dueAt, endedAt, attempt, reason, progress, records]: Described): Found {
  return {
    queue,
    id,
    state,
    attempt,
    ...state !== 'done' && { message },
    ...dueAt !== '' && { dueAt },
    ...endedAt !== '' && { endedAt },
    ...reason !== '' && { reason },
    ...progress !== null && { progress },
    records: records.map(record => record ?? undefined)
  }
}

/** The client spreads an array over the arguments of a script, where each of its elements would be another one. */
function textOnly (id: string): string {
  if (typeof id !== 'string') throw new FST_TASKQUEUE_INVALID_ID(typeof id)
  return id
}

function newsOf (text: string): News {
  const [kind, id = ''] = text.split(' ', 2)
  return kind === 'ended' ? { kind, id } : { kind: kind === 'change' ? kind : 'work' }
}

function isClient (location: RedisLocation): location is Redis | Cluster {
  return typeof location === 'object' && 'evalsha' in location && 'duplicate' in location
}

/** Of a client that fails a command at once while it is not connected, and connects again for as long as it is not closed. */
function settingsOf (timeoutMs: number, leaseMs: number) {
  // While it is away no lease can be prolonged, of which others may be in contact again: these may move the lease clock
  // on by two heartbeats, and then by the time that this takes.
  const longestPauseMs = Math.min(200, leaseMs / 4)
  const pauseMs = (times: number) => Math.min(25 * 2 ** (times - 1), longestPauseMs)
  return {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_TIMEOUT_MS,
    commandTimeout: timeoutMs,
    // A connection of which nothing comes back is half open, or will be of use to nobody until Redis is there again.
    socketTimeout: 2 * timeoutMs,
    // Whoever has become a replica stays one: the next connection finds the new master.
    reconnectOnError: ({ message }: Error) => message.startsWith('READONLY'),
    retryStrategy: pauseMs,
    sentinelRetryStrategy: pauseMs,
    // Between two looks at a Redis that loads its data: ioredis would wait for as long as that may take, or a second at least.
    maxLoadingRetryTime: longestPauseMs
  } satisfies RedisOptions
}

function connect (location: string | RedisOptions, settings: RedisOptions): Redis {
  return typeof location === 'string' ? new Redis(location, settings) : new Redis({ ...settings, ...location as object })
}

/** Makes a client that connects to where a given one does, on the plugin's terms. */
function duplicate (client: Client, terms: ReturnType<typeof settingsOf>): Client {
  const settings = { ...terms, autoResubscribe: false }
  if (!client.isCluster) {
    // The database that was selected last is known only to the connection.
    const { select } = (client as unknown as { condition?: { select?: number } }).condition ?? {}
    return (client as Redis).duplicate({ ...settings, ...select !== undefined && { db: select } })
  }
  const { lazyConnect, enableOfflineQueue, retryStrategy, ...redisOptions } = settings
  return (client as Cluster).duplicate([], { lazyConnect, enableOfflineQueue, clusterRetryStrategy: retryStrategy, redisOptions })
}

/** Resolves with a promise that does not reject, or after some time. */
async function inTime (promise: Promise<unknown>, ms: number): Promise<void> {
  const over = new AbortController()
  await Promise.race([promise, sleep(ms, undefined, { signal: over.signal }).catch(() => {})])
  over.abort()
}

/** Says where a client connects to, and not as whom. */
function addressOf (client: Redis | Cluster): string {
  if (client instanceof Cluster || client.isCluster) return 'The Redis cluster'
  const { path, host = 'localhost', port = 6379, db = 0, name, sentinels } = (client as Redis).options
  if (sentinels != null) return `Redis master ${name}`
  return `Redis at ${path ?? `${host}:${port}`}${db === 0 ? '' : `, database ${db}`}`
}
