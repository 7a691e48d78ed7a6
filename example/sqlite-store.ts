// A custom queue type, and the suite that shows that it is one.
//
//     npm run build && node build/example/sqlite-store.js
import { randomInt } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import {
  CANCELLED_MS, FORGET_CONSUMER_MS, HISTORY_MINUTES, RECORD_LIMIT, SHOWN_BYTES, SHOWN_LEASES, errorCodes, type Claim, type Counts, type Found, type Held, type History, type Holding, type Keep, type KeyView, type Lease, type NewTask,
  type News, type Order, type Outlook, type Prepared, type Presence, type Pulse, type QueueView, type ScheduleChange, type ScheduleList, type Settlement, type State, type Store, type Tick, type TickResult, type Turn, type TurnResult, type WhichSchedules
} from 'fastify-taskqueue'
import sqlite, { type Database } from 'node-sqlite3-wasm'
import { laneSchema, SqliteLanes } from './sqlite-lanes.js'
import { scheduleSchema, SqliteSchedules } from './sqlite-schedules.js'

/**
 * `position` gives the order in which tasks are claimed, in which leases expire together, and in which tasks have ended. `due` is 0 while a
 * task waits, the time until which it is delayed or leased, and null when it has ended, so
 * that the least tells when there is something to claim. A task expires at `expires`, until
 * an attempt at it counts, and is kept until `kept` when it has ended; null: for good. `next`
 * is what replaces a running task when its attempt has ended.
 *
 * A mark is something to remember for a while: that a queue is paused, an id is awaited or
 * keeps others out, or a lease was lost because its task was cancelled.
 */
const schema = `
  CREATE TABLE IF NOT EXISTS task (
    position INTEGER PRIMARY KEY,
    queue TEXT NOT NULL, id TEXT NOT NULL, message TEXT NOT NULL, priority INTEGER NOT NULL DEFAULT 1, key TEXT NOT NULL DEFAULT '',
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delayed', 'running', 'dead', 'done', 'cancelled', 'expired')),
    due INTEGER, expires INTEGER, ended INTEGER, kept INTEGER,
    fence INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
    deferredMs INTEGER NOT NULL DEFAULT 0, unroutedMs INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    records TEXT NOT NULL DEFAULT '[]', reason TEXT, progress TEXT, next TEXT, started INTEGER, consumer TEXT,
    UNIQUE (queue, id)
  );
  CREATE INDEX IF NOT EXISTS task_due ON task (queue, due);
  CREATE INDEX IF NOT EXISTS task_state ON task (queue, state, position);
  CREATE INDEX IF NOT EXISTS task_expires ON task (queue, expires);
  CREATE INDEX IF NOT EXISTS task_key ON task (queue, key, state, suspect, priority, position);
  CREATE TABLE IF NOT EXISTS task_mark (
    queue TEXT NOT NULL, kind TEXT NOT NULL CHECK (kind IN ('paused', 'awaited', 'deduped', 'cancelled')), name TEXT NOT NULL, until INTEGER NOT NULL,
    PRIMARY KEY (queue, kind, name)
  );
  ${laneSchema};
  ${scheduleSchema}`

const LEVELS = ['high', 'normal', 'low'] as const

const now = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
const last = '(SELECT max(position) + 1 FROM task)'
const first = '(SELECT min(position) - 1 FROM task)'
const one = 'queue = :queue AND id = :id'
const held = `${one} AND fence = :fence AND state = 'running'`
const record = (value: string) =>
  `records = json_insert(iif(json_array_length(records) < ${RECORD_LIMIT}, records, json_remove(records, '$[0]')), '$[#]', ${value})`
const ended = (state: State) => `state = '${state}', due = NULL, expires = NULL, next = NULL, progress = NULL, position = ${last}, ended = ${now}`
/** The state that is shown: what is delayed and has become due waits. */
const shown = `iif(state = 'delayed' AND due <= ${now}, 'waiting', state)`
const isKept = `(kept IS NULL OR kept > ${now})`
const order = {
  waiting: 'suspect DESC, due, iif(due = 0 AND suspect = 0, key, 0), iif(due = 0 AND suspect = 0, priority, 0), position', delayed: 'due, position', running: 'due, position', dead: 'position DESC', done: 'position DESC', cancelled: 'position DESC', expired: 'position DESC'
}

/** With all that it may cost once more. */
const pardoned = 'retries = 0, deaths = 0, suspect = 0, deferredMs = 0, unroutedMs = 0'

const deferred = `
  state = 'delayed', due = ${now} + :delayMs, position = ${last}, deferredMs = deferredMs + :delayMs, suspect = 0, reason = :reason`

