import { createError } from '@fastify/error'

/** The plugin or a function was given an option that it does not have, or a value that the option does not accept. */
export const FST_TASKQUEUE_INVALID_OPTION = createError<[string, string, string]>(
  'FST_TASKQUEUE_INVALID_OPTION', "Option '%s' must be %s, got %s", 500, TypeError
)
/** The plugin is registered in this app already. One registration serves all of the app. */
export const FST_TASKQUEUE_ALREADY_REGISTERED = createError<[]>(
  'FST_TASKQUEUE_ALREADY_REGISTERED',
  'The plugin is registered in this app already: register it once, at the root, with all of its queues',
  500
)
/** No queue of that name is registered in this process. */
export const FST_TASKQUEUE_UNKNOWN_QUEUE = createError<[string, string]>(
  'FST_TASKQUEUE_UNKNOWN_QUEUE', 'Queue %s is not registered, these are: %s', 500
)
/** The url is not a path of this app, or it is too long. */
export const FST_TASKQUEUE_INVALID_URL = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_URL', 'The url of a task must be %s, got %s', 500, TypeError
)
/** A task cannot have this method. */
export const FST_TASKQUEUE_INVALID_METHOD = createError<[string]>(
  'FST_TASKQUEUE_INVALID_METHOD', 'The method of a task must be GET, POST, PUT, PATCH or DELETE, got %s', 500, TypeError
)
/** The header cannot be sent, or the queue sets it and the caller may not. */
export const FST_TASKQUEUE_INVALID_HEADER = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_HEADER', 'Header %s of a task %s', 500, TypeError
)
/** The payload cannot be turned into bytes, or the current request's body cannot be copied. */
export const FST_TASKQUEUE_INVALID_PAYLOAD = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_PAYLOAD', 'The payload of a task must be %s, got %s', 500, TypeError
)
/** A route made with `app.task` does not take this task: a schema refuses its input, or its url does not lead there. */
export const FST_TASKQUEUE_INVALID_INPUT = createError<[string, string, string]>(
  'FST_TASKQUEUE_INVALID_INPUT', 'A task for %s %s cannot be added: %s', 500, TypeError
)
/** The message of the task is longer than `maxPayloadBytes`. */
export const FST_TASKQUEUE_PAYLOAD_TOO_LARGE = createError<[number, number]>(
  'FST_TASKQUEUE_PAYLOAD_TOO_LARGE',
  'The message of a task must be at most %s bytes (maxPayloadBytes), got %s',
  500, RangeError
)
/** The messages of one commit are too large together. */
export const FST_TASKQUEUE_TOO_LARGE = createError<[number, number]>(
  'FST_TASKQUEUE_TOO_LARGE',
  'The messages of one commit must be at most %s characters together, got %s',
  500, RangeError
)
/** The task did not end within the time that `wait` was given. */
export const FST_TASKQUEUE_TIMEOUT = createError<[string, number]>(
  'FST_TASKQUEUE_TIMEOUT', 'Task %s has not ended within %s ms', 504
)
/** As many calls of `wait` are under way as one process takes. */
export const FST_TASKQUEUE_TOO_MANY_WAITS = createError<[number]>(
  'FST_TASKQUEUE_TOO_MANY_WAITS', 'At most %s calls can wait for the ends of tasks at the same time', 503
)
/** The app is closing, which ends every `wait`. */
export const FST_TASKQUEUE_CLOSING = createError<[]>(
  'FST_TASKQUEUE_CLOSING', 'The app is closing and no longer waits for tasks', 503
)
/**
 * `delayMs` or `runAt` is not a time, is too far ahead, or both are given.
 * A client often chooses it, so the status says that the client is wrong.
 */
export const FST_TASKQUEUE_INVALID_DELAY = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_DELAY', 'The delay of a task must be %s, got %s', 400, RangeError
)
/** The id cannot travel in a header. A client often chooses it, so the status says that the client is wrong. */
export const FST_TASKQUEUE_INVALID_ID = createError<[string]>(
  'FST_TASKQUEUE_INVALID_ID',
  'The id of a task must be 1 to 255 printable ASCII characters without spaces, got %s',
  400, TypeError
)
/** A key is no text that every store can keep. A client may have chosen it, so the status blames the client. */
export const FST_TASKQUEUE_INVALID_KEY = createError<[string]>(
  'FST_TASKQUEUE_INVALID_KEY',
  'The key of a task must be 1 to 255 printable ASCII characters, without spaces at its ends, or a number, got %s',
  400, TypeError
)
/** The queue has a task with this id, and `onDuplicate` is `'reject'`. */
export const FST_TASKQUEUE_DUPLICATE = createError<[string]>(
  'FST_TASKQUEUE_DUPLICATE',
  'A task with the id %s is already waiting, delayed, running or dead, or was done a moment ago',
  409
)
/** A schedule was given what it cannot take, or is declared elsewhere. A client may have made it, as above. */
export const FST_TASKQUEUE_INVALID_SCHEDULE = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_SCHEDULE', 'Schedule %s: %s', 400, TypeError
)
/** `user.id` returned something that cannot travel in a header. */
export const FST_TASKQUEUE_INVALID_USER_ID = createError<[string]>(
  'FST_TASKQUEUE_INVALID_USER_ID',
  "Option 'user.id' must return 1 to 255 printable ASCII characters, or nothing, got %s",
  500, TypeError
)
/** The transaction has added as many tasks as it may. The option `maxTasksPerRequest` limits only those of requests. */
export const FST_TASKQUEUE_TOO_MANY = createError<[number]>(
  'FST_TASKQUEUE_TOO_MANY',
  'One transaction can add at most %s tasks (maxTasksPerRequest sets this limit for requests only)',
  500, RangeError
)
/**
 * A task adds a task that adds a task, and so on, and the chain has become too long.
 * If a task answers with this error, its status is final: the task becomes a dead letter.
 */
