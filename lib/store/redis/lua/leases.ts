/**
 * Knows which leases are held, and until when. Takes the prelude; and from `attempts`, `look_up`. Leaves behind:
 * `look_up_running`, `holds`, `lease_end` and `prolong`.
 */
export const leases = /* lua */ `
-- Returns what look_up does, and as running whether each task runs.
local function look_up_running (k, ids)
  local known = look_up(k, ids)
  local scores = ask_for_each('ZMSCORE', k.running, ids)
  for i, p in ipairs(known) do p.running = scores[i] end
  return known
end

-- Whether the lease with this fence is held.
local function holds (p, fence)
  return p.running and p.fence == fence
end

-- Returns when a lease ends. Those of one call end a little apart, in the order of claiming, and the last one when
-- its time is over.
local function lease_end (lease_clock, lease_ms, i, count)
  return number((lease_clock + lease_ms) * 1000 + i - count)
end

-- Makes leases end later, but never sooner. Entries: end, id.
local function prolong (k, entries)
  for i = 1, #entries, 1000 do
    redis.call('ZADD', k.running, 'GT', unpack(entries, i, math.min(i + 999, #entries)))
  end
end
`
