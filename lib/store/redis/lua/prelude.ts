import type { Key } from '../keys.js'

/** The error of a call if a part of its arguments has not arrived, or is gone. */
export const PART_MISSING = 'a part of the call is missing'

/**
 * Begins every script that uses a fragment. Leaves behind: `now` and `now_us`, which are nil until `read_time` is
 * called, `read_time`, `keys_of`, `append`, `call_with`, `finite`, `ask_for_each` and `number`.
 *
 * @param keys the keys that the script takes of each queue
 */
export const preludeOf = (keys: readonly Key[]): string => /* lua */ `
-- Milliseconds and microseconds since the epoch. Microseconds keep tasks in order that become due in the same
-- millisecond.
local now, now_us
local function read_time ()
  local time = redis.call('TIME')
  now = time[1] * 1000 + math.floor(time[2] / 1000)
  now_us = time[1] * 1000000 + time[2]
end

-- Returns the keys of a queue by name. KEYS holds the keys of queue 0, then those of queue 1, and so on.
local function keys_of (queue)
  local base = queue * ${keys.length}
  return { ${keys.map((key, index) => `${key} = KEYS[base + ${index + 1}]`).join(', ')} }
end

local function append (list, ...)
  local length = #list
  for i = 1, select('#', ...) do list[length + i] = (select(i, ...)) end
end

-- Calls a command with many values, a thousand at once, since Lua's stack has no room for more. Returns the last
-- reply, or nil without values.
local function call_with (command, key, values)
  local reply
  for i = 1, #values, 1000 do
    reply = redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))
  end
  return reply
end

-- Reads a number that others may have written to Redis. Returns nil unless it is one, and not too large for Lua to
-- count in whole numbers.
local function finite (text)
  local value = tonumber(text)
  return value and value > -2 ^ 53 and value < 2 ^ 53 and value or nil
end

-- Calls a command that takes a key and values. Returns a list with a reply for each value.
local function ask_for_each (command, key, values)
  if #values <= 1000 then return #values > 0 and redis.call(command, key, unpack(values)) or {} end
  local replies = {}
  for i = 1, #values, 1000 do
    local some = redis.call(command, key, unpack(values, i, math.min(i + 999, #values)))
    for _, reply in ipairs(some) do replies[#replies + 1] = reply end
  end
  return replies
end

-- Writes a whole number as a text. Lua itself would round it, and is slow at writing numbers.
local function number (value)
  return string.format('%d', value)
end
`

/**
 * Gathers arguments that are too large for one message, before the prelude. They have arrived in parts, in a key that
 * is the last of the call's KEYS; ARGV has only '' and how many parts there are. Leaves behind: `ARGV` with the
 * arguments, and KEYS without that key.
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