export const FST_TASKQUEUE_TOO_DEEP = createError<[number]>(
  'FST_TASKQUEUE_TOO_DEEP',
  'Tasks may add tasks in chains of %s (maxDepth), and this task is the last of its chain',
  422, RangeError
)
/** The transaction has ended, so a task added now could not be queued with it. */
export const FST_TASKQUEUE_CLOSED = createError<[]>(
  'FST_TASKQUEUE_CLOSED',
  'Nothing can be added: the transaction has ended. The transaction of a request ends once its response is on its way',
  500
)
/** An earlier savepoint was rolled back, or the transaction was committed or rolled back since. */
export const FST_TASKQUEUE_INVALID_SAVEPOINT = createError<[]>(
  'FST_TASKQUEUE_INVALID_SAVEPOINT',
  'The savepoint is gone: an earlier one was rolled back, or its tasks were committed',
  500
)
/**
 * The tasks could not be stored and will not run. A request that added them has failed.
 * The `cause` says why; the message does not, since the client need not know.
 */
export const FST_TASKQUEUE_COMMIT_FAILED = createError<[]>(
  'FST_TASKQUEUE_COMMIT_FAILED', 'The tasks could not be queued', 503
)
/** Fastify handles replies in a way that this library does not know, so it cannot tell when a reply is final. */
export const FST_TASKQUEUE_UNSUPPORTED_FASTIFY = createError<[string]>(
  'FST_TASKQUEUE_UNSUPPORTED_FASTIFY',
  'Fastify %s sends replies in a way that this version of fastify-taskqueue does not know',
  500
)
/** The store of a queue cannot be used now. Clients see no address: only the message of the `cause` names it. */
export const FST_TASKQUEUE_UNREACHABLE = createError<[string, string]>(
  'FST_TASKQUEUE_UNREACHABLE', '%s cannot be used as a task queue: %s', 503
)
/** The message is damaged, was made by a newer release, or was made with none of `secrets`. */
export const FST_TASKQUEUE_UNREADABLE = createError<[string]>(
  'FST_TASKQUEUE_UNREADABLE', 'The message of the task is unreadable: %s', 500
)
/** `verifyTask` was given an ordinary request. */
export const FST_TASKQUEUE_NOT_A_TASK = createError<[]>(
  'FST_TASKQUEUE_NOT_A_TASK', 'The request is not a task', 401
)
/** `verifyTask` was given a task that nobody in particular queued. */
export const FST_TASKQUEUE_NO_USER = createError<[]>(
  'FST_TASKQUEUE_NO_USER', 'The task was queued by no user', 401
)
/** `verifyTask` was given a task whose user `user.load` no longer knows. */
export const FST_TASKQUEUE_USER_GONE = createError<[]>(
  'FST_TASKQUEUE_USER_GONE', 'The user who queued the task no longer exists', 401
)
/** Somebody may not do this with the dashboard: its option `authorize` says so. */
export const FST_TASKQUEUE_FORBIDDEN = createError<[string]>(
  'FST_TASKQUEUE_FORBIDDEN', 'You may not %s', 403
)
/** A page of another site has sent a form to the dashboard, or it cannot be told which page has. */
export const FST_TASKQUEUE_CROSS_SITE = createError<[]>(
  'FST_TASKQUEUE_CROSS_SITE',
  'Only a page of this app may do that. Behind a proxy that changes the host, Fastify needs its option trustProxy',
  403
)
/** An action of the dashboard that cannot be undone has to be confirmed with the name of the queue. */
export const FST_TASKQUEUE_NOT_CONFIRMED = createError<[string]>(
  'FST_TASKQUEUE_NOT_CONFIRMED', 'To confirm it, write the name of the queue: %s', 400
)
