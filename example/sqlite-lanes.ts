// The part of the store in SQLite that knows levels, keys and limits.
import type { KeyLimits, KeyView, Limits, Rate } from 'fastify-taskqueue'

/**
 * The lanes of a queue, one for each key, and `''` for tasks without one. `class` is how many tasks of a lane run, and
 * null if nothing of it may be claimed; `since` is its place among the lanes of its class; `arrival` is when its next
 * attempt would be due if all were evenly spaced, and in the lane `''` that of the queue; `paced` and `rests` are until
 * when its rate, or a rest, allows no claim.
 */
export const laneSchema = `
  CREATE TABLE IF NOT EXISTS task_lane (
    queue TEXT NOT NULL, key TEXT NOT NULL,
    class INTEGER, since INTEGER, claims INTEGER NOT NULL DEFAULT 0, arrival REAL NOT NULL DEFAULT 0, paced REAL NOT NULL DEFAULT 0,
    rests INTEGER NOT NULL DEFAULT 0, limits TEXT,
    PRIMARY KEY (queue, key)
  );
  CREATE INDEX IF NOT EXISTS task_lane_class ON task_lane (queue, class, since)`

type Values = Record<string, string | number | null>
type All = <Row>(sql: string, values: Values) => Row[]
type Run = (sql: string, values: Values) => number

interface Row { class: number | null, claims: number, arrival: number, paced: number, rests: number, limits: string | null }

const living = "state IN ('waiting', 'delayed', 'running', 'dead')"
const inLine = "queue = :queue AND key = :key AND state = 'waiting' AND suspect = 0"
const held = "queue = :queue AND (state = 'running' OR state = 'waiting' AND suspect = 1)"
const ofLane = 'queue = :queue AND key = :key'

/** Decides which tasks may be claimed, as `Store` says. A task of the level high has priority 0, and one of low has 2. */
export class SqliteLanes {
  readonly #all: All
  readonly #run: Run

  constructor (all: All, run: Run) {
    this.#all = all
    this.#run = run
  }

