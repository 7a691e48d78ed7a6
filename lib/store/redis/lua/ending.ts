/** How tasks end, and what is kept of them then. */
export const ending = /* lua */ `
-- Tells those who await the end of one of these.
local function tell_end (k, ids)
  -- If something is wrong with that key, it is no reason to stop: who awaits an end looks himself now and then.
  local count = #ids > 0 and redis.pcall('ZCARD', k.awaited)
  local is_any = type(count) == 'number' and count > 0
  local awaited = is_any and ask_for_each('ZMSCORE', k.awaited, ids) or {}
  for i, id in ipairs(ids) do
    if awaited[i] then
      redis.call('ZREM', k.awaited, id)
      tell(k, 'ended ' .. id)
    end
  end
end

-- Leaves nothing of what had these ids before.
local function clear (k, ids)
  call_with('ZREM', k.expiring, ids)
  call_with('ZREM', k.ended, ids)
  call_with('HDEL', k.summary, ids)
end

-- Leaves nothing of tasks that are in no place, except for their messages.
local function forget (k, ids)
  local fields = {}
  for i, p in ipairs(look_up(k, ids)) do fields_of(fields, ids[i], p) end
  call_with('HDEL', k.attempts, fields)
  clear(k, ids)
end

-- Whether a task that does not run has waited too long, and nobody has noticed yet.
local function is_expired (k, id)
  local expiry = redis.call('ZSCORE', k.expiring, id)
  if not expiry then return false end
  if not now_us then read_time() end
  return tonumber(expiry) <= now_us
end

-- Keeps what has ended until it is too old, or no longer among the newest: in the order in which a script ends it. Entries: id, record.
local kept = 0
local function keep_ended (k, entries, count, ms)
  local first = math.max(1, #entries - 2 * count + 1)
  local ends, records = {}, first == 1 and entries or { unpack(entries, first) }
  for i = 1, #records, 2 do
    kept = kept + 1
    ends[i], ends[i + 1] = number(now_us + ms * 1000 + kept), records[i]
  end
  call_with('ZADD', k.ended, ends)
  call_with('HSET', k.summary, records)
end

-- Forgets all but the newest of what has ended.
local function keep_newest_ended (k, count)
  local surplus = redis.call('ZRANGE', k.ended, 0, -1 - count)
  if #surplus == 0 then return end
  call_with('HDEL', k.summary, surplus)
  redis.call('ZREMRANGEBYRANK', k.ended, 0, #surplus - 1)
end

-- Returns the first line of a message, and the line break behind it.
local function head_of (message)
  return string.match(message or '', '^[^\\n]*\\n?')
end

-- Ends tasks that are no longer in any place, without an attempt. Of their messages the heads are kept.
local function end_early (k, ids, state, count, ms)
  if #ids == 0 then return end
  local entries, fields = {}, {}
  for i, p in ipairs(look_up(k, ids)) do
    local head = head_of(redis.call('HGET', k.message, ids[i]))
    append(entries, ids[i], cmsgpack.pack({ state, now, p.attempt, records_of(k, ids[i], p), head, p.reason }))
    fields_of(fields, ids[i], p)
  end
  call_with('HDEL', k.message, ids)
  call_with('HDEL', k.attempts, fields)
  call_with('ZREM', k.expiring, ids)
  keep_ended(k, entries, count, ms)
  tell_end(k, ids)
end
`
