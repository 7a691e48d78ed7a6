/**
 * Keeps a commit between its two phases. Takes the prelude. Leaves behind: `is_any_known`, `keep_prepared`,
 * `prepared_in` and `keep_place`.
 */
export const preparing = /* lua */ `
-- Whether a message is kept under one of these ids, or an id is among them twice.
local function is_any_known (k, ids)
  local seen = {}
  for i, message in ipairs(ask_for_each('HMGET', k.message, ids)) do
    if message or seen[ids[i]] then return true end
    seen[ids[i]] = true
  end
end

-- Keeps a prepared commit. Returns whether it does: not if the commit is there already, or over.
local function keep_prepared (k, commit, list, kept_out)
  return redis.call('HSETNX', k.prepared, commit, number(now or 0) .. ' ' .. cmsgpack.pack({ list, kept_out })) == 1
end

-- Returns the tasks of a prepared commit, and the ids that it keeps out; nothing if the commit is over.
local function prepared_in (text)
  local at = text and string.find(text, ' ', 1, true)
  if not at or at == #text then return end
  local ok, _, prepared = pcall(cmsgpack.unpack_one, text, at)
  if ok and type(prepared) == 'table' and type(prepared[1]) == 'table' then return unpack(prepared) end
end

-- Leaves something in the place of a commit, so that a call that arrives late does not prepare it again.
local function keep_place (k, commit, text)
  redis.call('HSET', k.prepared, commit, string.match(text, '^%d+ ') or '0 ')
end
`

/**
 * Releases the ids that a commit has reserved, which other commits may want as well. Contains `preparing`. Takes the
 * prelude; and from `reading`, `mode_of`. Leaves behind: what `preparing` does, and `release`.
 */
export const reserving = /* lua */ `${preparing}
local function release (k, list)
  local ids = {}
  for i = 1, #list, 3 do
    if mode_of(list[i + 2]) ~= '' then append(ids, list[i]) end
  end
  call_with('HDEL', k.reserved, ids)
end
`
