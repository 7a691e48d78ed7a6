/**
 * How a queue lies in Redis, and the scripts that move its tasks: the same places, under
 * the same names, as in the local store.
 *
 *     waiting   list of ids, the next one first
 *     delayed   sorted set of ids by due time, in microseconds of Redis's clock
 *     running   sorted set of ids by the end of their lease, in milliseconds of the lease clock
 *     dead      sorted set of ids by time of death, in microseconds
 *     message   hash of messages by id
 *     suspects  list of ids that were running when their consumer died, the next one first
 *     progress  hash by id of "fence attempt retries deaths suspect reason", from the first claim on
 *     clock     "time of the last contact, lease clock"
 *     prepared  hash by commit of "time tasks": its tasks between the two phases, or none where what
 *               has ended may be prepared once more, by a call that comes late
 *
 * A script is atomic and takes its times from Redis. Whatever it is passed is an argument
 * and never part of its text, so that Redis keeps one copy of it. Its first write is one
 * that Redis allows when its memory is full, which makes it allow the rest; only that of
 * `prepare` is not, since adding is what is to be refused then.
 *
 * A script may be run again when its reply was lost, and late, when its sender has given
 * up; none does anything a second time. For `turn` that takes one more key of each
 * consumer's own, with its last turn in it.
 */
export const KEYS = ['waiting', 'suspects', 'delayed', 'running', 'dead', 'message', 'progress', 'clock', 'prepared'] as const

const prelude = /* lua */ `
-- Microseconds tell apart what becomes due in the same millisecond, and so keep it in order.
local now, now_us
local function read_time ()
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  now_us = time[1] * 1000000 + time[2]
end

-- KEYS holds the keys of one queue after those of another, counted from 0.
local function keys_of (queue)
  local base = queue * ${KEYS.length}
  return { ${KEYS.map((key, index) => `${key} = KEYS[base + ${index + 1}]`).join(', ')} }
end

-- Calls a command with as many values at once as Lua's stack has room for.
local function call_with (command, key, values)
  for i = 1, #values, 1000 do
    redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))
  end
end

-- The channel of a queue is what its keys begin with. Without permission to publish
-- notifications are lost, and nothing else is.
local function wake (k)
  redis.pcall('PUBLISH', string.sub(k.waiting, 1, -#':waiting' - 1), '')
end
`

/** `add` reads tasks from a list: for each its id, its message and when it is due, 0 for at once. */
const adding = /* lua */ `
local function is_due (at)
  if at == 0 then return true end
  if not now_us then read_time() end
  return at <= now_us
end

-- Adds all tasks that are not known yet, or none if something is wrong with a key.
local function add (k, list)
  local known, waiting, delayed = {}, {}, {}
  local function take (id, message, due)
    if redis.call('HSETNX', k.message, id, message) == 0 then
      if redis.call('ZREM', k.dead, id) == 0 then return end
      redis.call('HDEL', k.progress, id)
      redis.call('HSET', k.message, id, message)
    end
    known[#known + 1] = id
    if is_due(due) then
      waiting[#waiting + 1] = id
    else
      delayed[#delayed + 1] = string.format('%.0f', due)
      delayed[#delayed + 1] = id
    end
  end
  local ok, failure = pcall(function ()
    for i = 1, #list, 3 do take(list[i], list[i + 1], tonumber(list[i + 2])) end
    call_with('ZADD', k.delayed, delayed)
    call_with('RPUSH', k.waiting, waiting)
  end)
  if not ok then
    call_with('HDEL', k.message, known)
    error(failure)
  end
  -- Where others wait already whoever has room knows of them.
  if #delayed > 0 or #waiting > 0 and redis.call('LLEN', k.waiting) == #waiting then wake(k) end
end

-- Reads tasks from ARGV: for each the number of its queue, its id, its message, when ('', 'in' or 'at')
-- and milliseconds. Returns lists for add, by queue.
local function read_tasks (first, count)
  local lists = {}
  for i = first, first + count * 5 - 1, 5 do
    local queue, id, message, when, ms = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 4)
    local list = lists[queue] or {}
    lists[queue] = list
    local due = when == 'in' and now_us + ms * 1000 + #list or when == 'at' and ms * 1000 + #list or 0
    for _, value in ipairs({ id, message, string.format('%.0f', due) }) do list[#list + 1] = value end
  end
  return lists
end
`

