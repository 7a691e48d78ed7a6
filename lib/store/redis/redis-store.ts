import { randomUUID } from 'node:crypto'
import { once } from 'node:events'
import { setTimeout as sleep } from 'node:timers/promises'
import { Cluster, Redis, type RedisOptions } from 'ioredis'
import { Batches } from './batches.js'
import { FST_TASKQUEUE_DUPLICATE, FST_TASKQUEUE_INVALID_ID, FST_TASKQUEUE_INVALID_OPTION } from '../../errors.js'
import { heartbeatMs } from '../../run/heartbeat.js'
import { Calls, CLIENT_IS_CLOSED, isAnswer, MAX_ARGS, type Call, type ScriptName } from './calls.js'
import { isClosed, Link, type Client } from './link.js'
import { scripts } from './scripts.js'
import {
  type Counts, type Found, type Held, type Holding, type Lease, type NewTask, type News, type Order, type Outlook, type Prepared, type Pulse,
  type Settlement, type State, type Store, type Turn, type TurnResult, type Verdict
} from '../store.js'

type KeptOut = Prepared['keptOut'][number]

/** Where Redis is: a URL, the options of ioredis, or a client that the user has made and closes. */
export type RedisLocation = string | RedisOptions | Redis | Cluster

/** Tasks of one commit that are prepared in one call. */
interface Piece {
  readonly id: string
  readonly queues: readonly string[]
  readonly tasks: readonly NewTask[]
  readonly bytes: number
  /** How often Redis may have got it: one that it has got twice it may get once more. */
  sends: number
}

/** What has to become of a prepared commit, until Redis has heard it. */
interface Conclusion {
  readonly script: 'commitNew' | 'commit' | 'rollback'
  readonly queues: readonly string[]
  /** Without their tasks, which Redis has. */
  readonly pieces: ReadonlyArray<Pick<Piece, 'id' | 'sends'> & { readonly weight: number }>
  /** Whether Redis has answered that it cannot. */
  isRefused?: boolean
}

/**
 * What becomes of a piece of a commit that is prepared: the ids that are kept out; an id for which it
 * is refused; one for which it has to wait; or that its ids are not new.
 */
type Preparedness = [0, ...keptOut: Array<number | string>] | [1, id: string] | [2, id: string, queue: number] | [3]

/** A turn of which it is not known that it has been taken. */
interface OpenTurn {
  call: Call
  readonly settlements: readonly Settlement[]
  /** While the answer may still come. */
  answer?: Promise<TurnReply> | undefined
}

type TurnReply = [outlook: [number, number], settled: number[], leases: Array<string | null>, dropped: number]

