import { KEYS, MAX_MESSAGE_BYTES, moving, preludeOf, type Script } from './keys.js'
import { ticking } from './turn.js'
import { CANCELLED_MS } from '../store.js'

/** No record is longer; what is, is none. */
const MAX_RECORD_BYTES = 16 * 1024 * 1024

/** How many bytes of messages are read through in one call. */
const MAX_READ_BYTES = 8 * 1024 * 1024

const describing = /* lua */ `
local function milliseconds (us)
  us = finite(us)
  return us and math.floor(us / 1000) or ''
end

local ENDED = { done = true, cancelled = true, expired = true }

local function text_in (value)
  return type(value) == 'string' and value or ''
end

-- Returns what is kept of a task that has ended: state, when it did, attempt, log, head and reason; nothing if it is none of that.
local function ended_in (record)
  local ended = record and unpacked(record)
  if not ended or type(ended[1]) ~= 'string' or not ENDED[ended[1]] then return end
  return ended[1], finite(ended[2]) or '', finite(ended[3]) or 0, log_in(ended[4]), text_in(ended[5]), text_in(ended[6])
end

local function record_of (k, id)
  return redis.call('HSTRLEN', k.record, id) <= ${MAX_RECORD_BYTES} and redis.call('HGET', k.record, id)
end

-- Describes a task: id, state, head of the message, when it is due and has ended, attempt, reason, note, and records. Returns
-- nothing if nothing is known of it; and how many bytes it has read.
local function describe_one (k, id, p)
  local length = redis.call('HSTRLEN', k.message, id)
  if length > 0 or redis.call('HEXISTS', k.message, id) == 1 then
    local state, due, ended = 'waiting', nil, redis.call('ZSCORE', k.dead, id)
    if ended then
      state = 'dead'
    elseif redis.call('ZSCORE', k.running, id) then
      state = 'running'
    else
      due = redis.call('ZSCORE', k.delayed, id)
      if due and tonumber(due) > now_us then state = 'delayed' else due = nil end
    end
    local head = length <= ${MAX_MESSAGE_BYTES} and head_of(redis.call('HGET', k.message, id)) or ''
    return { id, state, head, milliseconds(due), milliseconds(ended), p.attempt, p.reason, more_of(k, id, p, ' note'), log_of(k, id, p) }, length
  end
  if (finite(redis.call('ZSCORE', k.ended, id)) or 0) <= now_us then return nil, 0 end
  local state, at, attempt, log, head, reason = ended_in(record_of(k, id))
  return state and { id, state, head, '', at, attempt, reason, false, log }, 0
end

local function size_of (description)
  local size = #description[1] + #description[3] + #description[7] + #(description[8] or '')
  for _, record in ipairs(description[9]) do size = size + #(record or '') end
  return size
end

-- Describes those of these tasks that are in a state, until the reply holds so many bytes, and returns the ids that are left.
local function describe (k, ids, state, bytes)
  local described, size, read = {}, 0, 0
  for i, p in ipairs(look_up(k, ids)) do
    local description, length = describe_one(k, ids[i], p)
    read = read + length
    if description and description[2] == state then
      size = size + size_of(description)
      if #described > 0 and size > bytes then return { described, { unpack(ids, i) } } end
      append(described, description)
    end
    -- Nor is Redis kept from others for long by what it has to read through.
    if read > ${MAX_READ_BYTES} then return { described, { unpack(ids, i + 1) } } end
  end
  return { described, {} }
end
`

/** ARGV: the id, and for how many milliseconds its end is awaited. KEYS: those of queues that may have it. Returns the number of its queue, and as in `list`. */
const find: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${describing}
read_time()
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local task = describe_one(k, ARGV[1], look_up(k, { ARGV[1] })[1])
  if task then
    if ARGV[2] ~= '' and task[5] == '' then
      redis.call('ZREMRANGEBYSCORE', k.awaited, '-inf', now)
      redis.call('ZADD', k.awaited, 'GT', now + ARGV[2], ARGV[1])
      redis.call('PEXPIRE', k.awaited, number(math.max(tonumber(ARGV[2]), redis.call('PTTL', k.awaited))))
    end
    return { queue, task }
  end
