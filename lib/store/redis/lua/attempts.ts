import { RECORD_LIMIT } from '../../found.js'

/**
 * Counts and keeps what is known of the attempts at a task, in the key `attempts`. Takes the prelude. Leaves
 * behind: `look_up`, `counts_of`, `pardon`, `keep_more`, `more_of`, `unpacked`, `records_in`, `follower_in`,
 * `records_of`, `records_with`, `keep_records` and `fields_of`. `p` is always what `look_up` returns of one task.
 */
export const attempts = /* lua */ `
-- Returns what is known of the attempts at each task; zeros before its first claim.
local function look_up (k, ids)
  local known = ask_for_each('HMGET', k.attempts, ids)
  for i, text in ipairs(known) do
    local only_fence = finite(text or 0)
    if only_fence then
      known[i] = {
        fence = only_fence, attempt = text and 1 or 0, retries = 0, deaths = 0, suspect = 0, more = 0,
        deferred = 0, unrouted = 0, reason = ''
      }
    else
      local fence, attempt, retries, deaths, suspect, more, deferred, unrouted, reason =
        string.match(text, '^(%d+) (%d+) (%d+) (%d+) (%d) (%d) (%d+) (%d+) (.*)$')
      known[i] = {
        fence = finite(fence) or 0, attempt = finite(attempt) or 0,
        retries = finite(retries) or 0, deaths = finite(deaths) or 0,
        suspect = suspect == '1' and 1 or 0, more = more == '1' and 1 or 0,
        deferred = finite(deferred) or 0, unrouted = finite(unrouted) or 0, reason = reason or ''
      }
    end
  end
  return known
end

-- Writes the counts of the attempts at a task, and the reason why it is where it is, as look_up reads them.
local function counts_of (p, reason)
  local is_plain = p.attempt == 1 and p.retries + p.deaths + p.suspect + p.more + p.deferred == 0
  if is_plain and (reason or '') == '' then return number(p.fence) end
  return string.format('%d %d %d %d %d %d %d %d %s', p.fence, p.attempt, p.retries, p.deaths, p.suspect, p.more,
    p.deferred, p.unrouted, reason or '')
end

-- Resets what counts against a task, as if it were new.
local function pardon (p)
  p.retries, p.deaths, p.suspect, p.deferred, p.unrouted = 0, 0, 0, 0, 0
end

-- Keeps a further field of a task. The caller writes the task's counts afterwards.
local function keep_more (k, id, p, what, value)
  p.more = 1
  redis.call('HSET', k.attempts, id .. what, value)
end

local function more_of (k, id, p, what)
  return p.more == 1 and redis.call('HGET', k.attempts, id .. what)
end

-- Unpacks a table, or returns nil.
local function unpacked (packed)
  local ok, value = pcall(cmsgpack.unpack, packed)
  return ok and type(value) == 'table' and value or nil
end

-- Returns the elements of a list that can be records: texts, and false.
local function records_in (list)
  local records = {}
  for i, record in ipairs(type(list) == 'table' and list or {}) do
    if i <= ${RECORD_LIMIT} then records[i] = type(record) == 'string' and record end
  end
  return records
end

-- Returns the task that follows another one: message, due time, expiry and lane; nil if none follows.
local function follower_in (packed)
  local next = packed and unpacked(packed)
  local is_task = next and type(next[1]) == 'string' and finite(next[2]) and finite(next[3])
  if not is_task then return end
  next[4] = type(next[4]) == 'string' and next[4] or ''
  return next
end

local function records_of (k, id, p)
  local packed = more_of(k, id, p, ' records')
  return packed and records_in(unpacked(packed)) or {}
end

-- Returns the records of a task and that of one more attempt, which is false if its consumer died.
local function records_with (k, id, p, record)
  local records = records_of(k, id, p)
  records[#records + 1] = record
  if #records > ${RECORD_LIMIT} then table.remove(records, 1) end
  return records
end

local function keep_records (k, id, p, record)
  keep_more(k, id, p, ' records', cmsgpack.pack(records_with(k, id, p, record)))
end

-- Appends to a list the fields that a task has in the key attempts.
local function fields_of (list, id, p)
  list[#list + 1] = id
  if p.more == 1 then append(list, id .. ' progress', id .. ' records', id .. ' next', id .. ' late') end
end
`
