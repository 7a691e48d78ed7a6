import { adding, reading, reserving } from './adding.js'
import { gathering, KEYS, MAX_MESSAGE_BYTES, moving, preludeOf, type Script } from './keys.js'
import { CANCELLED_MS } from '../store.js'

/** What moves the clocks of a queue. */
export const ticking = /* lua */ `
-- What is wrong, in words: an error is a table, or in older releases a text.
local function fault_of (failure)
  return type(failure) == 'table' and failure.err or tostring(failure)
end

local function read_clock (k, lease_ms)
  local contact, lease_clock, paused = string.match(redis.call('GETDEL', k.clock) or '', '^(%d+) (%d+) (%d)')
  if finite(contact) and finite(lease_clock) then return finite(contact), finite(lease_clock), paused end
  -- There is none, or nonsense: by one that begins before all leases end none is over yet.
  local first_end = finite(redis.call('ZRANGE', k.running, 0, 0, 'WITHSCORES')[2])
  return now, math.max(0, math.floor((first_end or 0) / 1000) - (lease_ms or 60000)), '0'
end

local function write_clock (k, contact, lease_clock, paused)
  redis.call('SET', k.clock, string.format('%d %d %s', contact, lease_clock, paused))
end

-- Moves the lease clock of a queue on by the time since the last contact with anybody, one
-- heartbeat at most: time in which nobody could prolong a lease does not let it expire.
-- Returns it, and whether the queue is paused.
local function tick (k, heartbeat)
  local contact, lease_clock, paused = read_clock(k, heartbeat * 5)
  lease_clock = lease_clock + math.max(0, math.min(now - contact, heartbeat))
  write_clock(k, now, lease_clock, paused)
  return lease_clock, paused == '1'
end

-- What is known of ids that may be running.
local function look_up_running (k, ids)
  local known = look_up(k, ids)
  local scores = ask_for_each('ZMSCORE', k.running, ids)
  for i, p in ipairs(known) do p.running = scores[i] end
  return known
end

local function holds (p, fence)
  return p.running and p.fence == fence
end

-- Leases of one call end a little apart, the last of them when it has to, in the order in which they were claimed.
local function lease_end (lease_clock, lease_ms, i, count)
  return number((lease_clock + lease_ms) * 1000 + i - count)
end

-- Makes leases end later, never sooner. Entries: end, id.
local function prolong (k, entries)
  for i = 1, #entries, 1000 do redis.call('ZADD', k.running, 'GT', unpack(entries, i, math.min(i + 999, #entries))) end
end

-- Returns the milliseconds until there is something to claim, -1 when nothing is known to come,
-- and how many suspects there are.
local function outlook (k, lease_clock, paused)
  if paused then return -1, 0 end
  local suspects = redis.call('LLEN', k.suspects)
  if suspects > 0 or redis.call('LLEN', k.waiting) > 0 then return 0, suspects end
  local soonest = -1
  for _, set in ipairs({ { k.delayed, now_us }, { k.running, lease_clock * 1000 } }) do
    local score = finite(redis.call('ZRANGE', set[1], 0, 0, 'WITHSCORES')[2])
    local left = score and math.max(0, math.ceil((score - set[2]) / 1000))
    if left and (soonest == -1 or left < soonest) then soonest = left end
  end
  return soonest, suspects
end

local buried = 0
local function bury (k, id, p, reason)
  redis.call('HSET', k.progress, id, progress(p, reason))
  redis.call('ZADD', k.dead, number(now_us + buried), id)
  buried = buried + 1
end

-- Drops the oldest dead letters beyond so many, and those that are older than so many milliseconds,
-- a thousand at most, and returns how many; none without a number.
local function drop_dead (k, count, ms)
  local surplus = count and math.max(0, redis.call('ZCARD', k.dead) - count) or 0
  if ms then surplus = math.max(surplus, redis.call('ZCOUNT', k.dead, '-inf', now_us - ms * 1000)) end
  local oldest = surplus > 0 and redis.call('ZRANGE', k.dead, 0, math.min(surplus, 1000) - 1) or {}
  call_with('ZREM', k.dead, oldest)
  call_with('HDEL', k.message, oldest)
  forget(k, oldest)
  return #oldest
end
`

