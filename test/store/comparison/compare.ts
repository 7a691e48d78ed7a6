import './virtual-time.js'
import { Redis } from 'ioredis'
import sqlite from 'node-sqlite3-wasm'
import { SqliteStore } from '../../../example/sqlite-store.js'
import { LocalStore } from '../../../lib/store/local/store.js'
import { RedisStore } from '../../../lib/store/redis/store.js'
import type { Pulse } from '../../../lib/store/heartbeat.js'
import type { Order } from '../../../lib/store/order.js'
import type { ScheduleChange, Tick } from '../../../lib/store/schedules.js'
import type { Store } from '../../../lib/store/store.js'
import type { NewTask, Prepared } from '../../../lib/store/tasks.js'
import type { Claim, Held, Lease, Settlement, TurnResult, Verdict } from '../../../lib/store/turn.js'
import { IDS, QUEUES, STATES, UNIT_MS, type PlannedChange, type PlannedOrder, type PlannedSettlement, type PlannedTick, type Sequence, type Step } from './steps.js'
import { inVirtualTime, passTime, START_MS } from './virtual-time.js'

/** For how long a sequence is made shorter. */
const SHRINK_NS = 60_000_000_000n

/** What stores have shown differently, and after which step. */
export interface Difference {
  readonly sequence: Sequence
  readonly step: number
  readonly what: string
  readonly shown: Readonly<Record<string, unknown>>
}

/** Stores that are driven in lock step. */
export interface Comparison {
  /** Runs a sequence on empty stores; returns the first thing that they show differently, if there is any. */
  run (sequence: Sequence, looksOften?: boolean): Promise<Difference | undefined>
  /** Returns a shorter sequence that shows a difference as well. */
  shrink (difference: Difference): Promise<Difference>
  close (): Promise<void>
}

/** Opens a local, a Redis and an SQLite store. */
export async function openComparison (path: string): Promise<Comparison> {
  const redis = new LossyRedis(path)
  const stores = { local: new LocalStore() as Store, redis: new RedisStore(redis, 'compared', 60_000) as Store, sqlite: undefined as Store | undefined }
  const db = new Database()
  await stores.redis.open()
  await new SqliteStore(db).open()

  const run = (sequence: Sequence, looksOften = false) => inVirtualTime(async () => {
    await redis.flushdb()
    stores.local = new LocalStore()
    db.exec('DELETE FROM task; DELETE FROM task_mark; DELETE FROM task_lane; DELETE FROM task_schedule; DELETE FROM task_revision')
    // Its leases go by the time of day.
    stores.sqlite = sequence.isOutOfTouch ? undefined : new SqliteStore(db)
    passTime(0, redis)
    const world = new World(stores, redis, sequence)
    for (const [step, planned] of sequence.steps.entries()) {
      try {
        await world.step(planned)
        if (looksOften || step % 15 === 14) await world.look()
      } catch (error) {
        await world.abandon()
        if (error instanceof Disagreement) return { sequence, step, what: error.message, shown: error.shown }
        throw error
      }
    }
    try {
      await world.end()
    } catch (error) {
      await world.abandon()
      if (error instanceof Disagreement) return { sequence, step: sequence.steps.length, what: error.message, shown: error.shown }
      throw error
    }
    return undefined
  })

  return {
    run,
    async shrink (difference) {
      let smallest = difference
      const start = process.hrtime.bigint()
      const attempt = async (steps: readonly Step[]): Promise<boolean> => {
        if (process.hrtime.bigint() - start > SHRINK_NS) return false
        const found = await run({ ...smallest.sequence, steps }, true)
        if (found !== undefined) smallest = found
        return found !== undefined
      }
      await attempt(smallest.sequence.steps)
      for (let isSmaller = true; isSmaller;) {
        isSmaller = false
        await attempt(smallest.sequence.steps.slice(0, smallest.step + 1))
        for (let size = Math.ceil(smallest.sequence.steps.length / 2); size > 0; size = Math.floor(size / 2)) {
          for (let at = smallest.sequence.steps.length - size; at >= 0; at--) {
            if (await attempt(smallest.sequence.steps.toSpliced(at, size))) isSmaller = true
          }
        }
        for (let at = 0; at < smallest.sequence.steps.length; at++) {
          for (let simpler = simplify(smallest.sequence.steps[at]!); simpler.length > 0;) {
            const step = simpler.shift()!
            if (!await attempt(smallest.sequence.steps.with(at, step))) continue
            isSmaller = true
            simpler = simplify(step)
          }
        }
      }
      return smallest
    },
    async close () {
      await stores.redis.close()
      redis.disconnect()
      db.close()
    }
  }
}