const carryOut = {
  done: `${ended('done')}, kept = ${now} + :keptMs, message = '', reason = NULL`,
  /** Until all that a turn releases goes to the front. */
  release: "state = 'delayed'",
  retry: `state = 'delayed', due = ${now} + :delayMs, position = ${last}, retries = retries + 1, suspect = 0, reason = :reason`,
  defer: deferred,
  unrouted: `${deferred}, unroutedMs = unroutedMs + :delayMs`,
  dead: `${ended('dead')}, reason = :reason`,
  follow: `
    message = next->>'message', priority = next->>'priority', key = next->>'key', expires = next->>'expires', next = NULL, ${pardoned}, reason = NULL, progress = NULL, position = ${last},
    state = iif(next->>'due' > ${now}, 'delayed', 'waiting'), due = iif(next->>'due' > ${now}, next->>'due', 0)`
}

/**
 * Keeps tasks in a table next to the app's own ones: what an app adds within a transaction
 * of its database is committed with it, and rolled back with it.
 *
 * It serves the one process that has the file open. So watchers are functions, what is under
 * way to be committed is kept in memory, and leases go by the time of day: none can run out
 * because others lost touch with the store. Only a process that stands still for longer than
 * a lease may see its own tasks handed out again.
 */
export class SqliteStore implements Store {
  readonly #db: Database
  readonly #listeners = new Map<string, Array<(news: News) => void>>()
  /** How often something has happened in a minute, by queue, kind and minute. */
  readonly #happened = new Map<string, number>()
  /** The last heartbeats of the consumers of this process, and when they came. */
  readonly #consumers = new Map<string, { readonly holding: Holding, readonly at: number }>()
  /** Ids that a commit under way has taken, until it is concluded. */
  readonly #reserved = new Map<string, Promise<void>>()
  readonly #lanes = new SqliteLanes((sql, values) => this.#all(sql, values), (sql, values) => this.#run(sql, values))
  readonly #schedules = new SqliteSchedules((sql, values) => this.#all(sql, values), (sql, values) => this.#run(sql, values), {
    add: task => { this.#add([task], () => true) },
    isTaken: (queue, id) => this.#isTaken(queue, id),
    cancel: (queue, id, keep) => { this.#steer(queue, { kind: 'cancel', ids: [id], keep }) },
    isPaused: queue => this.#hasMark(queue, 'paused')
  })

  /** Leaves it to the app to close the database. */
  constructor (db: Database) {
    this.#db = db
  }

  async open (): Promise<void> {
    this.#db.exec(schema)
  }

  /** This process keeps what is prepared; that the database can be written to is vote enough. */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    this.#run('DELETE FROM task WHERE false')
    const named = tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(nameOf)
    for (let name; (name = named.find(name => this.#reserved.has(name))) !== undefined;) await this.#reserved.get(name)
    const isKeptOut = this.#decide(tasks)
    const taken = tasks.filter((_, index) => !isKeptOut[index])
    const free = this.#reserve(taken)
    return {
      keptOut: tasks.filter((_, index) => isKeptOut[index]).map(({ queue, id }) => ({ queue, id })),
      commit: async () => {
        try {
          this.#atomically(() => { this.#add(taken, ({ queue, id, onDuplicate }) => onDuplicate === 'replace' || !this.#isTaken(queue, id)) })
        } finally {
          free()
        }
      },
      rollback: free
    }
  }

  /** Whether each is kept out; throws if one is refused. */
  #decide (tasks: readonly NewTask[]): boolean[] {
    const names = new Set<string>()
    return tasks.map(task => {
      const name = nameOf(task)
      const isDuplicate = names.has(name) || this.#keepsOut(task)
      names.add(name)
      if (isDuplicate && task.onDuplicate === 'reject') throw new errorCodes.FST_TASKQUEUE_DUPLICATE(task.id)
      return isDuplicate && task.onDuplicate === 'keep'
    })
  }

  #reserve (tasks: readonly NewTask[]): () => void {
    const names = tasks.filter(({ onDuplicate }) => onDuplicate !== undefined).map(nameOf)
    let conclude: () => void
    const concluded = new Promise<void>(resolve => { conclude = resolve })
    for (const name of names) this.#reserved.set(name, concluded)
    return () => {
      for (const name of names) this.#reserved.delete(name)
      conclude()
    }
  }