/**
 * KEYS: those of the queue, of the queues of chained tasks, and the consumer's own. ARGV: the number
 * of the turn, heartbeat, leaseMs, limit, 1 to claim a suspect instead, how many of what has ended and of the
 * dead to keep and for how many milliseconds, or '', how many bytes of messages the reply may hold, then for each
 * settlement id, fence, "verdict
 * ms reason" with the milliseconds that it delays or dedupes, its record or '', the number of its chained
 * tasks and those tasks. Returns wakeInMs and the number of suspects; 0 or 1 for each settlement;
 * for each lease id, message and progress, or where the message is larger than a reply may be nothing in its
 * place, and "length progress"; and how many of the dead are dropped.
 */
const turn: Script = {
  keys: KEYS,
  body: /* lua */ `${gathering}${preludeOf(KEYS)}${moving}${reading}${adding}${ticking}
read_time()
local k, last_turn = keys_of(0), KEYS[#KEYS]
local turn, heartbeat, lease_ms, limit, alone, keep_count, keep_ms, dead_count, dead_ms, reply_bytes = unpack(ARGV, 1, 10)
turn, heartbeat, limit, keep_count, keep_ms = tonumber(turn), tonumber(heartbeat), tonumber(limit), tonumber(keep_count), tonumber(keep_ms)
reply_bytes = tonumber(reply_bytes)
if alone == '1' then limit = math.min(limit, 1) end

-- Adds a lease to those that are handed out, with its message or the length of that. Returns what is to be noted of it.
local function lend (leases, id, p, length, message)
  local text, n = progress(p, p.reason), #leases
  leases[n + 1], leases[n + 2], leases[n + 3] = id, message, message and text or number(length) .. ' ' .. text
  return text
end

-- Hands out once more what is still lent, and for a whole lease: its holder did not know, and prolonged nothing.
local function lend_again (ids, fences, lease_clock)
  local leases, lent, room = {}, {}, reply_bytes
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      append(lent, lease_end(lease_clock, lease_ms, i, #ids), ids[i])
      local length = redis.call('HSTRLEN', k.message, ids[i])
      local is_short = length <= room
      if is_short then room = room - length end
      lend(leases, ids[i], p, length, is_short and (redis.call('HGET', k.message, ids[i]) or ''))
    end
  end
  prolong(k, lent)
  return leases
end

-- Returns what is kept of the last turn; nothing if it is none.
local function read_last ()
  local last = unpacked(redis.call('GET', last_turn) or '')
  local is_whole = last and finite(last.number) and type(last.settled) == 'table' and type(last.ids) == 'table' and type(last.fences) == 'table'
  return is_whole and last or { number = 0 }
end

-- Before anything is written, fails if a place to which tasks are chained is a key of another type.
for queue = 1, (#KEYS - 1) / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  for _, set in ipairs({ k.delayed, k.running, k.dead, k.expiring, k.recent, k.ended }) do redis.call('ZCARD', set) end
  for _, hash in ipairs({ k.message, k.progress, k.record, k.stale }) do redis.call('HLEN', hash) end
  for _, list in ipairs({ k.waiting, k.suspects }) do redis.call('LLEN', list) end
end

local last = read_last()
if last.number > turn then return redis.error_reply('ERR this turn is over') end
local lease_clock, paused = tick(k, heartbeat)
if last.number == turn then
  local leases = lend_again(last.ids, last.fences, lease_clock)
  return { { outlook(k, lease_clock, paused) }, last.settled, leases, finite(last.dropped) or 0 }
end

-- What has ended, and where it stands among the arguments.
local ids, places = {}, {}
local arg = 11
while arg <= #ARGV do
  ids[#ids + 1] = ARGV[arg]
  places[#ids] = arg
  arg = arg + 5 + ARGV[arg + 4] * 4
end

local settled, ended, counted, over, done, forgotten, records = {}, {}, {}, {}, {}, {}, {}
local released, suspects, replaced, is_left_to_others = {}, {}, {}, false

local function be_done (id, p, record, dedupe)
  done[#done + 1] = id
  over[#over + 1] = id
  fields_of(forgotten, id, p)
  if keep_count > 0 then
    records[#records + 1] = id
    records[#records + 1] = cmsgpack.pack({ 'done', now, p.attempt, record and logged(k, id, p, record) or log_of(k, id, p) })
  end
  if dedupe > 0 then
    redis.call('ZREMRANGEBYSCORE', k.recent, '-inf', now_us)
    redis.call('ZADD', k.recent, 'GT', number(now_us + dedupe * 1000), id)
    redis.call('PEXPIRE', k.recent, number(math.max(dedupe, redis.call('PTTL', k.recent))))
  end
end

-- Puts in line what follows a task, with all its retries.
local function follow (id, p, next)
  local message, due, expires = unpack(next)
  redis.call('HDEL', k.progress, id .. ' next', id .. ' note')
  pardon(p)
  redis.call('HSET', k.progress, id, progress(p))
  redis.call('HSET', k.message, id, message)
  redis.call('ZREM', k.expiring, id)
  if expires > 0 then redis.call('ZADD', k.expiring, place_of(k.expiring, expires), id) end
  append(replaced, id, due)
end

-- Carries out a verdict on a task that is not running any more.
local function settle (id, p, i, how, record)
  local packed, expiry = unpack(p.more == 1 and redis.call('HMGET', k.progress, id .. ' next', id .. ' late') or {})
  local next = follower_in(packed)
  local verdict, ms, reason = 'done', 0, ''
  if how ~= 'done' then
    verdict, ms, reason = string.match(how, '^(%a+) ?(%d*) ?(.*)$')
    ms = tonumber(ms) or 0
  end
  local is_uncounted = verdict == 'unseen' or verdict == 'unrouted'
  if not next and not is_uncounted then counted[#counted + 1] = id end
  if verdict == 'done' and not next then return be_done(id, p, record, ms) end
  if record then keep_log(k, id, p, record) end
  if expiry then redis.call('HDEL', k.progress, id .. ' late') end
  if is_uncounted then
    p.attempt = p.attempt - 1
    if expiry and not next then redis.call('ZADD', k.expiring, expiry, id) end
  end
  if next then
    follow(id, p, next)
  elseif verdict == 'release' or verdict == 'unseen' then
    if verdict == 'unseen' or record then redis.call('HSET', k.progress, id, progress(p, p.reason)) end
    append(p.suspect == 1 and suspects or released, id)
  elseif verdict == 'retry' or verdict == 'defer' or verdict == 'unrouted' then
    p.suspect = 0
    if verdict == 'retry' then p.retries = p.retries + 1 else p.deferred = p.deferred + ms end
    if verdict == 'unrouted' then
      p.unrouted = p.unrouted + ms
      is_left_to_others = true
    end
    redis.call('HSET', k.progress, id, progress(p, reason))
    -- One after the other, and without a delay in this turn still.
    redis.call('ZADD', k.delayed, number(now_us + ms * 1000 + i - (ms == 0 and #ids or 0)), id)
  else
    append(over, id)
    if p.more == 1 then redis.call('HDEL', k.progress, id .. ' note') end
    bury(k, id, p, reason)
  end
end

-- To the front, the first of them foremost.
local function give_back (list, ids)
  for i = #ids, 1, -1 do redis.call('LPUSH', list, ids[i]) end
end

for i, p in ipairs(look_up_running(k, ids)) do
  local id, at = ids[i], places[i]
  -- Settled twice in one turn, the second time would find what the first one has left.
  local is_held = holds(p, tonumber(ARGV[at + 1])) and not ended[id]
  settled[i] = is_held and 1 or 0
  if is_held then
    ended[id] = true
    ended[#ended + 1] = id
    settle(id, p, i, ARGV[at + 2], ARGV[at + 3] ~= '' and ARGV[at + 3])
  end
end
call_with('ZREM', k.running, ended)
call_with('ZREM', k.expiring, counted)
call_with('HDEL', k.message, done)
call_with('HDEL', k.progress, forgotten)
-- If something is wrong with that, what is kept is no reason to stop.
pcall(keep_ended, k, records, keep_count, keep_ms)
tell_end(k, over)
enqueue(k, replaced)
give_back(k.waiting, released)
give_back(k.suspects, suspects)
if #released + #suspects > 0 or is_left_to_others then wake(k) end
for i, at in ipairs(places) do
  local chain = tonumber(ARGV[at + 4])
  if settled[i] == 1 and chain > 0 then
    for queue, list in pairs(read_tasks(at + 5, chain)) do add(keys_of(queue), list, true) end
  end
end

local claimed, fences, leases = {}, {}, {}

-- Leases that have expired make suspects of their tasks.
local function take_over ()
  local abandoned = redis.call('ZRANGEBYSCORE', k.running, '-inf', number(lease_clock * 1000), 'LIMIT', 0, 1000)
  for i, p in ipairs(look_up(k, abandoned)) do
    local next = follower_in(more_of(k, abandoned[i], p, ' next'))
    if next then
      -- Of both one suspect is made.
      redis.call('HSET', k.message, abandoned[i], next[1])
      p.retries, p.deferred, p.unrouted = 0, 0, 0
    end
    if p.more == 1 then redis.call('HDEL', k.progress, abandoned[i] .. ' next', abandoned[i] .. ' late') end
    keep_log(k, abandoned[i], p, false)
    -- Only a death that it died alone is certainly its own.
    p.deaths, p.suspect = p.deaths + p.suspect, 1
    redis.call('HSET', k.progress, abandoned[i], progress(p, p.reason))
  end
  call_with('ZREM', k.running, abandoned)
  call_with('ZREM', k.expiring, abandoned)
  give_back(k.suspects, abandoned)
end

-- Ends what has waited too long, and returns whether that is all of it.
local function expire ()
  local ids = redis.call('ZRANGEBYSCORE', k.expiring, '-inf', now_us, 'LIMIT', 0, 1000)
  if #ids == 0 then return true end
  local expired = {}
  for i, p in ipairs(look_up_running(k, ids)) do
    if p.running then
      -- Nobody knows yet whether its app has seen it.
      keep_more(k, ids[i], p, ' late', redis.call('ZSCORE', k.expiring, ids[i]))
      redis.call('HSET', k.progress, ids[i], progress(p, p.reason))
    elseif redis.call('HEXISTS', k.message, ids[i]) == 1 and not redis.call('ZSCORE', k.dead, ids[i]) then
      unqueue(k, ids[i])
      append(expired, ids[i])
    end
  end
  call_with('ZREM', k.expiring, ids)
  end_early(k, expired, 'expired', keep_count, keep_ms)
  return #ids < 1000
end

local function move_due ()
  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.delayed, due)
  call_with('RPUSH', k.waiting, due)
end

local function claim ()
  local noted, lent, room, looked, has_stale = {}, {}, reply_bytes, 0, false

  -- Takes tasks as long as there is room in the reply for their messages, and returns how many. What would not even
  -- fit alone takes none: it is fetched later.
  local function take (ids)
    local lengths, short = {}, {}
    for i, id in ipairs(ids) do
      local length = redis.call('HSTRLEN', k.message, id)
      if length <= reply_bytes then
        if length > room then break end
        room = room - length
        short[#short + 1] = id
      end
      lengths[i] = length
    end
    local messages, known, read = ask_for_each('HMGET', k.message, short), look_up(k, ids), 0
    for i, length in ipairs(lengths) do
      local id, p, message = ids[i], known[i], false
      if length <= reply_bytes then
        read = read + 1
        message = messages[read]
      end
      looked = looked + 1
      if (message or length > reply_bytes and length <= ${MAX_MESSAGE_BYTES}) and string.find(id, '^[\\32-\\126]+$') then
        -- No task is claimed twice in a microsecond.
        p.fence, p.attempt = now_us + looked, p.attempt + 1
        local n = #claimed
        claimed[n + 1], fences[n + 1] = id, p.fence
        lent[n * 2 + 2] = id
        noted[n * 2 + 1], noted[n * 2 + 2] = id, lend(leases, id, p, length, message)
      else
        -- It cannot have been added.
        bury(k, id, p, 'it is not a task')
      end
    end
    return #lengths
  end

  -- What is no task does not take the place of one that is.
  while #claimed < limit and looked - #claimed < 1000 do
    local line, popped, has_skipped = alone == '1' and k.suspects or k.waiting
    if alone == '1' then popped = redis.call('LPOP', line, 1) or {} else popped, has_skipped = pop(k, limit - #claimed) end
    has_stale = has_stale or has_skipped
    if #popped == 0 then break end
    local taken = take(popped)
    if taken < #popped then
      give_back(line, { unpack(popped, taken + 1) })
      break
    end
  end
  if has_stale then drop_stale(k) end
  for i = 1, #claimed do lent[i * 2 - 1] = lease_end(lease_clock, lease_ms, i, #claimed) end
  call_with('HSET', k.progress, noted)
  call_with('ZADD', k.running, lent)
end

if limit > 0 then
  take_over()
  if expire() then
    move_due()
    if not paused then claim() end
  end
end
-- Last, since ids that have been taken again have made room.
if #done > 0 or limit > 0 then pcall(keep_newest_ended, k, keep_count) end
local dropped = drop_dead(k, tonumber(dead_count), tonumber(dead_ms))
-- For as long as its consumer may ask again.
local this_turn = { number = turn, settled = settled, ids = claimed, fences = fences, dropped = dropped }
redis.call('SET', last_turn, cmsgpack.pack(this_turn), 'EX', 86400)
return { { outlook(k, lease_clock, paused) }, settled, leases, dropped }
`
}

