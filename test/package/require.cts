// The package in CommonJS, as a user's TypeScript sees it.
import Fastify = require('fastify')
import taskqueue = require('fastify-taskqueue')
import sameTaskqueue from 'fastify-taskqueue'

const app = Fastify()
app.register(taskqueue, { queues: { default: {} } })
app.register(sameTaskqueue)
app.register(taskqueue.default, { prefix: 'jobs' })
app.register(taskqueue.taskqueue)
// @ts-expect-error: it has no such option
app.register(taskqueue, { queue: 'default' })

const options: taskqueue.TaskqueueOptions = { redis: 'redis://localhost' }
const isRefused = (error: unknown) => error instanceof taskqueue.errorCodes.FST_TASKQUEUE_INVALID_OPTION
const status: taskqueue.TaskStatus | undefined = undefined
const route: taskqueue.TaskRoute<{ payload: string }> | undefined = undefined

app.get('/', async request => request.taskqueue.add('/task', { payload: [options, isRefused(0), status, route] }))