  isShared (queue: string): boolean {
    return this.#all(`
      SELECT 1 WHERE EXISTS (SELECT 1 FROM task WHERE queue = :queue AND (key <> '' OR priority <> 1) AND ${living})
        OR EXISTS (SELECT 1 FROM task_lane WHERE queue = :queue AND (limits IS NOT NULL OR rests > 0 OR claims > 0))`, { queue }).length > 0
  }

  limitsOf (queue: string): Limits | undefined {
    return limitsIn(this.#lane(queue, ''))
  }

  restMs (queue: string): number {
    return Math.max(0, this.#lane(queue, '').rests - Date.now())
  }

  setLimits (queue: string, key: string, limits: Limits | undefined): void {
    const isNone = limits === undefined || (key === '' && Object.keys(limits).length === 0)
    this.#run(`
      INSERT INTO task_lane (queue, key, limits) VALUES (:queue, :key, :limits) ON CONFLICT DO UPDATE SET limits = excluded.limits`,
    { queue, key, limits: isNone ? null : JSON.stringify(limits) })
    const paced = this.#endPaces(queue, 2 ** 52)
    const own = this.#all<{ key: string }>(`
      SELECT key FROM task_lane WHERE queue = :queue AND limits IS NOT NULL AND key <> '' ORDER BY rowid`, { queue })
    for (const each of [...paced, '', ...own.map(({ key }) => key), key]) this.refresh(queue, each)
  }

  /** Has a key rest, or as `''` the queue: for so long at least, or exactly. */
  rest (queue: string, key: string, ms: number, isAtLeast: boolean): void {
    const until = ms === 0 && !isAtLeast ? 0 : Math.ceil(Date.now() + ms)
    this.#run(`
      INSERT INTO task_lane (queue, key, rests) VALUES (:queue, :key, :until)
      ON CONFLICT DO UPDATE SET rests = ${isAtLeast ? 'max(rests, excluded.rests)' : 'excluded.rests'}`, { queue, key, until })
    this.refresh(queue, key)
  }

  /** Puts a lane behind the others of its class, unless it is there already. */
  refresh (queue: string, key: string): void {
    const lane = this.#lane(queue, key)
    const isEmpty = this.#all(`SELECT 1 FROM task WHERE ${inLine} LIMIT 1`, { queue, key }).length === 0
    const place = isEmpty ? null : this.#classOf(queue, key, lane)
    if (isEmpty) this.#run(`UPDATE task_lane SET claims = 0 WHERE ${ofLane}`, { queue, key })
    if (place === lane.class) return
    this.#run(`
      INSERT INTO task_lane (queue, key, class, since) VALUES (:queue, :key, :place, (
        SELECT coalesce(max(since), 0) + 1 FROM task_lane WHERE queue = :queue AND class = :place))
      ON CONFLICT DO UPDATE SET class = excluded.class, since = excluded.since`, { queue, key, place })
  }

  /** Ends rests that are over, and forgets lanes of which nothing is left to know. */
  sweep (queue: string): void {
    const now = Date.now()
    const paced = this.#endPaces(queue, now)
    const rested = this.#all<{ key: string }>(`
      SELECT key FROM task_lane WHERE queue = :queue AND rests > 0 AND rests <= :now ORDER BY rests, key`, { queue, now })
    this.#run('UPDATE task_lane SET rests = 0 WHERE queue = :queue AND rests <= :now', { queue, now })
    for (const key of [...paced, ...rested.map(({ key }) => key)]) this.refresh(queue, key)
    this.#run(`
      DELETE FROM task_lane WHERE queue = :queue AND class IS NULL AND claims = 0 AND arrival <= :now AND paced = 0 AND rests = 0 AND limits IS NULL`, { queue, now })
  }

  #endPaces (queue: string, until: number): string[] {
    const paced = this.#all<{ key: string }>(`
      SELECT key FROM task_lane WHERE queue = :queue AND paced > 0 AND paced <= :until ORDER BY paced, key`, { queue, until })
    this.#run('UPDATE task_lane SET paced = 0 WHERE queue = :queue AND paced <= :until', { queue, until })
    return paced.map(({ key }) => key)
  }

  /** How many tasks the limits of the queue allow to claim, and in how many milliseconds the next one. */
  room (queue: string, isAlone: boolean): { readonly allowed: number, readonly inMs: number } {
    const { rests, limits } = this.#lane(queue, '')
    const { running: most = Infinity, rate }: Limits = limitsIn({ limits }) ?? {}
    const { due, allowed } = this.#next(queue, '', rate)
    const [{ count } = { count: 0 }] = this.#all<{ count: number }>(
      `SELECT count(*) AS count FROM task WHERE ${held} AND (state = 'running' OR NOT :isAlone)`, { queue, isAlone: Number(isAlone) })
    const free = most - count
    if (free <= 0) return { allowed: 0, inMs: Infinity }
    const now = Date.now()
    return { allowed: rests > now ? 0 : Math.min(free, allowed), inMs: Math.max(0, Math.max(rests, due) - now) }
  }

  /** Returns the lane to claim from next; undefined if there is none. */
  first (queue: string): string | undefined {
    const { running = 2 ** 31 } = this.limitsOf(queue)?.perKey ?? {}
    const [first] = this.#all<{ key: string }>(`
      SELECT key FROM task_lane WHERE queue = :queue AND class < :running ORDER BY class, since LIMIT 1`, { queue, running })
    return first?.key
  }

  /** Returns the id of the task of a lane that is to be claimed next. */
  pick (queue: string, key: string): string {
    const levels = this.#all<{ priority: number }>(`SELECT DISTINCT priority FROM task WHERE ${inLine} ORDER BY priority`, { queue, key })
    const claims = levels.length > 1 ? (this.#lane(queue, key).claims + 1) % 8 : 0
    this.#run(`UPDATE task_lane SET claims = :claims WHERE ${ofLane}`, { queue, key, claims })
    const level = levels.length === 1 ? 0 : claims === 0 ? -1 : claims === 4 && levels.length === 3 ? 1 : 0
    const [task] = this.#all<{ id: string }>(`
      SELECT id FROM task WHERE ${inLine} AND priority = :priority ORDER BY position LIMIT 1`, { queue, key, priority: levels.at(level)!.priority })
    return task!.id
  }

  /** Counts attempts that begin now; `''` stands for the queue. */
  spend (queue: string, key: string, count: number): void {
    const rate = key === '' ? this.limitsOf(queue)?.rate : this.#rateOf(queue, key)
    if (rate === undefined || count === 0) return
    this.#run(`
      INSERT INTO task_lane (queue, key, arrival) VALUES (:queue, :key, :arrival) ON CONFLICT DO UPDATE SET arrival = excluded.arrival`,
    { queue, key, arrival: this.#arrivalOf(queue, key, rate) + count * spacing(rate).intervalMs })
  }

  /** In how many milliseconds something that waits may be claimed; Infinity if nothing is known to come. */
  claimableInMs (queue: string, suspects: number): number {
    const { inMs } = this.room(queue, suspects > 0)
    if (suspects > 0 || this.first(queue) !== undefined) return inMs
    const [soonest] = this.#all<{ at: number | null }>(`
      SELECT min(min(iif(paced > 0, paced, 2 * 9e15), iif(rests > 0, rests, 2 * 9e15))) AS at FROM task_lane WHERE queue = :queue AND key <> ''`, { queue })
    const at = soonest?.at ?? Infinity
    return Math.max(inMs, (at > 9e15 ? Infinity : at) - Date.now())
  }

  keys (queue: string, after: string, limit: number): KeyView[] {
    const rows = this.#all<{ key: string, waiting: number, running: number }>(`
      SELECT key, count(*) FILTER (WHERE state = 'waiting' AND suspect = 0) AS waiting, count(*) FILTER (WHERE ${held}) AS running
      FROM task WHERE queue = :queue AND key > :after GROUP BY key HAVING waiting + running > 0 ORDER BY key LIMIT :limit`, { queue, after, limit })
    return rows.map(({ key, waiting, running }) => {
      const lane = this.#lane(queue, key)
      const limits: KeyLimits | undefined = limitsIn(lane)
      const until = Math.max(lane.rests, lane.paced)
      return { key, waiting, running, restMs: Math.max(0, Math.ceil(until - Date.now())), ...limits !== undefined && { limits } }
    })
  }

  /** From when on a rate allows the next attempt, and how many it allows now. */
  #next (queue: string, key: string, rate: Rate | undefined): { readonly due: number, readonly allowed: number } {
    if (rate === undefined) return { due: 0, allowed: Infinity }
    const { intervalMs, toleranceMs } = spacing(rate)
    const due = this.#arrivalOf(queue, key, rate) - toleranceMs
    return { due, allowed: Math.max(0, Math.floor((Date.now() - due) / intervalMs) + 1) }
  }

  /** A time that is too far ahead comes from another rate. It is corrected once, and not whenever somebody asks. */
  #arrivalOf (queue: string, key: string, rate: Rate): number {
    const { intervalMs, toleranceMs } = spacing(rate)
    const { arrival } = this.#lane(queue, key)
    const latest = Date.now() + toleranceMs + intervalMs
    if (arrival > latest) this.#run(`UPDATE task_lane SET arrival = :latest WHERE ${ofLane}`, { queue, key, latest })
    return Math.max(Date.now(), Math.min(arrival, latest))
  }

  #classOf (queue: string, key: string, { rests, limits }: Row): number | null {
    const common = this.limitsOf(queue)?.perKey ?? {}
    const own = key === '' ? {} : limitsIn({ limits })
    if (key !== '' && rests > Date.now()) return null
    const { due } = this.#next(queue, key, key === '' ? undefined : (own ?? common).rate)
    if (due > Date.now()) {
      this.#run(`UPDATE task_lane SET paced = :due WHERE ${ofLane}`, { queue, key, due })
      return null
    }
    const [{ running } = { running: 0 }] = this.#all<{ running: number }>(`SELECT count(*) AS running FROM task WHERE ${held} AND key = :key`, { queue, key })
    if (own === undefined) return running
    if (own.running !== undefined && running >= own.running) return null
    return common.running === undefined ? running : Math.min(running, common.running - 1)
  }

  #rateOf (queue: string, key: string): Rate | undefined {
    return (limitsIn(this.#lane(queue, key)) ?? this.limitsOf(queue)?.perKey)?.rate
  }

  #lane (queue: string, key: string): Row {
    const [row] = this.#all<Row>(`SELECT class, claims, arrival, paced, rests, limits FROM task_lane WHERE ${ofLane}`, { queue, key })
    return row ?? { class: null, claims: 0, arrival: 0, paced: 0, rests: 0, limits: null }
  }
}

function limitsIn ({ limits }: Pick<Row, 'limits'>): Limits | undefined {
  return limits === null ? undefined : JSON.parse(limits) as Limits
}

function spacing ({ max, ms, burst = 1 }: Rate): { readonly intervalMs: number, readonly toleranceMs: number } {
  const intervalMs = Math.ceil(ms * 1000 / max) / 1000
  return { intervalMs, toleranceMs: (burst - 1) * intervalMs }
}