end
`
}

/**
 * ARGV: the state, how many to pass over, how many to return, and how many bytes of them. Returns them, and the ids of those for
 * which there was no more room.
 */
const list: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${describing}
read_time()

-- Lists the line without what is stale, which takes going through it from its beginning.
local function in_line (k, offset, limit)
  local ids, from, passed, left = {}, 0, 0, {}
  while true do
    local some = redis.call('LRANGE', k.waiting, from, from + 999)
    if #some == 0 then return ids end
    local stale = redis.call('HMGET', k.stale, unpack(some))
    for i, id in ipairs(some) do
      left[id] = left[id] or math.max(0, finite(stale[i]) or 0)
      if left[id] > 0 then
        left[id] = left[id] - 1
      else
        passed = passed + 1
        if passed > offset then append(ids, id) end
        if #ids == limit then return ids end
      end
    end
    from = from + 1000
  end
end

local k = keys_of(0)
local state, offset, limit = ARGV[1], tonumber(ARGV[2]), tonumber(ARGV[3])
local last = offset + limit - 1
local ids = {}
if limit == 0 then return { {}, {} } end
if state == 'waiting' then
  local stale = redis.call('HGET', k.stale, ' ')
  local passed = 0
  for _, place in ipairs({ { k.suspects, 'LLEN', 'LRANGE' }, { k.waiting, 'LLEN', 'LRANGE' }, { k.delayed, 'ZCARD', 'ZRANGE' } }) do
    local from = math.max(0, offset - passed)
    local length = redis.call(place[2], place[1])
    if place[1] == k.waiting and stale then
      if #ids < limit then append(ids, unpack(in_line(k, from, limit - #ids))) end
      length = length - stale
    elseif last >= passed then
      append(ids, unpack(redis.call(place[3], place[1], from, last - passed)))
    end
    passed = passed + length
  end
elseif state == 'delayed' then
  ids = redis.call('ZRANGEBYSCORE', k.delayed, '(' .. number(now_us), '+inf', 'LIMIT', offset, limit)
elseif state == 'running' then
  ids = redis.call('ZRANGE', k.running, offset, last)
elseif state == 'dead' then
  ids = redis.call('ZREVRANGE', k.dead, offset, last)
else
  for _, id in ipairs(redis.call('ZRANGE', k.ended, '+inf', '(' .. number(now_us), 'BYSCORE', 'REV')) do
    -- Whose id is taken again is not what has ended.
    local is_meant = ended_in(record_of(k, id)) == state and redis.call('HEXISTS', k.message, id) == 0
    if is_meant then append(ids, id) end
  end
  ids = { unpack(ids, offset + 1, math.min(offset + limit, #ids)) }
end
return describe(k, ids, state, tonumber(ARGV[4]))
`
}