/**
 * ARGV: how old a prepared commit may become, then for each queue heartbeat,
 * leaseMs, the number of its leases, and for each lease id and fence. Returns for each queue
 * wakeInMs, the number of suspects, the ids that are no longer held, those of them that were cancelled,
 * and what could not be done, or ''.
 */
const extend: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${moving}${reading}${reserving}${ticking}
read_time()

-- A commit whose process has died before it could say what became of the request. Nobody
-- knows whether its tasks should run, so they do not, and are kept for somebody to look at.
-- They are found by looking at a few commits of many: most are gone a moment later.
local function bury_if_in_doubt (k, commit)
  local text = redis.call('HSTRLEN', k.prepared, commit) <= ${2 * MAX_MESSAGE_BYTES} and redis.call('HGET', k.prepared, commit)
  local since = finite(text and string.match(text, '^%d+'))
  local list = text and prepared_in(text)
  if not since or not list and #text > #string.match(text, '^%d+ ?') then
    error('what is prepared as ' .. string.sub(commit, 1, 99) .. ' is no commit', 0)
  elseif since == 0 then
    redis.call('HSET', k.prepared, commit, number(now) .. string.sub(text, 2))
  elseif now - since >= tonumber(ARGV[1]) then
    list = list or {}
    for j = 1, #list, 3 do
      if redis.call('HSETNX', k.message, list[j], list[j + 1]) == 1 then
        bury(k, list[j], look_up(k, { list[j] })[1], 'its process died while it committed')
      end
    end
    redis.call('HDEL', k.prepared, commit)
    release(k, list)
  end
