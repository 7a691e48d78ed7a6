/**
 * Does what has become due: leases, expiries and delays end. Takes the prelude; from `moving`, `look_up`, `counts_of`,
 * `more_of`, `keep_more`, `keep_records`, `follower_in`, `end_early`, `unqueue`, `give_back`, `put_last`, `rehold` and
 * `forget_lanes`; from `leases`, `look_up_running`; and from the script, the queue `k`, `lease_clock`, `keep_count` and
 * `keep_ms`. Leaves behind: `take_over`, `expire` and `move_due`.
 */
export const due = /* lua */ `
-- Makes suspects of the tasks whose leases have expired.
local function take_over ()
  local abandoned = redis.call('ZRANGEBYSCORE', k.running, '-inf', number(lease_clock * 1000), 'LIMIT', 0, 1000)
  for i, p in ipairs(look_up(k, abandoned)) do
    local next = follower_in(more_of(k, abandoned[i], p, ' next'))
    if next then
      -- The two become one suspect.
      redis.call('HSET', k.message, abandoned[i], next[1])
      rehold(k, abandoned[i], next[4])
      p.retries, p.deferred, p.unrouted = 0, 0, 0
    end
    if p.more == 1 then redis.call('HDEL', k.attempts, abandoned[i] .. ' next', abandoned[i] .. ' late') end
    keep_records(k, abandoned[i], p, false)
    -- Only if the task ran alone, as a suspect, is the death certainly its own.
    p.deaths, p.suspect = p.deaths + p.suspect, 1
    redis.call('HSET', k.attempts, abandoned[i], counts_of(p, p.reason))
  end
  call_with('ZREM', k.running, abandoned)
  call_with('ZREM', k.expiring, abandoned)
  give_back(k.suspects, abandoned)
end

-- Ends tasks that have waited too long, and returns whether none is left.
local function expire ()
  local ids = redis.call('ZRANGEBYSCORE', k.expiring, '-inf', now_us, 'LIMIT', 0, 1000)
  if #ids == 0 then return true end
  local expired = {}
  for i, p in ipairs(look_up_running(k, ids)) do
    if p.running then
      -- It is not known yet whether this attempt counts.
      keep_more(k, ids[i], p, ' late', redis.call('ZSCORE', k.expiring, ids[i]))
      redis.call('HSET', k.attempts, ids[i], counts_of(p, p.reason))
    elseif redis.call('HEXISTS', k.message, ids[i]) == 1 and not redis.call('ZSCORE', k.dead, ids[i]) then
      unqueue(k, ids[i])
      forget_lanes(k, { ids[i] })
      append(expired, ids[i])
    end
  end
  call_with('ZREM', k.expiring, ids)
  end_early(k, expired, 'expired', keep_count, keep_ms)
  return #ids < 1000
end

-- Puts delayed tasks that are due in line.
local function move_due ()
  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.delayed, due)
  put_last(k, due)
end
`
