/**
 * Knows what bounds the tasks of a queue and of its keys. It is a part of the function that `sharing` makes. Takes the
 * prelude.
 */
export const limits = /* lua */ `
-- Reads a rate: the time between two attempts, and how much sooner than that they may begin, both in microseconds.
local function rate_in (value)
  if type(value) ~= 'table' then return end
  local max, ms, burst = finite(value.max), finite(value.ms), finite(value.burst or 1)
  if not max or not ms or not burst or max < 1 or ms < 1 or burst < 1 then return end
  local interval = math.ceil(ms * 1000 / max)
  return { interval = interval, tolerance = (burst - 1) * interval }
end

local function bounds_in (value)
  if type(value) ~= 'table' then return {} end
  local running = finite(value.running)
  return { running = running and math.max(1, running), rate = rate_in(value.rate) }
end

local known_limits, own_limits = {}, {}

-- Returns the limits that the hash has under a name, or nil. They are read once.
local function read_limits (k, name)
  local known = known_limits[k.limits] or {}
  known_limits[k.limits] = known
  if known[name] == nil then
    local text = redis.call('HGET', k.limits, name)
    local ok, value = pcall(cjson.decode, text or '')
    known[name] = text and ok and type(value) == 'table' and value or false
  end
  return known[name] or nil
end

local function has_limits (k)
  return read_limits(k, '') ~= nil
end

-- Returns the limits of the queue, and as per_key those of each key that has none of its own.
local function limits_of (k)
  local value = read_limits(k, '') or {}
  local bounds = bounds_in(value)
  bounds.per_key = bounds_in(value.perKey)
  return bounds
end

-- Returns the limits that one key has of its own, or nil. The lane without a key has none, and no others hold for it.
local function own_limits_of (k, key)
  if key == '' then return {} end
  if own_limits[k.limits] == nil then
    own_limits[k.limits] = redis.call('HLEN', k.limits) > (has_limits(k) and 1 or 0)
  end
  local value = own_limits[k.limits] and read_limits(k, key)
  return value and bounds_in(value) or nil
end

local function rate_of (k, key)
  return key ~= '' and (own_limits_of(k, key) or limits_of(k).per_key).rate or nil
end

-- Returns when the next attempt would be due if all were evenly spaced. A time that is too far ahead comes from another
-- rate, or from a clock that has been set back. It is corrected once, and not put off whenever somebody asks.
local function arrival (k, name, rate)
  local at = finite(redis.call('ZSCORE', k.tat, name)) or 0
  local latest = now_us + rate.tolerance + rate.interval
  if at > latest then
    at = latest
    redis.call('ZADD', k.tat, number(at), name)
  end
  return math.max(now_us, at)
end

-- Returns the time from which on a rate allows the next attempt, and how many attempts it allows now. The name is a
-- key, or '' for the queue.
local function due_by_rate (k, name, rate)
  if not rate then return 0, math.huge end
  local earliest = arrival(k, name, rate) - rate.tolerance
  return earliest, math.max(0, math.floor((now_us - earliest) / rate.interval) + 1)
end

-- Counts attempts that begin now, or with -1 takes back one that has not begun after all.
local function spend (k, name, rate, count)
  if rate and count ~= 0 then
    redis.call('ZADD', k.tat, number(arrival(k, name, rate) + count * rate.interval), name)
  end
end

-- Has limits read again that have changed.
local function forget_limits ()
  known_limits, own_limits = {}, {}
end
`
