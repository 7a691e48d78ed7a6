// A custom queue type, and the suite that shows that it is one.
//
//     npm run build && node build/example/sqlite-store.js
import { randomInt } from 'node:crypto'
import { pathToFileURL } from 'node:url'
import {
  DEAD_LIMIT, storeConformance, type Counts, type Holding, type Lease, type NewTask, type Outlook, type Prepared, type Pulse, type Settlement,
  type Store, type Turn, type TurnResult
} from 'fastify-taskqueue'
import sqlite, { type Database } from 'node-sqlite3-wasm'

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
    fence INTEGER NOT NULL DEFAULT 0, attempt INTEGER NOT NULL DEFAULT 0, retries INTEGER NOT NULL DEFAULT 0, deaths INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    reason TEXT,
    UNIQUE (queue, id)
  );
  CREATE INDEX IF NOT EXISTS task_due ON task (queue, due)`

const now = "CAST(round(unixepoch('subsec') * 1000) AS INTEGER)"
const last = '(SELECT max(position) + 1 FROM task)'
const held = "queue = :queue AND id = :id AND fence = :fence AND state = 'running'"

const carryOut = {
  done: 'DELETE FROM task',
  // It still has the position of a task that was first in line.
  release: "UPDATE task SET state = 'waiting', due = 0",
  unseen: "UPDATE task SET state = 'waiting', due = 0, attempt = attempt - 1",
  retry: `UPDATE task SET state = 'delayed', due = ${now} + :delayMs, retries = retries + 1, suspect = 0, reason = :reason`,
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

  /** This process keeps what is prepared; that the database can be written to is vote enough. */
  async prepare (tasks: readonly NewTask[]): Promise<Prepared> {
    this.#run('DELETE FROM task WHERE false')
    return {
      commit: async () => { this.#atomically(() => { this.#add(tasks) }) },
      rollback () {}
    }
  }

  async turn (queue: string, { settlements, limit, alone, leaseMs }: Turn): Promise<TurnResult> {
    return this.#atomically(() => {
      const settled = settlements.map(settlement => this.#settle(queue, settlement))
      this.#sweep(queue)
      const rows = this.#all<Omit<Lease, 'fence' | 'suspect'> & { suspect: number }>(`
        SELECT id, message, attempt + 1 AS attempt, retries, deaths, suspect
        FROM task WHERE queue = :queue AND due = 0 AND suspect = :suspect ORDER BY position LIMIT :limit`,
      { queue, suspect: Number(alone), limit: alone ? Math.min(limit, 1) : limit })
      const fence = randomInt(2 ** 48 - 1)
      const leases = rows.map(row => ({ ...row, fence, suspect: row.suspect === 1 }))
      // In one statement, so that they expire together.
      this.#run(`
        UPDATE task SET state = 'running', due = ${now} + :leaseMs, fence = :fence, attempt = attempt + 1
        WHERE queue = :queue AND id IN (SELECT value FROM json_each(:ids))`, { queue, leaseMs, fence, ids: JSON.stringify(leases.map(({ id }) => id)) })
      return { settled, leases, outlook: this.#outlook(queue) }
    })
  }

  async extend (holdings: readonly Holding[]): Promise<Pulse[]> {
    return this.#atomically(() => holdings.map(({ queue, leases, leaseMs }) => ({
      lost: leases.map(({ id, fence }) => ({ queue, id, fence, leaseMs }))
        .filter(lease => this.#run(`UPDATE task SET due = max(due, ${now} + :leaseMs) WHERE ${held}`, lease) === 0)
        .map(({ id }) => id),
      outlook: this.#outlook(queue)
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
    const time = Date.now()
    for (const { queue, id, message, delayMs = 0, runAt = time + delayMs } of tasks) {
      const [state, due] = runAt > time ? ['delayed', runAt] : ['waiting', 0]
      this.#run("DELETE FROM task WHERE queue = :queue AND id = :id AND state = 'dead'", { queue, id })
      this.#run(`
        INSERT INTO task (queue, id, message, state, due) VALUES (:queue, :id, :message, :state, :due)
        ON CONFLICT (queue, id) DO NOTHING`, { queue, id, message, state, due })
      this.#wake(queue)
    }
  }

  #settle (queue: string, { lease: { id, fence }, verdict, chain = [] }: Settlement): boolean {
    const { kind, unseen, ...rest } = { unseen: false, ...verdict }
    if (this.#run(`${carryOut[unseen ? 'unseen' : kind]} WHERE ${held}`, { queue, id, fence, ...rest }) === 0) return false
    this.#add(chain)
    if (kind === 'release' || kind === 'retry') this.#wake(queue)
    return true
  }

  /** Does what time demands: leases expire, delayed tasks become due, old dead letters go. */
  #sweep (queue: string): void {
    this.#run(`
      UPDATE task SET state = 'waiting', due = 0, deaths = deaths + suspect, suspect = 1
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

  #outlook (queue: string): Outlook {
    const [row] = this.#all<{ ms: number | null, suspects: number }>(`
      SELECT max(0, min(due) - ${now}) AS ms, count(*) FILTER (WHERE suspect = 1 AND due = 0) AS suspects
      FROM task WHERE queue = :queue`, { queue })
    return { wakeInMs: row?.ms ?? Infinity, suspects: row !== undefined && row.suspects > 0 }
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

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  for (const { title, run } of storeConformance(() => new SqliteStore(new sqlite.Database()))) {
    await run()
    console.log(`ok – ${title}`)
  }
}
