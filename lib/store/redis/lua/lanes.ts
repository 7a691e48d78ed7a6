/**
 * Keeps tasks in lanes. It is a part of the function that `sharing` makes. Takes the prelude; from `queueing`,
 * `give_back`; from `limits`, what that leaves behind; and from `sharing`, `shared`, `is_shared`, `range_of` and
 * `lane_in`.
 */
export const lanes = /* lua */ `
-- The classes of lanes that may be claimed from, by how many of their tasks run, are so far apart.
local CLASS = 2 ^ 40
local MOST_CLASSES = 8191

local function first_in (k, key, level)
  local from, to = range_of(key, level)
  return redis.call('ZRANGEBYLEX', k.lanes, from, to, 'LIMIT', 0, 1)[1]
end

local function last_in (k, key, level)
  local from, to = range_of(key, level)
  return redis.call('ZREVRANGEBYLEX', k.lanes, to, from, 'LIMIT', 0, 1)[1]
end

local function member_of (id, level, place, key)
  return key .. '\\0' .. level .. place .. '\\0' .. id
end

local function has_waiting (k, key)
  return key == '' and redis.call('LLEN', k.waiting) > 0 or first_in(k, key) ~= nil
end

-- What is known of a queue, by the name of its key lane: whether it has tasks with a key or another level than normal,
-- whether any of its keys rests, and how many tasks it is about to note as running.
local has_lane, has_rest, beginning = {}, {}, {}

local function look_at (k)
  has_lane[k.lane] = redis.call('HLEN', k.lane) > 0
  has_rest[k.lane] = redis.call('ZCARD', k.resting) > 0
end

-- Counts the tasks of a key that run, and its suspects. The lane without a key has the rest of them.
local function count_running (k, key)
  if not has_lane[k.lane] and key ~= '' then return 0 end
  if key ~= '' then return redis.call('ZLEXCOUNT', k.holding, range_of(key)) end
  local all = redis.call('ZCARD', k.running) + (beginning[k.lane] or 0) + redis.call('LLEN', k.suspects)
  return has_lane[k.lane] and all - redis.call('ZCARD', k.holding) or all
end

-- Returns the class of a lane, or nil if nothing of it may be claimed. A lane without limits of its own stays in its
-- class when that is too high for the limits of each key, since those may change. One with more room of its own is put
-- among those that have room.
local function class_of (k, key)
  if not has_waiting(k, key) then return end
  if key ~= '' and has_rest[k.lane] and (finite(redis.call('ZSCORE', k.resting, key)) or 0) > now_us then return end
  local common, own = limits_of(k).per_key, own_limits_of(k, key)
  local due = due_by_rate(k, key, key ~= '' and (own or common).rate)
  if due > now_us then
    redis.call('ZADD', k.pacing, number(due), key)
    return
  end
  local class = math.min(count_running(k, key), MOST_CLASSES)
  if not own then return class end
  if own.running and class >= own.running then return end
  return common.running and math.min(class, common.running - 1) or class
end

-- Puts a lane in line behind the others of its class, unless it is there already. All that this depends on is kept
-- elsewhere, so whatever changes a lane calls this afterwards.
local function refresh (k, key)
  local place, class = finite(redis.call('ZSCORE', k.ready, key)), class_of(k, key)
  if not class then
    if place then redis.call('ZREM', k.ready, key) end
    if not has_waiting(k, key) then redis.call('HDEL', k.lane, ' ' .. key) end
  elseif not place or math.floor(place / CLASS) ~= class then
    local from, to = '(' .. number((class + 1) * CLASS), number(class * CLASS)
    local last = redis.call('ZRANGE', k.ready, from, to, 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    redis.call('ZADD', k.ready, number(last and last + 1 or class * CLASS), key)
  end
end

-- Returns the lane that comes first, limits aside. The lane without a key may have come without a notice.
local function first_ready (k)
  look_at(k)
  local key, place = unpack(redis.call('ZRANGE', k.ready, 0, 0, 'WITHSCORES'))
  local class = not redis.call('ZSCORE', k.ready, '') and class_of(k, '')
  if class and (not key or class < math.floor(place / CLASS)) then return '' end
  return key
end

-- Has no task handed to a consumer that waits, since that asks for no lane and no limit.
local function unpark (k)
  local entries = redis.call('HGETALL', k.idle)
  for i = 1, #entries, 2 do
    local ok, turn = pcall(cmsgpack.unpack, entries[i + 1])
    if not ok or type(turn) ~= 'table' or not turn.ids then redis.call('HDEL', k.idle, entries[i]) end
  end
end

-- Calls for what follows a change that makes a queue a shared one.
local function become_shared (k)
  if is_shared(k) then return end
  shared[k.lane] = true
  if not now_us then read_time() end
  unpark(k)
  refresh(k, '')
end

-- Puts all lanes in line anew whose places the limits may have changed.
local function refresh_all (k)
  local keys = redis.call('ZRANGE', k.pacing, 0, -1)
  redis.call('DEL', k.pacing)
  append(keys, '')
  for _, key in ipairs(redis.call('HKEYS', k.limits)) do append(keys, key) end
  for _, key in ipairs(keys) do refresh(k, key) end
end

-- Returns for each of some tasks what lane_in reads.
local function lanes_in (k, ids)
  return has_lane[k.lane] and ask_for_each('HMGET', k.lane, ids) or {}
end

local function lane_of_task (k, id)
  if has_lane[k.lane] then return lane_in(redis.call('HGET', k.lane, id)) end
end

-- Notes the lane of a task. The lane is a level and a key, as its terms have it, or '' for the usual one.
local function set_lane (k, id, lane)
  if lane ~= '' then
    become_shared(k)
    if not has_lane[k.lane] then
      -- Until now nobody had to know where the lane without a key stands.
      refresh(k, '')
      has_lane[k.lane] = true
    end
    redis.call('HSET', k.lane, id, string.sub(lane, 1, 1) .. '${'0'.repeat(16)}' .. string.sub(lane, 2))
  elseif is_shared(k) then
    redis.call('HDEL', k.lane, id)
  end
end

-- Notes that a task of a key runs.
local function hold (k, id, key)
  if key ~= '' then redis.call('ZADD', k.holding, 0, key .. '\\0' .. id) end
end

-- Puts a task at an end of its line in its lane.
local function put_in_lane (k, id, level, key, is_first)
  local neighbour = (is_first and first_in or last_in)(k, key, level)
  local next_to = neighbour and finite(string.match(neighbour, '^[^%z]*%z[012](%d+)'))
  local place = next_to and next_to + (is_first and -1 or 1) or 5000000000000000
  local text = string.format('%016d', place)
  redis.call('ZADD', k.lanes, 0, member_of(id, level, text, key))
  redis.call('HSET', k.lane, id, level .. text .. key)
  if not redis.call('ZSCORE', k.ready, key) then refresh(k, key) end
end

-- Notes that a task no longer runs. It is not among those that run any more.
local function let_go (k, id)
  local _, _, key = lane_of_task(k, id)
  if key and key ~= '' then redis.call('ZREM', k.holding, key .. '\\0' .. id) end
  refresh(k, key or '')
end

-- Notes that a task counts again among those of its key that run.
local function hold_again (k, id)
  local _, _, key = lane_of_task(k, id)
  hold(k, id, key or '')
  refresh(k, key or '')
end

-- Gives a task that runs, or was running, another lane.
local function rehold (k, id, lane)
  local _, _, key = lane_in(redis.call('HGET', k.lane, id))
  redis.call('ZREM', k.holding, (key or '') .. '\\0' .. id)
  set_lane(k, id, lane)
  hold(k, id, string.sub(lane, 2))
  refresh(k, key or '')
  refresh(k, string.sub(lane, 2))
end

-- Puts tasks at the ends of their lines.
local function put_last (k, ids)
  local known = lanes_in(k, ids)
  for i, id in ipairs(ids) do
    local level, _, key = lane_in(known[i])
    if level then
      put_in_lane(k, id, level, key)
    else
      redis.call('RPUSH', k.waiting, id)
      if not redis.call('ZSCORE', k.ready, '') then refresh(k, '') end
    end
  end
end

-- Puts tasks at the fronts of their lines, the first of them foremost.
local function put_first (k, ids)
  local known = lanes_in(k, ids)
  for i = #ids, 1, -1 do
    local level, _, key = lane_in(known[i])
    if level then
      put_in_lane(k, ids[i], level, key, true)
    else
      redis.call('LPUSH', k.waiting, ids[i])
      refresh(k, '')
    end
  end
end

-- Takes a waiting task out of its lane. Returns whether it has one that is not in the list.
local function take_out (k, id)
  local level, place, key = lane_of_task(k, id)
  if not level or redis.call('ZREM', k.lanes, member_of(id, level, place, key)) == 0 then return false end
  refresh(k, key)
  return true
end

-- Forgets the lanes of tasks that are gone.
local function forget (k, ids)
  for i, lane in ipairs(lanes_in(k, ids)) do
    local level, place, key = lane_in(lane)
    if level then
      redis.call('ZREM', k.lanes, member_of(ids[i], level, place, key))
      redis.call('ZREM', k.holding, key .. '\\0' .. ids[i])
      redis.call('HDEL', k.lane, ids[i])
      refresh(k, key)
    end
  end
end

-- Has a key rest until a time, or if it is to be at least that, not shorter than it does already.
local function rest_until (k, key, time, is_at_least)
  if is_at_least then
    redis.call('ZADD', k.resting, 'GT', number(time), key)
  else
    redis.call('ZADD', k.resting, number(time), key)
  end
  has_rest[k.lane] = true
  refresh(k, key)
end

-- Brings what is known of a queue up to date, as a script begins to look at its lanes.
local function enter (k)
  if not now_us then read_time() end
  -- These fail before anything is written if a key is of another type.
  for _, set in ipairs({ k.lanes, k.ready, k.holding, k.pacing, k.tat }) do redis.call('ZCARD', set) end
  look_at(k)
  -- Tasks may have been put into the list by somebody who did not ask.
  refresh(k, '')
end
`
