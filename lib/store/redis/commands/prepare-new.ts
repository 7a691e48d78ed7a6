import { gathering, preludeOf } from '../lua/prelude.js'
import { preparing } from '../lua/preparing.js'
import { reading, TASK_ARGS } from '../lua/tasks.js'
import type { Script } from '../script.js'

const KEYS = ['prepared', 'message'] as const

/**
 * Does what `prepare` does, for commits whose ids nobody has chosen, so that no other commit wants them. Takes the
 * same. Returns 0 for each piece; or 3, without preparing it, if one of its ids is known all the same.
 */
export const prepareNew: Script = {
  keys: KEYS,
  body: /* lua */ `${gathering}${preludeOf(KEYS)}${reading}${preparing}
local function prepare (commit, lists)
  for queue, list in pairs(lists) do
    local ids = {}
    for i = 1, #list, 3 do ids[#ids + 1] = list[i] end
    if is_any_known(keys_of(queue), ids) then return { 3 } end
  end
  for queue, list in pairs(lists) do keep_prepared(keys_of(queue), commit, list, {}) end
  return { 0 }
end

local replies = {}
local arg = 1
while arg <= #ARGV do
  local count = tonumber(ARGV[arg + 1])
  replies[#replies + 1] = prepare(ARGV[arg], read_tasks(arg + 2, count))
  arg = arg + 2 + count * ${TASK_ARGS}
end
return replies
`
}