/** The steps that are by one thing simpler. */
function simplify (step: Step): Step[] {
  switch (step.kind) {
    case 'add':
    case 'prepare': return fewer(step.tasks, plainer).map(tasks => ({ ...step, tasks }))
    case 'turn': return [
      ...step.isLost === true ? [{ ...step, isLost: false }] : [],
      ...fewer(step.settlements, settlement => [
        ...without(settlement, ['record', 'chain', 'dedupeMs', 'delayMs']),
        ...fewer(settlement.chain ?? [], plainer).map(chain => ({ ...settlement, chain }))
      ]).map(settlements => ({ ...step, settlements }))
    ]
    case 'extend': return fewer(step.leases).map(leases => ({ ...step, leases }))
    case 'steer': return 'ids' in step.order && step.order.ids !== undefined
      ? fewer(step.order.ids).filter(ids => ids.length > 0).map(ids => ({ ...step, order: { ...step.order, ids } as PlannedOrder }))
      : []
    case 'plan': return [
      ...without(step, ['ahead']),
      ...fewer(step.changes, change => without(change, ['next', 'paused', 'declared'])).map(changes => ({ ...step, changes }))
    ]
    case 'tick': return fewer(step.ticks, tick => [
      ...without(tick, ['next', 'task']),
      ...tick.missed > 0 ? [{ ...tick, missed: 0 }] : [],
      ...tick.task === undefined ? [] : plainer(tick.task).map(task => ({ ...tick, task }))
    ]).filter(ticks => ticks.length > 0).map(ticks => ({ ...step, ticks }))
    case 'pass': return step.units > 1 ? [{ ...step, units: step.units - 1 }] : []
    default: return []
  }
}

const plainer = (task: NewTask) => without(task, ['delayMs', 'runAt', 'expiresMs', 'priority', 'key'])

const fewer = <T>(items: readonly T[], simplifyOne: (item: T) => T[] = () => []): T[][] => [
  ...items.length > 0 ? items.map((_, index) => items.toSpliced(index, 1)) : [],
  ...items.flatMap((item, index) => simplifyOne(item).map(simpler => items.with(index, simpler)))
]

const without = <T extends object>(value: T, keys: ReadonlyArray<keyof T>): T[] =>
  keys.filter(key => key in value).map(key => Object.fromEntries(Object.entries(value).filter(([name]) => name !== key)) as T)

/** A client whose next answer may be lost. */
class LossyRedis extends Redis {
  losesAnswer = false

  constructor (path: string) {
    super({ path })
    const evalsha = this.evalsha.bind(this) as (...args: unknown[]) => Promise<unknown>
    Object.assign(this, {
      evalsha: (...args: unknown[]) => {
        const answer = evalsha(...args)
        if (!this.losesAnswer) return answer
        this.losesAnswer = false
        return answer.then(() => { throw new Error('the answer is lost') })
      }
    })
  }
}

/** A database that compiles what it is asked only once, which takes it longer than to answer. */
class Database extends sqlite.Database {
  readonly #statements = new Map<string, sqlite.Statement>()

