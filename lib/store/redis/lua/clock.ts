/** What moves the lease clock of a queue, and says when there is something to claim. */
export const clock = /* lua */ `
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
`
