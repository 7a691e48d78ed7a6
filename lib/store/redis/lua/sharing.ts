import { admitting } from './admitting.js'
import { lanes } from './lanes.js'
import { limits } from './limits.js'

/**
 * Puts tasks into the one list of a queue, or into lanes, if the queue has any or limits. Takes the prelude; from
 * `queueing`, `line_up`, `place_of`, `give_back` and `wake`; and from `popping`, `drop_stale`. Leaves behind:
 * `range_of`, `id_in`, `lane_in`, `is_shared`, `look_again`, `put_last`, `put_first`, `place_all`, `enqueue`,
 * `unqueue`, `set_lane`, `rehold`, `let_go` and `forget_lanes`; and `lanes`, which returns all that is needed of a
 * queue with lanes or limits.
 */
export const sharing = /* lua */ `
-- Returns the bounds between which the members are of a lane, or of one of its levels.
local function range_of (key, level)
  if level then return '[' .. key .. '\\0' .. level, '(' .. key .. '\\0' .. level .. ':' end
  return '[' .. key .. '\\0', '(' .. key .. '\\1'
end

-- Returns the id of a member of lanes.
local function id_in (member)
  return string.match(member, '^[^%z]*%z[012]%d+%z(.*)$')
end

-- Reads where a task stands: its level, the number of its place, and its key. Returns nothing if it has neither a key
-- nor another level than normal.
local function lane_in (text)
  if not text then return end
  return string.match(text, '^([012])(${'%d'.repeat(16)})(.*)$')
end

-- Whether queues are shared ones, as far as it is known.
local shared, is_shared = {}, nil

-- Makes the functions for lanes and limits. Most queues have neither, and to make functions takes time.
local function make_lanes ()
${limits}${lanes}${admitting}
  return {
    become_shared = become_shared, refresh = refresh, refresh_all = refresh_all, first_ready = first_ready,
    first_in = first_in, last_in = last_in, enter = enter, lane_of_task = lane_of_task, set_lane = set_lane,
    hold = hold, let_go = let_go, hold_again = hold_again, rehold = rehold, put_last = put_last,
    put_first = put_first, take_out = take_out, forget = forget, rest_until = rest_until, room_in = room_in,
    first_lane = first_lane, claimable_in = claimable_in, end_rests = end_rests, limits_of = limits_of,
    has_limits = has_limits, rate_of = rate_of, spend = spend, forget_limits = forget_limits,
    has_lane = function (k) return has_lane[k.lane] end,
    begin = function (k, count) beginning[k.lane] = count end
  }
end

local made
local function lanes ()
  made = made or make_lanes()
  return made
end

-- Whether a queue has tasks with a key or another level than normal, or limits, or rests. Otherwise its tasks are in
-- one list, and nothing is to be known of lanes. A script asks before it moves tasks, since the answer brings the lane
-- without a key up to date.
is_shared = function (k)
  local known = shared[k.lane]
  if known == nil then
    known = redis.call('EXISTS', k.lane, k.limits, k.resting) > 0
    shared[k.lane] = known
    if known then lanes().enter(k) end
  end
  return known
end

-- Says whether a queue is still a shared one, after changes.
local function look_again (k)
  if shared[k.lane] then shared[k.lane] = nil end
  return is_shared(k)
end

-- Puts tasks at the ends of their lines.
local function put_last (k, ids)
  if is_shared(k) then lanes().put_last(k, ids) else call_with('RPUSH', k.waiting, ids) end
end

-- Puts tasks at the fronts of their lines, the first of them foremost.
local function put_first (k, ids)
  if is_shared(k) then lanes().put_first(k, ids) else give_back(k.waiting, ids) end
end

-- Puts tasks that are due in line, and the others among the delayed. Entries: id, or false for none, and due time.
-- Returns whether consumers may wait for one of them.
local function place_all (k, entries)
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
  if #waiting == 0 or not is_shared(k) then return line_up(k, waiting, delayed) or #delayed > 0 end
  line_up(k, {}, delayed)
  put_last(k, waiting)
  return true
end

local function enqueue (k, entries)
  if place_all(k, entries) then wake(k) end
end

-- Notes that a task no longer runs. It is not among those that run any more.
local function let_go (k, id)
  if is_shared(k) then lanes().let_go(k, id) end
end

-- Takes a waiting or delayed task out of its place. Finding an id in the middle of the list would mean going through
-- it. So the id stays there as a stale place, which is skipped when its turn comes.
local function unqueue (k, id)
  if redis.call('ZREM', k.delayed, id) == 1 then return end
  if redis.call('LREM', k.suspects, 1, id) == 1 then return let_go(k, id) end
  if is_shared(k) and lanes().take_out(k, id) then return end
  redis.call('HINCRBY', k.stale, id, 1)
  redis.call('HINCRBY', k.stale, ' ', 1)
  drop_stale(k)
  if is_shared(k) then lanes().refresh(k, '') end
end

-- Notes the lane of a task. The lane is a level and a key, as its terms have it, or '' for the usual one.
local function set_lane (k, id, lane)
  if lane ~= '' or is_shared(k) then lanes().set_lane(k, id, lane) end
end

-- Gives a task that runs, or was running, another lane.
local function rehold (k, id, lane)
  if lane ~= '' or is_shared(k) then lanes().rehold(k, id, lane) end
end

-- Forgets the lanes of tasks that are gone.
local function forget_lanes (k, ids)
  if #ids > 0 and is_shared(k) then lanes().forget(k, ids) end
end
`
