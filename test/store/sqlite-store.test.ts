import sqlite from 'node-sqlite3-wasm'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t from 'tap'
import { SqliteStore } from '../../example/sqlite-store.js'
import { storeConformance } from '../../lib/store/conformance/index.js'
import type { NewTask } from '../../lib/store/tasks.js'
import type { Settlement } from '../../lib/store/turn.js'

const file = join(t.testdir(), 'app.db')

function openDatabase (path: string) {
  const db = new sqlite.Database(path)
  t.teardown(() => { if (db.isOpen) db.close() })
  return db
}

const task = (id: string, rest: Partial<NewTask> = {}): NewTask => ({ queue: 'mail', id, message: `message of ${id}`, ...rest })
const turn = (store: SqliteStore, settlements: Settlement[], limit: number, leaseMs = 60_000, alone = false) =>
  store.turn('mail', {
    settlements, heartbeatMs: leaseMs / 5, claim: limit > 0 ? { limit, alone, leaseMs } : undefined, keep: { count: 100, ms: 60_000 }
  })
const add = async (store: SqliteStore, tasks: NewTask[]) => { await (await store.prepare(tasks)).commit() }

for (const [place, path] of [['memory', ':memory:'], ['a file', file]] as const) {
  for (const { title, run } of storeConformance(() => new SqliteStore(openDatabase(path)))) t.test(`in ${place}, ${title}`, run)
}

t.test('keeps tasks and what it has counted when the file is closed', async t => {
  const before = openDatabase(file)
  const first = new SqliteStore(before)
  await first.open()
  await add(first, ['dead', 'retried', 'running', 'waiting'].map(id => task(id)))
  const { leases: [dead, retried] } = await turn(first, [], 2)
  await turn(first, [
    { lease: dead!, verdict: { kind: 'dead', reason: '500' } },
    { lease: retried!, verdict: { kind: 'retry', delayMs: 60_000, reason: '503' } }
  ], 1, 100)
  await first.operate('mail', { kind: 'pause' })
  await first.close()
  before.close()

  const after = openDatabase(file)
  const second = new SqliteStore(after)
  await second.open()
  t.match((await second.counts(['mail']))[0], { waiting: 1, delayed: 1, running: 1, dead: 1, paused: true })
  t.same((await turn(second, [], 2)).leases, [])
  await second.operate('mail', { kind: 'resume' })
  t.same(after.all("SELECT id, reason FROM task WHERE queue = 'mail' AND reason IS NOT NULL ORDER BY id"),
    [{ id: 'dead', reason: '500' }, { id: 'retried', reason: '503' }])
  t.match((await turn(second, [], 2)).leases, [{ id: 'waiting', attempt: 1 }])
  let { leases, outlook } = await turn(second, [], 1, 60_000, true)
  while (leases.length === 0) {
    await setTimeout(outlook.wakeInMs);
    ({ leases, outlook } = await turn(second, [], 1, 60_000, true))
  }
  t.match(leases, [{ id: 'running', message: 'message of running', attempt: 2, retries: 0, deaths: 0, suspect: true }])
  await second.close()
})

t.test("adds within the app's transaction, and all or nothing", async t => {
  const db = openDatabase(':memory:')
  const store = new SqliteStore(db)
  await store.open()
  db.exec('BEGIN')
  await add(store, [task('a')])
  db.exec('ROLLBACK')
  t.match((await store.counts(['mail']))[0], { waiting: 0 })
  db.exec("CREATE TRIGGER full BEFORE INSERT ON task WHEN new.id = 'c' BEGIN SELECT RAISE(ABORT, 'full'); END")
  db.exec('BEGIN')
  await add(store, [task('a')])
  await t.rejects(add(store, [task('b'), task('c')]), { message: 'full' })
  db.exec('COMMIT')
  t.match((await turn(store, [], 2)).leases, [{ id: 'a' }])
  await store.close()
})
