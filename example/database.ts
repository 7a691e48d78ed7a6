// An order and the task that ships it stand or fall together.
//
//     npm run build && node build/example/database.js
import { setTimeout } from 'node:timers/promises'
import { pathToFileURL } from 'node:url'
import Fastify, { type FastifyInstance, type FastifyRequest } from 'fastify'
import taskqueue, { type TaskqueueOptions } from 'fastify-taskqueue'
import sqlite from 'node-sqlite3-wasm'

export async function build (options: TaskqueueOptions = {}): Promise<FastifyInstance> {
  const db = new sqlite.Database()
  db.exec('CREATE TABLE "order" (id INTEGER PRIMARY KEY, item TEXT NOT NULL, shipped INTEGER NOT NULL DEFAULT 0)')

  // A connection has one transaction at a time, so requests take turns. With a pool each would take a connection.
  let lastTurn = Promise.resolve()

  /** Begins a transaction that is committed just before the tasks of the request are queued, or rolled back when they are not. */
  async function transaction (request: FastifyRequest): Promise<void> {
    let endTurn!: () => void
    const begun = lastTurn.then(() => { db.exec('BEGIN') })
    lastTurn = new Promise(resolve => { endTurn = resolve })
    const end = async (sql: string) => {
      await begun
      db.exec(sql)
      endTurn()
    }
    request.taskqueue.join({ commit: () => end('COMMIT'), rollback: () => end('ROLLBACK') })
    await begun
  }

  const app = Fastify()
  await app.register(taskqueue, options)
  app.get('/orders', { preHandler: transaction }, async () => db.all('SELECT * FROM "order"'))
  app.post<{ Body: { item: string } }>('/orders', { preHandler: transaction }, async (request, reply) => {
    const { lastInsertRowid: id } = db.run('INSERT INTO "order" (item) VALUES (?)', request.body.item)
    request.taskqueue.add('/orders/ship', { payload: { id } })
    if (request.body.item === 'the moon') throw new Error('the moon is not for sale')
    return reply.code(202).send({ id })
  })

  app.post<{ Body: { id: number } }>('/orders/ship', { constraints: { taskOnly: true }, preHandler: transaction }, async (request, reply) => {
    const { changes } = db.run('UPDATE "order" SET shipped = 1 WHERE id = ?', request.body.id)
    return reply.code(changes === 1 ? 204 : 404).send()
  })
  return app
}

if (import.meta.url === pathToFileURL(process.argv[1] ?? '').href) {
  const app = await build()
  const order = async (item: string) => (await app.inject({ method: 'POST', url: '/orders', payload: { item } })).json()
  console.log('ordering a lamp:  ', await order('a lamp'))
  console.log('ordering the moon:', await order('the moon'))
  let orders: Array<{ shipped: number }>
  do {
    await setTimeout(10)
    orders = (await app.inject('/orders')).json()
  } while (orders[0]?.shipped === 0)
  console.log('a moment later:   ', orders)
  await app.close()
}
