import { MAX_MESSAGE_BYTES } from '../keys.js'

/**
 * How a turn hands out leases. Takes from the script: the queue `k`, `limit`, `alone`, `lease_ms`, `lease_clock`,
 * `reply_bytes`, `keep_count` and `keep_ms`. Leaves behind: `leases`, `claimed` and `fences`.
 */
export const lending = /* lua */ `
-- Adds a lease to those that are handed out, with its message or the length of that. Returns what is to be noted of it.
local function lend (leases, id, p, length, message)
  local text, n = counts_of(p, p.reason), #leases
  leases[n + 1], leases[n + 2], leases[n + 3] = id, message, message and text or number(length) .. ' ' .. text
  return text
end

-- Hands out once more what is still lent, and for a whole lease: its holder did not know, and prolonged nothing.
local function lend_again (ids, fences, lease_clock)
  local leases, lent, room = {}, {}, reply_bytes
  for i, p in ipairs(look_up_running(k, ids)) do
    if holds(p, fences[i]) then
      append(lent, lease_end(lease_clock, lease_ms, i, #ids), ids[i])
      local length = redis.call('HSTRLEN', k.message, ids[i])
      local is_short = length <= room
      if is_short then room = room - length end
      lend(leases, ids[i], p, length, is_short and (redis.call('HGET', k.message, ids[i]) or ''))
    end
  end
  prolong(k, lent)
  return leases
end
`

export const claiming = /* lua */ `
local claimed, fences, leases = {}, {}, {}

-- Leases that have expired make suspects of their tasks.
local function take_over ()
  local abandoned = redis.call('ZRANGEBYSCORE', k.running, '-inf', number(lease_clock * 1000), 'LIMIT', 0, 1000)
  for i, p in ipairs(look_up(k, abandoned)) do
    local next = follower_in(more_of(k, abandoned[i], p, ' next'))
    if next then
      -- Of both one suspect is made.
      redis.call('HSET', k.message, abandoned[i], next[1])
      p.retries, p.deferred, p.unrouted = 0, 0, 0
    end
    if p.more == 1 then redis.call('HDEL', k.attempts, abandoned[i] .. ' next', abandoned[i] .. ' late') end
    keep_records(k, abandoned[i], p, false)
    -- Only a death that it died alone is certainly its own.
    p.deaths, p.suspect = p.deaths + p.suspect, 1
    redis.call('HSET', k.attempts, abandoned[i], counts_of(p, p.reason))
  end
  call_with('ZREM', k.running, abandoned)
  call_with('ZREM', k.expiring, abandoned)
  give_back(k.suspects, abandoned)
end

-- Ends what has waited too long, and returns whether that is all of it.
local function expire ()
  local ids = redis.call('ZRANGEBYSCORE', k.expiring, '-inf', now_us, 'LIMIT', 0, 1000)
  if #ids == 0 then return true end
  local expired = {}
  for i, p in ipairs(look_up_running(k, ids)) do
    if p.running then
      -- Nobody knows yet whether its app has seen it.
      keep_more(k, ids[i], p, ' late', redis.call('ZSCORE', k.expiring, ids[i]))
      redis.call('HSET', k.attempts, ids[i], counts_of(p, p.reason))
    elseif redis.call('HEXISTS', k.message, ids[i]) == 1 and not redis.call('ZSCORE', k.dead, ids[i]) then
      unqueue(k, ids[i])
      append(expired, ids[i])
    end
  end
  call_with('ZREM', k.expiring, ids)
  end_early(k, expired, 'expired', keep_count, keep_ms)
  return #ids < 1000
end

local function move_due ()
  local due = redis.call('ZRANGEBYSCORE', k.delayed, '-inf', now_us, 'LIMIT', 0, 1000)
  call_with('ZREM', k.delayed, due)
  call_with('RPUSH', k.waiting, due)
end

local function claim ()
  local noted, lent, room, looked, has_stale = {}, {}, reply_bytes, 0, false

  -- Takes tasks as long as there is room in the reply for their messages, and returns how many. What would not even
  -- fit alone takes none: it is fetched later.
  local function take (ids)
    local lengths, short = {}, {}
    for i, id in ipairs(ids) do
      local length = redis.call('HSTRLEN', k.message, id)
      if length <= reply_bytes then
        if length > room then break end
        room = room - length
        short[#short + 1] = id
      end
      lengths[i] = length
    end
    local messages, known, read = ask_for_each('HMGET', k.message, short), look_up(k, ids), 0
    for i, length in ipairs(lengths) do
      local id, p, message = ids[i], known[i], false
      if length <= reply_bytes then
        read = read + 1
        message = messages[read]
      end
      looked = looked + 1
      if (message or length > reply_bytes and length <= ${MAX_MESSAGE_BYTES}) and string.find(id, '^[\\32-\\126]+$') then
        -- No task is claimed twice in a microsecond.
        p.fence, p.attempt = now_us + looked, p.attempt + 1
        local n = #claimed
        claimed[n + 1], fences[n + 1] = id, p.fence
        lent[n * 2 + 2] = id
        noted[n * 2 + 1], noted[n * 2 + 2] = id, lend(leases, id, p, length, message)
      else
        -- It cannot have been added.
        bury(k, id, p, 'it is not a task')
      end
    end
    return #lengths
  end

  -- What is no task does not take the place of one that is.
  while #claimed < limit and looked - #claimed < 1000 do
    local line, popped, has_skipped = alone == 1 and k.suspects or k.waiting
    if alone == 1 then popped = redis.call('LPOP', line, 1) or {} else popped, has_skipped = pop(k, limit - #claimed) end
    has_stale = has_stale or has_skipped
    if #popped == 0 then break end
    local taken = take(popped)
    if taken < #popped then
      give_back(line, { unpack(popped, taken + 1) })
      break
    end
  end
  if has_stale then drop_stale(k) end
  for i = 1, #claimed do lent[i * 2 - 1] = lease_end(lease_clock, lease_ms, i, #claimed) end
  call_with('HSET', k.attempts, noted)
  call_with('ZADD', k.running, lent)
end
`
