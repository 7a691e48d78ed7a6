import { createError } from '@fastify/error'

/** The plugin, or `add`, was given an option that it does not have or a value that the option does not take. */
export const FST_TASKQUEUE_INVALID_OPTION = createError<[string, string, string]>(
  'FST_TASKQUEUE_INVALID_OPTION', "Option '%s' must be %s, got %s", 500, TypeError
)
/** No queue of that name is registered. */
export const FST_TASKQUEUE_UNKNOWN_QUEUE = createError<[string, string]>(
  'FST_TASKQUEUE_UNKNOWN_QUEUE', 'Queue %s is not registered, these are: %s', 500
)
/** The url is not a path of this app. */
export const FST_TASKQUEUE_INVALID_URL = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_URL', 'The url of a task must be %s, got %s', 500, TypeError
)
/** The method is none that a task can have. */
export const FST_TASKQUEUE_INVALID_METHOD = createError<[string]>(
  'FST_TASKQUEUE_INVALID_METHOD', 'The method of a task must be GET, POST, PUT, PATCH or DELETE, got %s', 500, TypeError
)
/** A header cannot be sent, or is not the caller's to set. */
export const FST_TASKQUEUE_INVALID_HEADER = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_HEADER', 'Header %s of a task %s', 500, TypeError
)
/** The payload cannot be turned into bytes. */
export const FST_TASKQUEUE_INVALID_PAYLOAD = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_PAYLOAD', 'The payload of a task must be %s, got %s', 500, TypeError
)
/** A route does not take what a task is given for it: the schema of its body, query or params says so, or its url. */
export const FST_TASKQUEUE_INVALID_INPUT = createError<[string, string, string]>(
  'FST_TASKQUEUE_INVALID_INPUT', 'A task for %s %s cannot be added: %s', 500, TypeError
)
/** The task is larger than `maxPayloadBytes`. */
export const FST_TASKQUEUE_PAYLOAD_TOO_LARGE = createError<[number, number]>(
  'FST_TASKQUEUE_PAYLOAD_TOO_LARGE', 'The message of a task must be at most %s bytes (maxPayloadBytes), got %s', 500, RangeError
)
/** The tasks of one commit are too large together. */
export const FST_TASKQUEUE_TOO_LARGE = createError<[number, number]>(
  'FST_TASKQUEUE_TOO_LARGE', 'The messages of one commit must be at most %s characters together, got %s', 500, RangeError
)
/** Nothing has ended within the time for which it was waited. */
export const FST_TASKQUEUE_TIMEOUT = createError<[string, number]>(
  'FST_TASKQUEUE_TIMEOUT', 'Task %s has not ended within %s ms', 504
)
/** More calls wait for the ends of tasks than one process takes. */
export const FST_TASKQUEUE_TOO_MANY_WAITS = createError<[number]>(
  'FST_TASKQUEUE_TOO_MANY_WAITS', 'At most %s calls can wait for the ends of tasks at the same time', 503
)
/** The app closes, and nothing is waited for any longer. */
export const FST_TASKQUEUE_CLOSING = createError<[]>(
  'FST_TASKQUEUE_CLOSING', 'The app closes and waits for no task', 503
)
/** The time at which to run is no time, or too far away. It is often the client's choice, and so the client's error. */
export const FST_TASKQUEUE_INVALID_DELAY = createError<[string, string]>(
  'FST_TASKQUEUE_INVALID_DELAY', 'The delay of a task must be %s, got %s', 400, RangeError
)
/** The id cannot travel in a header. It is often the client's choice, and so the client's error. */
export const FST_TASKQUEUE_INVALID_ID = createError<[string]>(
  'FST_TASKQUEUE_INVALID_ID', 'The id of a task must be 1 to 255 printable ASCII characters without spaces, got %s', 400, TypeError
)
/** A task of this id is there already, and the caller would rather fail than add no other. */
export const FST_TASKQUEUE_DUPLICATE = createError<[string]>(
  'FST_TASKQUEUE_DUPLICATE', 'A task with the id %s waits, is delayed, runs or is dead already, or was done a moment ago', 409
)
/** `user.id` returned something that cannot travel in a header. */
export const FST_TASKQUEUE_INVALID_USER_ID = createError<[string]>(
  'FST_TASKQUEUE_INVALID_USER_ID', "Option 'user.id' must return 1 to 255 printable ASCII characters, or nothing, got %s", 500, TypeError
)
/** The request, or its transaction, has added as many tasks as one may. */
export const FST_TASKQUEUE_TOO_MANY = createError<[number]>(
  'FST_TASKQUEUE_TOO_MANY', 'A request may add %s tasks (maxTasksPerRequest), and has', 500, RangeError
)
/** The task was added by a task that was added by a task, and so on, too often: as the answer of a task it is final. */
export const FST_TASKQUEUE_TOO_DEEP = createError<[number]>(
  'FST_TASKQUEUE_TOO_DEEP', 'Tasks may add tasks in chains of %s (maxDepth), and this one is the last', 422, RangeError
)
/** The response of this request is decided: a task added now could not be queued with it. */
export const FST_TASKQUEUE_CLOSED = createError<[]>(
  'FST_TASKQUEUE_CLOSED', 'Nothing can be added once the transaction has ended, which is when the response is on its way', 500
)
/** The savepoint was rolled back over, or its transaction has moved on. */
export const FST_TASKQUEUE_INVALID_SAVEPOINT = createError<[]>(
  'FST_TASKQUEUE_INVALID_SAVEPOINT', 'The savepoint is gone: an earlier one was rolled back, or its tasks were committed', 500
)
/** The tasks of this request could not be stored, so the request failed. The `cause` says why; whoever made the request need not know. */
export const FST_TASKQUEUE_COMMIT_FAILED = createError<[]>(
  'FST_TASKQUEUE_COMMIT_FAILED', 'The tasks of this request could not be queued', 503
)
/** Fastify does not handle replies as this library knows it, so it cannot tell when they are final. */
export const FST_TASKQUEUE_UNSUPPORTED_FASTIFY = createError<[string]>(
  'FST_TASKQUEUE_UNSUPPORTED_FASTIFY', 'Fastify %s sends replies in a way that this version of fastify-taskqueue does not know', 500
)
/** The store of a queue cannot be used now. What reaches clients names no address: that is in the message of the `cause`. */
export const FST_TASKQUEUE_UNREACHABLE = createError<[string, string]>(
  'FST_TASKQUEUE_UNREACHABLE', '%s cannot be used as a task queue: %s', 503
)
/** The message was not made with any of `secrets`, or it is damaged. */
export const FST_TASKQUEUE_UNREADABLE = createError<[string]>(
  'FST_TASKQUEUE_UNREADABLE', 'The message of the task is unreadable: %s', 500
)
/** `verifyTask` met an ordinary request. */
export const FST_TASKQUEUE_NOT_A_TASK = createError<[]>(
  'FST_TASKQUEUE_NOT_A_TASK', 'The request is not a task', 401
)
/** `verifyTask` met a task that nobody in particular queued. */
export const FST_TASKQUEUE_NO_USER = createError<[]>(
  'FST_TASKQUEUE_NO_USER', 'The task was queued by no user', 401
)
/** `verifyTask` met a task whose user `user.load` does not know, any more. */
export const FST_TASKQUEUE_USER_GONE = createError<[]>(
  'FST_TASKQUEUE_USER_GONE', 'The user who queued the task does not exist any more', 401
)
