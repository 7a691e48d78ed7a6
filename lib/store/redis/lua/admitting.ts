/**
 * Says what the limits and rests of a queue and its keys let be claimed. It is a part of the function that `sharing`
 * makes. Takes the prelude; and from `lanes` and `limits`, `refresh`, `CLASS`, `limits_of` and `due_by_rate`.
 */
export const admitting = /* lua */ `
-- Returns how many microseconds pass until the queue itself lets something be claimed, or nil if that has to wait for
-- other tasks to end; and how many attempts it then allows.
local function room_in (k, is_alone)
  local bounds = limits_of(k)
  local rest = finite(redis.call('ZSCORE', k.resting, '')) or 0
  local due, allowed = due_by_rate(k, '', bounds.rate)
  if bounds.running then
    local held = redis.call('ZCARD', k.running) + (is_alone and 0 or redis.call('LLEN', k.suspects))
    allowed = math.min(allowed, math.max(0, bounds.running - held))
    if held >= bounds.running then return nil, 0 end
  end
  local from = math.max(rest, due)
  return math.max(0, from - now_us), rest > now_us and 0 or allowed
end

-- Returns the first lane that may be claimed from; nil if there is none.
local function first_lane (k)
  local first = redis.call('ZRANGE', k.ready, 0, 0, 'WITHSCORES')
  local most = limits_of(k).per_key.running
  if first[1] and (not most or math.floor(first[2] / CLASS) < most) then return first[1] end
end

-- Returns how many microseconds pass until something that waits may be claimed; nil if nothing is known to come.
local function claimable_in (k)
  local is_alone = redis.call('LLEN', k.suspects) > 0
  local room = room_in(k, is_alone)
  if not room then return end
  if is_alone or first_lane(k) then return room end
  local soonest
  for _, set in ipairs({ k.pacing, k.resting }) do
    for _, from in ipairs(redis.call('ZRANGE', set, 0, 1)) do
      local at = from ~= '' and finite(redis.call('ZSCORE', set, from))
      if at and (not soonest or at < soonest) then soonest = at end
    end
  end
  return soonest and math.max(room, soonest - now_us, 0)
end

-- Ends rests that are over.
local function end_rests (k)
  for _, set in ipairs({ k.pacing, k.resting }) do
    local keys = redis.call('ZRANGEBYSCORE', set, '-inf', now_us, 'LIMIT', 0, 1000)
    call_with('ZREM', set, keys)
    for _, key in ipairs(keys) do refresh(k, key) end
  end
  redis.call('ZREMRANGEBYSCORE', k.tat, '-inf', now_us)
end
`
