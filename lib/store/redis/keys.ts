import { RECORD_LIMIT } from '../store.js'

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
 *     progress  hash by id of "fence attempt retries deaths suspect more deferred unrouted reason", from the first
 *               claim on, and during that of "fence" alone; if there is more, it is under the id and " note": what the task says of itself,
 *               " log": a record of each attempt, " next": message, due time and expiry of the task that follows it,
 *               " late": its expiry, if that has passed during an attempt which may yet turn out not to count
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
 *     record    hash by id of what is kept of them
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
  'waiting', 'suspects', 'delayed', 'running', 'dead', 'message', 'progress', 'clock', 'prepared', 'reserved', 'recent', 'expiring', 'stale', 'ended',
  'record', 'awaited', 'revoked'
] as const

export type Key = typeof KEYS[number]

/** What a call says some of whose arguments have not come, or are gone. */
export const PART_MISSING = 'a part of the call is missing'

/** No message is longer; what is, is none, and is not even read. */
export const MAX_MESSAGE_BYTES = 96 * 1024 * 1024

/** A script, and which keys of each of its queues it is passed. */
export interface Script { readonly body: string, readonly keys: readonly Key[] }

/** What every script begins with: time, keys, and calls with many values. */
export const preludeOf = (keys: readonly Key[]): string => /* lua */ `
-- Microseconds tell apart what becomes due in the same millisecond, and so keep it in order.
local now, now_us
local function read_time ()
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  now_us = time[1] * 1000000 + time[2]
end

-- KEYS holds the keys of one queue after those of another, counted from 0.
local function keys_of (queue)
  local base = queue * ${keys.length}
  return { ${keys.map((key, index) => `${key} = KEYS[base + ${index + 1}]`).join(', ')} }
end

local function append (list, ...)
  local length = #list
  for i = 1, select('#', ...) do list[length + i] = (select(i, ...)) end
end

-- Calls a command with as many values at once as Lua's stack has room for; returns its last reply.
local function call_with (command, key, values)
  local reply
  for i = 1, #values, 1000 do
    reply = redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))
  end
  return reply
end

-- Reads a number that others may have written to Redis: nil unless it is one, and no larger than Lua counts in whole ones.
local function finite (text)
  local value = tonumber(text)
  return value and value > -2 ^ 53 and value < 2 ^ 53 and value or nil
end

-- Calls a command that takes a key and values, and returns a list with a reply for each value.
local function ask_for_each (command, key, values)
  if #values <= 1000 then return #values > 0 and redis.call(command, key, unpack(values)) or {} end
  local replies = {}
  for i = 1, #values, 1000 do
    for _, reply in ipairs(redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))) do replies[#replies + 1] = reply end
  end
  return replies
end

-- Writes a whole number, which Lua would round in a text, and is slow to write elsewhere.
local function number (value)
  return string.format('%d', value)
end
`

/**
 * Of a call whose arguments are too much for one message they have come before it, in parts, in a key that is
 * then the last of its keys; what it is sent itself is '' and how many parts there are.
 */
export const gathering = /* lua */ `
local ARGV = ARGV
if ARGV[1] == '' then
  local call, parts = table.remove(KEYS), {}
  for i = 1, tonumber(ARGV[2]) do
    parts[i] = redis.call('HGET', call, i)
    if not parts[i] then return redis.error_reply('ERR ${PART_MISSING}') end
  end
  ARGV = cmsgpack.unpack(table.concat(parts))
end
`

/** How tasks get into line. */
export const queueing = /* lua */ `
-- The channel of a queue is what its keys begin with. Without permission to publish
-- news are lost, and nothing else is.
local function tell (k, news)
  redis.pcall('PUBLISH', string.sub(k.waiting, 1, -#':waiting' - 1), news)
end

local function wake (k)
  tell(k, 'work')
end

-- Returns the score of what is due, or expires, at that time: behind all that is in the same millisecond, or
-- in the next ones if that are thousands, and so in the order of adding.
local following = {}
local function place_of (set, time)
  local name = set .. number(time)
  local place = following[name] or time
  for i = 1, following[name] and 0 or 10 do
    local first = time + (i - 1) * 1000
    local last = redis.call('ZRANGE', set, number(first + 999), number(first), 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    place = last and last + 1 or first
    if place < first + 1000 then break end
  end
  following[name] = place + 1
  return number(place)
end

-- Puts tasks that are due into line, and others among the delayed. Entries: id, or false for none, and due.
local function enqueue (k, entries)
  local waiting, delayed = {}, {}
  for i = 1, #entries, 2 do
    local id, due = entries[i], entries[i + 1]
    if id and due == 0 then
      waiting[#waiting + 1] = id
    elseif id then
      if not now_us then read_time() end
      if due <= now_us then waiting[#waiting + 1] = id else append(delayed, place_of(k.delayed, due), id) end
    end
  end
  call_with('ZADD', k.delayed, delayed)
  local length = call_with('RPUSH', k.waiting, waiting)
  -- Where others wait already whoever has room knows of them.
  if #delayed > 0 or length == #waiting then wake(k) end
end
`

