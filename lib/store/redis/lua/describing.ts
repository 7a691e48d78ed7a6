import type { Found, State } from '../../found.js'
import { PRIORITIES } from '../../tasks.js'
import { MAX_MESSAGE_BYTES } from '../keys.js'

/** The longest summary of a task that has ended, in bytes. A longer value is no summary, and is not read. */
const MAX_RECORD_BYTES = 16 * 1024 * 1024

/** How many bytes of messages one call reads through. */
const MAX_READ_BYTES = 8 * 1024 * 1024

/**
 * Describes tasks. Takes the prelude; from `moving`, `look_up`, `more_of`, `records_of`, `records_in`, `unpacked` and
 * `head_of`; and from `preparing`, `placed_ids`. Leaves behind: `in_lane`, `ended_in`, `record_of`, `holder_of`,
 * `is_prepared`, `in_line`, `describe_one` and `describe`.
 */
export const describing = /* lua */ `
local function milliseconds (us)
  us = finite(us)
  return us and math.floor(us / 1000) or ''
end

local ENDED = { done = true, cancelled = true, expired = true }

local function text_in (value)
  return type(value) == 'string' and value or ''
end

-- Reads the summary of a task that has ended: state, the time of its end, attempt, records, head of the message and
-- reason. Returns nothing if there is none.
local function ended_in (record)
  local ended = record and unpacked(record)
  if not ended or type(ended[1]) ~= 'string' or not ENDED[ended[1]] then return end
  local state, at, attempt, records, head, reason = unpack(ended, 1, 6)
  return state, finite(at) or '', finite(attempt) or 0, records_in(records), text_in(head), text_in(reason)
end

local function record_of (k, id)
  return redis.call('HSTRLEN', k.summary, id) <= ${MAX_RECORD_BYTES} and redis.call('HGET', k.summary, id)
end

-- Returns the name of the consumer that holds a lease, as of its last heartbeat.
local function holder_of (k, id, fence)
  -- A key of another type hides who holds the lease, and nothing else.
  local entries = redis.pcall('HGETALL', k.consumers)
  if entries.err then return '' end
  for i = 1, #entries, 2 do
    local noted = unpacked(entries[i + 1])
    local leases = noted and type(noted[2]) == 'table' and noted[2] or {}
    for j = 1, #leases, 2 do
      if leases[j] == id and tonumber(leases[j + 1]) == fence then return entries[i] end
    end
  end
  return ''
end

-- Whether a message is in place whose task is only prepared. Nobody sees that.
local function is_prepared (k, id, p)
  return p.attempt == 0 and placed_ids(k)[id] ~= nil
end

-- Lists the line without its stale places, which means going through it from its beginning.
local function in_line (k, skip, most)
  local ids, from, passed, left, step = {}, 0, 0, {}, math.min(1000, skip + most + 9)
  while true do
    local some = redis.call('LRANGE', k.waiting, from, from + step - 1)
    if #some == 0 then return ids end
    local stale = redis.call('HMGET', k.stale, unpack(some))
    for i, id in ipairs(some) do
      left[id] = left[id] or math.max(0, finite(stale[i]) or 0)
      if left[id] > 0 then
        left[id] = left[id] - 1
      else
        passed = passed + 1
        if passed > skip then append(ids, id) end
        if #ids == most then return ids end
      end
    end
    from, step = from + step, 1000
  end
end

-- Lists a lane: the lane without a key has its normal level in the list.
local function in_lane (k, key, skip, most)
  local ids = {}
  for level = 0, 2 do
    local from, to = range_of(key, level)
    local is_list = key == '' and level == 1
    local count = not is_list and redis.call('ZLEXCOUNT', k.lanes, from, to) or
      redis.call('LLEN', k.waiting) - (finite(redis.call('HGET', k.stale, ' ')) or 0)
    local some = {}
    if #ids < most and skip < count then
      some = is_list and in_line(k, skip, most - #ids) or
        redis.call('ZRANGEBYLEX', k.lanes, from, to, 'LIMIT', skip, most - #ids)
    end
    for _, id in ipairs(some) do append(ids, is_list and id or id_in(id)) end
    skip = math.max(0, skip - count)
  end
  return ids
end

-- Describes a task: id, state, head of the message, when it is due, when it ended, attempt, reason, progress, records,
-- when it was claimed, if it runs, and its lane, or false. A message of at most so many bytes is described as a whole.
-- A task that is known to be in line is not looked for among those that are only prepared. Returns the description, or
-- nil if nothing is known of the task, and how many bytes of messages it has read.
local function describe_one (k, id, p, whole_bytes, is_in_line)
  local length = redis.call('HSTRLEN', k.message, id)
  if (length > 0 or redis.call('HEXISTS', k.message, id) == 1) and (is_in_line or not is_prepared(k, id, p)) then
    local state, due, ended = 'waiting', nil, redis.call('ZSCORE', k.dead, id)
    if ended then
      state = 'dead'
    elseif redis.call('ZSCORE', k.running, id) then
      state = 'running'
    else
      due = redis.call('ZSCORE', k.delayed, id)
      if due and tonumber(due) > now_us then state = 'delayed' else due = nil end
    end
    local message = length <= ${MAX_MESSAGE_BYTES} and redis.call('HGET', k.message, id) or ''
    -- A task is claimed at the microsecond that its fence is.
    local since = state == 'running' and milliseconds(p.fence) or ''
    return { id, state, length <= (whole_bytes or 0) and message or head_of(message), milliseconds(due),
      milliseconds(ended), p.attempt, p.reason, more_of(k, id, p, ' progress'), records_of(k, id, p), since,
      redis.call('HGET', k.lane, id) }, length
  end
  if (finite(redis.call('ZSCORE', k.ended, id)) or 0) <= now_us then return nil, 0 end
  local state, at, attempt, records, head, reason = ended_in(record_of(k, id))
  return state and { id, state, head, '', at, attempt, reason, false, records, '', false }, 0
end

-- Returns how many bytes of a reply a description takes, roughly.
local function size_of (description)
  local size = #description[1] + #description[3] + #description[7] + #(description[8] or '')
  for _, record in ipairs(description[9]) do size = size + #(record or '') end
  return size
end

-- Describes those of these tasks that are in a state, until the reply holds so many bytes. Returns the descriptions,
-- and the ids that are left.
local function describe (k, ids, state, bytes)
  local described, size, read = {}, 0, 0
  for i, p in ipairs(look_up(k, ids)) do
    local description, length = describe_one(k, ids[i], p)
    read = read + length
    if description and description[2] == state then
      size = size + size_of(description)
      if #described > 0 and size > bytes then return { described, { unpack(ids, i) } } end
      append(described, description)
    end
    -- It also stops before reading has kept Redis from others for long.
    if read > ${MAX_READ_BYTES} then return { described, { unpack(ids, i + 1) } } end
  end
  return { described, {} }
end
`

/** A description, as `describe_one` returns it. */
export type Described = [
  id: string, state: State, head: string, dueAt: number | '', endedAt: number | '', attempt: number, reason: string,
  progress: string | null, records: Array<string | null>, startedAt: number | '', lane: string | null
]

export function readDescribed (
  queue: string, [id, state, head, dueAt, endedAt, attempt, reason, progress, records, startedAt, lane]: Described
): Found {
  return {
    queue,
    id,
    state,
    attempt,
    ...state !== 'done' && { message: head },
    ...dueAt !== '' && { dueAt },
    ...startedAt !== '' && { startedAt },
    ...endedAt !== '' && { endedAt },
    ...reason !== '' && { reason },
    ...progress !== null && { progress },
    ...lane !== null && readLane(lane),
    records: records.map(record => record ?? undefined)
  }
}

/** Reads a lane: a digit for the level, a place of 16 digits, and the key. */
function readLane (lane: string): Pick<Found, 'priority' | 'key'> {
  const priority = PRIORITIES[Number(lane[0])]
  const key = lane.slice(17)
  return { ...priority !== 'normal' && priority !== undefined && { priority }, ...key !== '' && { key } }
}