  async turn (queue: string, { settlements, claim, keep, keepDead }: Turn): Promise<TurnResult> {
    return this.#atomically(() => {
      const released: string[] = []
      const wasShared = this.#lanes.isShared(queue)
      const isBlocked = wasShared && this.#outlook(queue).wakeInMs > 0
      if (wasShared) this.#lanes.refresh(queue, '')
      const followed: string[] = []
      const settled = settlements.map(settlement => this.#settle(queue, settlement, keep, released, followed))
      if (followed.length > 0) this.#lanes.refresh(queue, '')
      this.#moveEach(queue, followed, `UPDATE task SET ${carryOut.follow} WHERE ${one}`)
      this.#giveBack(queue, released)
      this.#add(settlements.flatMap(({ chain = [] }, index) => settled[index] === true ? chain : []), task => !this.#keepsOut(task))
      const isShared = this.#lanes.isShared(queue)
      const leases = claim === undefined ? [] : this.#claim(queue, claim, keep, isShared)
      this.#trim(queue, keep)
      const dropped = keepDead === undefined ? 0 : this.#dropDead(queue, keepDead)
      const outlook = this.#outlook(queue)
      // Others may wait for what this turn has made room for.
      if (isBlocked && outlook.wakeInMs === 0) this.#tell(queue, { kind: 'work' })
      return { settled, leases, outlook, ...dropped > 0 && { dropped }, ...isShared && { isShared: true } }
    })
  }

  #claim (queue: string, claim: Claim, keep: Keep, isShared: boolean): Lease[] {
    this.#sweep(queue, keep)
    if (isShared) {
      this.#lanes.refresh(queue, '')
      this.#lanes.sweep(queue)
    }
    if (this.#hasMark(queue, 'paused')) return []
    return isShared ? this.#claimShared(queue, claim) : this.#claimInOrder(queue, claim)
  }

  /** Claims tasks as levels, keys and limits have it. */
  #claimShared (queue: string, { limit, ahead = 0, alone, leaseMs }: Claim): Lease[] {
    const leases: Lease[] = []
    const most = Math.min(alone ? 1 : limit - ahead, this.#lanes.room(queue, alone).allowed)
    while (leases.length < most) {
      const key = alone ? undefined : this.#lanes.first(queue)
      if (!alone && key === undefined) break
      const id = key === undefined ? undefined : this.#lanes.pick(queue, key)
      const [lease] = this.#claimInOrder(queue, { limit: 1, alone, leaseMs }, id)
      if (lease === undefined) break
      leases.push(lease)
      const of = key ?? this.#keyOf(queue, lease.id)
      if (of !== '') this.#lanes.spend(queue, of, 1)
      this.#lanes.refresh(queue, of)
    }
    this.#lanes.spend(queue, '', leases.length)
    // They expire together, in this order.
    this.#each(queue, leases.map(({ id }) => id), `UPDATE task SET due = ${now} + :leaseMs, position = ${last} WHERE ${one}`, { leaseMs })
    return leases
  }

  #keyOf (queue: string, id: string): string {
    return this.#all<{ key: string }>(`SELECT key FROM task WHERE ${one}`, { queue, id })[0]?.key ?? ''
  }

  /** Has lanes put in line anew after tasks of theirs have moved. */
  #refresh (queue: string, ids: readonly string[]): void {
    const isShared = this.#lanes.isShared(queue)
    for (const key of ids.map(id => this.#keyOf(queue, id))) if (isShared || key !== '') this.#lanes.refresh(queue, key)
  }

  /** Claims the first tasks, or the given one. */
  #claimInOrder (queue: string, { limit, alone, leaseMs }: Claim, id: string | null = null): Lease[] {
    const rows = this.#all<Omit<Lease, 'fence' | 'suspect'> & { suspect: number }>(`
      SELECT id, message, attempt + 1 AS attempt, retries, deferredMs, unroutedMs, deaths, suspect
      FROM task WHERE queue = :queue AND due = 0 AND suspect = :suspect AND (:id IS NULL OR id = :id) ORDER BY position LIMIT :limit`,
    { queue, id, suspect: Number(alone), limit: alone ? 1 : limit })
    const fence = randomInt(2 ** 48 - 1)
    const leases = rows.map(row => ({ ...row, fence, suspect: row.suspect === 1 }))
    // In one statement, so that they expire together.
    this.#run(`UPDATE task SET state = 'running', due = ${now} + :leaseMs, fence = :fence, attempt = attempt + 1, started = ${now}, consumer = NULL
      WHERE queue = :queue AND id IN (SELECT value FROM json_each(:ids))`,
    { queue, leaseMs, fence, ids: JSON.stringify(leases.map(({ id }) => id)) })
    return leases
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    for (const holding of holdings) this.#consumers.set(`${holding.queue}\n${holding.consumer}`, { holding, at: performance.now() })
    return this.#atomically(() => holdings.map(({ queue, consumer, leases, leaseMs }) => {
      const lost = leases.filter(({ id, fence }) =>
        this.#run(`
          UPDATE task SET
            due = max(due, ${now} + :leaseMs), position = iif(due < ${now} + :leaseMs, ${last}, position), consumer = :consumer
          WHERE ${held}`, { queue, id, fence, leaseMs, consumer }) === 0)
      return {
        lost: lost.map(({ id }) => id),
        cancelled: lost.filter(lease => this.#hasMark(queue, 'cancelled', leaseOf(lease))).map(({ id }) => id),
        outlook: this.#outlook(queue)
      }
    }))
  }

  async watch (queue: string, listener: (news: News) => void): Promise<void> {
    this.#listeners.set(queue, [...this.#listeners.get(queue) ?? [], listener])
  }

  async counts (queues: readonly string[]): Promise<QueueView[]> {
    return await Promise.all(queues.map(async queue => {
      const first = this.#first(queue)
      const limits = this.#lanes.limitsOf(queue)
      const restMs = this.#lanes.restMs(queue)
      return {
        ...this.#count(queue),
        paused: this.#hasMark(queue, 'paused'),
        ...first !== undefined && { first },
        ...restMs > 0 && { restMs },
        ...limits !== undefined && { limits }
      }
    }))
  }

  async history (queues: readonly string[]): Promise<History[]> {
    return queues.map(queue => {
      const count = (kind: string) => Array.from({ length: HISTORY_MINUTES }, (_, index) =>
        this.#happened.get(`${queue} ${kind} ${minute() - HISTORY_MINUTES + 1 + index}`) ?? 0)
      return { done: count('done'), failed: count('failed') }
    })
  }

  async consumers (queues: readonly string[]): Promise<Presence[]> {
    const heard = [...this.#consumers.values()].map(({ holding: { leases, leaseMs, ...about }, at }) => ({
      ...about, silentMs: performance.now() - at, held: leases.length, taskIds: leases.slice(0, SHOWN_LEASES).map(({ id }) => id)
    }))
    return heard.filter(({ queue, silentMs }) => queues.includes(queue) && silentMs <= FORGET_CONSUMER_MS)
  }

  /** The task that would be claimed first. */
  #first (queue: string): Found | undefined {
    const [lane] = this.#all<{ key: string }>('SELECT key FROM task_lane WHERE queue = :queue AND class IS NOT NULL ORDER BY class, since LIMIT 1', { queue })
    const where = `queue = :queue AND ${shown} = 'waiting'`
    const all = this.#show(`${where} ORDER BY suspect DESC, due, iif(due > 0 OR suspect = 1, 0, key <> :key), iif(due > 0 OR suspect = 1, '', key), iif(due > 0 OR suspect = 1, 1, priority), position LIMIT 1`, { queue, key: lane?.key ?? '' })
    return all.map(({ consumer, isWhole, ...task }) => task)[0]
  }

  async keys (queue: string, after: string, limit: number): Promise<KeyView[]> {
    return this.#lanes.keys(queue, after, limit)
  }

  async schedules (queue: string, which: WhichSchedules): Promise<ScheduleList> {
    return this.#schedules.list(queue, which)
  }

  async plan (queue: string, changes: readonly ScheduleChange[], revision?: number): Promise<boolean> {
    const isPlanned = this.#atomically(() => this.#schedules.plan(queue, changes, revision))
    if (isPlanned && changes.length > 0) this.#tell(queue, { kind: 'work' })
    return isPlanned
  }

  async tick (queue: string, ticks: readonly Tick[], keep: Keep): Promise<TickResult[]> {
    return ticks.map(tick => this.#atomically(() => this.#schedules.tick(queue, tick, keep)))
  }

  #count (queue: string): Counts {
    const [counts] = this.#all<Counts>(`
      SELECT
        count(*) FILTER (WHERE ${shown} = 'waiting') AS waiting,
        count(*) FILTER (WHERE ${shown} = 'delayed') AS delayed,
        count(*) FILTER (WHERE state = 'running') AS running,
        count(*) FILTER (WHERE state = 'dead') AS dead
      FROM task WHERE queue = :queue`, { queue })
    return counts!
  }

  async find (queues: readonly string[], id: string, awaitMs = 0): Promise<Found | undefined> {
    for (const queue of queues) {
      const [found] = this.#show(`${one} AND ${isKept}`, { queue, id })
      if (found === undefined) continue
      if (awaitMs > 0 && found.endedAt === undefined) this.#mark(queue, 'awaited', id, awaitMs)
      return found
    }
    return undefined
  }

  async list (queue: string, state: State, offset: number, limit: number): Promise<readonly Found[]> {
    const found = this.#show(`queue = :queue AND ${shown} = :state AND ${isKept} ORDER BY ${order[state]} LIMIT :limit OFFSET :offset`, { queue, state, offset, limit })
    return found.map(({ consumer, isWhole, ...task }) => task)
  }

  async operate (queue: string, steering: Order): Promise<number> {
    const changed = this.#atomically(() => this.#steer(queue, steering))
    if (changed > 0 || ['resume', 'limit', 'limitKey', 'rest'].includes(steering.kind)) this.#tell(queue, { kind: 'work' })
    return changed
  }

  #steer (queue: string, steering: Order): number {
    this.#lanes.refresh(queue, '')
    switch (steering.kind) {
      case 'cancel': return this.#cancel(queue, steering.ids, steering.keep)
      case 'reschedule': return this.#reschedule(queue, steering.ids, dueOf(steering, Date.now()))
      case 'redrive': return this.#moveEach(queue, steering.ids ?? this.#deadIn(queue), `
        UPDATE task SET state = 'waiting', due = 0, ended = NULL, ${pardoned}, position = ${last} WHERE ${one} AND state = 'dead'`)
      case 'remove': return this.#each(queue, steering.ids ?? this.#deadIn(queue), `DELETE FROM task WHERE ${one} AND state = 'dead'`)
      case 'purge': return this.#purge(queue)
      case 'prioritize': return this.#prioritize(queue, steering.ids, LEVELS.indexOf(steering.priority))
      case 'limit':
        this.#lanes.setLimits(queue, '', steering.limits)
        return 0
      case 'limitKey':
        this.#lanes.setLimits(queue, steering.key, steering.limits)
        return 0
      case 'rest':
        this.#lanes.rest(queue, steering.key ?? '', steering.ms, false)
        return 0
      case 'pause':
        this.#mark(queue, 'paused')
        return 0
      case 'resume':
        this.#run("DELETE FROM task_mark WHERE queue = :queue AND kind = 'paused'", { queue })
        return 0
    }
  }

  #reschedule (queue: string, ids: readonly string[], due: number): number {
    const isLate = due > Date.now()
    let changed = 0
    for (const id of new Set(ids)) {
      const [task] = this.#all<{ state: State }>(`SELECT state FROM task WHERE ${one} AND state IN ('waiting', 'delayed') AND suspect = 0`, { queue, id })
      if (task === undefined) continue
      changed++
      // A waiting task that is due at once keeps its place in line.
      if (!isLate && task.state === 'waiting') continue
      this.#moveEach(queue, [id], `UPDATE task SET position = ${last}, state = :state, due = :due WHERE ${one}`,
        isLate ? { state: 'delayed', due } : { state: 'waiting', due: 0 })
    }
    return changed
  }

  #purge (queue: string): number {
    const keys = this.#all<{ key: string }>("SELECT DISTINCT key FROM task WHERE queue = :queue AND state IN ('waiting', 'delayed') ORDER BY key", { queue })
    const purged = this.#run("DELETE FROM task WHERE queue = :queue AND state IN ('waiting', 'delayed')", { queue })
    for (const { key } of keys) this.#lanes.refresh(queue, key)
    return purged
  }

  #prioritize (queue: string, ids: readonly string[], priority: number): number {
    let changed = 0
    for (const id of new Set(ids)) {
      const [task] = this.#all<{ state: State, suspect: number, priority: number }>(
        `SELECT state, suspect, priority FROM task WHERE ${one} AND state IN ('waiting', 'delayed', 'running')`, { queue, id })
      if (task === undefined) continue
      changed++
      if (task.priority === priority) continue
      const isInLine = task.state === 'waiting' && task.suspect === 0
      if (isInLine) this.#leave(queue, [id])
      this.#run(`UPDATE task SET priority = :priority WHERE ${one}`, { queue, id, priority })
      if (!isInLine) continue
      this.#run(`UPDATE task SET state = 'waiting', position = ${last} WHERE ${one}`, { queue, id })
      this.#refresh(queue, [id])
    }
    return changed
  }

  /** Takes tasks out of their lanes for the moment. */
  #leave (queue: string, ids: readonly string[]): void {
    if (!this.#lanes.isShared(queue)) return
    for (const id of ids) {
      this.#run(`UPDATE task SET state = 'delayed' WHERE ${one} AND state = 'waiting'`, { queue, id })
      this.#refresh(queue, [id])
    }
  }

  /** Changes tasks that may be in line or come into line. */
  #moveEach (queue: string, ids: readonly string[], sql: string, values: Values = {}): number {
    return [...new Set(ids)].reduce((changed, id) => {
      const moved = this.#run(sql, { queue, id, ...values })
      if (moved > 0) this.#refresh(queue, [id])
      return changed + moved
    }, 0)
  }

  #deadIn (queue: string): string[] {
    return this.#all<Held>("SELECT id FROM task WHERE queue = :queue AND state = 'dead' ORDER BY position", { queue }).map(({ id }) => id)
  }

  #cancel (queue: string, ids: readonly string[], keep: Keep): number {
    const cancelled = ids.filter(id => {
      const [lease] = this.#all<Held>(`SELECT id, fence FROM task WHERE ${one} AND state = 'running'`, { queue, id })
      if (lease !== undefined) {
        this.#mark(queue, 'cancelled', leaseOf(lease), CANCELLED_MS)
        this.#tell(queue, { kind: 'change' })
      }
      return this.#end(queue, id, 'cancelled', keep)
    })
    this.#trim(queue, keep)
    return cancelled.length
  }

  async setProgress (queue: string, { id, fence }: Held, progress: string): Promise<boolean> {
    return this.#run(`UPDATE task SET progress = :progress WHERE ${held}`, { queue, id, fence, progress }) > 0
  }

  async close (): Promise<void> {
    this.#listeners.clear()
  }

  #keepsOut ({ queue, id, onDuplicate }: NewTask): boolean {
    if (onDuplicate === 'replace') return false
    return this.#isTaken(queue, id) || (onDuplicate !== undefined && this.#hasMark(queue, 'deduped', id))
  }

  /** Whether it waits, is delayed, runs or is dead, except for one that the next turn finds expired. */
  #isTaken (queue: string, id: string): boolean {
    return this.#all(`
      SELECT 1 FROM task WHERE ${one} AND (state IN ('running', 'dead') OR state IN ('waiting', 'delayed') AND (expires IS NULL OR expires > ${now}))`,
    { queue, id }).length > 0
  }

  /** Adds tasks, one after the other; each takes the place of another one of its id, or follows that one if it runs. */
  #add (tasks: readonly NewTask[], isMeant: (task: NewTask) => boolean): void {
    for (const task of tasks) {
      if (!isMeant(task)) continue
      const { queue, id, message, expiresMs, priority = 'normal', key = '' } = task
      const lane = { priority: LEVELS.indexOf(priority), key }
      const time = Date.now()
      const due = dueOf(task, time)
      const expires = expiresMs === undefined ? null : Math.ceil(time + expiresMs)
      if (this.#run(`UPDATE task SET next = :next WHERE ${one} AND state = 'running'`, { queue, id, next: JSON.stringify({ message, due, expires, ...lane }) }) === 0) {
        const [{ key: before } = { key: '' }] = this.#all<{ key: string }>(`SELECT key FROM task WHERE ${one} AND state NOT IN ('done', 'cancelled', 'expired')`, { queue, id })
        const isShared = this.#lanes.isShared(queue)
        this.#run(`DELETE FROM task WHERE ${one}`, { queue, id })
        if (isShared || before !== '') this.#lanes.refresh(queue, before)
        this.#run('INSERT INTO task (queue, id, message, priority, key, state, due, expires) VALUES (:queue, :id, :message, :priority, :key, :state, :due, :expires)',
          { queue, id, message, ...lane, expires, ...due > time ? { state: 'delayed', due } : { state: 'waiting', due: 0 } })
        if (this.#lanes.isShared(queue)) {
          this.#lanes.refresh(queue, '')
          if (due <= time) this.#lanes.refresh(queue, key)
        }
      }
      this.#tell(queue, { kind: 'work' })
    }
  }

  /** Says whether the lease was held; what is to be given back is added to `released`, and what is replaced to `followed`. */
  #settle (queue: string, { lease: { id, fence }, verdict, record: text, dedupeMs = 0 }: Settlement, keep: Keep, released: string[], followed: string[]): boolean {
    const [row] = this.#all<{ next: string | null }>(`SELECT next FROM task WHERE ${held}`, { queue, id, fence })
    if (row === undefined) return false
    const { kind, unseen, unrouted, busy, ...rest } = { unseen: false, unrouted: false, busy: false, ...verdict }
    const isShared = this.#lanes.isShared(queue)
    this.#run(`UPDATE task SET state = 'delayed' WHERE ${one}`, { queue, id })
    if (isShared) this.#refresh(queue, [id])
    if (unseen) {
      for (const key of new Set(['', this.#keyOf(queue, id)])) this.#lanes.spend(queue, key, -1)
      this.#refresh(queue, [id])
    }
    const rests = busy && this.#rest(queue, id, (verdict as { delayMs: number }).delayMs)
    if (text !== undefined) this.#run(`UPDATE task SET ${record(':text')} WHERE ${one}`, { queue, id, text })
    this.#run(`UPDATE task SET ${unseen || unrouted ? 'attempt = attempt - 1' : 'expires = NULL'} WHERE ${one}`, { queue, id })
    if (row.next !== null) {
      followed.push(id)
    } else {
      this.#run(`UPDATE task SET ${carryOut[unrouted ? 'unrouted' : kind]} WHERE ${one}`, { queue, id, ...rest, ...kind === 'done' ? { keptMs: keep.ms } : {} })
      if (kind !== 'release' && kind !== 'defer') this.#note(queue, kind === 'done' ? 'done' : 'failed')
      if (kind === 'done' && dedupeMs > 0) this.#mark(queue, 'deduped', id, dedupeMs)
      if (kind === 'done' || kind === 'dead') this.#tellEnd(queue, id)
      if (kind === 'release' || rests) released.push(id)
    }
    if (isShared) this.#refresh(queue, [id])
    this.#tell(queue, { kind: 'work' })
    return true
  }

  /** Has the key of a task rest, or if it has none the queue, if that has limits. */
  #rest (queue: string, id: string, ms: number): boolean {
    const key = this.#keyOf(queue, id)
    if (key === '' && this.#lanes.limitsOf(queue) === undefined) return false
    this.#lanes.rest(queue, key, ms, true)
    return true
  }

  #note (queue: string, kind: string): void {
    const name = `${queue} ${kind} ${minute()}`
    this.#happened.set(name, (this.#happened.get(name) ?? 0) + 1)
    for (const old of this.#happened.keys()) {
      if (Number(old.split(' ')[2]) > minute() - HISTORY_MINUTES) break
      this.#happened.delete(old)
    }
  }

  /** To the front, the first of them foremost. */
  #giveBack (queue: string, ids: readonly string[]): void {
    this.#moveEach(queue, ids.toReversed(), `UPDATE task SET state = 'waiting', due = 0, position = ${first} WHERE ${one}`)
  }

  /** Ends a task that has not been settled. */
  #end (queue: string, id: string, state: 'cancelled' | 'expired', { ms }: Keep): boolean {
    const isEnded = this.#run(`UPDATE task SET ${ended(state)}, kept = ${now} + :ms WHERE ${one} AND state IN ('waiting', 'delayed', 'running')`, { queue, id, ms }) > 0
    if (isEnded) {
      this.#tellEnd(queue, id)
      this.#refresh(queue, [id])
    }
    return isEnded
  }

  /** Does what time demands: leases expire, tasks expire or become due. */
  #sweep (queue: string, keep: Keep): void {
    const leased = this.#all<{ id: string, next: string | null }>(`
      SELECT id, next FROM task WHERE queue = :queue AND state = 'running' AND due <= ${now} ORDER BY due, position`, { queue })
    const abandoned = leased.map(({ id }) => id)
    for (const { id, next } of leased) {
      const before = this.#keyOf(queue, id)
      this.#run(`
        UPDATE task SET
          state = 'waiting', due = 0, expires = NULL, deaths = deaths + suspect, suspect = 1, ${record('NULL')},
          message = coalesce(next->>'message', message), priority = coalesce(next->>'priority', priority), key = coalesce(next->>'key', key),
          retries = iif(next IS NULL, retries, 0), deferredMs = iif(next IS NULL, deferredMs, 0), unroutedMs = iif(next IS NULL, unroutedMs, 0), next = NULL
        WHERE ${one}`, { queue, id })
      // The task that follows may have another key or level.
      if (next !== null && this.#lanes.isShared(queue)) {
        const after = this.#keyOf(queue, id)
        for (const key of after === '' ? [before, ''] : ['', before, after]) this.#lanes.refresh(queue, key)
      }
    }
    // They count as running, as they did before.
    this.#each(queue, abandoned.toReversed(), `UPDATE task SET position = ${first} WHERE ${one}`)
    const expired = this.#all<{ id: string }>(`
      SELECT id FROM task WHERE queue = :queue AND state IN ('waiting', 'delayed') AND expires <= ${now} ORDER BY expires, position`, { queue })
    for (const { id } of expired) this.#end(queue, id, 'expired', keep)
    const due = this.#all<{ id: string }>(`
      SELECT id FROM task WHERE queue = :queue AND state = 'delayed' AND due <= ${now} ORDER BY due, position`, { queue })
    this.#moveEach(queue, due.map(({ id }) => id), `UPDATE task SET state = 'waiting', due = 0, position = ${last} WHERE ${one}`)
  }

  /** Forgets what has ended too long ago. */
  #trim (queue: string, { count, ms }: Keep): void {
    const states = "'done', 'cancelled', 'expired'"
    this.#run(`
      DELETE FROM task WHERE queue = :queue AND state IN (${states}) AND position <= (
        SELECT position FROM task WHERE queue = :queue AND state IN (${states}) ORDER BY position DESC LIMIT 1 OFFSET :count)`, { queue, count })
    this.#run(`DELETE FROM task WHERE queue = :queue AND (kept <= ${now} OR kept IS NOT NULL AND ended <= ${now} - :ms)`, { queue, ms })
    this.#run(`DELETE FROM task_mark WHERE queue = :queue AND until <= ${now}`, { queue })
  }

  /** Drops the oldest dead letters, and returns how many. */
  #dropDead (queue: string, { count, ms }: Keep): number {
    return this.#run(`
      DELETE FROM task WHERE position IN (
        SELECT position FROM (
          SELECT position, ended, row_number() OVER (ORDER BY position DESC) AS rank FROM task WHERE queue = :queue AND state = 'dead')
        WHERE rank > :count OR ended <= ${now} - :ms ORDER BY position LIMIT 1000)`,
    { queue, count: Math.min(count, 2 ** 52), ms: Math.min(ms, 2 ** 52) })
  }

  #outlook (queue: string): Outlook {
    if (this.#hasMark(queue, 'paused')) return { wakeInMs: Infinity, suspects: false }
    const isShared = this.#lanes.isShared(queue)
    const [row] = this.#all<{ ms: number | null, suspects: number }>(`
      SELECT max(0, min(due) FILTER (WHERE due > 0 OR NOT :isShared) - ${now}) AS ms, count(*) FILTER (WHERE suspect = 1 AND due = 0) AS suspects
      FROM task WHERE queue = :queue`, { queue, isShared: Number(isShared) })
    const { ms, suspects } = { ms: row?.ms ?? Infinity, suspects: row?.suspects ?? 0 }
    const claimableInMs = isShared ? this.#lanes.claimableInMs(queue, suspects) : Infinity
    const slotInMs = this.#schedules.slotInMs(queue)
    return {
      wakeInMs: Math.max(0, Math.min(ms, Math.ceil(claimableInMs))),
      suspects: suspects > 0,
      ...slotInMs < Infinity && { slotInMs }
    }
  }

  #show (where: string, values: Values): Found[] {
    const rows = this.#all<Row>(`
      SELECT queue, id, ${shown} AS state, message, priority, key, due AS dueAt, ended AS endedAt, attempt, reason, progress, records, started, consumer FROM task WHERE ${where}`, values)
    return rows.map(({ message, priority, key, dueAt, endedAt, reason, progress, records, started, consumer, ...row }) => ({
      ...row,
      message: row.state === 'done' ? undefined : message,
      ...!['done', 'cancelled', 'expired'].includes(row.state) && {
        ...priority !== 1 && { priority: LEVELS[priority as 0 | 2] },
        ...key !== '' && { key }
      },
      dueAt: row.state === 'delayed' ? dueAt : undefined,
      endedAt: endedAt ?? undefined,
      isWhole: ['done', 'cancelled', 'expired'].includes(row.state) || Buffer.byteLength(message) > SHOWN_BYTES ? undefined : true,
      ...row.state === 'running' && { startedAt: started!, consumer: consumer ?? undefined },
      reason: reason ?? undefined,
      progress: progress ?? undefined,
      records: (JSON.parse(records) as Array<string | null>).map(text => text ?? undefined)
    }))
  }

  /** Remembers it for so long, or for good. */
  #mark (queue: string, kind: string, name = '', ms = 2 ** 52): void {
    this.#run(`
      INSERT INTO task_mark (queue, kind, name, until) VALUES (:queue, :kind, :name, ${now} + :ms)
      ON CONFLICT DO UPDATE SET until = max(until, excluded.until)`, { queue, kind, name, ms })
  }

  #hasMark (queue: string, kind: string, name = ''): boolean {
    return this.#all(`SELECT 1 FROM task_mark WHERE queue = :queue AND kind = :kind AND name = :name AND until > ${now}`, { queue, kind, name }).length > 0
  }

  #tellEnd (queue: string, id: string): void {
    if (this.#hasMark(queue, 'awaited', id)) this.#tell(queue, { kind: 'ended', id })
  }

  /** Tells them later, when the transaction has ended. */
  #tell (queue: string, news: News): void {
    setImmediate(() => { for (const listener of this.#listeners.get(queue) ?? []) listener(news) })
  }

  /** Works in a savepoint, which is a transaction, or a part of the app's. */
  #atomically<T> (work: () => T): T {
    this.#db.exec('SAVEPOINT taskqueue')
    try {
      const result = work()
      this.#db.exec('RELEASE taskqueue')
      return result
    } catch (error) {
      // After some errors, such as a full disk, SQLite has rolled back by itself.
      if (this.#db.inTransaction) this.#db.exec('ROLLBACK TO taskqueue; RELEASE taskqueue')
      throw error
    }
  }

  /** Changes one after the other, so that each takes a position of its own; returns how many it has changed. */
  #each (queue: string, ids: readonly string[], sql: string, values: Values = {}): number {
    return [...new Set(ids)].reduce((changed, id) => changed + this.#run(sql, { queue, id, ...values }), 0)
  }

  #run (sql: string, values: Values = {}): number {
    return this.#db.run(sql, named(values)).changes
  }

  #all<Row> (sql: string, values: Values): Row[] {
    return this.#db.all(sql, named(values)) as Row[]
  }
}

const minute = () => Math.floor(Date.now() / 60_000)

/** There is no newline in an id. */
const nameOf = ({ queue, id }: NewTask) => `${queue}\n${id}`
const leaseOf = ({ id, fence }: Held) => `${fence} ${id}`

function dueOf ({ delayMs = 0, runAt }: Pick<NewTask, 'delayMs' | 'runAt'>, time: number): number {
  return Math.ceil(runAt ?? time + delayMs)
}

interface Row extends Pick<Found, 'queue' | 'id' | 'state' | 'attempt'> {
  readonly message: string
  readonly priority: number
  readonly key: string
  readonly dueAt: number
  readonly endedAt: number | null
  readonly reason: string | null
  readonly progress: string | null
  readonly records: string
  readonly started: number | null
  readonly consumer: string | null
}

type Values = Record<string, string | number | null>

const named = (values: Values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [`:${name}`, value]))

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  // Only this program needs the suite. An app that uses the store does not load it.
  const { storeConformance } = await import('fastify-taskqueue/conformance')
  for (const { title, run } of storeConformance(() => new SqliteStore(new sqlite.Database()))) {
    await run()
    console.log(`ok – ${title}`)
  }
}
