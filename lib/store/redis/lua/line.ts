/**
 * Puts tasks in line. Takes the prelude. Leaves behind: `tell`, `wake`, `place_of`, `line_up` and `give_back`.
 */
export const queueing = /* lua */ `
-- Publishes news on the channel of the queue, which is what its keys begin with. Without the permission to publish
-- only the news are lost.
local function tell (k, news)
  redis.pcall('PUBLISH', string.sub(k.waiting, 1, -#':waiting' - 1), news)
end

local function wake (k)
  tell(k, 'work')
end

-- Returns the score of a task that is due, or expires, at a time. It lies behind all scores of the same millisecond, or
-- of the next ones if these are thousands, so that tasks keep the order of adding.
local following = {}
local function place_of (set, time)
  local name = set .. number(time)
  local place = following[name] or time
  for i = 1, following[name] and 0 or 10 do
    local first = time + (i - 1) * 1000
    local from, to = number(first + 999), number(first)
    local last = redis.call('ZRANGE', set, from, to, 'BYSCORE', 'REV', 'LIMIT', 0, 1, 'WITHSCORES')[2]
    place = last and last + 1 or first
    if place < first + 1000 then break end
  end
  following[name] = place + 1
  return number(place)
end

-- Puts ids in line, and others among the delayed. Delayed: place, id. Returns whether none was in line before: if
-- others wait already, consumers with room know of those.
local function line_up (k, waiting, delayed)
  local length = call_with('RPUSH', k.waiting, waiting)
  call_with('ZADD', k.delayed, delayed)
  return length == #waiting
end

-- Puts tasks at the front of a line, the first of them foremost.
local function give_back (line, ids)
  for i = #ids, 1, -1 do redis.call('LPUSH', line, ids[i]) end
end
`

/** Takes tasks out of line. Takes the prelude. Leaves behind: `pop` and `drop_stale`. */
export const popping = /* lua */ `
-- Takes the first tasks that wait. If an id is in line several times, its task has the last of these places. Returns
-- the ids, and whether the line had stale places.
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
          -- A count that is no number is deleted as well.
          local count = redis.pcall('HINCRBY', k.stale, field, -1)
          if type(count) ~= 'number' or count <= 0 then redis.call('HDEL', k.stale, field) end
        end
      end
    end
  end
  return ids, has_stale
end

-- Deletes a line that has only stale places. By its length there would seem to be something to claim.
local function drop_stale (k)
  local stale = math.max(0, finite(redis.call('HGET', k.stale, ' ')) or 0)
  if stale == 0 or stale < redis.call('LLEN', k.waiting) then return end
  for _, id in ipairs((pop(k, 1))) do redis.call('LPUSH', k.waiting, id) end
end
`