  override run (sql: string, values?: sqlite.BindValues) { return this.#compile(sql).run(values) }

  override all (sql: string, values?: sqlite.BindValues) { return this.#compile(sql).all(values) }

  override close (): void {
    for (const statement of this.#statements.values()) statement.finalize()
    super.close()
  }

  #compile (sql: string): sqlite.Statement {
    let statement = this.#statements.get(sql)
    if (statement === undefined) this.#statements.set(sql, statement = this.prepare(sql))
    return statement
  }
}

class Disagreement extends Error {
  readonly shown: Readonly<Record<string, unknown>>

  constructor (what: string, shown: Readonly<Record<string, unknown>>) {
    super(what)
    this.shown = shown
  }
}

/** What one store answers, by the name of the store. */
type Each<T> = Map<string, T>

/** A turn whose answer is lost, as the stores carried it out that lose none. */
interface LostTurn { readonly results: Each<TurnResult>, readonly leaseMs: number }

class World {
  readonly #stores: ReadonlyArray<readonly [name: string, store: Store]>
  readonly #redis: LossyRedis
  readonly #keep
  readonly #keepDead
  readonly #isOutOfTouch: boolean
  readonly #commits = new Map<number, { readonly prepared: Each<Prepared>, readonly names: readonly string[] }>()
  readonly #leases = new Map<string, Array<Each<Lease>>>(QUEUES.map(queue => [queue, []]))
  readonly #lost = new Map<string, LostTurn>()

  constructor (stores: Record<string, Store | undefined>, redis: LossyRedis, { keepCount, keepDeadCount, isOutOfTouch }: Sequence) {
    this.#stores = Object.entries(stores).filter((entry): entry is [string, Store] => entry[1] !== undefined)
    this.#redis = redis
    this.#keep = { count: keepCount, ms: 12.5 * UNIT_MS }
    this.#keepDead = keepDeadCount === undefined ? undefined : { count: keepDeadCount, ms: 12.5 * UNIT_MS }
    this.#isOutOfTouch = isOutOfTouch
  }

  async step (step: Step): Promise<void> {
    passTime(1, this.#redis)
    switch (step.kind) {
      case 'add': return await this.#prepare(step.tasks, prepared => this.#conclude(prepared, 'commit'))
      case 'prepare':
        if (this.#commits.has(step.commit)) return
        return await this.#prepare(step.tasks, prepared => { this.#commits.set(step.commit, { prepared, names: namesOf(step.tasks) }) })
      case 'commit':
      case 'rollback': return await this.#concludeOpen(step.commit, step.kind)
      case 'turn':
        if (this.#lost.has(step.queue)) return await this.#askAgain(step.queue)
        return await this.#turn(step.queue, step, step.settlements, step.isLost)
      case 'extend': return await this.#extend(step.queue, step.leases.flatMap(lease => this.#lease(step.queue, lease) ?? []), step.leaseMs)
      case 'note': {
        const lease = this.#lease(step.queue, step.lease)
        if (lease !== undefined) await this.#same('note', (name, store) => store.setProgress(step.queue, held(lease.get(name)!), step.text))
        return
      }
      case 'steer':
        await this.#same('changed by the order', (_, store) => store.operate(step.queue, { ...step.order, ...step.order.kind === 'cancel' && { keep: this.#keep } } as Order))
        return
      case 'plan': return await this.#plan(step.queue, step.changes, step.ahead)
      case 'tick': return await this.#tick(step.queue, step.ticks)
      case 'look':
        await this.#same(`find ${step.id}`, (_, store) => store.find(QUEUES, step.id))
        await this.#same(`list ${step.state} of ${step.queue}`, (_, store) => store.list(step.queue, step.state, step.offset, step.limit))
        await this.#same(`some schedules of ${step.queue}`, (_, store) => store.schedules(step.queue, { offset: step.offset, limit: step.limit }))
        await this.#same(`schedules of ${step.queue} by id`, (_, store) => store.schedules(step.queue, { ids: ['y', 'unknown', 'x'] }))
        return
      case 'pass': return await this.#pass(step.units)
    }
  }

  /** Compares all there is to see. */
  async look (): Promise<void> {
    for (const queue of QUEUES) {
      await this.#same(`counts of ${queue}`, (_, store) => store.counts([queue]))
      await this.#same(`keys of ${queue}`, (_, store) => store.keys(queue, '', 100))
      await this.#same(`a key of ${queue}`, (_, store) => store.keys(queue, 'k', 1))
      await this.#lookAtSchedules(queue)
      await this.#same(`tasks of ${queue}`, async (_, store) =>
        Object.fromEntries(await Promise.all(STATES.map(async state => [state, await store.list(queue, state, 0, 1000)]))))
    }
    await this.#touch()
    const all = QUEUES.flatMap(queue => IDS.map((id): NewTask => ({ queue, id, message: '', onDuplicate: 'keep' })))
    await this.#prepare(all, prepared => this.#conclude(prepared, 'rollback'))
  }

  /** Has everything run that is left, and compares it on the way. */
  async end (): Promise<void> {
    passTime(1, this.#redis)
    for (const commit of this.#commits.keys()) await this.#concludeOpen(commit, 'commit')
    for (const queue of this.#lost.keys()) await this.#askAgain(queue)
    await this.look()
    for (const queue of QUEUES) await this.#same('resume', (_, store) => store.operate(queue, { kind: 'resume' }))
    for (let round = 0; round < 2; round++) {
      for (const queue of QUEUES) {
        for (const alone of [false, true]) {
          passTime(1, this.#redis)
          await this.#turn(queue, { limit: 10, alone, leaseMs: 9 * UNIT_MS }, [])
        }
      }
      await this.#pass(6)
      await this.look()
    }
  }

  /** Leaves nothing open that the next sequence would meet. */
  async abandon (): Promise<void> {
    for (const [queue, { leaseMs }] of this.#lost) {
      await Promise.allSettled(this.#stores.map(async ([, store]) => await store.turn(queue, { settlements: [], heartbeatMs: leaseMs / 5, keep: this.#keep })))
    }
  }

  async #prepare (tasks: readonly NewTask[], use: (prepared: Each<Prepared>) => unknown): Promise<void> {
    // It would wait for the other commit.
    const taken = [...this.#commits.values()].flatMap(({ names }) => names)
    if (namesOf(tasks).some(name => taken.includes(name))) return
    const prepared: Each<Prepared> = new Map()
    await this.#same('kept out', async (name, store) => {
      const one = await store.prepare(tasks)
      prepared.set(name, one)
      return one.keptOut.map(({ queue, id }) => `${queue} ${id}`).sort()
    })
    if (prepared.size === this.#stores.length) await use(prepared)
  }

  async #concludeOpen (commit: number, kind: 'commit' | 'rollback'): Promise<void> {
    const { prepared } = this.#commits.get(commit) ?? {}
    this.#commits.delete(commit)
    if (prepared !== undefined) await this.#conclude(prepared, kind)
  }

  async #conclude (prepared: Each<Prepared>, kind: 'commit' | 'rollback'): Promise<void> {
    await Promise.all([...prepared.values()].map(one => one[kind]()))
    // Redis may still have to hear of it, and then once more, by another script, where an id is known that should be new.
    await this.#redis.ping()
    await this.#redis.ping()
  }

  async #turn (queue: string, claim: Claim, planned: readonly PlannedSettlement[], isLost = false): Promise<void> {
    const ended = planned.flatMap(settlement => {
      const lease = this.#lease(queue, settlement.lease)
      return lease === undefined ? [] : [{ lease, settlement }]
    })
    const results: Each<TurnResult> = new Map()
    const take = async (name: string, store: Store) => {
      if (isLost && name === 'redis') this.#redis.losesAnswer = true
      const settlements = ended.map(({ lease, settlement }) => settlementOf(lease.get(name)!, settlement))
      const result = await store.turn(queue, {
        settlements, heartbeatMs: claim.leaseMs / 5, claim: claim.limit > 0 ? claim : undefined, keep: this.#keep, ...this.#keepDead !== undefined && { keepDead: this.#keepDead }
      })
      results.set(name, result)
      return { ...visible(result), isShared: result.isShared ?? false }
    }
    if (isLost) {
      for (const [name, store] of this.#stores) await take(name, store).catch(error => { if (name !== 'redis') throw error })
      this.#lost.set(queue, { results, leaseMs: claim.leaseMs })
    } else {
      await this.#same(`turn of ${queue}`, take)
      this.#keepLeases(queue, results)
    }
  }

  /** Asks Redis for the answer that was lost. From the others it takes what that has to be: what is held still, for a whole lease. */
  async #askAgain (queue: string): Promise<void> {
    const { results: first, leaseMs } = this.#lost.get(queue)!
    this.#lost.delete(queue)
    const results: Each<TurnResult> = new Map()
    await this.#same(`turn of ${queue}, asked again`, async (name, store) => {
      if (name === 'redis') {
        results.set(name, await store.turn(queue, { settlements: [], heartbeatMs: leaseMs / 5, keep: this.#keep }))
      } else {
        const { settled, leases, dropped } = first.get(name)!
        const [pulse] = await store.extend([{ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases, heartbeatMs: leaseMs / 5, leaseMs }])
        results.set(name, { settled, leases: leases.filter(({ id }) => !pulse!.lost.includes(id)), outlook: pulse!.outlook, ...dropped !== undefined && { dropped } })
      }
      return visible(results.get(name)!)
    })
    this.#keepLeases(queue, results)
  }

  #keepLeases (queue: string, results: Each<TurnResult>): void {
    const count = [...results.values()][0]?.leases.length ?? 0
    for (let index = 0; index < count; index++) {
      this.#leases.get(queue)!.push(new Map([...results].map(([name, { leases }]) => [name, leases[index]!])))
    }
  }

  async #plan (queue: string, planned: readonly PlannedChange[], ahead?: number): Promise<void> {
    const { revision, schedules } = await this.#stores[0]![1].schedules(queue, ALL_SCHEDULES)
    const changes = planned.map(({ expects, next, ...rest }): ScheduleChange => {
      const known = schedules.find(({ id }) => id === rest.id)
      return {
        ...rest,
        ...expects !== 'none' && { expects: expects === 'right' ? known?.plan : 'another plan' },
        ...next !== undefined && { next: next === 'same' ? known?.next : slotIn(next) }
      }
    })
    await this.#same(`plan in ${queue}`, (_, store) => store.plan(queue, changes, ahead === undefined ? undefined : Math.max(0, revision + ahead)))
    await this.#lookAtSchedules(queue)
  }

  async #tick (queue: string, planned: readonly PlannedTick[]): Promise<void> {
    const { schedules } = await this.#stores[0]![1].schedules(queue, ALL_SCHEDULES)
    const slots = new Map(schedules.map(({ id, next }) => [id, next]))
    const ticks = planned.map(({ place, slot, next, ...rest }): Tick => {
      const id = schedules[place % schedules.length]?.id ?? 'unknown'
      if (slot === 'none') return { id, ...rest }
      const tick = { id, ...rest, slot: slot === 'right' ? slots.get(id) ?? START_MS : START_MS, ...next !== undefined && { next: slotIn(next) } }
      // Another tick of the same call may be for the slot that follows.
      if (slot === 'right') slots.set(id, tick.next)
      return tick
    })
    await this.#same(`tick in ${queue}`, (_, store) => store.tick(queue, ticks, this.#keep))
    await this.#lookAtSchedules(queue)
  }

  async #lookAtSchedules (queue: string): Promise<void> {
    await this.#same(`schedules of ${queue}`, (_, store) => store.schedules(queue, ALL_SCHEDULES))
    // These come in any order.
    await this.#same(`declared schedules of ${queue}`, async (_, store) =>
      (await store.schedules(queue, { declared: true })).schedules.toSorted((a, b) => a.id < b.id ? -1 : 1))
  }

  async #extend (queue: string, leases: ReadonlyArray<Each<Lease>>, leaseMs: number): Promise<void> {
    await this.#same<readonly Pulse[]>(`extend ${queue}`, (name, store) =>
      store.extend([{ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases: leases.map(lease => held(lease.get(name)!)), heartbeatMs: leaseMs / 5, leaseMs }]))
  }

  async #pass (units: number): Promise<void> {
    if (this.#isOutOfTouch) return passTime(units * UNIT_MS, this.#redis)
    for (let unit = 0; unit < units; unit++) {
      passTime(UNIT_MS, this.#redis)
      await this.#touch()
    }
  }

  /** Is in contact with the queues, and compares what is to come there. */
  async #touch (): Promise<void> {
    await this.#same('extend nothing', (_, store) => store.extend(QUEUES.map(queue => ({ queue, consumer: 'one', startedAt: 1, concurrency: 1, leases: [], heartbeatMs: 6 * UNIT_MS / 5, leaseMs: 6 * UNIT_MS }))))
  }

  #lease (queue: string, number: number): Each<Lease> | undefined {
    return this.#leases.get(queue)!.at(-1 - number)
  }

  /** Compares what the stores answer, errors included. */
  async #same<T> (what: string, ask: (name: string, store: Store) => Promise<T>): Promise<void> {
    const answers = await Promise.all(this.#stores.map(async ([name, store]) => {
      try {
        return [name, await ask(name, store)] as const
      } catch (error) {
        return [name, { error: (error as { code?: string }).code ?? String(error) }] as const
      }
    }))
    const paths = answers.flatMap(([, answer]) => {
      const path = differing(answers[0]![1], answer)
      return path === undefined ? [] : [path]
    })
    if (paths.length === 0) return
    const path = paths[0]!
    throw new Disagreement([what, ...path].join(', '), Object.fromEntries(answers.map(([name, answer]) => [name, valueAt(answer, path)])))
  }
}

