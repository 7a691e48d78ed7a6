/**
 * Moves the lease clock of a queue. Takes the prelude. Leaves behind: `fault_of`, `read_clock`, `write_clock` and
 * `tick`.
 */
export const clock = /* lua */ `
-- Says in words what is wrong. An error is a table, or in older releases of Redis a text.
local function fault_of (failure)
  return type(failure) == 'table' and failure.err or tostring(failure)
end

-- Returns the time of the last contact, the lease clock, and '1' if the queue is paused. It deletes the key, as a
-- first write that a full memory allows, so its caller calls write_clock.
local function read_clock (k, lease_ms)
  local contact, lease_clock, paused = string.match(redis.call('GETDEL', k.clock) or '', '^(%d+) (%d+) (%d)')
  if finite(contact) and finite(lease_clock) then return finite(contact), finite(lease_clock), paused end
  -- There is no clock, or nonsense. A clock that begins before all leases end lets none of them expire.
  local first_end = finite(redis.call('ZRANGE', k.running, 0, 0, 'WITHSCORES')[2])
  return now, math.max(0, math.floor((first_end or 0) / 1000) - (lease_ms or 60000)), '0'
end

local function write_clock (k, contact, lease_clock, paused)
  redis.call('SET', k.clock, string.format('%d %d %s', contact, lease_clock, paused))
end

-- Moves the lease clock of a queue on by the time since anybody's last contact, but by one heartbeat at most. So time
-- in which nobody could extend a lease does not let it expire. Returns the clock, whether the queue is paused, and
-- whether the time of day was set back.
local function tick (k, heartbeat)
  local contact, lease_clock, paused = read_clock(k, heartbeat * 5)
  lease_clock = lease_clock + math.max(0, math.min(now - contact, heartbeat))
  write_clock(k, now, lease_clock, paused)
  return lease_clock, paused == '1', contact > now + 1000
end
`

/**
 * Says when there is something to claim. Takes the prelude; and from `moving`, `is_shared` and `lanes`. Leaves
 * behind: `outlook`.
 */
export const outlook = /* lua */ `
-- Returns the milliseconds until something may be claimed, or -1 if nothing is known to come.
local function claimable_after (k, lease_clock, suspects)
  local soonest = -1
  local function consider (left)
    left = left and math.max(0, math.ceil(left / 1000))
    if left and (soonest == -1 or left < soonest) then soonest = left end
  end
  if is_shared(k) then
    consider(lanes().claimable_in(k))
    if soonest == 0 then return 0 end
  elseif suspects > 0 or redis.call('LLEN', k.waiting) > 0 then
    return 0
  end
  for _, set in ipairs({ { k.delayed, now_us }, { k.running, lease_clock * 1000 } }) do
    local score = finite(redis.call('ZRANGE', set[1], 0, 0, 'WITHSCORES')[2])
    consider(score and score - set[2])
  end
  return soonest
end

-- Returns the milliseconds until something may be claimed, how many suspects there are, and the milliseconds until the
-- next slot of a schedule; -1 stands for nothing that is known to come.
local function outlook (k, lease_clock, paused)
  if paused then return -1, 0, -1 end
  local suspects = redis.call('LLEN', k.suspects)
  local slot = tonumber(redis.call('ZRANGE', k.schedules, 0, 0, 'WITHSCORES')[2])
  local slot_in = slot and slot < 2 ^ 53 and math.max(0, slot - now) or -1
  return claimable_after(k, lease_clock, suspects), suspects, slot_in
end
`
