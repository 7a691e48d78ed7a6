import type { Key } from '../keys.js'

/** What a call answers some of whose arguments have not come, or are gone. */
export const PART_MISSING = 'a part of the call is missing'

/** What every script begins with: time, keys, and calls with many values. */
export const preludeOf = (keys: readonly Key[]): string => /* lua */ `
-- Microseconds tell apart what becomes due in the same millisecond, and so keep it in order.
local now, now_us
local function read_time ()
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  now_us = time[1] * 1000000 + time[2]
end

-- KEYS holds the keys of one queue after those of another, counted from 0.
local function keys_of (queue)
  local base = queue * ${keys.length}
  return { ${keys.map((key, index) => `${key} = KEYS[base + ${index + 1}]`).join(', ')} }
end

local function append (list, ...)
  local length = #list
  for i = 1, select('#', ...) do list[length + i] = (select(i, ...)) end
end

-- Calls a command with as many values at once as Lua's stack has room for; returns its last reply.
local function call_with (command, key, values)
  local reply
  for i = 1, #values, 1000 do
    reply = redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))
  end
  return reply
end

-- Reads a number that others may have written to Redis: nil unless it is one, and no larger than Lua counts in whole ones.
local function finite (text)
  local value = tonumber(text)
  return value and value > -2 ^ 53 and value < 2 ^ 53 and value or nil
end

-- Calls a command that takes a key and values, and returns a list with a reply for each value.
local function ask_for_each (command, key, values)
  if #values <= 1000 then return #values > 0 and redis.call(command, key, unpack(values)) or {} end
  local replies = {}
  for i = 1, #values, 1000 do
    for _, reply in ipairs(redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))) do replies[#replies + 1] = reply end
  end
  return replies
end

-- Writes a whole number, which Lua would round in a text, and is slow to write elsewhere.
local function number (value)
  return string.format('%d', value)
end
`

/**
 * Of a call whose arguments are too much for one message they have come before it, in parts, in a key that is
 * then the last of its keys; what it is sent itself is '' and how many parts there are.
 */
export const gathering = /* lua */ `
local ARGV = ARGV
if ARGV[1] == '' then
  local call, parts = table.remove(KEYS), {}
  for i = 1, tonumber(ARGV[2]) do
    parts[i] = redis.call('HGET', call, i)
    if not parts[i] then return redis.error_reply('ERR ${PART_MISSING}') end
  end
  ARGV = cmsgpack.unpack(table.concat(parts))
end
`
