/**
 * How a queue is kept in Redis. The places have the names that they have in the local store. In the keys of a queue:
 *
 *     waiting   list of ids, the next one first: tasks without a key and of the level normal
 *     lane      hash by id of the level of a task, a place of 16 digits and its key, of all other tasks. The level is
 *               0 for high, 1 for normal and 2 for low. Under " " and a key: how many claims, modulo 8, the lane of
 *               that key has had since several of its levels wait
 *     lanes     sorted set of these tasks in line, all of score 0, as "key NUL level place NUL id"
 *     ready     sorted set of the keys of lanes that have tasks in line and do not rest; '' stands for no key. The
 *               score is how many of their tasks run, times 2 to the 40th, and a number for the order among them
 *     holding   sorted set of "key NUL id" of tasks with a key that run or are suspects, all of score 0
 *     limits    hash of limits in JSON: under '' those of the queue, under a key those that it has of its own
 *     resting   sorted set of keys by the time until which they rest, in microseconds; '' stands for the queue
 *     pacing    sorted set of keys by the time from which on their rate allows a claim, in microseconds
 *     tat       sorted set of keys by the time at which their next attempt would be due if all were evenly spaced; ''
 *               stands for the queue
 *     suspects  list of ids that were running when their consumer died, the next one first
 *     delayed   sorted set of ids by due time, in microseconds of Redis's clock
 *     running   sorted set of ids by the end of their lease, in microseconds of the lease clock
 *     dead      sorted set of ids by time of death, in microseconds
 *     message   hash of messages by id; if another task follows a running one, the message of the running one
 *     attempts  hash by id of "fence attempt retries deaths suspect more deferred unrouted reason", from the first
 *               claim on; of "fence" alone while all the rest is as the first claim makes it. If `more` is 1, there may
 *               be fields under the id and a suffix: " progress", what the task reports; " records", a record of each
 *               attempt; " next", message, due time and expiry of the task that follows; " late", the task's expiry,
 *               if that time has passed during an attempt that may yet turn out not to count
 *     clock     "time of the last contact, lease clock, 1 if the queue is paused"
 *     prepared  hash by commit of "time tasks". The time is when a heartbeat first saw the commit, or 0 before that.
 *               The tasks are as `prepare` got them, since a delay begins with the commit. There are none if the
 *               commit is over; its place then keeps out a prepare that arrives late. If the name of the commit begins
 *               with +, the messages are in place, and the tasks are a line break and a line for each: its id, or its
 *               id, a tab and its terms. A tab before the first line break says that there are terms. If another task
 *               takes the place of a message, the tasks are as `prepare` keeps them, with false for those in place
 *     reserved  hash by id of the commit that is about to add it
 *     recent    sorted set of ids that keep others out although their tasks are done, by the time until which they do
 *     expiring  sorted set of ids by the time at which they expire, in microseconds, until an attempt counts
 *     stale     hash by id: how many of the id's places in line are stale, the first ones of them. A task that is taken
 *               out of line leaves its place behind, and claims skip it. Under " ": how many places of the line are
 *               stale. A line whose places are all stale is deleted
 *     ended     sorted set of ids that are done, cancelled or expired, by the time until which that is kept
 *     summary   hash by id of what is kept of them
 *     revoked   sorted set of "fence id" of leases whose tasks were cancelled, by the time of the cancellation
 *     consumers hash by the name of a consumer of the time of its last heartbeat, the ids and fences of the leases that
 *               it held then, when it began, its concurrency, the period of its heartbeat and the number of leases
 *     idle      hash by the name of a consumer's turn of the turn that waits for something to claim, with the time at
 *               which the consumer was last heard of; or, if something came, of what was handed to the consumer
 *     history   hash of how many tasks were done in a minute, by "d" and the minute since the epoch; and of how many
 *               attempts failed, by "f" and the minute
 *     schedules sorted set of the ids of schedules by their next slot, in milliseconds; inf if there is none
 *     schedule  hash by "=" and the id of a schedule of its plan; by "+" and the id, of "at skipped missed paused id":
 *               when the last task was added, how many slots were skipped and missed, 1 if the schedule is paused, and
 *               the id of that task; by " " of the highest revision; and by two spaces of the declared ids, in lines
 *     awaited   sorted set of ids whose end somebody awaits, by the time at which the waiting ends
 *
 * A script is atomic and takes its times from Redis. Its input is always an argument and never part of its text, so
 * that Redis keeps one copy of the script. The first write of a script is one that Redis allows when its memory is
 * full, and Redis then allows the rest. Only `prepare` begins with another, since adding is what a full Redis should
 * refuse.
 *
 * A script may run again after its reply was lost, and late, after its sender has given up. No script does anything a
 * second time. For that, `turn` takes one more key, which holds the last turn of its consumer. Large arguments and
 * messages travel in parts, by keys that exist meanwhile: a key `call` holds arguments that arrive before their call,
 * and a key `copy` holds a message that is being fetched.
 */
export const KEYS = [
  'waiting', 'suspects', 'delayed', 'running', 'dead', 'message', 'attempts', 'clock', 'prepared', 'reserved', 'recent',
  'expiring', 'stale', 'ended', 'summary', 'awaited', 'revoked', 'consumers',
  'idle', 'history', 'lane', 'lanes', 'ready', 'holding', 'limits', 'resting', 'pacing', 'tat',
  'schedules', 'schedule'
] as const

export type Key = typeof KEYS[number]

/** The longest message, in bytes. A longer value is no message, and no script reads it. */
export const MAX_MESSAGE_BYTES = 96 * 1024 * 1024
