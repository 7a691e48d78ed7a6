/** What is kept of a commit between its phases. */
export const preparing = /* lua */ `
-- Whether one of these is known, or here twice.
local function is_any_known (k, ids)
  local seen = {}
  for i, message in ipairs(ask_for_each('HMGET', k.message, ids)) do
    if message or seen[ids[i]] then return true end
    seen[ids[i]] = true
  end
end

-- Returns whether it is kept, and not there or over already.
local function keep_prepared (k, commit, list, kept_out)
  return redis.call('HSETNX', k.prepared, commit, number(now or 0) .. ' ' .. cmsgpack.pack({ list, kept_out })) == 1
end

-- Returns the tasks of a commit, and the ids that it has kept out.
local function prepared_in (text)
  local at = text and string.find(text, ' ', 1, true)
  if not at or at == #text then return end
  local ok, _, prepared = pcall(cmsgpack.unpack_one, text, at)
  if ok and type(prepared) == 'table' and type(prepared[1]) == 'table' then return unpack(prepared) end
end

-- Leaves in the place of a commit what keeps out a call that comes late to prepare it once more.
local function keep_place (k, commit, text)
  redis.call('HSET', k.prepared, commit, string.match(text, '^%d+ ') or '0 ')
end
`

/** The ids in a list of tasks that others may want as well. */
export const reserving = /* lua */ `${preparing}
local function release (k, list)
  local ids = {}
  for i = 1, #list, 3 do
    if mode_of(list[i + 2]) ~= '' then append(ids, list[i]) end
  end
  call_with('HDEL', k.reserved, ids)
end
`