/** ARGV: a state, how many bytes to return, and ids. Returns those of them that are in the state, and the ids for which there was no more room. */
const listMore: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${describing}
read_time()
return describe(keys_of(0), { unpack(ARGV, 3) }, ARGV[1], tonumber(ARGV[2]))
`
}

/** ARGV: the kind of the order, two values of its own, and ids. Returns how many tasks were changed. */
const steer: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${ticking}
read_time()
local k = keys_of(0)
local kind, ids = ARGV[1], { unpack(ARGV, 4) }

-- Those that wait, are delayed or run, and have a message.
local function living (ids)
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('HEXISTS', k.message, id) == 1 and not found[id] and not redis.call('ZSCORE', k.dead, id) then
      found[id] = true
      append(found, id)
    end
  end
  return found
end

-- Those of these that are dead, and are not any more; the first thousand without any.
local function undead ()
  if ARGV[2] == 'all' then ids = redis.call('ZRANGE', k.dead, 0, 999) end
  local found = {}
  for _, id in ipairs(ids) do
    if redis.call('ZREM', k.dead, id) == 1 then append(found, id) end
  end
  return found
end

local orders = {}

function orders.cancel ()
  local cancelled, revoked = living(ids), {}
  for i, p in ipairs(look_up(k, cancelled)) do
    if redis.call('ZREM', k.running, cancelled[i]) == 1 then append(revoked, now, number(p.fence) .. ' ' .. cancelled[i]) else unqueue(k, cancelled[i]) end
  end
  end_early(k, cancelled, 'cancelled', tonumber(ARGV[2]), tonumber(ARGV[3]))
  keep_newest_ended(k, tonumber(ARGV[2]))
  if #revoked > 0 then
    -- For as long as somebody may still hold them.
    redis.call('ZREMRANGEBYSCORE', k.revoked, '-inf', now - ${CANCELLED_MS})
    call_with('ZADD', k.revoked, revoked)
    redis.call('PEXPIRE', k.revoked, ${CANCELLED_MS})
    tell(k, 'change')
  end
  return #cancelled
end

function orders.schedule ()
  local changed = 0
  local is_at, ms = string.match(ARGV[2], '^(=?)([%d.-]*)$')
  local due = ms == '' and 0 or (is_at == '=' and 0 or now_us) + math.ceil(ms * 1000)
  for _, id in ipairs(living(ids)) do
    local is_running = redis.call('ZSCORE', k.running, id)
    local is_suspect = look_up(k, { id })[1].suspect == 1
    if not is_running and not is_suspect then
      changed = changed + 1
      local was_delayed = redis.call('ZSCORE', k.delayed, id)
      if was_delayed or due > now_us then
        unqueue(k, id)
        enqueue(k, { id, math.max(0, due) })
      end
    end
  end
  return changed
end

function orders.redrive ()
  local found, entries = undead(), {}
  for i, p in ipairs(look_up(k, found)) do
    pardon(p)
    redis.call('HSET', k.progress, found[i], progress(p, p.reason))
    append(entries, found[i], 0)
  end
  enqueue(k, entries)
  return #found
end

function orders.remove ()
  local found = undead()
  call_with('HDEL', k.message, found)
  forget(k, found)
  return #found
end

function orders.purge ()
  local found = redis.call('ZRANGE', k.delayed, 0, 999)
  call_with('ZREM', k.delayed, found)
  append(found, unpack(redis.call('LPOP', k.suspects, 1000) or {}))
  append(found, unpack((pop(k, 1000))))
  drop_stale(k)
  call_with('HDEL', k.message, found)
  forget(k, found)
  tell_end(k, found)
  return #found
end

-- Who pauses a queue prolongs no lease: that is no contact.
local function set_paused (paused)
  local contact, lease_clock = read_clock(k)
  write_clock(k, contact, lease_clock, paused)
  return 0
end

function orders.pause () return set_paused('1') end

function orders.resume ()
  set_paused('0')
  wake(k)
  return 0
end

return orders[kind]()
`
}

/** ARGV: an id, its fence, and the note. Returns whether the lease is held. */
const note: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${ticking}
local k = keys_of(0)
local id, fence, text = unpack(ARGV)
local p = look_up_running(k, { id })[1]
if not holds(p, tonumber(fence)) then return 0 end
keep_more(k, id, p, ' note', text)
redis.call('HSET', k.progress, id, progress(p, p.reason))
return 1
`
}

/** KEYS: any. Refused where nothing may be written; not by a full memory, since that is to be emptied. */
const vote: Script = {
  keys: [],
  body: /* lua */ `
local reply = redis.pcall('GETDEL', KEYS[1])
if type(reply) ~= 'table' then return 1 end
return redis.error_reply(string.find(reply.err, 'nknown') and 'ERR it is older than 6.2' or reply.err)
`
}

/** Returns the numbers of waiting, delayed, running and dead tasks, and 1 if the queue is paused. */
const counts: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}
read_time()
local k = keys_of(0)
local due = redis.call('ZCOUNT', k.delayed, '-inf', now_us)
local in_line, stale = redis.call('LLEN', k.waiting), finite(redis.call('HGET', k.stale, ' ')) or 0
local waiting = math.max(0, in_line - math.max(0, stale)) + redis.call('LLEN', k.suspects)
local paused = string.match(redis.call('GET', k.clock) or '', '^%d+ %d+ (%d)')
return { waiting + due, redis.call('ZCARD', k.delayed) - due, redis.call('ZCARD', k.running), redis.call('ZCARD', k.dead), tonumber(paused or 0) }
`
}

export const lookingScripts = { find, list, listMore, steer, note, vote, counts }