end

local function bury_in_doubt (k, try)
  for _, commit in ipairs(redis.call('HRANDFIELD', k.prepared, 10)) do try(bury_if_in_doubt, k, commit) end
end

local function drop_old (k)
  local ids = redis.call('ZRANGEBYSCORE', k.ended, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.ended, ids)
  call_with('HDEL', k.record, ids)
end

-- Returns the ids of leases that are no longer held, and of those the ones that were cancelled; prolongs the others.
local function check_leases (k, arg, count, lease_clock)
  local ids, fences, lost, cancelled, kept = {}, {}, {}, {}, {}
  for i = 1, count do
    ids[i], fences[i] = ARGV[arg + 1 + i * 2], tonumber(ARGV[arg + 2 + i * 2])
  end
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      append(kept, lease_end(lease_clock, ARGV[arg + 1], i, count), ids[i])
    else
      append(lost, ids[i])
      local since = redis.call('ZSCORE', k.revoked, number(fences[i]) .. ' ' .. ids[i])
      if since and tonumber(since) > now - ${CANCELLED_MS} then append(cancelled, ids[i]) end
    end
  end
  prolong(k, kept)
  return lost, cancelled
end

-- A queue whose keys have been tampered with does not stop the others, nor does one of its keys stop what needs it not.
local function beat (k, arg, count)
  local fault = ''
  local function try (run, ...)
    local results = { pcall(run, ...) }
    if results[1] then return unpack(results, 2) end
    fault = fault_of(results[2])
  end
  local lease_clock, paused = try(tick, k, tonumber(ARGV[arg]))
  if not lease_clock then return { -1, 0, {}, {}, fault } end
  local lost, cancelled = try(check_leases, k, arg, count, lease_clock)
  try(bury_in_doubt, k, try)
  try(drop_old, k)
  local wake_in, suspects = try(outlook, k, lease_clock, paused)
  return { wake_in or -1, suspects or 0, lost or {}, cancelled or {}, fault }
end

local reply = {}
local arg = 2
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 2])
  local pulse = beat(keys_of(#reply), arg, count)
  -- A Redis that has become a replica prolongs no lease.
  if string.find(pulse[5], 'READONLY') then return redis.error_reply('READONLY it is a replica') end
  reply[#reply + 1] = pulse
  arg = arg + 3 + count * 2
end
return reply
`
}

/** Leaves nothing of a consumer that closes. KEYS: its own. */
const leave: Script = {
  keys: [],
  body: /* lua */ `
redis.call('DEL', unpack(KEYS))
`
}

export const turnScripts = { turn, extend, leave }
