/**
 * How a queue lies in Redis, and the scripts that move its tasks: the same places, under
 * the same names, as in the local store.
 *
 *     waiting   list of ids, the next one first
 *     delayed   sorted set of ids by due time, in milliseconds of Redis's clock
 *     running   sorted set of ids by the end of their lease, in milliseconds of the lease clock
 *     dead      sorted set of ids by time of death
 *     message   hash of messages by id
 *     progress  hash by id of "attempt retries deaths reason", from the first claim on
 *     clock     "time of the last contact, lease clock"
 *
 * A script is atomic and takes its times from Redis. Whatever it is passed is an argument
 * and never part of its text, so that Redis keeps one copy of it. Its first write is one
 * that Redis allows when its memory is full, which makes it allow the rest; only that of
 * `add` is not, since adding is what is to be refused then.
 */
export const KEYS = ['waiting', 'delayed', 'running', 'dead', 'message', 'progress', 'clock'] as const

const prelude = /* lua */ `
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)

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

/** Tasks are read from ARGV: the number of their queue, id, message, when ('', 'in' or 'at') and milliseconds. */
const adding = /* lua */ `
local function add (first, count)
  local waiting, touched = {}, {}
  for i = first, first + count * 5 - 1, 5 do
    local queue, id, message, when, ms = tonumber(ARGV[i]), unpack(ARGV, i + 1, i + 4)
    local k = touched[queue] or keys_of(queue)
    touched[queue] = k
    local is_new = redis.call('HSETNX', k.message, id, message) == 1
    if not is_new and redis.call('ZREM', k.dead, id) == 1 then
      redis.call('HDEL', k.progress, id)
      redis.call('HSET', k.message, id, message)
      is_new = true
    end
    local due = when == 'in' and now + ms or when == 'at' and tonumber(ms) or now
    if is_new and due > now then
      redis.call('ZADD', k.delayed, string.format('%.0f', due), id)
    elseif is_new then
      waiting[queue] = waiting[queue] or {}
      table.insert(waiting[queue], id)
    end
  end
  for queue, ids in pairs(waiting) do call_with('RPUSH', touched[queue].waiting, ids) end
  for _, k in pairs(touched) do wake(k) end
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

-- Returns what is known of each id: its progress, and whether it is running.
local function look_up (k, ids)
  if #ids == 0 then return {} end
  local known, scores = redis.call('HMGET', k.progress, unpack(ids)), redis.call('ZMSCORE', k.running, unpack(ids))
  for i, text in ipairs(known) do
    local attempt, retries, deaths = string.match(text or '0 0 0', '(%d+) (%d+) (%d+)')
    known[i] = { attempt = tonumber(attempt), retries = tonumber(retries), deaths = tonumber(deaths), running = scores[i] }
  end
  return known
end

local function progress (p, reason)
  return string.format('%d %d %d %s', p.attempt, p.retries, p.deaths, reason or '')
end

-- To the front, the first of them foremost.
local function give_back (k, ids)
  for i = #ids, 1, -1 do redis.call('LPUSH', k.waiting, ids[i]) end
end

-- Returns the milliseconds until there is something to claim, -1 when nothing is known to come.
local function wake_in (k, lease_clock)
  if redis.call('LLEN', k.waiting) > 0 then return 0 end
  local soonest = -1
  for _, set in ipairs({ { k.delayed, now }, { k.running, lease_clock } }) do
    local score = redis.call('ZRANGE', set[1], 0, 0, 'WITHSCORES')[2]
    local left = score and math.max(0, score - set[2])
    if left and (soonest == -1 or left < soonest) then soonest = left end
  end
  return soonest
