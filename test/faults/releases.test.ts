import { Redis } from 'ioredis'
import t, { type Test } from 'tap'
import type { NewTask, TaskqueueOptions } from '../../lib/index.js'
import { RedisStore } from '../../lib/store/redis/store.js'
import { addTo } from '../support/add-to.js'
import { loggedApp } from '../support/logged-app.js'

import { RecordingStore } from '../support/recording-store.js'
import { startRedis } from '../support/redis-server.js'
import { until } from '../support/until.js'
import { NOTHING } from '../support/nothing.js'

t.setTimeout(300_000)

const secret = 'a secret of at least 32 bytes, of which all releases know'

const releases: Array<[title: string, options: TaskqueueOptions, renew: (message: string) => string]> = [
  ['legible', {}, message => message.replace('{', '{"v":2,"priority":"höchste",')],
  ['sealed', { secrets: secret }, message => message.replace(/^s1\./, 's2.')]
]

for (const [title, options, renew] of releases) {
  t.test(`of a thousand ${title} messages every other is of a newer release: it is a dead letter, kept byte for byte and never run, and the others run in order`, async t => {
    const { path } = await startRedis(t)
    const { app, log } = await loggedApp(t, { redis: { path }, consumer: { leaseMs: 500 }, ...options })
    const runs: string[] = []
    app.get('/', async ({ task }) => {
      runs.push(task!.id)
      return {}
    })
    await app.ready()

    // What another process of that release would add.
    const store = new RedisStore({ path }, 'taskqueue', 10_000)
    t.teardown(() => store.close())
    await store.open()
    const readable = await tasksOf(t, options, Array.from({ length: 1000 }, (_, index) => `${index % 2 === 0 ? 'old' : 'new'}-${index}`))
    const tasks = readable.map(task => task.id.startsWith('new') ? { ...task, message: renew(task.message) } : task)
    await addTo(store, tasks)
    const idsOf = (word: string) => tasks.map(({ id }) => id).filter(id => id.startsWith(word))
    await until(async () => {
      const { waiting, running } = (await store.counts(['default']))[0]!
      return waiting + running === 0
    }, 'the queue is drained', 60_000)
    t.match((await store.counts(['default']))[0], { ...NOTHING, dead: 500 })
    t.strictSame(runs, idsOf('old'))

    const admin = new Redis({ path })
    t.teardown(() => { admin.disconnect() })
    t.strictSame(await admin.zrange('taskqueue:{default}:dead', '0', '-1'), idsOf('new'))
    const kept = await admin.hgetallBuffer('taskqueue:{default}:message')
    t.equal(Object.keys(kept).length, 500)
    t.not(tasks[1]!.message, readable[1]!.message)
    t.strictSame(tasks.filter(({ id, message }) => id.startsWith('new') && !kept[id]!.equals(Buffer.from(message))), [])
    t.strictSame(log.filter(({ msg }) => msg === 'task is dead before it was attempted').map(({ taskId }) => taskId), idsOf('new'))
    if (title === 'legible') t.match(await admin.hget('taskqueue:{default}:attempts', 'new-1'), /its version is 2, and this release reads 1/)

    // The id of a dead letter can be taken by another task.
    await addTo(store, [{ ...readable[1]!, onDuplicate: 'replace' }])
    await until(() => runs.length === 501)
    t.equal(runs.at(-1), 'new-1')
    await until(async () => (await store.counts(['default']))[0]!.running === 0)
    t.match((await store.counts(['default']))[0], { ...NOTHING, dead: 499 })
  })
}

/** Returns tasks as an app with these options stores them. */
async function tasksOf (t: Test, options: TaskqueueOptions, ids: readonly string[]): Promise<readonly NewTask[]> {
  const store = new RecordingStore()
  const { app } = await loggedApp(t, { ...options, queues: { default: { type: () => store, consumer: false } } })
  await app.ready()
  for (const id of ids) await app.taskqueue.add('/', { id })
  return store.batches.flat()
}
