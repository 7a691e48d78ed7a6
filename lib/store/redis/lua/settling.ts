import { HISTORY_MINUTES } from '../../found.js'
import { TASK_ARGS } from './tasks.js'

/** How many arguments describe a settlement, without its chained tasks. */
export const SETTLEMENT_ARGS = 5

/**
 * Carries out the verdicts of a turn. Takes the prelude; from `moving`, `counts_of`, `pardon`, `follower_in`,
 * `records_of`, `records_with`, `keep_records`, `fields_of`, `keep_ended`, `tell_end`, `wake`, `place_of`, `enqueue`,
 * `give_back`, `is_shared`, `let_go`, `lanes`, `set_lane` and `put_first`; from `reading`, `read_tasks`; from `adding`,
 * `add`; from `leases`, `look_up_running` and `holds`; from `burying`, `bury`; and from the script, the queue `k`,
 * `keep_count`, `keep_ms`, and `rest`, the place of the first settlement in ARGV. Leaves behind: `settled`, 1 or 0 for
 * each settlement; and `done`, the ids of tasks that are done.
 */
export const settling = /* lua */ `
-- The tasks whose attempts have ended, and the places of their settlements in ARGV.
local ended_ids, places = {}, {}
local arg = rest
while arg <= #ARGV do
  ended_ids[#ended_ids + 1] = ARGV[arg]
  places[#ended_ids] = arg
  arg = arg + ${SETTLEMENT_ARGS} + ARGV[arg + 4] * ${TASK_ARGS}
end

local settled, ended, counted, over, done, forgotten, records = {}, {}, {}, {}, {}, {}, {}
local failures = 0
local released, suspects, replaced, is_left_to_others = {}, {}, {}, false

local function be_done (id, p, record, dedupe)
  done[#done + 1] = id
  over[#over + 1] = id
  fields_of(forgotten, id, p)
  if keep_count > 0 then
    local attempts = record and records_with(k, id, p, record) or records_of(k, id, p)
    records[#records + 1] = id
    records[#records + 1] = cmsgpack.pack({ 'done', now, p.attempt, attempts })
  end
  if dedupe > 0 then
    redis.call('ZREMRANGEBYSCORE', k.recent, '-inf', now_us)
    redis.call('ZADD', k.recent, 'GT', number(now_us + dedupe * 1000), id)
    redis.call('PEXPIRE', k.recent, number(math.max(dedupe, redis.call('PTTL', k.recent))))
  end
end

-- Puts in line the task that follows another one, with all its retries.
local function follow (id, p, next)
  local message, due, expires, lane = unpack(next)
  redis.call('HDEL', k.attempts, id .. ' next', id .. ' progress')
  pardon(p)
  redis.call('HSET', k.attempts, id, counts_of(p))
  redis.call('HSET', k.message, id, message)
  -- What counts as running has to be right before the queue becomes a shared one.
  if lane ~= '' and not (is_shared(k) and lanes().has_lane(k)) then call_with('ZREM', k.running, ended) end
  set_lane(k, id, lane)
  redis.call('ZREM', k.expiring, id)
  if expires > 0 then redis.call('ZADD', k.expiring, place_of(k.expiring, expires), id) end
  append(replaced, id, due)
end

-- Has the key of a task rest, or if it has none the queue, if that has limits. Returns whether either does.
local function rest_for (id, ms)
  if not is_shared(k) then return false end
  local _, _, key = lanes().lane_of_task(k, id)
  key = key or ''
  if key == '' and not lanes().has_limits(k) then return false end
  lanes().rest_until(k, key, now_us + ms * 1000, true)
  return true
end

-- Takes back what an attempt has cost at the rates of its queue and its key, since the app has not seen the task.
local function refund (id)
  if not is_shared(k) then return end
  lanes().spend(k, '', lanes().limits_of(k).rate, -1)
  local _, _, key = lanes().lane_of_task(k, id)
  if key and key ~= '' then
    lanes().spend(k, key, lanes().rate_of(k, key), -1)
    lanes().refresh(k, key)
  end
end

-- Carries out a verdict on a task that no longer runs.
local function settle (id, p, i, how, record)
  local packed, expiry = unpack(p.more == 1 and redis.call('HMGET', k.attempts, id .. ' next', id .. ' late') or {})
  local next = follower_in(packed)
  local verdict, ms, reason = 'done', 0, ''
  if how ~= 'done' then
    verdict, ms, reason = string.match(how, '^(%a+) ?(%d*) ?(.*)$')
    ms = tonumber(ms) or 0
  end
  local is_uncounted = verdict == 'unseen' or verdict == 'unrouted'
  if verdict == 'unseen' then refund(id) end
  if not next and not is_uncounted then counted[#counted + 1] = id end
  if verdict == 'done' and not next then return be_done(id, p, record, ms) end
  if record then keep_records(k, id, p, record) end
  if expiry then redis.call('HDEL', k.attempts, id .. ' late') end
  if is_uncounted then
    p.attempt = p.attempt - 1
    if expiry and not next then redis.call('ZADD', k.expiring, expiry, id) end
  end
  local rests = verdict == 'busy' and rest_for(id, ms)
  if next then
    follow(id, p, next)
  elseif verdict == 'release' or verdict == 'unseen' then
    if verdict == 'unseen' or record then redis.call('HSET', k.attempts, id, counts_of(p, p.reason)) end
    append(released, id)
    suspects[id] = p.suspect == 1
  elseif rests then
    p.suspect, p.deferred = 0, p.deferred + ms
    redis.call('HSET', k.attempts, id, counts_of(p, reason))
    append(released, id)
  elseif verdict == 'retry' or verdict == 'defer' or verdict == 'unrouted' or verdict == 'busy' then
    p.suspect = 0
    if verdict == 'retry' then
      p.retries = p.retries + 1
      failures = failures + 1
    else
      p.deferred = p.deferred + ms
    end
    if verdict == 'unrouted' then
      p.unrouted = p.unrouted + ms
      is_left_to_others = true
    end
    redis.call('HSET', k.attempts, id, counts_of(p, reason))
    -- Tasks of one delay become due a microsecond apart, in the order in which their attempts ended. Those without a
    -- delay are due at once, so that this very turn puts them in line.
    local first = ms == 0 and now_us - #ended_ids or now_us + ms * 1000
    redis.call('ZADD', k.delayed, number(first + i), id)
  else
    append(over, id)
    failures = failures + 1
    if p.more == 1 then redis.call('HDEL', k.attempts, id .. ' progress') end
    bury(k, id, p, reason)
  end
end

-- Counts what has happened in this minute, and forgets old minutes as a new one begins.
local function note (kind, count)
  if count == 0 then return end
  local minute = math.floor(now / 60000)
  -- A fault of what is only shown is no reason to stop.
  if redis.pcall('HINCRBY', k.history, kind .. number(minute), count) ~= count then return end
  -- Without another minute the key is gone before a field can be older than those that are deleted here.
  redis.call('PEXPIRE', k.history, ${2 * HISTORY_MINUTES * 60_000})
  local old = {}
  for at = minute - ${4 * HISTORY_MINUTES}, minute - ${HISTORY_MINUTES} do old[#old + 1] = kind .. number(at) end
  redis.call('HDEL', k.history, unpack(old))
end

for i, p in ipairs(look_up_running(k, ended_ids)) do
  local id, at = ended_ids[i], places[i]
  -- A task that is settled twice in one turn is settled once: the second time it would still seem to run.
  local is_held = holds(p, tonumber(ARGV[at + 1])) and not ended[id]
  settled[i] = is_held and 1 or 0
  if is_held then
    ended[id] = true
    ended[#ended + 1] = id
    if is_shared(k) and lanes().has_lane(k) then
      redis.call('ZREM', k.running, id)
      let_go(k, id)
    end
    settle(id, p, i, ARGV[at + 2], ARGV[at + 3] ~= '' and ARGV[at + 3])
  end
end
call_with('ZREM', k.running, ended)
call_with('ZREM', k.expiring, counted)
call_with('HDEL', k.message, done)
call_with('HDEL', k.attempts, forgotten)
if is_shared(k) then call_with('HDEL', k.lane, done) end
-- A fault in what is kept of ended tasks is no reason to stop.
pcall(keep_ended, k, records, keep_count, keep_ms)
note('d', #done)
note('f', failures)
tell_end(k, over)
enqueue(k, replaced)
-- The order among lanes is that in which tasks come into them, suspects included.
for i = #released, 1, -1 do
  local id = released[i]
  if not suspects[id] then
    put_first(k, { id })
  else
    give_back(k.suspects, { id })
    if is_shared(k) then lanes().hold_again(k, id) end
  end
end
if #released > 0 or is_left_to_others then wake(k) end
for i, at in ipairs(places) do
  local chain = tonumber(ARGV[at + 4])
  if settled[i] == 1 and chain > 0 then
    for queue, list in pairs(read_tasks(at + ${SETTLEMENT_ARGS}, chain)) do add(keys_of(queue), list, true) end
  end
end
`