const held = ({ id, fence }: Lease): Held => ({ id, fence })

/** Returns the present moment for 0, and otherwise a whole unit that comes after it, so that slots meet. */
const slotIn = (units: number): number =>
  units === 0 ? Date.now() : START_MS + (Math.floor((Date.now() - START_MS) / UNIT_MS) + units) * UNIT_MS

const ALL_SCHEDULES = { offset: 0, limit: 100 }

const namesOf = (tasks: readonly NewTask[]) => tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(({ queue, id }) => `${queue} ${id}`)

/** A fence is the store's own. */
const visible = ({ settled, leases, outlook, dropped }: TurnResult) => ({ settled, leases: leases.map(({ fence, ...rest }) => rest), outlook, dropped })

function settlementOf (lease: Lease, { verdict, delayMs = 0, lease: _, ...rest }: PlannedSettlement): Settlement {
  const reason = `${verdict} of ${lease.message}`
  const verdicts: Record<PlannedSettlement['verdict'], Verdict> = {
    done: { kind: 'done' },
    retry: { kind: 'retry', delayMs, reason },
    release: { kind: 'release' },
    unseen: { kind: 'release', unseen: true },
    defer: { kind: 'defer', delayMs, reason },
    busy: { kind: 'defer', delayMs, reason, busy: true },
    unrouted: { kind: 'defer', delayMs, reason, unrouted: true },
    dead: { kind: 'dead', reason }
  }
  return { lease: held(lease), verdict: verdicts[verdict], ...rest }
}

/** Times in which a millisecond or two are of no account. */
const ROUGH = new Set(['dueAt', 'startedAt', 'endedAt', 'wakeInMs', 'restMs'])

/** Returns the keys that lead to what differs, if anything does. */
function differing (one: unknown, other: unknown, path: readonly string[] = []): readonly string[] | undefined {
  // A store knows it by the last heartbeat of a consumer, and here all leases are extended by one name.
  if (one === other || path.at(-1) === 'consumer') return undefined
  if (typeof one === 'number' && typeof other === 'number' && ROUGH.has(path.at(-1)!) && one !== 0 && other !== 0 && Math.abs(one - other) <= 2) return undefined
  if (typeof one !== 'object' || typeof other !== 'object' || one === null || other === null) return path
  for (const key of new Set([...Object.keys(one), ...Object.keys(other)])) {
    const found = differing((one as Record<string, unknown>)[key], (other as Record<string, unknown>)[key], [...path, key])
    if (found !== undefined) return found
  }
  return undefined
}

const valueAt = (value: unknown, path: readonly string[]) => path.reduce((inner, key) => (inner as Record<string, unknown> | undefined)?.[key], value)
