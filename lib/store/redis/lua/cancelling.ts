import { CANCELLED_MS } from '../../heartbeat.js'

/**
 * Cancels tasks. Takes the prelude; all of `moving`; and from `preparing`, `placed_ids`. Leaves behind: `living` and
 * `cancel`.
 */
export const cancelling = /* lua */ `
-- Returns the ids of tasks that wait, are delayed or run.
local function living (k, some)
  local found, prepared = {}, placed_ids(k)
  for _, id in ipairs(some) do
    local is_there = redis.call('HEXISTS', k.message, id) == 1 and not prepared[id]
    if is_there and not found[id] and not redis.call('ZSCORE', k.dead, id) then
      found[id] = true
      append(found, id)
    end
  end
  return found
end

-- Ends tasks that wait, are delayed or run. Returns how many it has ended.
local function cancel (k, ids, keep_count, keep_ms)
  local cancelled, revoked = living(k, ids), {}
  for i, p in ipairs(look_up(k, cancelled)) do
    if redis.call('ZREM', k.running, cancelled[i]) == 1 then
      let_go(k, cancelled[i])
      append(revoked, now, number(p.fence) .. ' ' .. cancelled[i])
    else
      unqueue(k, cancelled[i])
    end
    forget_lanes(k, { cancelled[i] })
  end
  end_early(k, cancelled, 'cancelled', keep_count, keep_ms)
  keep_newest_ended(k, keep_count)
  if #revoked > 0 then
    -- They are kept for as long as somebody may still hold these leases.
    redis.call('ZREMRANGEBYSCORE', k.revoked, '-inf', now - ${CANCELLED_MS})
    call_with('ZADD', k.revoked, revoked)
    redis.call('PEXPIRE', k.revoked, ${CANCELLED_MS})
    tell(k, 'change')
  end
  return #cancelled
end
`
