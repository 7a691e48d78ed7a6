import { handing } from '../lua/handing.js'
import { queueing } from '../lua/line.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import type { Script } from '../script.js'

const KEYS = [
  'prepared', 'waiting', 'delayed', 'expiring', 'idle', 'suspects', 'clock', 'message', 'attempts', 'running', 'stale',
  'dead'
] as const

/**
 * Puts in line what `prepareNew` has prepared. If nothing else is in line, it hands that over to a consumer that waits,
 * or wakes all of them. Takes keys and pieces as `commit` does. Does nothing and returns 1 if a message is not in place
 * any longer, which `commit` then looks at.
 */
export const commitNew: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${queueing}${reading}${preparing}${handing}
local commits = {}
for arg = 1, #ARGV, 2 do commits[#commits + 1] = ARGV[arg] end

local batches = {}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local batch = { k = k, texts = redis.call('HMGET', k.prepared, unpack(commits)), found = {} }
  local waiting, delayed, expiring = {}, {}, {}
  for i, text in ipairs(batch.texts) do
    local only = only_in(text)
    local heads = not only and placed_in(text)
    if not only and not heads and prepared_in(text) then return 1 end
    if only then waiting[#waiting + 1] = only end
    if only or heads then batch.found[#batch.found + 1] = commits[i] end
    for _, head in ipairs(heads or {}) do
      local id, terms = parts_of(head)
      local due, expires = times_of(terms)
      if due == 0 then waiting[#waiting + 1] = id else append(delayed, place_of(k.delayed, due), id) end
      if expires > 0 then append(expiring, place_of(k.expiring, expires), id) end
    end
  end
  batch.waiting, batch.delayed, batch.expiring = waiting, delayed, expiring
  batches[#batches + 1] = batch
end

for _, batch in ipairs(batches) do
  local k = batch.k
  -- This is the first write, since a full memory allows it, and Redis then allows the rest.
  call_with('HDEL', k.prepared, batch.found)
  -- Only this can fail. The keys of the others are known to be of their types.
  local ok, result = pcall(line_up, k, batch.waiting, batch.delayed)
  if not ok then
    for i, commit in ipairs(commits) do
      if batch.texts[i] then redis.call('HSET', k.prepared, commit, batch.texts[i]) end
    end
    return type(result) == 'table' and result or redis.error_reply(result)
  end
  call_with('ZADD', k.expiring, batch.expiring)
  for i, commit in ipairs(commits) do
    if ARGV[i * 2] == '1' and batch.texts[i] then keep_place(k, commit, batch.texts[i]) end
  end
  local was_empty, is_handed = result, false
  if was_empty and #batch.delayed == 0 then
    -- A fault of what handing over needs is no reason to stop.
    local is_done, is_all = pcall(hand_over, k)
    is_handed = is_done and is_all
  end
  if (was_empty or #batch.delayed > 0) and not is_handed then wake(k) end
end
`
}
