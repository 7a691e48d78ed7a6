/**
 * Knows what is kept of a commit between its two phases. Takes the prelude. Leaves behind: `placed_in`, `parts_of`,
 * `only_in`, `prepared_in`, `placed_ids` and `keep_place`.
 */
export const preparing = /* lua */ `
-- Returns the tasks of a commit whose messages are in place, each as its id, or its id, a tab and its terms; nothing if
-- the commit is over, or another one.
local function placed_in (text)
  if not text or not string.find(text, '^%d+ \\t?\\n') then return end
  local heads = {}
  for head in string.gmatch(text, '\\n([^\\n]+)') do heads[#heads + 1] = head end
  return heads
end

-- Returns the id and the terms of a task whose message is in place.
local function parts_of (head)
  local at = string.find(head, '\\t', 1, true)
  if not at then return head, '' end
  return string.sub(head, 1, at - 1), string.sub(head, at + 1)
end

-- Returns the id of the only task of a commit whose message is in place, if that has no terms. Most commits are so.
local function only_in (text)
  local at = text and string.find(text, '\\n', 1, true)
  if not at or string.byte(text, at - 1) ~= 32 or string.find(text, '\\n', at + 1, true) ~= #text then return end
  return string.sub(text, at + 1, -2)
end

-- Returns the tasks of a prepared commit: id, message or false if that is in place, and terms of each. Returns also the
-- ids that the commit keeps out. Returns nothing if the commit is over.
local function prepared_in (text)
  local at = text and string.find(text, ' ', 1, true)
  if not at or at == #text then return end
  local heads = placed_in(text)
  if heads then
    local list = {}
    for _, head in ipairs(heads) do
      local id, terms = parts_of(head)
      append(list, id, false, terms)
    end
    return list, {}
  end
  local ok, _, prepared = pcall(cmsgpack.unpack_one, text, at)
  if ok and type(prepared) == 'table' and type(prepared[1]) == 'table' then return unpack(prepared) end
end

-- Returns the commits that are about to add them, by the ids of tasks whose messages are in place. The names of these
-- commits begin with +. It looks once for each queue.
local placed = {}
local function placed_ids (k)
  local ids = placed[k.prepared]
  if ids then return ids end
  ids = {}
  placed[k.prepared] = ids
  for _, commit in ipairs(redis.call('HKEYS', k.prepared)) do
    local list = string.sub(commit, 1, 1) == '+' and prepared_in(redis.call('HGET', k.prepared, commit)) or {}
    for i = 1, #list, 3 do
      if not list[i + 1] then ids[list[i]] = commit end
    end
  end
  return ids
end

-- Leaves something in the place of a commit, so that a call that arrives late does not prepare it again.
local function keep_place (k, commit, text)
  redis.call('HSET', k.prepared, commit, string.match(text, '^%d+ ') or '0 ')
end
`

/**
 * Ends what a commit has prepared. Contains `preparing`. Takes the prelude; and from `reading`, `mode_of`. Leaves
 * behind: what `preparing` does, `release` and `oust`.
 */
export const reserving = /* lua */ `${preparing}
-- Releases the ids that a commit has reserved, which other commits may want as well.
local function release (k, list)
  local ids = {}
  for i = 1, #list, 3 do
    if mode_of(list[i + 2]) ~= '' then append(ids, list[i]) end
  end
  call_with('HDEL', k.reserved, ids)
end

-- Makes room where the message of a task is in place that is only prepared. Its commit keeps the message from now on.
-- Returns whether there was one.
local function oust (k, id)
  local ids = placed_ids(k)
  local commit = ids[id]
  if not commit then return false end
  ids[id] = nil
  local text = redis.call('HGET', k.prepared, commit)
  local list, kept_out = prepared_in(text)
  for i = 1, #list, 3 do
    if list[i] == id then list[i + 1] = redis.call('HGET', k.message, id) end
  end
  redis.call('HSET', k.prepared, commit, string.match(text, '^%d+ ') .. cmsgpack.pack({ list, kept_out }))
  return true
end
`
