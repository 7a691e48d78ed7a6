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

/** How tasks leave the line. */
export const unqueueing = /* lua */ `
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
`
