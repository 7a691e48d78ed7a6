import { MAX_MESSAGE_BYTES } from '../keys.js'

/**
 * Hands out leases. Takes the prelude; from `moving`, `counts_of`; all of `leases`; and from the script, the queue `k`,
 * `lease_ms` and `reply_bytes`. Leaves behind: `lend` and `lend_again`.
 */
export const lending = /* lua */ `
-- Appends a lease to a list: its id, its message and its counts. Without a message, false stands in its place, and its
-- length before the counts. Returns the counts, for the key attempts.
local function lend (leases, id, p, length, message)
  local text, n = counts_of(p, p.reason), #leases
  leases[n + 1], leases[n + 2], leases[n + 3] = id, message, message and text or number(length) .. ' ' .. text
  return text
end

-- Hands out once more the leases that are still held, for their whole time: their holder did not know of them, and
-- has not extended them.
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

/**
 * Claims tasks. Takes the prelude; from `moving`, `look_up`, `pop`, `drop_stale` and `give_back`; from `leases`,
 * `lease_end`; from `burying`, `bury`; from `lending`, `lend`; and from the script, the queue `k`, `limit`, `alone`,
 * `lease_clock`, `lease_ms` and `reply_bytes`. Leaves behind: `claim`; and `claimed`, `fences` and `leases`, which
 * `claim` fills.
 */
export const claiming = /* lua */ `
local claimed, fences, leases = {}, {}, {}

-- Claims up to limit tasks.
local function claim ()
  local noted, lent, room, looked, has_stale = {}, {}, reply_bytes, 0, false

  -- Takes tasks as long as there is room in the reply for their messages, and returns how many. A message that would
  -- not even fit alone takes no room: it is fetched later.
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
      local has_message = message or length > reply_bytes and length <= ${MAX_MESSAGE_BYTES}
      if has_message and string.find(id, '^[\\32-\\126]+$') then
        -- No task is claimed twice in a microsecond.
        p.fence, p.attempt = now_us + looked, p.attempt + 1
        local n = #claimed
        claimed[n + 1], fences[n + 1] = id, p.fence
        lent[n * 2 + 2] = id
        noted[n * 2 + 1], noted[n * 2 + 2] = id, lend(leases, id, p, length, message)
      else
        -- No store can have added this.
        bury(k, id, p, 'it is not a task')
      end
    end
    return #lengths
  end

  -- An id that is no task does not count towards the limit.
  while #claimed < limit and looked - #claimed < 1000 do
    local line, popped, has_skipped = alone == 1 and k.suspects or k.waiting
    if alone == 1 then
      popped = redis.call('LPOP', line, 1) or {}
    else
      popped, has_skipped = pop(k, limit - #claimed)
    end
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
