import type { Database } from 'node-sqlite3-wasm'
import { DEAD_LIMIT } from '../lib/store.js'
import type { Counts, Holding, Lease, NewTask, Pulse, Settlement, Store, Turn, TurnResult } from '../lib/store.js'

/**
 * `position` gives the order in which tasks are claimed, and died. `due` is 0 while a task
 * waits, the time until which it is delayed or leased, and null when it is dead, so that
 * the least tells when there is something to claim.
 */
const schema = `
  CREATE TABLE IF NOT EXISTS task (
    position INTEGER PRIMARY KEY,
    queue TEXT NOT NULL, id TEXT NOT NULL, message TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('waiting', 'delayed', 'running', 'dead')),
    due INTEGER,
    attempt INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    UNIQUE (queue, id)
  );
  CREATE INDEX IF NOT EXISTS task_due ON task (queue, due)`

const now = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
const last = '(SELECT max(position) + 1 FROM task)'
const held = "queue = :queue AND id = :id AND attempt = :attempt AND state = 'running'"

const carryOut = {
  done: 'DELETE FROM task',
  // It still has the position of a task that was first in line.
  release: "UPDATE task SET state = 'waiting', due = 0",
  retry: `UPDATE task SET state = 'delayed', due = ${now} + :delayMs, retries = retries + 1, reason = :reason`,
  dead: `UPDATE task SET state = 'dead', due = NULL, position = ${last}, reason = :reason`
}

/**
 * Keeps tasks in a table next to the app's own ones: what an app adds within a transaction
 * of its database is committed with it, and rolled back with it.
 *
 * It serves the one process that has the file open. So watchers are functions, and leases
 * go by the time of day: none can run out because others lost touch with the store. Only a
 * process that stands still for longer than a lease may see its own tasks handed out again.
 */
export class SqliteStore implements Store {
  readonly #db: Database
  readonly #watchers = new Map<string, Array<() => void>>()

  /** Leaves it to the app to close the database. */
  constructor (db: Database) {
    this.#db = db
  }

  async open (): Promise<void> {
    this.#db.exec(schema)
  }

  async vote (): Promise<void> {
    this.#run('DELETE FROM task WHERE false')
  }

  async add (tasks: readonly NewTask[]): Promise<void> {
    this.#atomically(() => { this.#add(tasks) })
  }

  async turn (queue: string, { settlements, limit, leaseMs }: Turn): Promise<TurnResult> {
    return this.#atomically(() => {
      const settled = settlements.map(settlement => this.#settle(queue, settlement))
      this.#sweep(queue)
      const leases = this.#all<Lease>(`
        SELECT id, message, attempt + 1 AS attempt, retries, deaths
        FROM task WHERE queue = :queue AND due = 0 ORDER BY position LIMIT :limit`, { queue, limit })
      for (const { id } of leases) {
        this.#run(`
          UPDATE task SET state = 'running', due = ${now} + :leaseMs, attempt = attempt + 1
          WHERE queue = :queue AND id = :id`, { queue, id, leaseMs })
      }
      return { settled, leases, wakeInMs: this.#wakeInMs(queue) }
    })
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    return this.#atomically(() => holdings.map(({ queue, leases, leaseMs }) => ({
      lost: leases.map(({ id, attempt }) => ({ queue, id, attempt, leaseMs }))
        .filter(lease => this.#run(`UPDATE task SET due = max(due, ${now} + :leaseMs) WHERE ${held}`, lease) === 0)
        .map(({ id }) => id),
      wakeInMs: this.#wakeInMs(queue)
    })))
  }

  async watch (queue: string, wake: () => void): Promise<void> {
    this.#watchers.set(queue, [...this.#watchers.get(queue) ?? [], wake])
  }

  async counts (queue: string): Promise<Counts> {
    return this.#all<Counts>(`
      SELECT
        count(*) FILTER (WHERE state = 'waiting' OR state = 'delayed' AND due <= ${now}) AS waiting,
        count(*) FILTER (WHERE state = 'delayed' AND due > ${now}) AS delayed,
        count(*) FILTER (WHERE state = 'running') AS running,
        count(*) FILTER (WHERE state = 'dead') AS dead
      FROM task WHERE queue = :queue`, { queue })[0]!
  }

  async purge (queue: string): Promise<number> {
    return this.#run("DELETE FROM task WHERE queue = :queue AND state IN ('waiting', 'delayed')", { queue })
  }

  async close (): Promise<void> {
    this.#watchers.clear()
  }

  #add (tasks: readonly NewTask[]): void {
    for (const { queue, id, message, delayMs = 0, runAt = Date.now() + delayMs } of tasks) {
      const [state, due] = runAt > Date.now() ? ['delayed', runAt] : ['waiting', 0]
      this.#run("DELETE FROM task WHERE queue = :queue AND id = :id AND state = 'dead'", { queue, id })
      this.#run(`
        INSERT INTO task (queue, id, message, state, due) VALUES (:queue, :id, :message, :state, :due)
        ON CONFLICT (queue, id) DO NOTHING`, { queue, id, message, state, due })
      this.#wake(queue)
    }
  }

  #settle (queue: string, { lease: { id, attempt }, verdict: { kind, ...rest }, chain = [] }: Settlement): boolean {
    if (this.#run(`${carryOut[kind]} WHERE ${held}`, { queue, id, attempt, ...rest }) === 0) return false
    this.#add(chain)
    if (kind === 'release' || kind === 'retry') this.#wake(queue)
    return true
  }

  /** Does what time demands: leases expire, delayed tasks become due, old dead letters go. */
  #sweep (queue: string): void {
    this.#run(`
      UPDATE task SET state = 'waiting', due = 0, deaths = deaths + 1
      WHERE queue = :queue AND state = 'running' AND due <= ${now}`, { queue })
    const due = this.#all<{ id: string }>(`
      SELECT id FROM task WHERE queue = :queue AND state = 'delayed' AND due <= ${now} ORDER BY due, position`, { queue })
    for (const { id } of due) {
      this.#run(`UPDATE task SET state = 'waiting', due = 0, position = ${last} WHERE queue = :queue AND id = :id`, { queue, id })
    }
    this.#run(`
      DELETE FROM task WHERE queue = :queue AND state = 'dead' AND position <= (
        SELECT position FROM task WHERE queue = :queue AND state = 'dead' ORDER BY position DESC LIMIT 1 OFFSET ${DEAD_LIMIT})`, { queue })
  }

  #wakeInMs (queue: string): number {
    const sql = `SELECT max(0, min(due) - ${now}) AS ms FROM task WHERE queue = :queue`
    return this.#all<{ ms: number | null }>(sql, { queue })[0]?.ms ?? Infinity
  }

  /** Wakes them later, when the transaction has ended. */
  #wake (queue: string): void {
    setImmediate(() => { for (const wake of this.#watchers.get(queue) ?? []) wake() })
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

  #run (sql: string, values: Values = {}): number {
    return this.#db.run(sql, named(values)).changes
  }

  #all<Row> (sql: string, values: Values): Row[] {
    return this.#db.all(sql, named(values)) as Row[]
  }
}

type Values = Record<string, string | number>

const named = (values: Values) => Object.fromEntries(Object.entries(values).map(([name, value]) => [`:${name}`, value]))
