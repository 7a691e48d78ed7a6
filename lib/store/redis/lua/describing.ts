import type { Found, State } from '../../found.js'
import { MAX_MESSAGE_BYTES } from '../keys.js'

/** No record is longer; what is, is none. */
const MAX_RECORD_BYTES = 16 * 1024 * 1024

/** How many bytes of messages are read through in one call. */
const MAX_READ_BYTES = 8 * 1024 * 1024

export const describing = /* lua */ `
local function milliseconds (us)
  us = finite(us)
  return us and math.floor(us / 1000) or ''
end

local ENDED = { done = true, cancelled = true, expired = true }

local function text_in (value)
  return type(value) == 'string' and value or ''
end

-- Returns what is kept of a task that has ended: state, when it did, attempt, log, head and reason; nothing if it is none of that.
local function ended_in (record)
  local ended = record and unpacked(record)
  if not ended or type(ended[1]) ~= 'string' or not ENDED[ended[1]] then return end
  return ended[1], finite(ended[2]) or '', finite(ended[3]) or 0, records_in(ended[4]), text_in(ended[5]), text_in(ended[6])
end

local function record_of (k, id)
  return redis.call('HSTRLEN', k.summary, id) <= ${MAX_RECORD_BYTES} and redis.call('HGET', k.summary, id)
end

-- Describes a task: id, state, head of the message, when it is due and has ended, attempt, reason, note, and records. Returns
-- nothing if nothing is known of it; and how many bytes it has read.
local function describe_one (k, id, p)
  local length = redis.call('HSTRLEN', k.message, id)
  if length > 0 or redis.call('HEXISTS', k.message, id) == 1 then
    local state, due, ended = 'waiting', nil, redis.call('ZSCORE', k.dead, id)
    if ended then
      state = 'dead'
    elseif redis.call('ZSCORE', k.running, id) then
      state = 'running'
    else
      due = redis.call('ZSCORE', k.delayed, id)
      if due and tonumber(due) > now_us then state = 'delayed' else due = nil end
    end
    local head = length <= ${MAX_MESSAGE_BYTES} and head_of(redis.call('HGET', k.message, id)) or ''
    return { id, state, head, milliseconds(due), milliseconds(ended), p.attempt, p.reason,
      more_of(k, id, p, ' progress'), records_of(k, id, p) }, length
  end
  if (finite(redis.call('ZSCORE', k.ended, id)) or 0) <= now_us then return nil, 0 end
  local state, at, attempt, records, head, reason = ended_in(record_of(k, id))
  return state and { id, state, head, '', at, attempt, reason, false, records }, 0
end

local function size_of (description)
  local size = #description[1] + #description[3] + #description[7] + #(description[8] or '')
  for _, record in ipairs(description[9]) do size = size + #(record or '') end
  return size
end

-- Describes those of these tasks that are in a state, until the reply holds so many bytes, and returns the ids that are left.
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
    -- Nor is Redis kept from others for long by what it has to read through.
    if read > ${MAX_READ_BYTES} then return { described, { unpack(ids, i + 1) } } end
  end
  return { described, {} }
end
`

/** What `describe_one` returns. */
export type Described = [
  id: string, state: State, head: string, dueAt: number | '', endedAt: number | '', attempt: number, reason: string,
  progress: string | null, records: Array<string | null>
]

export function readDescribed (
  queue: string, [id, state, head, dueAt, endedAt, attempt, reason, progress, records]: Described
): Found {
  return {
    queue,
    id,
    state,
    attempt,
    ...state !== 'done' && { message: head },
    ...dueAt !== '' && { dueAt },
    ...endedAt !== '' && { endedAt },
    ...reason !== '' && { reason },
    ...progress !== null && { progress },
    records: records.map(record => record ?? undefined)
  }
}
