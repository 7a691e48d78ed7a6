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
 * Claims tasks of a queue that has one line. Takes the prelude; from `moving`, `look_up`, `pop`, `drop_stale` and
 * `give_back`; from `leases`, `lease_end`; from `burying`, `bury`; from `lending`, `lend`; and from the script, the
 * queue `k`, `alone`, `lease_clock`, `lease_ms` and `reply_bytes`. Leaves behind: `claim`; `take` and `end_claim`, of
 * which it is made; and `claimed`, `fences` and `leases`, which they fill.
 */
export const claiming = /* lua */ `
local claimed, fences, leases = {}, {}, {}
local noted, lent, room, looked = {}, {}, reply_bytes, 0

-- Takes tasks as long as there is room in the reply for their messages, and returns how many. A message that would not
-- even fit alone takes no room: it is fetched later.
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

-- Whether more may be claimed. An id that is no task does not count towards the limit.
local function is_claiming (most)
  return #claimed < most and looked - #claimed < 1000
end

local function end_claim ()
  for i = 1, #claimed do lent[i * 2 - 1] = lease_end(lease_clock, lease_ms, i, #claimed) end
  call_with('HSET', k.attempts, noted)
  call_with('ZADD', k.running, lent)
end

-- Claims tasks, at most so many. Its caller calls end_claim.
local function claim (most)
  local has_stale = false
  while is_claiming(most) do
    local line, popped, has_skipped = alone == 1 and k.suspects or k.waiting
    if alone == 1 then
      popped = redis.call('LPOP', line, 1) or {}
    else
      popped, has_skipped = pop(k, most - #claimed)
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
end
`

/**
 * Claims tasks of a queue that has lanes or limits. Takes the prelude; from `moving`, what `sharing` does; from
 * `claiming`, `claim`, `take`, `is_claiming` and `claimed`; and from the script what that takes. Leaves behind:
 * `claim_shared`.
 */
export const choosing = /* lua */ `
-- Claims tasks, at most so many, as far as the limits of the queue and of its keys allow.
local function claim_shared (most)
  local of = lanes()

  -- Returns the level of a member of lanes.
  local function level_in (member)
    return string.match(member, '^[^%z]*%z([012])')
  end

  -- Takes out of a lane what is to be claimed next, and returns its id; nil if there is nothing.
  local function pick (key)
    local firsts, first = {}, of.first_in(k, key)
    local final = first and of.last_in(k, key)
    local has_list = key == '' and redis.call('LLEN', k.waiting) > 0
    if first and level_in(first) == level_in(final) and not has_list then
      firsts[1] = first
    else
      for level = 0, 2 do
        local is_list = key == '' and level == 1
        local first_of = is_list and has_list or first and not is_list and of.first_in(k, key, level)
        if first_of then firsts[#firsts + 1] = first_of end
      end
    end
    local chosen, counter = 1, ' ' .. key
    if #firsts > 1 then
      local count = (finite(redis.call('HGET', k.lane, counter)) or 0) % 8 + 1
      if count == 8 then chosen = #firsts elseif count == 4 and #firsts == 3 then chosen = 2 end
      redis.call('HSET', k.lane, counter, number(count % 8))
    else
      redis.call('HDEL', k.lane, counter)
    end
    local chosen_first = firsts[chosen]
    if type(chosen_first) == 'string' then
      redis.call('ZREM', k.lanes, chosen_first)
      return id_in(chosen_first)
    elseif chosen_first then
      return pop(k, 1)[1]
    end
  end

  -- Whether a task that was taken is claimed, and has not turned out to be none.
  local function was_claimed (before)
    return #claimed > before
  end

  local function claim_suspect ()
    local id = redis.call('LPOP', k.suspects)
    if not id then return end
    local before = #claimed
    if take({ id }) == 0 then return redis.call('LPUSH', k.suspects, id) end
    if not was_claimed(before) then return let_go(k, id) end
    -- What has died may not wait for its key, since all others wait for it.
    local _, _, key = of.lane_of_task(k, id)
    of.spend(k, key or '', of.rate_of(k, key or ''), 1)
    of.begin(k, #claimed)
    of.refresh(k, key or '')
  end

  -- Claims the next task of a lane. Returns false if the reply has no room for it.
  local function claim_in (key)
    local id = pick(key)
    if not id then
      of.refresh(k, key)
      return true
    end
    local before = #claimed
    if take({ id }) == 0 then
      put_first(k, { id })
      return false
    end
    if was_claimed(before) then
      of.begin(k, #claimed)
      of.hold(k, id, key)
      of.spend(k, key, of.rate_of(k, key), 1)
    end
    of.refresh(k, key)
    return true
  end

  local _, allowed = of.room_in(k, alone == 1)
  most = math.min(most, allowed)
  if alone == 1 then
    if most > 0 then claim_suspect() end
  elseif redis.call('ZCARD', k.lanes) == 0 then
    -- All that waits is in the list, and there is no other lane to choose.
    claim(of.first_lane(k) and most or 0)
    if of.has_lane(k) and #claimed > 0 then redis.call('HDEL', k.lane, ' ') end
  else
    while is_claiming(most) do
      local key = of.first_lane(k)
      if not key or not claim_in(key) then break end
    end
    drop_stale(k)
  end
  of.begin(k, #claimed)
  of.refresh(k, '')
  of.spend(k, '', of.limits_of(k).rate, #claimed)
end
`