const leasing = /* lua */ `
-- Moves the lease clock of a queue on by the time since the last contact with anybody, one
-- heartbeat at most: time in which nobody could prolong a lease does not let it expire.
local function tick (k, heartbeat)
  local contact, lease_clock = string.match(redis.call('GETDEL', k.clock) or '', '(%d+) (%d+)')
  lease_clock = (lease_clock or 0) + math.max(0, math.min(now - (contact or now), heartbeat))
  redis.call('SET', k.clock, string.format('%.0f %.0f', now, lease_clock))
  return lease_clock
end

-- Returns what is known of each id: nothing yet before the first claim.
local function look_up (k, ids)
  local known = #ids > 0 and redis.call('HMGET', k.progress, unpack(ids)) or {}
  for i, text in ipairs(known) do
    if text then
      local fence, attempt, retries, deaths, suspect = string.match(text, '(%d+) (%d+) (%d+) (%d+) (%d)')
      known[i] = {
        fence = tonumber(fence), attempt = tonumber(attempt), retries = tonumber(retries), deaths = tonumber(deaths), suspect = tonumber(suspect)
      }
    else
      known[i] = { fence = 0, attempt = 0, retries = 0, deaths = 0, suspect = 0 }
    end
  end
  return known
end

-- The same of ids that may be running.
local function look_up_running (k, ids)
  local known = look_up(k, ids)
  local scores = #ids > 0 and redis.call('ZMSCORE', k.running, unpack(ids)) or {}
  for i, p in ipairs(known) do p.running = scores[i] end
  return known
end

local function progress (p, reason)
  return string.format('%.0f %d %d %d %d %s', p.fence, p.attempt, p.retries, p.deaths, p.suspect, reason or '')
end

-- Leases of one call end a little apart, in the order in which they were claimed.
local function lease_end (lease_clock, lease_ms, i)
  return string.format('%.3f', lease_clock + lease_ms + i / 1000)
end

local function holds (p, fence)
  return p.running and p.fence == fence
end

-- To the front, the first of them foremost.
local function give_back (list, ids)
  for i = #ids, 1, -1 do redis.call('LPUSH', list, ids[i]) end
end

local buried = 0
local function bury (k, id, p, reason)
  redis.call('HSET', k.progress, id, progress(p, reason))
  redis.call('ZADD', k.dead, string.format('%.0f', now_us + buried), id)
  buried = buried + 1
end

local function keep_newest_dead (k, limit)
  local surplus = redis.call('ZCARD', k.dead) - limit
  local oldest = surplus > 0 and redis.call('ZRANGE', k.dead, 0, surplus - 1) or {}
  call_with('ZREM', k.dead, oldest)
  call_with('HDEL', k.message, oldest)
  call_with('HDEL', k.progress, oldest)
end

-- Returns the milliseconds until there is something to claim, -1 when nothing is known to come,
-- and how many suspects there are.
local function outlook (k, lease_clock)
  local suspects = redis.call('LLEN', k.suspects)
  if suspects > 0 or redis.call('LLEN', k.waiting) > 0 then return 0, suspects end
  local soonest = -1
  for _, set in ipairs({ { k.delayed, now_us, 1000 }, { k.running, lease_clock, 1 } }) do
    local score = redis.call('ZRANGE', set[1], 0, 0, 'WITHSCORES')[2]
    local left = score and math.max(0, math.ceil((score - set[2]) / set[3]))
    if left and (soonest == -1 or left < soonest) then soonest = left end
  end
  return soonest, suspects
end
`

/**
 * ARGV: for each commit its id, the number of its tasks, and those. What a commit or a
 * rollback leaves in its place keeps out a prepare that arrives after it.
 */