/** What the scripts share that move tasks. */
export const moving = /* lua */ `${queueing}
-- Tells those who await the end of one of these.
local function tell_end (k, ids)
  -- If something is wrong with that key, it is no reason to stop: who awaits an end looks himself now and then.
  local count = #ids > 0 and redis.pcall('ZCARD', k.awaited)
  local is_any = type(count) == 'number' and count > 0
  local awaited = is_any and ask_for_each('ZMSCORE', k.awaited, ids) or {}
  for i, id in ipairs(ids) do
    if awaited[i] then
      redis.call('ZREM', k.awaited, id)
      tell(k, 'ended ' .. id)
    end
  end
end

-- Returns what is known of each id: nothing yet before the first claim.
local function look_up (k, ids)
  local known = ask_for_each('HMGET', k.progress, ids)
  for i, text in ipairs(known) do
    local fence = finite(text or 0)
    if fence then
      known[i] = {
        fence = fence, attempt = text and 1 or 0, retries = 0, deaths = 0, suspect = 0, more = 0,
        deferred = 0, unrouted = 0, reason = ''
      }
    else
      local fence, attempt, retries, deaths, suspect, more, deferred, unrouted, reason =
        string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d) (%d) (%d+) (%d+) (.*)$')
      known[i] = {
        fence = finite(fence) or 0, attempt = finite(attempt) or 0, retries = finite(retries) or 0, deaths = finite(deaths) or 0,
        suspect = suspect == '1' and 1 or 0, more = more == '1' and 1 or 0,
        deferred = finite(deferred) or 0, unrouted = finite(unrouted) or 0, reason = reason or ''
      }
    end
  end
  return known
end

local function progress (p, reason)
  local is_plain = p.attempt == 1 and p.retries + p.deaths + p.suspect + p.more + p.deferred == 0
  if is_plain and (reason or '') == '' then return number(p.fence) end
  return string.format('%d %d %d %d %d %d %d %d %s', p.fence, p.attempt, p.retries, p.deaths, p.suspect, p.more,
    p.deferred, p.unrouted, reason or '')
end

-- Gives a task all that it may cost once more.
local function pardon (p)
  p.retries, p.deaths, p.suspect, p.deferred, p.unrouted = 0, 0, 0, 0, 0
end

-- Keeps something more of a task, whose progress is written afterwards.
local function keep_more (k, id, p, what, value)
  p.more = 1
  redis.call('HSET', k.progress, id .. what, value)
end

local function more_of (k, id, p, what)
  return p.more == 1 and redis.call('HGET', k.progress, id .. what)
end

-- Unpacks a table, or returns nil.
local function unpacked (packed)
  local ok, value = pcall(cmsgpack.unpack, packed)
  return ok and type(value) == 'table' and value or nil
end

-- Returns of a list what a log can hold: texts, and false.
local function log_in (list)
  local log = {}
  for i, record in ipairs(type(list) == 'table' and list or {}) do
    if i <= ${RECORD_LIMIT} then log[i] = type(record) == 'string' and record end
  end
  return log
end

-- Returns what follows a task: message, due time and expiry; nothing if nothing does.
local function follower_in (packed)
  local next = packed and unpacked(packed)
  return next and type(next[1]) == 'string' and finite(next[2]) and finite(next[3]) and next or nil
end

local function log_of (k, id, p)
  local packed = more_of(k, id, p, ' log')
  return packed and log_in(unpacked(packed)) or {}
end

-- Returns the log of a task with the record of one more attempt: false for one whose consumer died.
local function logged (k, id, p, record)
  local log = log_of(k, id, p)
  log[#log + 1] = record
  if #log > ${RECORD_LIMIT} then table.remove(log, 1) end
  return log
end

local function keep_log (k, id, p, record)
  keep_more(k, id, p, ' log', cmsgpack.pack(logged(k, id, p, record)))
end

-- Adds the fields of progress that a task has to a list.
local function fields_of (list, id, p)
  list[#list + 1] = id
  if p.more == 1 then append(list, id .. ' note', id .. ' log', id .. ' next', id .. ' late') end
end

-- Leaves nothing of what had these ids before.
local function clear (k, ids)
  call_with('ZREM', k.expiring, ids)
  call_with('ZREM', k.ended, ids)
  call_with('HDEL', k.record, ids)
end

-- Leaves nothing of tasks that are in no place, except for their messages.
local function forget (k, ids)
  local fields = {}
  for i, p in ipairs(look_up(k, ids)) do fields_of(fields, ids[i], p) end
  call_with('HDEL', k.progress, fields)
  clear(k, ids)
end

-- Whether a task that does not run has waited too long, and nobody has noticed yet.
local function is_expired (k, id)
  local expiry = redis.call('ZSCORE', k.expiring, id)
  if not expiry then return false end
  if not now_us then read_time() end
  return tonumber(expiry) <= now_us
end

-- Takes the first of those that wait. An id that is in line several times is meant the last time.
local function pop (k, limit)
  local ids, skipped = {}, 0
  local has_stale = redis.call('HLEN', k.stale) > 0
  while #ids < limit and skipped < 1000 do
    local some = redis.call('LPOP', k.waiting, math.min(limit - #ids, 1000)) or {}
    if #some == 0 then break end
    local stale = has_stale and redis.call('HMGET', k.stale, unpack(some)) or {}
    local left = {}
    for i, id in ipairs(some) do
      left[id] = left[id] or math.max(0, finite(stale[i]) or 0)
      if left[id] == 0 then
        ids[#ids + 1] = id
      else
        left[id] = left[id] - 1
        skipped = skipped + 1
        for _, field in ipairs({ id, ' ' }) do
          -- Nor is it kept when it cannot be counted down.
          local count = redis.pcall('HINCRBY', k.stale, field, -1)
          if type(count) ~= 'number' or count <= 0 then redis.call('HDEL', k.stale, field) end
        end
      end
    end
  end
  return ids, has_stale
end

-- Leaves no line in which nobody is meant: whoever looks at its length would find something to claim.
local function drop_stale (k)
  local stale = math.max(0, finite(redis.call('HGET', k.stale, ' ')) or 0)
  if stale == 0 or stale < redis.call('LLEN', k.waiting) then return end
  for _, id in ipairs((pop(k, 1))) do redis.call('LPUSH', k.waiting, id) end
end

-- Takes a waiting or delayed task out of line. In the middle of the line nothing is found without
-- going through it: there its id stays, and is skipped when its turn comes.
local function unqueue (k, id)
  if redis.call('ZREM', k.delayed, id) == 1 or redis.call('LREM', k.suspects, 1, id) == 1 then return end
  redis.call('HINCRBY', k.stale, id, 1)
  redis.call('HINCRBY', k.stale, ' ', 1)
  drop_stale(k)
end

-- Keeps what has ended until it is too old, or no longer among the newest: in the order in which a script ends it. Entries: id, record.
local kept = 0
local function keep_ended (k, entries, count, ms)
  local first = math.max(1, #entries - 2 * count + 1)
  local ends, records = {}, first == 1 and entries or { unpack(entries, first) }
  for i = 1, #records, 2 do
    kept = kept + 1
    ends[i], ends[i + 1] = number(now_us + ms * 1000 + kept), records[i]
  end
  call_with('ZADD', k.ended, ends)
  call_with('HSET', k.record, records)
end

-- Forgets all but the newest of what has ended.
local function keep_newest_ended (k, count)
  local surplus = redis.call('ZRANGE', k.ended, 0, -1 - count)
  if #surplus == 0 then return end
  call_with('HDEL', k.record, surplus)
  redis.call('ZREMRANGEBYRANK', k.ended, 0, #surplus - 1)
end

-- Returns the first line of a message, and the line break behind it.
local function head_of (message)
  return string.match(message or '', '^[^\\n]*\\n?')
end

-- Ends tasks that are no longer in any place, without an attempt. Of their messages the heads are kept.
local function end_early (k, ids, state, count, ms)
  if #ids == 0 then return end
  local entries, fields = {}, {}
  for i, p in ipairs(look_up(k, ids)) do
    local head = head_of(redis.call('HGET', k.message, ids[i]))
    append(entries, ids[i], cmsgpack.pack({ state, now, p.attempt, log_of(k, ids[i], p), head, p.reason }))
    fields_of(fields, ids[i], p)
  end
  call_with('HDEL', k.message, ids)
  call_with('HDEL', k.progress, fields)
  call_with('ZREM', k.expiring, ids)
  keep_ended(k, entries, count, ms)
  tell_end(k, ids)
end
`