end
`

/** ARGV: tasks. */
const add = /* lua */ `${prelude}${adding}
add(1, #ARGV / 5)
`

/**
 * ARGV: heartbeat, leaseMs, limit, how many dead to keep, then for each settlement id,
 * attempt, verdict, delayMs, reason, the number of its chained tasks and those tasks.
 * Returns wakeInMs, 0 or 1 for each settlement, and for each lease id, message, attempt,
 * retries and deaths.
 */
const turn = /* lua */ `${prelude}${adding}${leasing}
local k = keys_of(0)
local heartbeat, lease_ms, limit, dead_limit = tonumber(ARGV[1]), tonumber(ARGV[2]), tonumber(ARGV[3]), tonumber(ARGV[4])
local lease_clock = tick(k, heartbeat)

local settlements, ids = {}, {}
local arg = 5
while arg <= #ARGV do
  local id, attempt, verdict, delay, reason, chain = unpack(ARGV, arg, arg + 5)
  settlements[#settlements + 1] = {
    id = id, attempt = tonumber(attempt), verdict = verdict, delay = delay, reason = reason, chain = tonumber(chain), chain_at = arg + 6
  }
  ids[#ids + 1] = id
  arg = arg + 6 + chain * 5
end

local settled, ended, done, released = {}, {}, {}, {}
local known = look_up(k, ids)
for i, s in ipairs(settlements) do
  local p = known[i]
  -- Settled twice in one turn, the second time would find what the first one has left.
  local holds = p.running and p.attempt == s.attempt and not ended[s.id]
  settled[i] = holds and 1 or 0
  if holds then
    ended[s.id] = true
    ended[#ended + 1] = s.id
    if s.verdict == 'done' then
      done[#done + 1] = s.id
    elseif s.verdict == 'release' then
      released[#released + 1] = s.id
    elseif s.verdict == 'retry' then
      p.retries = p.retries + 1
      redis.call('HSET', k.progress, s.id, progress(p, s.reason))
      redis.call('ZADD', k.delayed, string.format('%.0f', now + s.delay), s.id)
    else
      redis.call('HSET', k.progress, s.id, progress(p, s.reason))
      redis.call('ZADD', k.dead, string.format('%.0f', now), s.id)
    end
  end
end
call_with('ZREM', k.running, ended)
call_with('HDEL', k.message, done)
call_with('HDEL', k.progress, done)
give_back(k, released)
if #released > 0 then wake(k) end
for i, s in ipairs(settlements) do
  if settled[i] == 1 and s.chain > 0 then add(s.chain_at, s.chain) end
end

if #ended > #done + #released then
  local surplus = redis.call('ZCARD', k.dead) - dead_limit
  local oldest = surplus > 0 and redis.call('ZRANGE', k.dead, 0, surplus - 1) or {}
  call_with('ZREM', k.dead, oldest)
  call_with('HDEL', k.message, oldest)
  call_with('HDEL', k.progress, oldest)
end

local leases = {}
if limit > 0 then
  local abandoned = redis.call('ZRANGEBYSCORE', k.running, '-inf', lease_clock, 'LIMIT', 0, 1000)
  for i, p in ipairs(look_up(k, abandoned)) do
    p.deaths = p.deaths + 1
    redis.call('HSET', k.progress, abandoned[i], progress(p))
  end
  call_with('ZREM', k.running, abandoned)
  give_back(k, abandoned)

  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now, 'LIMIT', 0, 1000)
  call_with('ZREM', k.delayed, due)
  call_with('RPUSH', k.waiting, due)

  local claimed = redis.call('LPOP', k.waiting, limit) or {}
  local messages = #claimed > 0 and redis.call('HMGET', k.message, unpack(claimed)) or {}
  local noted, lent = {}, {}
  for i, p in ipairs(look_up(k, claimed)) do
    local id = claimed[i]
    p.attempt = p.attempt + 1
    for _, value in ipairs({ id, progress(p) }) do noted[#noted + 1] = value end
    for _, value in ipairs({ string.format('%.0f', lease_clock + lease_ms), id }) do lent[#lent + 1] = value end
    for _, value in ipairs({ id, messages[i] or '', p.attempt, p.retries, p.deaths }) do leases[#leases + 1] = value end
  end
  call_with('HSET', k.progress, noted)
  call_with('ZADD', k.running, lent)
end
return { wake_in(k, lease_clock), settled, leases }
`

/**
 * ARGV: for each queue heartbeat, leaseMs, the number of its leases, and for each lease id and attempt.
 * Returns for each queue wakeInMs and the ids that are no longer held.
 */
const extend = /* lua */ `${prelude}${leasing}
local reply = {}
local arg, queue = 1, 0
while arg <= #ARGV do
  local k = keys_of(queue)
  local lease_clock = tick(k, tonumber(ARGV[arg]))
  local ids, attempts = {}, {}
  for i = 1, ARGV[arg + 2] do
    ids[i] = ARGV[arg + 1 + i * 2]
    attempts[i] = tonumber(ARGV[arg + 2 + i * 2])
  end
  local lost, kept = {}, {}
  for i, p in ipairs(look_up(k, ids)) do
    if p.running and p.attempt == attempts[i] then
      for _, value in ipairs({ string.format('%.0f', lease_clock + ARGV[arg + 1]), ids[i] }) do kept[#kept + 1] = value end
    else
      lost[#lost + 1] = ids[i]
    end
  end
  call_with('ZADD', k.running, kept)
  reply[#reply + 1] = { wake_in(k, lease_clock), lost }
  arg = arg + 3 + #ids * 2
  queue = queue + 1
end
return reply
`

/** KEYS: any. Refused like `add` when Redis is full, is a replica, or may not be written to. Leaves nothing behind. */
const vote = /* lua */ `
redis.call('SET', KEYS[1], '')
if type(redis.pcall('GETDEL', KEYS[1])) == 'table' then
  redis.call('DEL', KEYS[1])
  return redis.error_reply('ERR it is older than 6.2')
end
`

/** Returns the numbers of waiting, delayed, running and dead tasks. */
const counts = /* lua */ `${prelude}
local k = keys_of(0)
local due = redis.call('ZCOUNT', k.delayed, '-inf', now)
return { redis.call('LLEN', k.waiting) + due, redis.call('ZCARD', k.delayed) - due, redis.call('ZCARD', k.running), redis.call('ZCARD', k.dead) }
`

/** Drops up to 1,000 waiting and 1,000 delayed tasks, and returns how many: 0 once there are none. */
const purge = /* lua */ `${prelude}
local k = keys_of(0)
local ids = redis.call('LPOP', k.waiting, 1000) or {}
local delayed = redis.call('ZRANGE', k.delayed, 0, 999)
call_with('ZREM', k.delayed, delayed)
for _, id in ipairs(delayed) do ids[#ids + 1] = id end
call_with('HDEL', k.message, ids)
call_with('HDEL', k.progress, ids)
return #ids
`

export const scripts = { add, turn, extend, vote, counts, purge }
