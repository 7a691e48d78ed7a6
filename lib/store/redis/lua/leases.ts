/** Which leases are held, and until when. */
export const leases = /* lua */ `
-- What is known of ids that may be running.
local function look_up_running (k, ids)
  local known = look_up(k, ids)
  local scores = ask_for_each('ZMSCORE', k.running, ids)
  for i, p in ipairs(known) do p.running = scores[i] end
  return known
end

local function holds (p, fence)
  return p.running and p.fence == fence
end

-- Leases of one call end a little apart, the last of them when it has to, in the order in which they were claimed.
local function lease_end (lease_clock, lease_ms, i, count)
  return number((lease_clock + lease_ms) * 1000 + i - count)
end

-- Makes leases end later, never sooner. Entries: end, id.
local function prolong (k, entries)
  for i = 1, #entries, 1000 do redis.call('ZADD', k.running, 'GT', unpack(entries, i, math.min(i + 999, #entries))) end
end
`
