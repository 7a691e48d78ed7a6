/**
 * How a queue lies in Redis, and what the scripts that move its tasks have in common: the same
 * places, under the same names, as in the local store.
 *
 *     waiting   list of ids, the next one first
 *     suspects  list of ids that were running when their consumer died, the next one first
 *     delayed   sorted set of ids by due time, in microseconds of Redis's clock
 *     running   sorted set of ids by the end of their lease, in microseconds of the lease clock
 *     dead      sorted set of ids by time of death, in microseconds
 *     message   hash of messages by id: that of the task which runs, where another one follows it
 *     attempts  hash by id of "fence attempt retries deaths suspect more deferred unrouted reason", from the first
 *               claim on, and during that of "fence" alone; if there is more, it is under the id and " progress": what
 *               the task says of its progress, " records": a record of each attempt, " next": message, due time and
 *               expiry of the task that follows it, " late": its expiry, if that has passed during an attempt which
 *               may yet turn out not to count
 *     clock     "time of the last contact, lease clock, 1 if the queue is paused"
 *     prepared  hash by commit of "time tasks": since when a heartbeat has known of it, 0 before one does,
 *               and its tasks between the two phases, as they were described, since a delay begins with the
 *               commit; or none where what has ended may be prepared once more, by a call that comes late
 *     reserved  hash by id of the commit that is about to add it
 *     recent    sorted set of ids that keep others out although they are done, by the end of that
 *     expiring  sorted set of ids by the time at which they expire, in microseconds: until an attempt counts
 *     stale     hash by id of how many of its first places in line are not meant, and under " " of all of them; there
 *               is no line of nothing else
 *     ended     sorted set of ids that are done, cancelled or expired, by the time until which that is kept
 *     summary   hash by id of what is kept of them
 *     revoked   sorted set of "fence id" of leases whose tasks were cancelled, by the time of that
 *     awaited   sorted set of ids of whose end somebody wants to hear, by the time until which
 *
 * A script is atomic and takes its times from Redis. Whatever it is passed is an argument
 * and never part of its text, so that Redis keeps one copy of it. Its first write is one
 * that Redis allows when its memory is full, which makes it allow the rest; only that of
 * `prepare` is not, since adding is what is to be refused then.
 *
 * A script may be run again when its reply was lost, and late, when its sender has given
 * up; none does anything a second time. For `turn` that takes one more key of each
 * consumer's own, with its last turn in it. What is large travels in parts, by keys that exist while it does: `call` has
 * arguments that come before their call, and `copy` a message that is fetched.
 */
export const KEYS = [
  'waiting', 'suspects', 'delayed', 'running', 'dead', 'message', 'attempts', 'clock', 'prepared', 'reserved', 'recent', 'expiring',
  'stale', 'ended', 'summary', 'awaited', 'revoked'
] as const

export type Key = typeof KEYS[number]

/** No message is longer; what is, is none, and is not even read. */
export const MAX_MESSAGE_BYTES = 96 * 1024 * 1024