const prepare = /* lua */ `${prelude}${adding}
read_time()
local arg = 1
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 1])
  for queue, list in pairs(read_tasks(arg + 2, count)) do
    redis.call('HSETNX', keys_of(queue).prepared, ARGV[arg], string.format('%.0f ', now) .. cmsgpack.pack(list))
  end
  arg = arg + 2 + count * 5
end
`

/**
 * ARGV: for each commit its id, and 1 if it was sent to be prepared more than once, so that the
 * last of them may be yet to come. KEYS: those of the queues that they add to.
 */
const commit = /* lua */ `${prelude}${adding}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    local id, repeated = unpack(ARGV, arg, arg + 1)
    local prepared = redis.call('HGET', k.prepared, id)
    local packed = prepared and string.match(prepared, '^%d+ (.+)$')
    if packed then
      -- First, since a full memory allows it, and then the rest.
      redis.call('HDEL', k.prepared, id)
      local ok, failure = pcall(add, k, cmsgpack.unpack(packed))
      if not ok then
        redis.call('HSET', k.prepared, id, prepared)
        return type(failure) == 'table' and failure or redis.error_reply(failure)
      end
      if repeated == '1' then redis.call('HSET', k.prepared, id, string.match(prepared, '^%d+ ')) end
    end
  end
end
`

/** ARGV: as for `commit`. KEYS: those of the queues that they would add to. */
const rollback = /* lua */ `${prelude}
read_time()
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  for arg = 1, #ARGV, 2 do
    redis.call('HDEL', k.prepared, ARGV[arg])
    redis.call('HSET', k.prepared, ARGV[arg], string.format('%.0f ', now))
  end
end
`

/**
 * KEYS: those of the queue, of the queues of chained tasks, and the consumer's own. ARGV:
 * the number of the turn, heartbeat, leaseMs, limit, 1 to claim a suspect instead, how many
 * dead to keep, then for each settlement id, fence, verdict, delayMs, reason, the number
 * of its chained tasks and those tasks. Returns wakeInMs and the number of suspects; 0 or 1
 * for each settlement; and for each lease id, message, fence, attempt, retries, deaths and suspect.
 */
