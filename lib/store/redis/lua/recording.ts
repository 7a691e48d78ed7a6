/**
 * Keeps what is known of schedules. Takes the prelude. Leaves behind: `slot_of`, `record_of`, `keep_record`,
 * `set_next`, `declared_in` and `begin_writing`.
 */
export const recording = /* lua */ `
-- Returns the slot that a score stands for; nil if there is none.
local function slot_of (score)
  local slot = tonumber(score)
  return slot and slot < 2 ^ 53 and math.max(slot, -2 ^ 53) or nil
end

-- Returns what is known of a schedule.
local function record_of (k, id)
  local text = redis.call('HGET', k.schedule, '+' .. id) or ''
  local at, skipped, missed, paused, task = string.match(text, '^(%d+) (%d+) (%d+) ([01]) (.*)$')
  return {
    at = finite(at) or 0, skipped = finite(skipped) or 0, missed = finite(missed) or 0,
    paused = paused == '1', task = task or ''
  }
end

local function keep_record (k, id, r)
  redis.call('HSET', k.schedule, '+' .. id, string.format('%d %d %d %d %s', r.at, r.skipped,
    r.missed, r.paused and 1 or 0, r.task))
end

local function set_next (k, id, slot)
  redis.call('ZADD', k.schedules, slot and number(slot) or 'inf', id)
end

-- Returns the ids of the schedules that are declared.
local function declared_in (k)
  local ids = {}
  for id in string.gmatch(redis.call('HGET', k.schedule, '  ') or '', '[^\\n]+') do ids[#ids + 1] = id end
  return ids
end

-- Writes what a full memory refuses, and changes nothing. Redis would allow the rest of a script that begins with
-- another write.
local function begin_writing (k, id)
  local slot = redis.call('ZSCORE', k.schedules, id)
  if slot then redis.call('ZADD', k.schedules, 'XX', slot, id) end
end
`
