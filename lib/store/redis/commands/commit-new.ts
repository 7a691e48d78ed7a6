import { queueing } from '../lua/line.js'
import { preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { reading } from '../lua/tasks.js'
import type { Script } from '../script.js'

const KEYS = ['prepared', 'message', 'waiting', 'delayed', 'expiring'] as const

/**
 * Commits what `prepareNew` has prepared. Takes keys and pieces as `commit` does. Does nothing and returns 1 if one of
 * the ids is known all the same.
 */
export const commitNew: Script = {
  keys: KEYS,
  body: /* lua */ `${preludeOf(KEYS)}${queueing}${reading}${preparing}
local commits = {}
for arg = 1, #ARGV, 2 do commits[#commits + 1] = ARGV[arg] end

local batches = {}
for queue = 0, #KEYS / ${KEYS.length} - 1 do
  local k = keys_of(queue)
  local texts = redis.call('HMGET', k.prepared, unpack(commits))
  local batch = { k = k, texts = texts, found = {}, ids = {}, messages = {}, entries = {}, expiring = {} }
  for i, commit in ipairs(commits) do
    local list = prepared_in(texts[i])
    if list then batch.found[#batch.found + 1] = commit end
    for j = 1, list and #list or 0, 3 do
      local id, message, terms = unpack(list, j, j + 2)
      local due, expires = times_of(terms)
      batch.ids[#batch.ids + 1] = id
      append(batch.messages, id, message)
      append(batch.entries, id, due)
      if expires > 0 then append(batch.expiring, place_of(k.expiring, expires), id) end
    end
  end
  if is_any_known(k, batch.ids) then return 1 end
  batches[#batches + 1] = batch
end

for _, batch in ipairs(batches) do
  local k = batch.k
  -- This is the first write, since a full memory allows it, and Redis then allows the rest.
  call_with('HDEL', k.prepared, batch.found)
  local ok, failure = pcall(function ()
    call_with('HSET', k.message, batch.messages)
    call_with('ZADD', k.expiring, batch.expiring)
    enqueue(k, batch.entries)
  end)
  if not ok then
    call_with('HDEL', k.message, batch.ids)
    for i, commit in ipairs(commits) do
      if batch.texts[i] then redis.call('HSET', k.prepared, commit, batch.texts[i]) end
    end
    return type(failure) == 'table' and failure or redis.error_reply(failure)
  end
  for i, commit in ipairs(commits) do
    if ARGV[i * 2] == '1' and batch.texts[i] then keep_place(k, commit, batch.texts[i]) end
  end
end
`
}