const turn = /* lua */ `${prelude}${adding}${leasing}
read_time()
local k, last_turn = keys_of(0), KEYS[#KEYS]
local number, heartbeat, lease_ms, limit, alone, dead_limit = unpack(ARGV, 1, 6)
number, heartbeat, limit = tonumber(number), tonumber(heartbeat), tonumber(limit)

local function append (list, ...)
  for i = 1, select('#', ...) do list[#list + 1] = select(i, ...) end
end

-- Hands out once more what is still lent, and for a whole lease: its holder did not know, and prolonged nothing.
local function lend_again (ids, fences, lease_clock)
  local messages = #ids > 0 and redis.call('HMGET', k.message, unpack(ids)) or {}
  local leases, lent = {}, {}
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      append(lent, lease_end(lease_clock, lease_ms, i), ids[i])
      append(leases, ids[i], messages[i] or '', p.fence, p.attempt, p.retries, p.deaths, p.suspect)
    end
  end
  call_with('ZADD', k.running, lent)
  return leases
end

local last = redis.call('GET', last_turn)
last = last and cmsgpack.unpack(last) or { number = 0 }
if last.number > number then return redis.error_reply('ERR this turn is over') end
local lease_clock = tick(k, heartbeat)
if last.number == number then
  return { { outlook(k, lease_clock) }, last.settled, lend_again(last.ids, last.fences, lease_clock) }
end

local settlements, ids = {}, {}
local arg = 7
while arg <= #ARGV do
  local id, fence, verdict, delay, reason, chain = unpack(ARGV, arg, arg + 5)
  settlements[#settlements + 1] = {
    id = id, fence = tonumber(fence), verdict = verdict, delay = delay, reason = reason, chain = tonumber(chain), chain_at = arg + 6
  }
  ids[#ids + 1] = id
  arg = arg + 6 + chain * 5
end

local settled, ended, done, released, suspects = {}, {}, {}, {}, {}
local has_died = false
local known = look_up_running(k, ids)
for i, s in ipairs(settlements) do
  local p = known[i]
  -- Settled twice in one turn, the second time would find what the first one has left.
  local is_held = holds(p, s.fence) and not ended[s.id]
  settled[i] = is_held and 1 or 0
  if is_held then
    ended[s.id] = true
    ended[#ended + 1] = s.id
    if s.verdict == 'done' then
      done[#done + 1] = s.id
    elseif s.verdict == 'release' or s.verdict == 'unseen' then
      if s.verdict == 'unseen' then
        p.attempt = p.attempt - 1
        redis.call('HSET', k.progress, s.id, progress(p))
      end
      local list = p.suspect == 1 and suspects or released
      list[#list + 1] = s.id
    elseif s.verdict == 'retry' then
      p.retries, p.suspect = p.retries + 1, 0
      redis.call('HSET', k.progress, s.id, progress(p, s.reason))
      redis.call('ZADD', k.delayed, string.format('%.0f', now_us + s.delay * 1000 + i - #settlements), s.id)
    else
      bury(k, s.id, p, s.reason)
      has_died = true
    end
  end
end
call_with('ZREM', k.running, ended)
call_with('HDEL', k.message, done)
call_with('HDEL', k.progress, done)
if has_died then keep_newest_dead(k, dead_limit) end
give_back(k.waiting, released)
give_back(k.suspects, suspects)
if #released + #suspects > 0 then wake(k) end
for i, s in ipairs(settlements) do
  if settled[i] == 1 and s.chain > 0 then
    for queue, list in pairs(read_tasks(s.chain_at, s.chain)) do add(keys_of(queue), list) end
  end
end

local claimed, fences, leases = {}, {}, {}
if limit > 0 then
  local abandoned = redis.call('ZRANGEBYSCORE', k.running, '-inf', lease_clock, 'LIMIT', 0, 1000)
  for i, p in ipairs(look_up(k, abandoned)) do
    -- Only a death that it died alone is certainly its own.
    p.deaths, p.suspect = p.deaths + p.suspect, 1
    redis.call('HSET', k.progress, abandoned[i], progress(p))
  end
  call_with('ZREM', k.running, abandoned)
  give_back(k.suspects, abandoned)

  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.delayed, due)
  call_with('RPUSH', k.waiting, due)

  local popped = redis.call('LPOP', alone == '1' and k.suspects or k.waiting, alone == '1' and 1 or limit) or {}
  local messages = #popped > 0 and redis.call('HMGET', k.message, unpack(popped)) or {}
  local noted, lent = {}, {}
  for i, p in ipairs(look_up(k, popped)) do
    local id, message = popped[i], messages[i]
    if message and string.find(id, '^[\\32-\\126]+$') then
      -- No task is claimed twice in a microsecond.
      p.fence, p.attempt = now_us + i, p.attempt + 1
      append(claimed, id)
      append(fences, p.fence)
      append(noted, id, progress(p))
      append(lent, lease_end(lease_clock, lease_ms, i), id)
      append(leases, id, message, p.fence, p.attempt, p.retries, p.deaths, p.suspect)
    else
      -- It cannot have been added.
      bury(k, id, p, 'it is not a task')
      keep_newest_dead(k, dead_limit)
    end
  end
  call_with('HSET', k.progress, noted)
  call_with('ZADD', k.running, lent)
end
-- For as long as its consumer may ask again.
redis.call('SET', last_turn, cmsgpack.pack({ number = number, settled = settled, ids = claimed, fences = fences }), 'EX', 86400)
return { { outlook(k, lease_clock) }, settled, leases }
`

/**
 * ARGV: how many dead to keep, how old a prepared commit may become, then for each queue heartbeat,
 * leaseMs, the number of its leases, and for each lease id and fence. Returns for each queue
 * wakeInMs, the number of suspects, and the ids that are no longer held.
 */