/** The turns of the consumer of a queue. Each carries one settlement while one may be of a kind that Redis does not take. */
interface Turns { key: string, number: number, open?: OpenTurn | undefined, isWary: boolean }

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
  readonly #calls: Calls
  /** Of this process among the consumers of a queue. */
  readonly #id = randomUUID()
  readonly #watchers = new Map<string, Array<(news: News) => void>>()
  readonly #turns = new Map<string, Turns>()
  /** Those who wait for an id that another commit is about to add: the last of each line. */
  readonly #lines = new Map<string, Promise<void>>()
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

  /** @param beatMs the longest time between two beats of the heartbeat of those who claim tasks here */
  constructor (location: RedisLocation, prefix: string, timeoutMs: number, replicas = 0, beatMs = Infinity) {
    this.#prefix = prefix
    this.#timeoutMs = timeoutMs
    this.#replicas = replicas
    if (replicas > 0 && isClient(location) && location.isCluster) throw new FST_TASKQUEUE_INVALID_OPTION('replicas', '0 with a Cluster', String(replicas))
    this.#isOurs = !isClient(location)
    this.#settings = settingsOf(timeoutMs, beatMs)
    this.#client = isClient(location) ? location : connect(location, this.#settings)
    this.#link = new Link(this.#client, this.#isOurs, {
      duplicate: client => duplicate(client, this.#settings),
      onReady: client => {
        for (const conclusion of this.#conclusions) this.#conclude(conclusion)
        this.#load(client).catch(() => {})
      },
      isAwaited: () => this.#conclusions.size > 0
    })
    this.#calls = new Calls(this.#link, this.#isOurs, timeoutMs, addressOf(this.#client))
  }

  async open (): Promise<void> {
    await this.#connect(this.#client)
    const { db = 0 } = this.#client.options as RedisOptions
    // A client that could not select its database when it connected says nothing, and uses another.
    if (this.#isOurs && db !== 0) await this.#answerTo((this.#client as Redis).select(db))
    await this.#answerTo(this.#load(this.#client))
    await this.#calls.run('vote', [`${this.#prefix}:vote`], [])
    await this.#refuseEviction()
  }

  /** A full Redis that may drop any key to make room drops tasks. One that does not let us look is trusted. */
  async #refuseEviction (): Promise<void> {
    const info = await this.#answerTo(this.#client.info('memory')).catch(() => '')
    const policy = /^maxmemory_policy:(allkeys-\S+)/m.exec(info)?.[1]
    if (policy === undefined || /^maxmemory:0\b/m.test(info)) return
    throw this.#calls.unreachable(new Error(`with maxmemory-policy ${policy} it drops tasks when its memory is full; noeviction keeps them`))
  }

  /**
   * Takes one round trip. An answer that is lost leaves it open whether the tasks are
   * prepared: so the commit is sent again for as long as there is time, and what remains
   * open then is rolled back behind itself.
   */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    if (this.#isOver) throw this.#calls.cannot('it has been closed')
    if (this.#link.isClosed) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    return await this.#prepareAll(tasks)
  }

  async #prepareAll (tasks: readonly NewTask[]): Promise<Prepared> {
    const parts = this.#together(tasks.map(({ queue }) => queue).sort())
    if (this.#isInArrears(parts.flat())) throw this.#calls.cannot(`it has not answered ${MAX_CONCLUSIONS} commits`)
    const pieces = piecesOf(tasks, parts)
    // Whose id nobody has chosen has no duplicates to look for.
    let isNew = tasks.every(({ onDuplicate }) => onDuplicate === undefined)
    const conclude = (script: Conclusion['script']) => parts.map(queues => {
      const sent = pieces.filter(piece => piece.queues === queues && piece.sends > 0).map(piece => ({ id: piece.id, weight: weightOf(piece.tasks.length, piece.bytes), sends: piece.sends }))
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
        if (this.#isOver) throw this.#calls.cannot('it has been closed')
        // It is under way then, and whatever is asked next is asked behind it.
        for (const under of conclude(isNew ? 'commitNew' : 'commit')) await under?.made
      },
      rollback () { conclude('rollback') }
    }
  }

  /** Returns what is kept out; undefined if there are ids that are not new. An id that another commit is about to add is waited for. */
  async #prepare (script: 'prepareNew' | 'prepare', piece: Piece): Promise<readonly KeptOut[] | undefined> {
    const { queues } = piece
    const deadline = performance.now() + this.#timeoutMs
    let place: { readonly line: string, readonly leave: () => void } | undefined
    try {
      for (;;) {
        const answer = await this.#preparing[script].add(queues.join(), piece, loadOf(piece)).result
        switch (answer[0]) {
          case 0: return keptOutOf(queues, answer.slice(1))
          case 1: throw new FST_TASKQUEUE_DUPLICATE(answer[1])
          case 3:
            if (piece.sends === 1) piece.sends = 0
            return undefined
        }
        const [, id, queue] = answer
        const line = `${queues[queue]!} ${id}`
        if (place?.line !== line) {
          place?.leave()
          place = { line, leave: await this.#lineUp(line, deadline) }
        }
        await this.#untilReleased(queues[queue]!, id, piece.id.replace(/:.*/, ''), deadline)
        if (performance.now() > deadline) throw this.#calls.cannot(`it has not heard what becomes of another task with the id ${id}`)
      }
    } finally {
      place?.leave()
    }
  }

  /** Waits until whoever else here wants the same has left the line: otherwise all would send their messages again, for one of them to get it. */
  async #lineUp (line: string, deadline: number): Promise<() => void> {
    const before = this.#lines.get(line)
    let leave = () => {}
    const left = new Promise<void>(resolve => { leave = resolve })
    const last = before === undefined ? left : before.then(() => left)
    this.#lines.set(line, last)
    last.then(() => { if (this.#lines.get(line) === last) this.#lines.delete(line) })
    if (before !== undefined) await inTime(before, deadline - performance.now())
    return leave
  }

  /** Asks now and then whether another commit is still about to add an id. */
  async #untilReleased (queue: string, id: string, commit: string, deadline: number): Promise<void> {
    for (let pauseMs = 5; performance.now() < deadline; pauseMs = Math.min(pauseMs * 2, 50)) {
      await sleep(pauseMs)
      if (await this.#calls.run('reserved', this.#keysOf('reserved', [queue]), [id, commit]) === 0) return
    }
  }

  async #callPrepare (script: 'prepareNew' | 'prepare', pieces: readonly Piece[]): Promise<Preparedness[]> {
    const { queues } = pieces[0]!
    const args = pieces.flatMap(({ id, tasks }) => [id, tasks.length, ...argsOf(tasks, queues)])
    const bytes = pieces.reduce((sum, piece) => sum + piece.bytes, 0)
    const call = this.#calls.callOf(script, this.#keysOf(script, queues), args, bytes, this.#nameOf(queues[0]!))
    return await this.#calls.insist(call, () => { for (const piece of pieces) piece.sends++ }) as Preparedness[]
  }

  async turn (queue: string, turn: Turn): Promise<TurnResult> {
    let turns = this.#turns.get(queue)
    if (turns === undefined) this.#turns.set(queue, turns = { key: this.#turnKeyOf(queue), number: 0, isWary: false })
    // What has begun comes to its end, and nothing else begins.
    const { isClosed } = this.#link
    if (isClosed && turn.settlements.length === 0 && turns.open === undefined) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    const open = turns.open ??= await this.#openTurn(queue, isClosed ? { ...turn, limit: 0 } : turn, turns)
    try {
      const start = performance.now()
      // What is on its way is waited for, and not asked for again.
      if (open.answer === undefined) {
        open.answer = this.#calls.send(open.call) as Promise<TurnReply>
        open.answer.catch(() => { open.answer = undefined })
      }
      const [outlook, settled, flat, dropped] = await this.#calls.whileItFlows(open.answer)
      turns.open = undefined
      turns.isWary = false
      const leases = this.#leasesOf(queue, flat)
      this.#calls.noteReply(leases.reduce((sum, { message }) => sum + (typeof message === 'string' ? message.length : 0), 0), performance.now() - start)
      return {
        outlook: isClosed ? NO_OUTLOOK : outlookOf(outlook),
        settled: settled.map(Boolean),
        leases,
        ...dropped > 0 && { dropped }
      }
    } catch (error) {
      // An error is an answer as well, unless it is one of the connection.
      if (isAnswer(error)) return await this.#takeRefusal(queue, turn, turns, open, error as Error)
      this.#calls.noteNoReply()
      if (open.call.upload === undefined) open.call = { ...open.call, args: open.call.args.with(REPLY_BYTES_AT, this.#calls.replyBytes) }
      throw error
    }
  }

  /** Opens a turn with as many of the settlements as one call carries, or with one that is larger; such a turn claims nothing. */
  async #openTurn (queue: string, { settlements, limit, alone, leaseMs, keep, keepDead }: Turn, turns: Turns): Promise<OpenTurn> {
    const taken = settlements.slice(0, turns.isWary ? 1 : countWithin(settlements, MAX_TURN_BYTES))
    const chains = taken.map(({ chain = [] }) => chain)
    const [queues = []] = this.#together([queue, ...chains.flat().map(task => task.queue)])
    // What is out of reach of this turn's script is added before it: twice, if it comes to the worst, rather than never.
    const elsewhere = chains.flat().filter(task => !queues.includes(task.queue))
    if (elsewhere.length > 0) await (await this.#prepareAll(elsewhere)).commit()
    const args = taken.flatMap(({ lease: { id, fence }, verdict, record = '', dedupeMs }, index) => {
      const chain = chains[index]!.filter(task => queues.includes(task.queue))
      return [id, fence, textOf(verdict, dedupeMs), record, chain.length, ...argsOf(chain, queues)]
    })
    const bytes = taken.reduce((sum, settlement) => sum + sizeOf(settlement), 0)
    const isLarge = taken.length < settlements.length || !this.#calls.fits(args, bytes)
    const head = [
      ++turns.number, Math.ceil(heartbeatMs(leaseMs)), leaseMs, isLarge ? 0 : limit, alone ? 1 : 0,
      keep.count, keep.ms, boundOf(keepDead?.count), boundOf(keepDead?.ms), this.#calls.replyBytes
    ]
    const keys = [...this.#keysOf('turn', queues), turns.key]
    return { call: this.#calls.callOf('turn', keys, [...head, ...args], bytes, this.#nameOf(queue)), settlements: taken }
  }

  /**
   * Redis has refused a turn. That may lie in one settlement: so each is handed in alone next, and one that is
   * refused alone makes a dead letter of its task, if that is not refused as well.
   */
  async #takeRefusal (queue: string, turn: Turn, turns: Turns, open: OpenTurn, error: Error): Promise<TurnResult> {
    turns.open = undefined
    // Somebody has written to its key: it goes on under another.
    if (error.message.includes('this turn is over')) {
      turns.key = this.#turnKeyOf(queue, randomUUID())
      throw error
    }
    const [settlement, ...others] = open.settlements
    const wasAlone = turns.isWary && others.length === 0
    turns.isWary = open.settlements.length > 0
    if (settlement === undefined || !wasAlone) throw error
    const { id, fence } = settlement.lease
    const buried: Settlement = { lease: { id, fence }, verdict: { kind: 'dead', reason: `its end could not be stored: ${error.message}` } }
    const { call: { script, keys, args } } = await this.#openTurn(queue, { ...turn, settlements: [buried], limit: 0 }, turns)
    const [outlook, settled] = await this.#calls.run(script, keys, args) as TurnReply
    return { outlook: outlookOf(outlook), settled: settled.map(Boolean), leases: [] }
  }

  #leasesOf (queue: string, flat: ReadonlyArray<string | null>): Lease[] {
    const leases: Lease[] = []
    for (let i = 0; i < flat.length; i += 3) {
      const id = flat[i]!
      const message = flat[i + 1]!
      const numbers = flat[i + 2]!.split(' ', 9).map(Number)
      const length = message === null ? numbers.shift()! : 0
      const [fence, attempt = 1, retries = 0, deaths = 0, suspect = 0, , deferredMs = 0, unroutedMs = 0] = numbers as [number, ...number[]]
      leases.push({
        id,
        message: message ?? (signal => this.#fetch(queue, id, fence, length, signal)),
        fence,
        attempt,
        retries,
        deferredMs,
        unroutedMs,
        deaths,
        suspect: suspect === 1
      })
    }
    return leases
  }

  async #fetch (queue: string, id: string, fence: number, length: number, signal: AbortSignal): Promise<string | undefined> {
    const keys = [...this.#keysOf('slice', [queue]), `${this.#nameOf(queue)}:copy:${fence}`]
    return await this.#calls.fetch(keys, id, fence, length, signal)
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    const { isClosed } = this.#link
    if (isClosed && holdings.every(({ leases }) => leases.length === 0)) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    const parts = this.#together(holdings.map(({ queue }) => queue))
    const pulses = await Promise.allSettled(parts.map(async queues => {
      const args = holdings.filter(({ queue }) => queues.includes(queue)).flatMap(({ leases, leaseMs }) =>
        [Math.ceil(heartbeatMs(leaseMs)), leaseMs, leases.length, ...leases.flatMap(({ id, fence }) => [id, fence])])
      const reply = await this.#calls.run('extend', this.#keysOf('extend', queues), [IN_DOUBT_MS, ...args]) as Array<[number, number, string[], string[], string]>
      return reply.map(([wakeInMs, suspects, lost, cancelled, fault]): Pulse =>
        ({ lost, cancelled, outlook: isClosed ? NO_OUTLOOK : outlookOf([wakeInMs, suspects]), ...fault !== '' && { fault } }))
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
    await this.#answerTo(subscriber.subscribe(channel))
  }

  async counts (queue: string): Promise<Counts & { paused: boolean }> {
    const [waiting, delayed, running, dead, paused] = await this.#calls.run('counts', this.#keysOf('counts', [queue]), []) as [number, number, number, number, number]
    return { waiting, delayed, running, dead, paused: paused === 1 }
  }

  async find (queues: readonly string[], id: string, awaitMs: number | '' = ''): Promise<Found | undefined> {
    for (const part of this.#together(queues)) {
      const reply = await this.#calls.run('find', this.#keysOf('find', part), [textOnly(id), awaitMs]) as [number, Described] | null
      if (reply !== null) return foundOf(part[reply[0]]!, reply[1])
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    const keys = this.#keysOf('list', [queue])
    const found: Found[] = []
    // A reply for which everything else would have to wait is had in several.
    let [described, left] = await this.#calls.run('list', keys, [state, offset, limit, this.#calls.replyBytes]) as [Described[], string[]]
    for (;;) {
      for (const task of described) found.push(foundOf(queue, task))
      if (left.length === 0) return found
      ;[described, left] = await this.#calls.run('listMore', keys, [state, this.#calls.replyBytes, ...left]) as [Described[], string[]]
    }
  }

  async steer (queue: string, order: Order): Promise<number> {
    const steer = async (values: ReadonlyArray<string | number>, ids: readonly string[] = []) =>
      await this.#calls.run('steer', this.#keysOf('steer', [queue]), [order.kind, ...values, ...ids.map(textOnly)]) as number
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
    return await this.#calls.run('note', this.#keysOf('note', [queue]), [id, fence, progress]) === 1
  }

  async close (): Promise<void> {
    this.#isOver = true
    this.#subscriber?.disconnect()
    // A turn that a client has kept would claim anew for nobody, if nothing told it that it is over.
    const turns = this.#link.keepsCommands ? [] : [...this.#turns.values()]
    const farewells = turns.map(({ key }) => this.#calls.run('leave', [key], []))
    await Promise.all([inTime(Promise.allSettled(farewells), this.#timeoutMs), this.#concludeAll()])
    this.#link.close()
    if (this.#conclusions.size > 0) throw this.#calls.cannot(`it has not heard what becomes of ${this.#conclusions.size} commits`)
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

  #keysOf (script: ScriptName, queues: readonly string[]): string[] {
    return queues.flatMap(queue => scripts[script].keys.map(key => `${this.#nameOf(queue)}:${key}`))
  }

  #turnKeyOf (queue: string, id = this.#id): string {
    return `${this.#nameOf(queue)}:turn:${id}`
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
      throw this.#calls.unreachable(error)
    }
  }

  /** Waits for the answer to a command that is no script. */
  async #answerTo<T> (command: Promise<T>): Promise<T> {
    return await this.#calls.inTime(command.catch(error => { throw this.#calls.unreachable(error) }))
  }

  /**
   * Waits until enough replicas have what was written so far. While WAIT waits, its connection
   * does nothing else: so it does for a few milliseconds at a time, and for all commits at once.
   */
  async #replicate (): Promise<void> {
    if (this.#replicas === 0) return
    const deadline = performance.now() + this.#timeoutMs
    while (await this.#countReplicas() < this.#replicas) {
      if (performance.now() > deadline) throw this.#calls.cannot(`fewer than ${this.#replicas} replicas have the tasks`)
    }
  }

  #countReplicas (): Promise<number> {
    this.#nextWait ??= this.#lastWait.then(async () => {
      this.#nextWait = undefined
      return await this.#answerTo(this.#link.run(client => (client as Redis).wait(this.#replicas, 20)))
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
      const isRefused = await this.#calls.run(script, this.#keysOf(script, queues), args) === 1
      if (isRefused) await this.#calls.run('commit', this.#keysOf('commit', queues), args)
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
    if (isClosed(client)) throw this.#calls.cannot(CLIENT_IS_CLOSED)
    if (client.status === 'wait') return await client.connect().catch(error => { throw this.#calls.unreachable(error) })
    const over = new AbortController()
    const { signal } = over
    const late = setTimeout(() => { over.abort() }, CONNECT_TIMEOUT_MS)
    try {
      await Promise.race([once(client, 'ready', { signal }), once(client, 'end', { signal }).then(() => { throw new Error(CLIENT_IS_CLOSED) })])
    } catch (error) {
      if (signal.aborted) throw this.#calls.cannot(`it has not answered within ${CONNECT_TIMEOUT_MS} ms`)
      throw this.#calls.unreachable(error)
    } finally {
      clearTimeout(late)
      over.abort()
    }
  }
}

/** For how long a store that closes tells Redis what becomes of commits. */
const CONCLUDE_MS = 10_000

/** What there is to claim for somebody who must not. */
const NO_OUTLOOK: Outlook = { wakeInMs: Infinity, suspects: false }

/** How many commits to a queue may be without an answer before there are no more. */
const MAX_CONCLUSIONS = 1000

/** How many tasks, or ids, one call takes in, so that Redis is not kept from others; one of several KiB counts as several. */
const MAX_AT_ONCE = 1000

const weightOf = (count: number, bytes: number): number => count + bytes / 4096

/** What a piece weighs among those that are prepared with it in one call, where none should have to wait for the bytes of another. */
const loadOf = ({ tasks, bytes }: Piece): number => tasks.length + bytes / 128

/** Where a turn is told how many bytes of messages its reply may hold. */
const REPLY_BYTES_AT = 9

/** How much one turn carries. */
const MAX_TURN_BYTES = 4 * 1024 * 1024

const sizeOf = ({ chain = [], record = '' }: Settlement): number => chain.reduce((sum, { message }) => sum + message.length, record.length)

/** Counts how many settlements, from the first one on, have so many bytes together; at least one. */
function countWithin (settlements: readonly Settlement[], maxBytes: number): number {
  let bytes = 0
  let args = 0
  const end = settlements.findIndex((settlement, index) => {
    bytes += sizeOf(settlement)
    args += 5 + 4 * (settlement.chain?.length ?? 0)
    return index > 0 && (bytes > maxBytes || args > MAX_ARGS)
  })
  return end === -1 ? settlements.length : end
}

/** Divides the tasks of a commit into what one call may prepare. They are committed in one, all or none. */
function piecesOf (tasks: readonly NewTask[], parts: ReadonlyArray<readonly string[]>): Piece[] {
  const id = randomUUID()
  const pieces: Array<Piece & { readonly tasks: NewTask[], bytes: number }> = []
  for (const queues of parts) {
    for (const task of tasks) {
      if (!queues.includes(task.queue)) continue
      const bytes = task.message.length
      let piece = pieces.at(-1)
      if (piece?.queues !== queues || weightOf(piece.tasks.length + 1, piece.bytes + bytes) > MAX_AT_ONCE) {
        piece = { id: pieces.length === 0 ? id : `${id}:${pieces.length}`, queues, tasks: [], bytes: 0, sends: 0 }
        pieces.push(piece)
      }
      piece.tasks.push(task)
      piece.bytes += bytes
    }
  }
  return pieces
}

/** For how long nobody can know what was to become of a commit. */
const IN_DOUBT_MS = 60 * 60 * 1000

/** How long to wait for a connection at the start. */
const CONNECT_TIMEOUT_MS = 5000

/** Without a bound Redis is passed nothing. */
const boundOf = (bound: number = Infinity): number | '' => bound === Infinity ? '' : bound

function outlookOf ([wakeInMs, suspects]: readonly [number, number]): Outlook {
  return { wakeInMs: wakeInMs >= 0 ? wakeInMs : Infinity, suspects: suspects > 0 }
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
function settingsOf (timeoutMs: number, beatMs: number) {
  // While it is away no lease can be prolonged, of which others may be in contact again: these may move the lease clock
  // on by two heartbeats, and then by the time that this takes.
  const longestPauseMs = Math.min(200, beatMs)
  const pauseMs = (times: number) => Math.min(25 * 2 ** (times - 1), longestPauseMs)
  return {
    lazyConnect: true,
    enableOfflineQueue: false,
    maxRetriesPerRequest: 0,
    connectTimeout: CONNECT_TIMEOUT_MS,
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
