/**
 * Ends tasks, and keeps summaries of them. Takes the prelude; from `queueing`, `tell`; and from `attempts`, `look_up`,
 * `fields_of` and `records_of`; and from `sharing`, `forget_lanes`. Leaves behind: `tell_end`, `clear`, `forget`,
 * `is_expired`, `keep_ended`, `keep_newest_ended`, `head_of` and `end_early`.
 */
export const ending = /* lua */ `
-- Tells the listeners of those tasks whose end somebody awaits.
local function tell_end (k, ids)
  -- A fault of that key is no reason to stop, since a process that awaits an end also looks itself now and then.
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

-- Deletes the summaries of ended tasks with these ids, and the expiry of others.
local function clear (k, ids)
  call_with('ZREM', k.expiring, ids)
  call_with('ZREM', k.ended, ids)
  call_with('HDEL', k.summary, ids)
end

-- Deletes all of tasks that are in no place, except for their messages.
local function forget (k, ids)
  local fields = {}
  for i, p in ipairs(look_up(k, ids)) do fields_of(fields, ids[i], p) end
  call_with('HDEL', k.attempts, fields)
  forget_lanes(k, ids)
  clear(k, ids)
end

-- Whether a task that does not run has waited too long, though no claim has noticed it yet.
local function is_expired (k, id)
  local expiry = redis.call('ZSCORE', k.expiring, id)
  if not expiry then return false end
  if not now_us then read_time() end
  return tonumber(expiry) <= now_us
end

-- Keeps the summaries of ended tasks until they are too old, or no longer among the newest, in the order in which a
-- script ends the tasks. Entries: id, summary.
local kept_count = 0
local function keep_ended (k, entries, count, ms)
  local first = math.max(1, #entries - 2 * count + 1)
  local ends, records = {}, first == 1 and entries or { unpack(entries, first) }
  for i = 1, #records, 2 do
    kept_count = kept_count + 1
    ends[i], ends[i + 1] = number(now_us + ms * 1000 + kept_count), records[i]
  end
  call_with('ZADD', k.ended, ends)
  call_with('HSET', k.summary, records)
end

-- Forgets all but the newest of the ended tasks.
local function keep_newest_ended (k, count)
  local surplus = redis.call('ZRANGE', k.ended, 0, -1 - count)
  if #surplus == 0 then return end
  call_with('HDEL', k.summary, surplus)
  redis.call('ZREMRANGEBYRANK', k.ended, 0, #surplus - 1)
end

-- Returns the first line of a message, with its line break.
local function head_of (message)
  return string.match(message or '', '^[^\\n]*\\n?')
end

-- Ends tasks that are in no place any longer, without an attempt. Keeps the heads of their messages.
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
  forget_lanes(k, ids)
  keep_ended(k, entries, count, ms)
  tell_end(k, ids)
end
`