const extend = /* lua */ `${prelude}${leasing}
read_time()

-- A commit whose process has died before it could say what became of the request. Nobody
-- knows whether its tasks should run, so they do not, and are kept for somebody to look at.
-- They are found by looking at a few commits of many: most are gone a moment later.
local function bury_in_doubt (k)
  local some = redis.call('HRANDFIELD', k.prepared, 10, 'WITHVALUES')
  for i = 1, #some, 2 do
    local since, packed = string.match(some[i + 1], '^(%d+) (.*)$')
    if now - since >= tonumber(ARGV[2]) then
      local list = packed == '' and {} or cmsgpack.unpack(packed)
      for j = 1, #list, 3 do
        if redis.call('HSETNX', k.message, list[j], list[j + 1]) == 1 then
          bury(k, list[j], { fence = 0, attempt = 0, retries = 0, deaths = 0, suspect = 0 }, 'its process died while it committed')
        end
      end
      redis.call('HDEL', k.prepared, some[i])
    end
  end
  if buried > 0 then keep_newest_dead(k, ARGV[1]) end
end

local function beat (k, arg, count)
  local lease_clock = tick(k, tonumber(ARGV[arg]))
  local ids, fences, lost, kept = {}, {}, {}, {}
  for i = 1, count do
    ids[i], fences[i] = ARGV[arg + 1 + i * 2], tonumber(ARGV[arg + 2 + i * 2])
  end
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      for _, value in ipairs({ lease_end(lease_clock, ARGV[arg + 1], i), ids[i] }) do kept[#kept + 1] = value end
    else
      lost[#lost + 1] = ids[i]
    end
  end
  call_with('ZADD', k.running, kept)
  bury_in_doubt(k)
  local wake_in, suspects = outlook(k, lease_clock)
  return { wake_in, suspects, lost }
end

local reply = {}
local arg = 3
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 2])
  -- One queue whose keys have been tampered with does not stop the others.
  local ok, pulse = pcall(beat, keys_of(#reply), arg, count)
  -- Not so a Redis that has become a replica: it prolongs no lease.
  if not ok and string.find(type(pulse) == 'table' and pulse.err or pulse, 'READONLY') then
    return redis.error_reply('READONLY it is a replica')
  end
  reply[#reply + 1] = ok and pulse or { -1, 0, {} }
  arg = arg + 3 + count * 2
end
return reply
`

/** KEYS: any. Refused where nothing may be written; not by a full memory, since that is to be emptied. */
const vote = /* lua */ `
local reply = redis.pcall('GETDEL', KEYS[1])
if type(reply) ~= 'table' then return 1 end
return redis.error_reply(string.find(reply.err, 'nknown') and 'ERR it is older than 6.2' or reply.err)
`

/** Returns the numbers of waiting, delayed, running and dead tasks. */
const counts = /* lua */ `${prelude}
read_time()
local k = keys_of(0)
local due = redis.call('ZCOUNT', k.delayed, '-inf', now_us)
local waiting = redis.call('LLEN', k.waiting) + redis.call('LLEN', k.suspects)
return { waiting + due, redis.call('ZCARD', k.delayed) - due, redis.call('ZCARD', k.running), redis.call('ZCARD', k.dead) }
`

/** Drops the first waiting and delayed tasks, up to a thousand of each, and returns how many: 0 once there are none. */
const purge = /* lua */ `${prelude}
local k = keys_of(0)
local ids = redis.call('ZRANGE', k.delayed, 0, 999)
call_with('ZREM', k.delayed, ids)
for _, list in ipairs({ k.waiting, k.suspects }) do
  for _, id in ipairs(redis.call('LPOP', list, 1000) or {}) do ids[#ids + 1] = id end
end
call_with('HDEL', k.message, ids)
call_with('HDEL', k.progress, ids)
return #ids
`

/** Leaves nothing of a consumer that closes. KEYS: its own. */
const leave = /* lua */ `
redis.call('DEL', unpack(KEYS))
`

export const scripts = { prepare, commit, rollback, turn, extend, leave, vote, counts, purge }
